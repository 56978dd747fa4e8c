// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* An object whose licence is not compatible with the GPL: the kernel asks for one. */
#include <bpf_wq/wq.bpf.h>

struct elem {
	int value;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct elem);
} elems SEC(".maps");

SEC("tc")
int init(void *ctx)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	return elem ? bpf_wq_init(&elem->work, &elems, 0) : 0;
}

/* The same without the call, to show that it is the call. */
SEC("tc")
int look_up(void *ctx)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	return elem ? elem->value : 0;
}

char _license[] SEC("license") = "Proprietary";
