/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An executor: a bounded queue of jobs, which workers do where a program may sleep.
 *
 *	struct job { __u32 pid; ... };
 *
 *	static int handle(struct job *job, struct bpf_wq_run *run) { ... return 0; }
 *
 *	BPF_WQ_EXECUTOR(checks, struct job, 1024, 4, handle);
 *
 *	SEC("xdp") ... { struct job job = {...}; err = checks_submit(&job); ... }
 *
 * BPF_WQ_EXECUTOR(name, job, capacity, workers, handler) makes a queue of at most `capacity` jobs
 * (a power of two) that are not done, up to 64 workers, and
 *
 * - name_submit(&job), for a program of any type that may use a bpf_wq and a bpf_timer. It copies
 *   the job, and neither waits nor sleeps. 0: the job is accepted, and will be done once.
 *   -ENOSPC: the queue is full. -ESHUTDOWN: user space is draining it. -EINVAL: not armed.
 *   -EOPNOTSUPP: in an NMI, before 7.0. Before 7.0 not for one that the kernel calls under a lock
 *   of the scheduler or of a workqueue, such as tp_btf/sched_switch: its CPU may hang.
 * - name_submit_with(&job, &options, &id), the same with a delay, an order, and an id.
 * - name_cancel(id): 0 if the job will not run; -EBUSY if it is running, or is just being freed;
 *   -ENOENT if it has run or was cancelled. -EOPNOTSUPP: a delayed one in an NMI before 7.0, which
 *   stays.
 * - bpf_wq_arm_name, bpf_wq_submit_name and bpf_wq_cancel_name, SEC("syscall") programs for user
 *   space. The first one has to be run once after loading.
 * - name_gate, a map with the numbers of struct bpf_wq_gate, of jobs.
 *
 * The handler runs in a worker of the kernel, has what a SEC("syscall") program has, and may
 * sleep. As many run at a time as there are workers; one that sleeps holds up no other job, as
 * long as a worker is left. It returns 0; -EAGAIN to be run again, after run->retry_ns; or
 * another error, which is counted. One that is run again and again asks bpf_wq_is_draining(run)
 * whether to end, for which it has to be static. What it is given, and what a job is submitted
 * with, is in bpf_wq/slot.bpf.h.
 *
 * All functions that call one another share 512 bytes of stack: a job of more than some 300 bytes
 * has to be filled in an element of a per-CPU array.
 *
 * A kernel with CONFIG_PREEMPT_RT has no bpf_timer, and loads no executor.
 */
#ifndef BPF_WQ_EXECUTOR_BPF_H
#define BPF_WQ_EXECUTOR_BPF_H

#include <bpf_wq/slot.bpf.h>

/* CLOCK_MONOTONIC. */
#define BPF_WQ_CLOCK_MONOTONIC 1

struct bpf_wq_arming {
	long err;
	__u64 workers;
};

static __always_inline void bpf_wq_executor_open(const struct bpf_wq_executor *e,
						 const struct bpf_wq_arming *arming)
{
	e->state->free.tail = e->capacity;
	e->state->gate.idle = arming->workers;
	__sync_lock_test_and_set(&e->state->gate.phase, BPF_WQ_OPEN);
}

#define BPF_WQ_ARRAY(name, entries, value_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, entries); \
		__type(key, __u32); \
		__type(value, value_type); \
	} name SEC(".maps")

#define BPF_WQ_EXECUTOR(name, job_type, capacity_, workers_, handler) \
	_Static_assert((capacity_) > 0 && (capacity_) <= BPF_WQ_MOST_JOBS && \
			       ((capacity_) & ((capacity_)-1)) == 0, \
		       "the capacity of " #name " has to be a power of two, of at most 2^22"); \
	_Static_assert((workers_) > 0 && (workers_) <= BPF_WQ_MOST_WORKERS, \
		       #name " has to have 1 to 64 workers"); \
	_Static_assert(BPF_WQ_IS_HANDLER(handler, job_type, struct bpf_wq_run), \
		       "the handler of " #name " has to be static int " #handler "(" #job_type \
		       " *, struct bpf_wq_run *)"); \
\
	struct name##_slot { \
		struct bpf_wq_slot slot; \
		struct bpf_timer timer; \
		job_type job; \
	}; \
\
	struct name##_request { \
		/* First: 6.12 allows no pointer into a context but to its beginning. */ \
		job_type job; \
		struct bpf_wq_options options; \
		__u64 id; \
	}; \
\
	BPF_WQ_GATE_MAP(name##_gate, struct bpf_wq_executor_state); \
	BPF_WQ_ARRAY(name##_free, capacity_, __u64); \
	BPF_WQ_ARRAY(name##_ready, 2 * (capacity_), __u64); \
	BPF_WQ_ARRAY(name##_lanes, capacity_, struct bpf_wq_lane); \
	BPF_WQ_ARRAY(name##_jobs, capacity_, struct name##_slot); \
	BPF_WQ_ARRAY(name##_workers, workers_, struct bpf_wq_worker); \
\
	static __always_inline int bpf_wq_executor_##name(struct bpf_wq_executor *e) \
	{ \
		__u32 zero = 0; \
\
		e->state = bpf_map_lookup_elem(&name##_gate, &zero); \
		e->free_cells = &name##_free; \
		e->ready_cells = &name##_ready; \
		e->slots = &name##_jobs; \
		e->lanes = &name##_lanes; \
		e->workers = &name##_workers; \
		e->capacity = (capacity_); \
		e->most_workers = (workers_); \
		return e->state ? 0 : -EINVAL; \
	} \
\
	static __always_inline int bpf_wq_submit_inline_##name( \
		const job_type *job, const struct bpf_wq_options *options, __u64 *id) \
	{ \
		struct bpf_wq_executor e; \
		struct name##_slot *slot; \
		__u64 in_flight; \
		__u32 index; \
		int err; \
\
		err = bpf_wq_executor_##name(&e); \
		if (!err) \
			err = bpf_wq_slot_reserve(&e, &index, &in_flight); \
		if (err) \
			return err; \
		slot = bpf_map_lookup_elem(&name##_jobs, &index); \
		if (!slot) \
			return -EINVAL; \
		slot->job = *job; \
		return bpf_wq_slot_commit(&e, index, (void *)slot, in_flight, options, id); \
	} \
\
	/* used: else clang has one that nobody listens to return a stale register. */ \
	static __attribute__((noinline, used)) int name##_submit_with( \
		const job_type *job, const struct bpf_wq_options *options, __u64 *id) \
	{ \
		return bpf_wq_submit_inline_##name(job, options, id); \
	} \
\
	static __attribute__((noinline, used)) int name##_submit(const job_type *job) \
	{ \
		struct bpf_wq_options at_once = {}; \
		__u64 id; \
\
		return bpf_wq_submit_inline_##name(job, &at_once, &id); \
	} \
\
	static __attribute__((noinline, used)) int name##_cancel(__u64 id) \
	{ \
		struct bpf_wq_executor e; \
		__u32 index = (__u32)id - 1; \
		struct name##_slot *slot = bpf_map_lookup_elem(&name##_jobs, &index); \
\
		if (!slot || bpf_wq_executor_##name(&e)) \
			return -ENOENT; \
		return bpf_wq_slot_cancel(&e, (void *)slot, id >> 32); \
	} \
\
	/* On its own, so that no local name hides the handler's. */ \
	static __always_inline int bpf_wq_handle_##name(job_type *bpf_wq_job, \
							struct bpf_wq_run *bpf_wq_run) \
	{ \
		return handler(bpf_wq_job, bpf_wq_run); \
	} \
\
	static long bpf_wq_step_##name(__u64 i, struct bpf_wq_work_run *work) \
	{ \
		struct bpf_wq_executor e; \
		struct name##_slot *slot; \
		struct bpf_wq_run run; \
		__u32 index; \
		int result; \
\
		if (bpf_wq_executor_##name(&e) || bpf_wq_slot_take(&e, &index)) { \
			work->is_empty = 1; \
			return 1; \
		} \
		bpf_wq_wake_next(&e, work); \
		slot = bpf_map_lookup_elem(&name##_jobs, &index); \
		if (!slot || !bpf_wq_slot_begin(&e, index, &slot->slot, &run)) \
			return 0; \
		result = bpf_wq_handle_##name(&slot->job, &run); \
		bpf_wq_slot_end(&e, index, (void *)slot, result, &run); \
		return bpf_ktime_get_ns() - work->began_ns > BPF_WQ_BUDGET_NS; \
	} \
\
	static int bpf_wq_work_##name(void *map, int *key, void *worker) \
	{ \
		struct bpf_wq_work_run work = {.began_ns = bpf_ktime_get_ns()}; \
		struct bpf_wq_executor e; \
\
		if (bpf_wq_executor_##name(&e)) \
			return 0; \
		bpf_wq_worker_begin(&e, *key, worker); \
		bpf_loop(BPF_WQ_BUDGET_JOBS, bpf_wq_step_##name, &work, 0); \
		bpf_wq_worker_end(&e, *key, worker, &work); \
		return 0; \
	} \
\
	static int bpf_wq_due_##name(void *map, int *key, void *slot) \
	{ \
		struct bpf_wq_executor e; \
\
		if (!bpf_wq_executor_##name(&e)) \
			bpf_wq_slot_due(&e, *key, slot); \
		return 0; \
	} \
\
	static long bpf_wq_arm_worker_##name(void *map, __u32 *key, struct bpf_wq_worker *worker, \
					     struct bpf_wq_arming *arming) \
	{ \
		arming->err = bpf_wq_init(&worker->work, &name##_workers, 0); \
		if (!arming->err) \
			arming->err = bpf_wq_set_callback(&worker->work, bpf_wq_work_##name, 0); \
		arming->workers |= 1ULL << (*key & 63); \
		return arming->err != 0; \
	} \
\
	static long bpf_wq_arm_slot_##name(void *map, __u32 *key, struct name##_slot *slot, \
					   struct bpf_wq_arming *arming) \
	{ \
		__u32 index = *key, later = index + (capacity_); \
		__u64 *cell; \
\
		arming->err = bpf_timer_init(&slot->timer, &name##_jobs, BPF_WQ_CLOCK_MONOTONIC); \
		if (!arming->err) \
			arming->err = bpf_timer_set_callback(&slot->timer, bpf_wq_due_##name); \
		cell = bpf_map_lookup_elem(&name##_free, &index); \
		if (cell) \
			*cell = bpf_wq_cell(index, index) | BPF_WQ_CELL_HOLDS; \
		cell = bpf_map_lookup_elem(&name##_ready, &index); \
		if (cell) \
			*cell = bpf_wq_cell(index, 0); \
		cell = bpf_map_lookup_elem(&name##_ready, &later); \
		if (cell) \
			*cell = bpf_wq_cell(later, 0); \
		return arming->err != 0; \
	} \
\
	SEC("syscall") \
	int bpf_wq_arm_##name(void *ctx) \
	{ \
		struct bpf_wq_arming arming = {}; \
		struct bpf_wq_executor e; \
\
		if (bpf_wq_executor_##name(&e)) \
			return -EINVAL; \
		bpf_for_each_map_elem(&name##_workers, bpf_wq_arm_worker_##name, &arming, 0); \
		if (arming.err) \
			return arming.err; \
		bpf_for_each_map_elem(&name##_jobs, bpf_wq_arm_slot_##name, &arming, 0); \
		if (arming.err) \
			return arming.err; \
		bpf_wq_executor_open(&e, &arming); \
		return 0; \
	} \
\
	SEC("syscall") \
	int bpf_wq_submit_##name(struct name##_request *request) \
	{ \
		struct bpf_wq_options options = request->options; \
		__u64 id = 0; \
		int err; \
\
		err = bpf_wq_submit_inline_##name(&request->job, &options, &id); \
		request->id = id; \
		return err; \
	} \
\
	SEC("syscall") \
	int bpf_wq_cancel_##name(__u64 *id) \
	{ \
		return name##_cancel(*id); \
	} \
	_Static_assert(1, "a semicolon follows")

#endif
