// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <bpf_wq/wq.bpf.h>

struct entry {
	__u64 answer;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct entry);
} entries SEC(".maps");

static int answer(void *map, int *key, void *value)
{
	struct entry *entry = value;

	entry->answer = *key * 2;
	return 0;
}

SEC("syscall")
int defer(void *ctx)
{
	struct entry empty = {}, *entry;
	__u32 key = 21;

	if (bpf_map_update_elem(&entries, &key, &empty, BPF_ANY))
		return 1;
	entry = bpf_map_lookup_elem(&entries, &key);
	if (!entry)
		return 2;
	if (bpf_wq_init(&entry->work, &entries, 0))
		return 3;
	if (bpf_wq_set_callback(&entry->work, answer, 0))
		return 4;
	if (bpf_wq_start(&entry->work, 0))
		return 5;
	return 0;
}

char _license[] SEC("license") = "GPL";
