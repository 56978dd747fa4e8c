// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Claim S8: how long after its start the callback of a timer begins, and of a workqueue.
#include "rules.h"

#define CLOCK_MONOTONIC 1
#define SAMPLES 1024

struct pair {
	__u64 started;
	struct bpf_timer timer;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pair);
} pairs SEC(".maps");

/* As tests/suite/latency.rs reads it: delays in ns, in the order in which they were measured. */
struct delays {
	__u64 measured;
	__u64 ns[SAMPLES];
};

/* 0: of the timer, 1: of the workqueue. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct delays);
} delays SEC(".maps");

static __always_inline int measure(struct pair *pair, __u32 which)
{
	__u64 delay = bpf_ktime_get_ns() - pair->started;
	struct delays *of = bpf_map_lookup_elem(&delays, &which);

	if (!of)
		return 0;
	if (of->measured < SAMPLES)
		of->ns[of->measured & (SAMPLES - 1)] = delay;
	__sync_fetch_and_add(&of->measured, 1);
	return 0;
}

static int on_timer(void *map, int *key, void *value)
{
	return measure(value, 0);
}

static int on_work(void *map, int *key, void *value)
{
	return measure(value, 1);
}

static __always_inline struct pair *pair(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&pairs, &zero);
}

SEC("syscall")
int arm(int *err)
{
	struct pair *elem = pair();

	if (!elem)
		return 0;
	err[0] = bpf_timer_init(&elem->timer, &pairs, CLOCK_MONOTONIC);
	err[1] = bpf_timer_set_callback(&elem->timer, on_timer);
	err[2] = bpf_wq_init(&elem->work, &pairs, 0);
	err[3] = bpf_wq_set_callback(&elem->work, on_work, 0);
	return 0;
}

SEC("syscall")
int start_timer(int *err)
{
	struct pair *elem = pair();

	if (!elem)
		return 0;
	elem->started = bpf_ktime_get_ns();
	err[0] = bpf_timer_start(&elem->timer, 0, 0);
	return 0;
}

SEC("syscall")
int start_work(int *err)
{
	struct pair *elem = pair();

	if (!elem)
		return 0;
	elem->started = bpf_ktime_get_ns();
	err[0] = bpf_wq_start(&elem->work, 0);
	return 0;
}
