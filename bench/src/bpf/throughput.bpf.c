// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Jobs a second, by each way to hand them over: of several sizes, and done in two ways.
#include <bpf_wq/executor.bpf.h>
#include "task_work.h"

#define CLOCK_MONOTONIC 1
#define PLACES 1024
#define WORKERS 4
#define MOST_CPUS 8
#define RB_NO_WAKEUP 1
#define KEYS 1024

/* <linux/bpf.h> has it, and may have a struct bpf_task_work as well. */
#define MAP_TYPE_PERCPU_ARRAY 6

/* One thread submits on each CPU. */
const volatile __u64 cpus = 1;

/* What a job does: it is counted and, if this is set, writes to the table. */
__u64 writes = 0;

/* What was not accepted for any reason but that all places are taken. */
__u64 failed = 0;

/* Jobs whose ends are not of one job. */
__u64 torn = 0;

/* A line of the cache each. */
struct of_cpu {
	__u64 done;
	__u64 next; /* place */
	__u64 number;
	__u64 others[5];
};

struct of_cpu of_cpus[MOST_CPUS] = {};

/* As src/throughput.rs writes it, for the jobs that user space does. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KEYS);
	__type(key, __u64);
	__type(value, __u64);
} table SEC(".maps");

static __always_inline struct of_cpu *of_this_cpu(void)
{
	return &of_cpus[bpf_get_smp_processor_id() & (MOST_CPUS - 1)];
}

static __always_inline int handle(__u64 first, __u64 last)
{
	__u64 key = first % KEYS;

	if (first != last)
		bpf_wq_add(torn, 1);
	if (bpf_wq_read(writes))
		bpf_map_update_elem(&table, &key, &first, BPF_ANY);
	bpf_wq_add(of_this_cpu()->done, 1);
	return 0;
}

/* Larger than a stack. */
struct largest {
	__u64 words[64];
};

struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct largest);
} scratch SEC(".maps");

static __always_inline struct largest *new_job(__u32 words)
{
	__u32 zero = 0;
	struct largest *job = bpf_map_lookup_elem(&scratch, &zero);

	if (job)
		job->words[0] = job->words[words - 1] = of_this_cpu()->number++;
	return job;
}

/* Where the next job of this CPU goes: it has as many places as others. */
static __always_inline __u32 next_place(void)
{
	__u64 share = PLACES / cpus;

	return bpf_get_smp_processor_id() * share + of_this_cpu()->next % share;
}

struct burst {
	__u64 accepted;
};

/* Counts an outcome; whether to go on. */
static __always_inline long count(struct burst *burst, int err, int full)
{
	if (!err)
		burst->accepted++;
	else if (err != full)
		bpf_wq_add(failed, 1);
	return err != 0;
}

#define SUBMIT(way) \
	SEC("syscall") \
	int submit_##way(__u64 *times) \
	{ \
		struct burst burst = {}; \
\
		bpf_loop(*times, one_##way, &burst, 0); \
		return burst.accepted; \
	}

/* The ways whose jobs are in an element, which is armed once: it is taken until its job is done. */
#define IN_PLACES(way, bytes, start, full) \
	static long one_##way##_##bytes(__u64 i, struct burst *burst) \
	{ \
		struct job_##bytes *job = (void *)new_job(bytes / 8); \
		__u32 index = next_place(); \
		struct place_##bytes *place = bpf_map_lookup_elem(&places_##bytes, &index); \
		int err; \
\
		if (!job || !place) \
			return 1; \
		if (bpf_wq_read(place->is_taken)) \
			return 1; \
		place->job = *job; \
		bpf_wq_write(place->is_taken, 1); \
		err = start; \
		if (err) \
			bpf_wq_write(place->is_taken, 0); \
		else \
			of_this_cpu()->next++; \
		return count(burst, err, full); \
	} \
	SUBMIT(way##_##bytes)

#define IN_RING(way, bytes, flags) \
	static long one_##way##_##bytes(__u64 i, struct burst *burst) \
	{ \
		void *job = new_job(bytes / 8); \
\
		if (!job) \
			return 1; \
		return count(burst, bpf_ringbuf_output(&way##_ring_##bytes, job, bytes, flags), \
			     -EAGAIN); \
	} \
	SUBMIT(way##_##bytes)

/* `ring` is the power of two that has room for as many jobs as there are places. */
#define OF_SIZE(bytes, ring) \
	struct job_##bytes { \
		__u64 words[bytes / 8]; \
	}; \
\
	struct place_##bytes { \
		struct bpf_wq work; \
		struct bpf_timer timer; \
		struct bpf_task_work task_work; \
		__u64 is_taken; \
		struct job_##bytes job; \
	}; \
\
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, PLACES); \
		__type(key, __u32); \
		__type(value, struct place_##bytes); \
	} places_##bytes SEC(".maps"); \
\
	struct { \
		__uint(type, BPF_MAP_TYPE_RINGBUF); \
		__uint(max_entries, ring); \
	} epoll_ring_##bytes SEC(".maps"), busy_ring_##bytes SEC(".maps"); \
\
	static __always_inline int do_place_##bytes(struct place_##bytes *place) \
	{ \
		handle(place->job.words[0], place->job.words[bytes / 8 - 1]); \
		bpf_wq_write(place->is_taken, 0); \
		return 0; \
	} \
\
	static int on_work_##bytes(void *map, int *key, void *place) \
	{ \
		return do_place_##bytes(place); \
	} \
\
	static int on_timer_##bytes(void *map, int *key, void *place) \
	{ \
		return do_place_##bytes(place); \
	} \
\
	static int on_task_work_##bytes(struct bpf_map *map, void *key, void *place) \
	{ \
		return do_place_##bytes(place); \
	} \
\
	static int on_job_##bytes(struct job_##bytes *job, struct bpf_wq_run *run) \
	{ \
		return handle(job->words[0], job->words[bytes / 8 - 1]); \
	} \
\
	BPF_WQ_EXECUTOR(jobs_##bytes, struct job_##bytes, PLACES, WORKERS, on_job_##bytes); \
\
	static long arm_one_##bytes(void *map, __u32 *key, struct place_##bytes *place, int *err) \
	{ \
		*err = bpf_wq_init(&place->work, &places_##bytes, 0); \
		if (!*err) \
			*err = bpf_wq_set_callback(&place->work, on_work_##bytes, 0); \
		if (!*err) \
			*err = bpf_timer_init(&place->timer, &places_##bytes, CLOCK_MONOTONIC); \
		if (!*err) \
			*err = bpf_timer_set_callback(&place->timer, on_timer_##bytes); \
		return *err != 0; \
	} \
\
	SEC("syscall") \
	int arm_places_##bytes(void *ctx) \
	{ \
		int err = 0; \
\
		bpf_for_each_map_elem(&places_##bytes, arm_one_##bytes, &err, 0); \
		return err; \
	} \
\
	static long one_executor_##bytes(__u64 i, struct burst *burst) \
	{ \
		struct job_##bytes *job = (void *)new_job(bytes / 8); \
\
		if (!job) \
			return 1; \
		return count(burst, jobs_##bytes##_submit(job), -ENOSPC); \
	} \
	SUBMIT(executor_##bytes) \
\
	IN_PLACES(bare, bytes, bpf_wq_start(&place->work, 0), 0) \
	IN_PLACES(timer, bytes, bpf_timer_start(&place->timer, 0, 0), 0) \
	/* Its place is free a moment before it can be scheduled again. */ \
	IN_PLACES(task_work, bytes, \
		  schedule_task_work((__u32)bpf_get_current_pid_tgid(), &place->task_work, \
				     &places_##bytes, on_task_work_##bytes), \
		  -EBUSY) \
	IN_RING(epoll, bytes, 0) \
	IN_RING(busy, bytes, RB_NO_WAKEUP)

OF_SIZE(8, 1 << 14)
OF_SIZE(64, 1 << 17)
OF_SIZE(256, 1 << 19)
OF_SIZE(512, 1 << 20)

char LICENSE[] SEC("license") = "GPL";
