/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An executor's workers, and the queue that they work on: who puts something into it wakes one of
 * those that wait.
 */
#ifndef BPF_WQ_WORKER_BPF_H
#define BPF_WQ_WORKER_BPF_H

#include <bpf_wq/gate.bpf.h>
#include <bpf_wq/ring.bpf.h>

/*
 * What a worker does before it lets the kernel's worker do other work, and the kernel free
 * sleepable programs, for which it waits until no callback runs.
 */
#define BPF_WQ_BUDGET_JOBS 256
#define BPF_WQ_BUDGET_NS 10000000ULL

#define BPF_WQ_MOST_WORKERS 64

struct bpf_wq_worker {
	struct bpf_wq work;
	__u64 begun;	/* runs of it */
	__u64 promised; /* a run that has been started: its number, as begun counts it */
};

/* What name_gate holds. */
struct bpf_wq_executor_state {
	struct bpf_wq_gate gate;
	struct bpf_wq_ring free;  /* slots */
	struct bpf_wq_ring ready; /* slots, and lanes, whose numbers begin at the capacity */
};

/* An executor's parts, for the functions that are the same for all. */
struct bpf_wq_executor {
	struct bpf_wq_executor_state *state;
	void *free_cells;
	void *ready_cells;
	void *slots;
	void *lanes;
	void *workers;
	__u32 capacity; /* slots, and lanes */
	__u32 most_workers;
};

/* The place of a bit that is alone in a word. Without a branch: 7.0's verifier would try each. */
static __always_inline __u32 bpf_wq_bit_index(__u64 bit)
{
	return __builtin_popcountll(bit - 1);
}

/*
 * Whether a worker can be started from here: before 7.0 not in an NMI, which bpf_wq_start() looks
 * at before it refuses the flags.
 */
static __always_inline int bpf_wq_may_wake(const struct bpf_wq_executor *e)
{
	struct bpf_wq_worker *worker;
	__u32 first = 0;

	if (!bpf_core_field_exists(struct bpf_work___bpf_wq, delete_work))
		return 1;
	worker = bpf_map_lookup_elem(e->workers, &first);
	return worker && bpf_wq_start(&worker->work, 1) != -EOPNOTSUPP;
}

/*
 * Starts a worker, unless a run is to come that was promised before. This is called after something
 * was put into the queue: the run, when it begins, finds that. A promise is true for ever, so that
 * an old one may take the place of a new one; who fails to start promises nothing.
 */
static __always_inline int bpf_wq_start_worker(struct bpf_wq_worker *worker)
{
	__u64 begun = bpf_wq_read(worker->begun);
	int err;

	if (bpf_wq_read(worker->promised) > begun)
		return 0;
	err = bpf_wq_start(&worker->work, 0);
	if (!err)
		bpf_wq_write(worker->promised, begun + 1);
	return err;
}

/*
 * Starts a worker, if one waits. Of the others each looks at the queue again before it waits. A
 * worker counts as waiting until it runs, so of jobs in quick succession all may choose the same:
 * it starts the next when it takes a job and leaves some.
 */
static __always_inline int bpf_wq_wake(const struct bpf_wq_executor *e)
{
	__u64 idle = bpf_wq_read(e->state->gate.idle);
	struct bpf_wq_worker *worker;
	__u32 index;

	if (!idle)
		return 0;
	index = bpf_get_smp_processor_id() % e->most_workers;
	if (!(idle & (1ULL << (index & 63))))
		index = bpf_wq_bit_index(idle & -idle);
	worker = bpf_map_lookup_elem(e->workers, &index);
	return worker ? bpf_wq_start_worker(worker) : 0;
}

static __always_inline int bpf_wq_queue(const struct bpf_wq_executor *e, __u32 number)
{
	bpf_wq_ring_put(&e->state->ready, e->ready_cells, 2 * e->capacity, number);
	return bpf_wq_wake(e);
}

/* What a worker knows of its run. */
struct bpf_wq_work_run {
	__u64 began_ns;
	__u64 is_empty;
	__u64 has_woken;
};

/* After a job was taken: sees to it that those left wait for no handler that sleeps. */
static __always_inline void bpf_wq_wake_next(const struct bpf_wq_executor *e,
					     struct bpf_wq_work_run *run)
{
	if (run->has_woken || bpf_wq_ring_is_empty(&e->state->ready))
		return;
	run->has_woken = 1;
	bpf_wq_wake(e);
}

/* Before it looks at the queue. */
static __always_inline void bpf_wq_worker_begin(const struct bpf_wq_executor *e, __u32 index,
						struct bpf_wq_worker *worker)
{
	bpf_wq_add(worker->begun, 1);
	bpf_wq_ordered(__sync_fetch_and_and(&e->state->gate.idle, ~(1ULL << (index & 63))));
}

/* Waits, if there is nothing to do, for who puts something; or goes on after others. */
static __always_inline void bpf_wq_worker_end(const struct bpf_wq_executor *e, __u32 index,
					      struct bpf_wq_worker *worker,
					      const struct bpf_wq_work_run *run)
{
	if (run->is_empty) {
		bpf_wq_ordered(__sync_fetch_and_or(&e->state->gate.idle, 1ULL << (index & 63)));
		if (bpf_wq_ring_is_empty(&e->state->ready))
			return;
	}
	bpf_wq_start(&worker->work, 0);
}

#endif
