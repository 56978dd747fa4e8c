// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The same body in a program of each type, each loaded alone. */
#include <linux/bpf.h>
#include <bpf_wq/wq.bpf.h>

struct elem {
	int value;
	struct bpf_wq work;
};

struct with_timer {
	int value;
	struct bpf_timer timer;
	struct bpf_wq work;
};

#define MAP(name, value_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, 1); \
		__type(key, int); \
		__type(value, value_type); \
	} name SEC(".maps")

MAP(elems, struct elem);
MAP(with_timers, struct with_timer);

static int on_work(void *map, int *key, void *value)
{
	struct elem *elem = value;

	elem->value = 42;
	return 0;
}

static __always_inline int use(void)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem)
		return 0;
	if (bpf_wq_init(&elem->work, &elems, 0))
		return 0;
	if (bpf_wq_set_callback(&elem->work, on_work, 0))
		return 0;
	return bpf_wq_start(&elem->work, 0);
}

#include "program_types.h"

/* These use the map alone. */
SEC("kprobe")
int only_looks_up(void *ctx)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	return elem ? elem->value & 0 : 0;
}

SEC("kprobe")
int looks_up_with_timer(void *ctx)
{
	struct with_timer *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&with_timers, &key);
	return elem ? elem->value & 0 : 0;
}

char _license[] SEC("license") = "GPL";
