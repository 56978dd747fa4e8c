// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Rule 7: who pays for the memory of a workqueue.
#include "rules.h"

#define HALF 20000

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * HALF);
	__type(key, __u32);
	__type(value, struct elem);
} many SEC(".maps");

struct progress {
	__u32 from;
	__u32 done;
	int err;
};

static long init_one(__u64 i, struct progress *progress)
{
	struct elem *elem = element(&many, progress->from + i);

	if (!elem)
		return 1;
	progress->err = bpf_wq_init(&elem->work, &many, 0);
	if (progress->err)
		return 1;
	progress->done++;
	return 0;
}

/* Initialises element after element, until one cannot be. */
static __always_inline int init_half(__u32 from, int *err)
{
	struct progress progress = {.from = from};
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);

	if (!s)
		return 0;
	bpf_loop(HALF, init_one, &progress, 0);
	s->data = progress.done;
	err[0] = progress.err;
	return 0;
}

SEC("syscall")
int first_half(int *err)
{
	return init_half(0, err);
}

SEC("syscall")
int second_half(int *err)
{
	return init_half(HALF, err);
}
