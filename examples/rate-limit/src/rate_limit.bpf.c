/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The limiter whose buckets a workqueue removes when they are full again: whoever sends spoofed
 * packets fills the map, and it empties as fast as the buckets fill.
 */
#include <bpf_wq/executor.bpf.h>
#include "limit.h"

struct entry {
	struct bucket bucket;
};

#include "tracked.h"

/* A sweep is submitted, and has not come to its end. */
static __u64 is_due;

/* A sweep is told nothing, and an executor has jobs of some type. */
struct request {
	__u64 unused;
};

/* Buckets that the sweep has not removed. On the stack the verifier would follow each number. */
static __u64 left;

/* A packet that comes between the two lines takes a token of a bucket that is gone. */
static long sweep_one(void *map, struct source *source, struct entry *entry, __u64 *now)
{
	if (bpf_wq_read(entry->bucket.full_at) > *now || bpf_map_delete_elem(&buckets, source))
		left++;
	else
		bpf_wq_add(tracked.removed, 1);
	return 0;
}

/* Runs in a kernel worker, which other work need not wait for. */
static int sweep(struct request *request, struct bpf_wq_run *run)
{
	__u64 now = bpf_ktime_get_ns();

	left = 0;
	bpf_for_each_map_elem(&buckets, sweep_one, &now, 0);
	bpf_wq_add(tracked.sweeps, 1);
	run->retry_ns = limits.sweep_ns;
	/* Whoever drains this waits until it ends. */
	if (bpf_wq_is_draining(run))
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

static __always_inline void clean_up_later(const struct source *source, int is_tracked)
{
	struct bpf_wq_options options = {.delay_ns = limits.sweep_ns};
	struct request request = {};
	__u64 id;

	if (bpf_wq_read(is_due) || __sync_val_compare_and_swap(&is_due, 0, 1))
		return;
	if (sweeps_submit_with(&request, &options, &id))
		__sync_lock_test_and_set(&is_due, 0);
}

char LICENSE[] SEC("license") = "GPL";
