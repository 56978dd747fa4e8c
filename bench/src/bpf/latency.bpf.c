// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// From the submission of a piece of work to the first instruction of what does it, by each way to
// hand it over; and what of that is the kernel's own workqueue.
#include <bpf_wq/executor.bpf.h>
#include "task_work.h"

#include <bpf/bpf_tracing.h>

#define CLOCK_MONOTONIC 1
#define WORKERS 4
#define RING_BYTES 4096
#define RB_NO_WAKEUP 1

/* As src/latency.rs numbers them. */
enum { BARE, EXECUTOR, TIMER, TASK_WORK, WAYS };

/* One piece of work is under way at a time. Times are of CLOCK_MONOTONIC, in ns. */
__u64 submitted_ns = 0;

/* Of the ways that end in the kernel: when the last one began, and how many have. */
__u64 began_ns[WAYS] = {};
__u64 ran[WAYS] = {};

/* The thread that starts a workqueue just now, to be looked at; else 0. */
__u32 traced_tid = 0;

/* The work item that it has queued, and when that was, and when a worker began with it. */
__u64 item = 0;
__u64 queued_ns = 0;
__u64 executed_ns = 0;
__u64 executed = 0;

static __always_inline int began(__u32 way)
{
	__u64 now = bpf_ktime_get_ns();

	began_ns[way] = now;
	bpf_wq_add(ran[way], 1);
	return 0;
}

struct place {
	struct bpf_wq work;
	struct bpf_timer timer;
	struct bpf_task_work task_work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct place);
} places SEC(".maps");

static __always_inline struct place *the_place(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&places, &zero);
}

static int on_work(void *map, int *key, void *value)
{
	return began(BARE);
}

static int on_timer(void *map, int *key, void *value)
{
	return began(TIMER);
}

static int on_task_work(struct bpf_map *map, void *key, void *value)
{
	return began(TASK_WORK);
}

struct job {
	__u64 number;
};

static int on_job(struct job *job, struct bpf_wq_run *run)
{
	return began(EXECUTOR);
}

BPF_WQ_EXECUTOR(jobs, struct job, 64, WORKERS, on_job);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} epoll_ring SEC(".maps"), busy_ring SEC(".maps");

SEC("syscall")
int arm_place(void *ctx)
{
	struct place *place = the_place();
	int err;

	if (!place)
		return -EINVAL;
	err = bpf_wq_init(&place->work, &places, 0);
	if (!err)
		err = bpf_wq_set_callback(&place->work, on_work, 0);
	if (!err)
		err = bpf_timer_init(&place->timer, &places, CLOCK_MONOTONIC);
	if (!err)
		err = bpf_timer_set_callback(&place->timer, on_timer);
	return err;
}

SEC("syscall")
int submit_bare(void *ctx)
{
	struct place *place = the_place();

	if (!place)
		return -EINVAL;
	submitted_ns = bpf_ktime_get_ns();
	return bpf_wq_start(&place->work, 0);
}

/* The same, and what the tracepoints say of its work item. */
SEC("syscall")
int submit_traced(void *ctx)
{
	struct place *place = the_place();
	int err;

	if (!place)
		return -EINVAL;
	item = 0;
	traced_tid = (__u32)bpf_get_current_pid_tgid();
	err = bpf_wq_start(&place->work, 0);
	traced_tid = 0;
	return err;
}

SEC("syscall")
int submit_executor(void *ctx)
{
	struct job job = {};

	submitted_ns = bpf_ktime_get_ns();
	return jobs_submit(&job);
}

SEC("syscall")
int submit_timer(void *ctx)
{
	struct place *place = the_place();

	if (!place)
		return -EINVAL;
	submitted_ns = bpf_ktime_get_ns();
	return bpf_timer_start(&place->timer, 0, 0);
}

/* The task is looked up before: who has one at hand does not pay for that. */
SEC("syscall")
int submit_task_work(__u64 *tid)
{
	struct place *place = the_place();

	if (!place)
		return -EINVAL;
	return schedule_task_work(*tid, (submitted_ns = bpf_ktime_get_ns(), &place->task_work),
				  &places, on_task_work);
}

SEC("syscall")
int submit_epoll(void *ctx)
{
	struct job job = {};

	submitted_ns = bpf_ktime_get_ns();
	return bpf_ringbuf_output(&epoll_ring, &job, sizeof(job), 0);
}

/* Whoever polls is not to be woken. */
SEC("syscall")
int submit_busy(void *ctx)
{
	struct job job = {};

	submitted_ns = bpf_ktime_get_ns();
	return bpf_ringbuf_output(&busy_ring, &job, sizeof(job), RB_NO_WAKEUP);
}

SEC("tp_btf/workqueue_queue_work")
int BPF_PROG(on_queue, int cpu, void *pool, void *work)
{
	if (traced_tid && (__u32)bpf_get_current_pid_tgid() == traced_tid && !item) {
		item = (__u64)work;
		queued_ns = bpf_ktime_get_ns();
	}
	return 0;
}

SEC("tp_btf/workqueue_execute_start")
int BPF_PROG(on_execute, void *work)
{
	__u64 now = bpf_ktime_get_ns();

	if (item && item == (__u64)work) {
		executed_ns = now;
		item = 0;
		bpf_wq_add(executed, 1);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
