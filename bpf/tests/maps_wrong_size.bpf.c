// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A struct that is called bpf_wq and is not the kernel's: so without the project's header. */
#include <bpf_wq/bare.bpf.h>

#include <bpf/bpf_helpers.h>

struct bpf_wq {
	__u64 too_many[3];
};

struct elem {
	int value;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct elem);
} wrong_size SEC(".maps");

extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym __weak;

SEC("syscall")
int init_in_wrong_size(void *ctx)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&wrong_size, &key);
	if (!elem)
		return -1;
	return bpf_wq_init(&elem->work, &wrong_size, 0);
}

char _license[] SEC("license") = "GPL";
