/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * So many packets a second of each source address pass, and the others are dropped. A bucket that
 * is full again is removed by a workqueue: whoever sends spoofed packets fills the map, and it
 * empties as fast as the buckets fill.
 */
#include <bpf_wq/executor.bpf.h>
#include "limit.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* the memory of those that are removed is free */
	__uint(max_entries, 65536);
	__type(key, struct source);
	__type(value, struct bucket);
} buckets SEC(".maps");

#ifndef EEXIST
#define EEXIST 17
#endif

/* The one bucket of all sources for which the map has no place. */
static struct bucket others;

/* A sweep is submitted, and has not come to its end. */
static __u64 is_due;

/* A sweep is told nothing, and an executor has jobs of some type. */
struct request {
	__u64 unused;
};

/* Buckets that the sweep has not removed. On the stack the verifier would follow each number. */
static __u64 left;

/* A packet that comes between the two lines takes a token of a bucket that is gone. */
static long sweep_one(void *map, struct source *source, struct bucket *bucket, __u64 *now)
{
	if (bpf_wq_read(bucket->full_at) > *now || bpf_map_delete_elem(&buckets, source))
		left++;
	else
		bpf_wq_add(tracked.removed, 1);
	return 0;
}

static struct bpf_wq_executor_state *sweeps_state(void);

/* Runs in a kernel worker, which other work need not wait for. */
static int sweep(struct request *request, struct bpf_wq_run *run)
{
	struct bpf_wq_executor_state *state = sweeps_state();
	__u64 now = bpf_ktime_get_ns();

	left = 0;
	bpf_for_each_map_elem(&buckets, sweep_one, &now, 0);
	bpf_wq_add(tracked.sweeps, 1);
	run->retry_ns = limits.sweep_ns;
	/* Whoever drains this waits until it ends. */
	if (!state || bpf_wq_read(state->gate.phase) != BPF_WQ_OPEN)
		return 0;
	if (left)
		return -EAGAIN;
	/* Whoever creates a bucket from here on submits the next sweep, or is seen below. */
	__sync_lock_test_and_set(&is_due, 0);
	if (bpf_wq_read(tracked.created) == bpf_wq_read(tracked.removed))
		return 0;
	return __sync_val_compare_and_swap(&is_due, 0, 1) ? 0 : -EAGAIN;
}

BPF_WQ_EXECUTOR(sweeps, struct request, 4, 1, sweep);

static struct bpf_wq_executor_state *sweeps_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sweeps_gate, &zero);
}

static __always_inline void sweep_later(void)
{
	struct bpf_wq_options options = {.delay_ns = limits.sweep_ns};
	struct request request = {};
	__u64 id;

	if (bpf_wq_read(is_due) || __sync_val_compare_and_swap(&is_due, 0, 1))
		return;
	if (sweeps_submit_with(&request, &options, &id))
		__sync_lock_test_and_set(&is_due, 0);
}

static __always_inline int first_packet(const struct source *source, __u64 now)
{
	struct bucket bucket = {.full_at = now + limits.token_ns}, *found;

	switch (bpf_map_update_elem(&buckets, source, &bucket, BPF_NOEXIST)) {
	case 0:
		bpf_wq_add(tracked.created, 1);
		sweep_later();
		return verdict(1, 1);
	case -EEXIST:
		found = bpf_map_lookup_elem(&buckets, source);
		if (found)
			return verdict(take(found, now), 1);
		break;
	}
	sweep_later();
	return verdict(take(&others, now), 0);
}

SEC("xdp")
int rate_limit(struct xdp_md *packet)
{
	struct bucket *bucket;
	struct source source;
	__u64 now;

	if (!source_of(packet, &source))
		return XDP_PASS;
	now = bpf_ktime_get_ns();
	bucket = bpf_map_lookup_elem(&buckets, &source);
	return bucket ? verdict(take(bucket, now), 1) : first_packet(&source, now);
}

char LICENSE[] SEC("license") = "GPL";
