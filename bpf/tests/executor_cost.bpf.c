// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the fast path pays to hand over work, in three ways: a bare bpf_wq_start, an executor, and
// a ring buffer that user space reads.
#include "rules.h"

#include <bpf_wq/executor.bpf.h>

#define BATCH 64

#define WORKERS 2

struct job {
	__u64 first;
	__u64 second;
};

struct bare {
	__u64 runs;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BATCH);
	__type(key, __u32);
	__type(value, struct bare);
} bares SEC(".maps");

static int on_bare(void *map, int *key, void *value)
{
	struct bare *bare = value;

	bare->runs++;
	return 0;
}

static long arm_one(void *map, __u32 *key, struct bare *bare, int *err)
{
	*err = bpf_wq_init(&bare->work, &bares, 0);
	if (!*err)
		*err = bpf_wq_set_callback(&bare->work, on_bare, 0);
	return *err != 0;
}

SEC("syscall")
int arm_bares(int *err)
{
	int result = 0;

	bpf_for_each_map_elem(&bares, arm_one, &result, 0);
	return result;
}

static int on_job(struct job *job, struct bpf_wq_run *run)
{
	return 0;
}

BPF_WQ_EXECUTOR(jobs, struct job, BATCH, WORKERS, on_job);

/* Before a worker waits, jobs may be done that it did. */
SEC("syscall")
int all_workers_wait(void *ctx)
{
	__u32 zero = 0;
	struct bpf_wq_executor_state *state = bpf_map_lookup_elem(&jobs_gate, &zero);

	return state && bpf_wq_read(state->gate.idle) == (1 << WORKERS) - 1;
}

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} ring SEC(".maps");

/* What the last measurement took. */
__u64 took_ns = 0;
__u64 failed = 0;

static long nothing(__u64 i, void *ctx)
{
	return 0;
}

static long start_bare(__u64 i, void *ctx)
{
	__u32 key = i;
	struct bare *bare = bpf_map_lookup_elem(&bares, &key);

	if (!bare || bpf_wq_start(&bare->work, 0))
		failed++;
	return 0;
}

static long submit_job(__u64 i, void *ctx)
{
	struct job job = {.first = i};

	if (jobs_submit(&job))
		failed++;
	return 0;
}

static long output_job(__u64 i, void *ctx)
{
	struct job job = {.first = i};

	if (bpf_ringbuf_output(&ring, &job, sizeof(job), 0))
		failed++;
	return 0;
}

/* Does it so often. Neither a worker nor a reader runs on this CPU meanwhile. */
#define MEASURE(name, operation) \
	SEC("syscall") \
	int name(__u64 *times) \
	{ \
		__u64 count = *times, began; \
\
		bpf_preempt_disable(); \
		began = bpf_ktime_get_ns(); \
		bpf_loop(count, operation, 0, 0); \
		took_ns = bpf_ktime_get_ns() - began; \
		bpf_preempt_enable(); \
		return 0; \
	}

MEASURE(measure_nothing, nothing)
MEASURE(measure_bare, start_bare)
MEASURE(measure_executor, submit_job)
MEASURE(measure_ring, output_job)
