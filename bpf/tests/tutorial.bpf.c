// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A first program as tutorials on bpf_wq show it, with the faults of that shape: it is written
 * for the kernels of one time, attached to a function by a name that 7.0 changed, and it writes
 * the element anew on each unlink, which cancels work that is pending (claims S1 to S6, hazard
 * H5). Only lint reads it.
 */
#include <bpf_wq/bare.bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct bpf_wq {
	__u64 __opaque[2];
} __attribute__((aligned(8)));

extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym;
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq,
				    int (*callback)(void *map, int *key, void *value),
				    unsigned int flags, void *aux__ign) __ksym;
extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;

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

__u32 main_executed;
__u32 wq_executed;

static int on_work(void *map, int *key, void *value)
{
	struct elem *elem = value;

	elem->value = 42;
	wq_executed = 1;
	return 0;
}

SEC("fentry/do_unlinkat")
int on_unlink(void *ctx)
{
	struct elem fresh = {}, *elem;
	int key = 0;

	main_executed = 1;
	bpf_map_update_elem(&elems, &key, &fresh, 0);
	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem)
		return 0;
	if (bpf_wq_init(&elem->work, &elems, 0))
		return 0;
	if (bpf_wq_set_callback_impl(&elem->work, on_work, 0, (void *)0))
		return 0;
	bpf_wq_start(&elem->work, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
