// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Rules 1 to 6: what init, set_callback and start want.
#include "rules.h"

/* In order, as it should be. */
SEC("syscall")
int in_order(int *err)
{
	return init_set_start(&array, 0, on_work_count, err);
}

/* Rule 1. */
SEC("syscall")
int before_init(int *err)
{
	struct elem *elem = element(&array, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	err[1] = bpf_wq_start(&elem->work, 0);
	return 0;
}

/* Rule 2: each call with a flag, then without. */
SEC("syscall")
int with_flags(int *err)
{
	struct elem *elem = element(&array, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 1);
	err[1] = bpf_wq_init(&elem->work, &array, 1U << 31);
	err[2] = bpf_wq_init(&elem->work, &array, 0);
	err[3] = bpf_wq_set_callback(&elem->work, on_work_count, 1);
	err[4] = bpf_wq_set_callback(&elem->work, on_work_count, 1U << 31);
	err[5] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	err[6] = bpf_wq_start(&elem->work, 1);
	err[7] = bpf_wq_start(&elem->work, 1U << 31);
	err[8] = bpf_wq_start(&elem->work, 0);
	return 0;
}

/* Rule 3: twice before the first start, and once after it. */
SEC("syscall")
int init_again(int *err)
{
	struct elem *elem = element(&array, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 0);
	err[1] = bpf_wq_init(&elem->work, &array, 0);
	err[2] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	err[3] = bpf_wq_start(&elem->work, 0);
	err[4] = bpf_wq_init(&elem->work, &array, 0);
	return 0;
}

/* Rule 4. */
SEC("syscall")
int before_set_callback(int *err)
{
	struct elem *elem = element(&array, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 0);
	err[1] = bpf_wq_start(&elem->work, 0);
	return 0;
}

static int on_work_again(void *map, int *key, void *value)
{
	struct elem *elem = value;
	struct seen *s = enter();

	if (!s)
		return 0;
	s->err[0] = bpf_wq_start(&elem->work, 0);
	leave(s);
	return 0;
}

/* Rule 6: runs over and over. */
SEC("syscall")
int over_and_over(int *err)
{
	return init_set_start(&array, 0, on_work_again, err);
}

/* Rule 6: once more, of what is armed already. */
SEC("syscall")
int start(int *err)
{
	struct elem *elem = element(&array, 0);

	if (elem)
		err[0] = bpf_wq_start(&elem->work, 0);
	return 0;
}

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct elem);
} inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = {&inner},
};

/* Rule 6: of a map that is reached through another. */
SEC("syscall")
int through_outer(int *err)
{
	__u32 zero = 0;
	void *map = bpf_map_lookup_elem(&outer, &zero);

	if (!map)
		return 0;
	return init_set_start(map, 0, on_work_count, err);
}
