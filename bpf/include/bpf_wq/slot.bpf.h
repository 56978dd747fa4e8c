/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An executor's slots, of which each job has one from its submission to its end, and its lanes,
 * which put jobs in order.
 */
#ifndef BPF_WQ_SLOT_BPF_H
#define BPF_WQ_SLOT_BPF_H

#include <bpf_wq/worker.bpf.h>

/* How a job is submitted. All 0: at once, in no order. */
struct bpf_wq_options {
	__u64 delay_ns; /* not before so long */
	__u64 key;
	/*
	 * After all jobs of this key that were submitted before or, of those with a delay, are due
	 * by then. As keys share lanes, after those of some others, too.
	 */
	__u64 is_ordered;
};

/* What a handler is told of its run. */
struct bpf_wq_run {
	__u64 id;
	__u64 attempt;	/* 0 the first time */
	__u64 retry_ns; /* when to run again, if it returns -EAGAIN; it may change this */
	const struct bpf_wq_gate *gate; /* for bpf_wq_is_draining() */
};

/*
 * For a handler, at any time of its run: whether user space drains the executor, or has done so.
 * One that asks to be run again for ever has to give up then.
 */
static __always_inline int bpf_wq_is_draining(const struct bpf_wq_run *run)
{
	return bpf_wq_read(run->gate->phase) == BPF_WQ_CLOSED;
}

/* The wait before a second run; it doubles with every run, up to the longest. */
#define BPF_WQ_FIRST_RETRY_NS 1000000ULL
#define BPF_WQ_RETRY_DOUBLINGS 10

/* No wait is longer: the clock would overflow. */
#define BPF_WQ_LONGEST_NS (1ULL << 62)

/* A lane may have to be turned over as a whole, in half of a bpf_loop(). */
#define BPF_WQ_MOST_JOBS (BPF_WQ_TRIES / 2)

/* Lower half of a slot's state. The upper half counts the slot's jobs, and is part of an id. */
enum {
	BPF_WQ_FREE,
	BPF_WQ_DELAYED,		/* the timer will queue it */
	BPF_WQ_QUEUED,		/* a worker will run it, for the first time */
	BPF_WQ_QUEUED_AGAIN,	/* and this is another run: its submission takes it back no more */
	BPF_WQ_RUNNING,		/* a worker runs it, and nobody else touches it */
	BPF_WQ_DELAYED_IN_VAIN, /* cancelled: the timer will free it */
	BPF_WQ_QUEUED_IN_VAIN,	/* cancelled: a worker will free it */
	BPF_WQ_QUEUED_REFUSED,	/* no longer in flight: a worker will free it */
};

/* The part of a job's slot that is the same for all types of jobs. */
struct bpf_wq_slot {
	__u64 state;
	__u64 due; /* what is delayed is queued then; of CLOCK_MONOTONIC */
	__u64 attempt;
	__u32 lane;    /* BPF_WQ_NO_LANE if it has no order */
	__u32 in_lane; /* its turn has come, or will: others of the lane wait for it */
	__u64 next;    /* in the lane: a slot's index + 1, or 0 */
};

struct bpf_wq_timed_slot {
	struct bpf_wq_slot slot;
	struct bpf_timer timer;
};

#define BPF_WQ_NO_LANE (~0U)

/*
 * The jobs of some keys, which run one after the other. The lane itself is queued, while it has
 * jobs and none of them runs or waits for its next run.
 */
struct bpf_wq_lane {
	__u64 jobs; /* in the lane */
	__u64 in;   /* the newest, linked to older ones */
	__u64 out;  /* the oldest, linked to newer ones: of who has taken the lane */
};

static __always_inline __u64 bpf_wq_state(__u64 generation, __u32 state)
{
	return generation << 32 | state;
}

/* Moves a slot from one state to another, unless it is in another one already. */
static __always_inline int bpf_wq_slot_move(struct bpf_wq_slot *slot, __u64 generation, __u32 from,
					    __u32 to)
{
	__u64 seen = bpf_wq_state(generation, from);

	return __sync_val_compare_and_swap(&slot->state, seen, bpf_wq_state(generation, to)) ==
	       seen;
}

struct bpf_wq_lane_push {
	struct bpf_wq_lane *lane;
	struct bpf_wq_slot *slot;
	__u64 link;
};

static long bpf_wq_lane_try_push(__u64 i, struct bpf_wq_lane_push *push)
{
	__u64 newest = bpf_wq_read(push->lane->in);

	push->slot->next = newest;
	return __sync_val_compare_and_swap(&push->lane->in, newest, push->link) == newest;
}

/* The state in which a slot waits for a worker. */
static __always_inline __u32 bpf_wq_queued(const struct bpf_wq_slot *slot)
{
	return slot->attempt ? BPF_WQ_QUEUED_AGAIN : BPF_WQ_QUEUED;
}

/* Queues a slot that is in the state for it: at once, or when those before it in its lane are. */
static __always_inline int bpf_wq_slot_queue(const struct bpf_wq_executor *e, __u32 index,
					     struct bpf_wq_slot *slot)
{
	struct bpf_wq_lane_push push = {.slot = slot, .link = index + 1};
	__u32 number = slot->lane;

	if (number == BPF_WQ_NO_LANE || slot->in_lane)
		return bpf_wq_queue(e, index);
	push.lane = bpf_map_lookup_elem(e->lanes, &number);
	if (!push.lane)
		return -EINVAL;
	slot->in_lane = 1;
	bpf_loop(BPF_WQ_TRIES, bpf_wq_lane_try_push, &push, 0);
	/* A lane that is queued already may be so by a job that could wake nobody. */
	if (bpf_wq_add(push.lane->jobs, 1))
		return bpf_wq_wake(e);
	return bpf_wq_queue(e, e->capacity + number);
}

/* Ends what a slot was used for, which is not in flight. Only its owner does. */
static __always_inline void bpf_wq_slot_free(const struct bpf_wq_executor *e, __u32 index,
					     struct bpf_wq_slot *slot)
{
	__u32 number = slot->in_lane ? slot->lane : BPF_WQ_NO_LANE;
	struct bpf_wq_lane *lane;

	__sync_lock_test_and_set(&slot->state, bpf_wq_state((slot->state >> 32) + 1, BPF_WQ_FREE));
	bpf_wq_ring_put(&e->state->free, e->free_cells, e->capacity, index);
	if (number != BPF_WQ_NO_LANE) {
		lane = bpf_map_lookup_elem(e->lanes, &number);
		if (lane && bpf_wq_add(lane->jobs, -1) > 1)
			bpf_wq_queue(e, e->capacity + number);
	}
}

static __always_inline void bpf_wq_slot_release(const struct bpf_wq_executor *e, __u32 index,
						struct bpf_wq_slot *slot)
{
	bpf_wq_slot_free(e, index, slot);
	bpf_wq_add(e->state->gate.in_flight, -1);
}

/* Counted only now, so that what was accepted and is not in flight is either done or cancelled. */
static __always_inline void bpf_wq_slot_cancelled(const struct bpf_wq_executor *e, __u32 index,
						  struct bpf_wq_slot *slot)
{
	bpf_wq_add(e->state->gate.cancelled, 1);
	bpf_wq_slot_release(e, index, slot);
}

/* The first half of a submission, before the job is copied: takes a slot. */
static __always_inline int bpf_wq_slot_reserve(const struct bpf_wq_executor *e, __u32 *index,
					       __u64 *in_flight)
{
	struct bpf_wq_gate *gate = &e->state->gate;
	int err;

	err = bpf_wq_gate_enter(gate, in_flight);
	if (err)
		return err;
	/* Taken back later, the job would hold its slot until a worker runs, and might have run. */
	if (!bpf_wq_may_wake(e))
		return bpf_wq_gate_refuse(gate, -EOPNOTSUPP);
	if (bpf_wq_ring_take(&e->state->free, e->free_cells, e->capacity, index)) {
		/* It may be full of what could wake nobody. */
		if (!bpf_wq_ring_is_empty(&e->state->ready))
			bpf_wq_wake(e);
		return bpf_wq_gate_refuse(gate, -ENOSPC);
	}
	if (*in_flight > e->capacity)
		*in_flight = e->capacity;
	return 0;
}

/* Keys share as many lanes as there are slots. */
static __always_inline __u32 bpf_wq_lane_of(const struct bpf_wq_executor *e, __u64 key)
{
	return (key * 0x9e3779b97f4a7c15ULL >> 32) & (e->capacity - 1);
}

static __always_inline __u64 bpf_wq_wait_ns(__u64 ns)
{
	return ns < BPF_WQ_LONGEST_NS ? ns : BPF_WQ_LONGEST_NS;
}

/*
 * Sets the timer of a slot that was put into this state, a delayed one. If it has been cancelled
 * since, the timer was set for now, to free it, and is again.
 */
static __always_inline void bpf_wq_slot_wait(struct bpf_wq_timed_slot *timed, __u64 state, __u64 ns)
{
	if (!bpf_timer_start(&timed->timer, ns, 0) && bpf_wq_read(timed->slot.state) != state)
		bpf_timer_start(&timed->timer, 0, 0);
}

/* The second half. */
static __always_inline int bpf_wq_slot_commit(const struct bpf_wq_executor *e, __u32 index,
					      struct bpf_wq_timed_slot *timed, __u64 in_flight,
					      const struct bpf_wq_options *options, __u64 *id)
{
	struct bpf_wq_gate *gate = &e->state->gate;
	struct bpf_wq_slot *slot = &timed->slot;
	__u64 generation = slot->state >> 32, delay_ns = bpf_wq_wait_ns(options->delay_ns);
	__u32 first, refused;
	int err;

	*id = generation << 32 | (index + 1);
	slot->attempt = 0;
	slot->in_lane = 0;
	slot->lane = options->is_ordered ? bpf_wq_lane_of(e, options->key) : BPF_WQ_NO_LANE;
	slot->due = 0;
	bpf_wq_gate_accept(gate, in_flight);
	if (delay_ns) {
		slot->due = bpf_ktime_get_ns() + delay_ns;
		first = BPF_WQ_DELAYED;
		/* No timer will free it: its owner does. */
		refused = BPF_WQ_RUNNING;
		__sync_lock_test_and_set(&slot->state, bpf_wq_state(generation, first));
		/*
		 * For now: it looks at the time, and waits. Since 7.0 (1bfbc267ec91) a timer that
		 * is set where interrupts are off is really set later, perhaps when this slot has
		 * another job: which it must not make wait.
		 */
		err = bpf_timer_start(&timed->timer, 0, 0);
	} else {
		first = BPF_WQ_QUEUED;
		refused = BPF_WQ_QUEUED_REFUSED;
		__sync_lock_test_and_set(&slot->state, bpf_wq_state(generation, first));
		err = bpf_wq_slot_queue(e, index, slot);
	}
	/* There is no memory for it. A worker that runs may have the job all the same. */
	if (!err || !bpf_wq_slot_move(slot, generation, first, refused))
		return 0;
	bpf_wq_add(gate->accepted, -1);
	if (refused == BPF_WQ_RUNNING)
		bpf_wq_slot_free(e, index, slot);
	return bpf_wq_gate_refuse(gate, err);
}

/* The time of a slot has come, or the timer was set for the job that had it before. */
static __always_inline void bpf_wq_slot_due(const struct bpf_wq_executor *e, __u32 index,
					    struct bpf_wq_timed_slot *timed)
{
	struct bpf_wq_slot *slot = &timed->slot;
	__u64 state = bpf_wq_read(slot->state), generation = state >> 32;
	__u64 now = bpf_ktime_get_ns(), due = bpf_wq_read(slot->due);

	if ((__u32)state == BPF_WQ_DELAYED) {
		if (now < due) {
			bpf_wq_slot_wait(timed, state, due - now);
			return;
		}
		if (bpf_wq_slot_move(slot, generation, BPF_WQ_DELAYED, bpf_wq_queued(slot))) {
			bpf_wq_slot_queue(e, index, slot);
			return;
		}
	}
	if (bpf_wq_slot_move(slot, generation, BPF_WQ_DELAYED_IN_VAIN, BPF_WQ_RUNNING))
		bpf_wq_slot_cancelled(e, index, slot);
}

static __always_inline int bpf_wq_slot_cancel(const struct bpf_wq_executor *e,
					      struct bpf_wq_timed_slot *timed, __u64 generation)
{
	struct bpf_wq_slot *slot = &timed->slot;
	__u64 state;
	int err, i;

	/* Its timer queues it once, and each run may delay it again. */
	for (i = 0; i < 8; i++) {
		state = bpf_wq_read(slot->state);
		if (state >> 32 != generation)
			return -ENOENT;
		switch ((__u32)state) {
		case BPF_WQ_QUEUED:
		case BPF_WQ_QUEUED_AGAIN:
			if (!bpf_wq_slot_move(slot, generation, (__u32)state,
					      BPF_WQ_QUEUED_IN_VAIN))
				continue;
			return 0;
		case BPF_WQ_DELAYED:
			if (!bpf_wq_slot_move(slot, generation, BPF_WQ_DELAYED,
					      BPF_WQ_DELAYED_IN_VAIN))
				continue;
			/* The slot is free at once, and not only when the job would be due. */
			err = bpf_timer_start(&timed->timer, 0, 0);
			/* In an NMI before 7.0, or without memory: not cancelled, unless it is due.
			 */
			if (err && bpf_wq_slot_move(slot, generation, BPF_WQ_DELAYED_IN_VAIN,
						    BPF_WQ_DELAYED))
				return err;
			return 0;
		case BPF_WQ_RUNNING:
			return -EBUSY;
		default:
			return -ENOENT;
		}
	}
	return -EBUSY;
}

struct bpf_wq_lane_turn {
	void *slots;
	__u64 in;
	__u64 out;
};

static long bpf_wq_lane_turn_one(__u64 i, struct bpf_wq_lane_turn *turn)
{
	__u32 index = turn->in - 1;
	struct bpf_wq_slot *slot = bpf_map_lookup_elem(turn->slots, &index);
	__u64 next;

	if (!slot)
		return 1;
	next = slot->next;
	slot->next = turn->out;
	turn->out = turn->in;
	turn->in = next;
	return !next;
}

/* Takes the oldest of a lane. Only who has taken the lane from the queue does. */
static __always_inline int bpf_wq_lane_take(const struct bpf_wq_executor *e, __u32 number,
					    __u32 *index)
{
	struct bpf_wq_lane *lane = bpf_map_lookup_elem(e->lanes, &number);
	struct bpf_wq_lane_turn turn = {.slots = e->slots};
	struct bpf_wq_slot *slot;
	__u64 oldest;

	if (!lane)
		return -ENOENT;
	oldest = lane->out;
	if (!oldest) {
		turn.in = __sync_lock_test_and_set(&lane->in, 0);
		if (turn.in)
			bpf_loop(e->capacity, bpf_wq_lane_turn_one, &turn, 0);
		oldest = turn.out;
	}
	*index = oldest - 1;
	slot = bpf_map_lookup_elem(e->slots, index);
	if (!slot)
		return -ENOENT;
	lane->out = slot->next;
	return 0;
}

/* Takes the next slot from the queue. -ENOENT: there is none. */
static __always_inline int bpf_wq_slot_take(const struct bpf_wq_executor *e, __u32 *index)
{
	__u32 number;

	if (bpf_wq_ring_take(&e->state->ready, e->ready_cells, 2 * e->capacity, &number))
		return -ENOENT;
	if (number >= e->capacity)
		return bpf_wq_lane_take(e, number - e->capacity, index);
	*index = number;
	return 0;
}

/* Whether the job in a slot is to be run now; else it was cancelled, or refused. */
static __always_inline int bpf_wq_slot_begin(const struct bpf_wq_executor *e, __u32 index,
					     struct bpf_wq_slot *slot, struct bpf_wq_run *run)
{
	__u64 generation = bpf_wq_read(slot->state) >> 32;
	__u64 doublings;

	if (!bpf_wq_slot_move(slot, generation, bpf_wq_queued(slot), BPF_WQ_RUNNING)) {
		if ((__u32)bpf_wq_read(slot->state) == BPF_WQ_QUEUED_REFUSED)
			bpf_wq_slot_free(e, index, slot);
		else
			bpf_wq_slot_cancelled(e, index, slot);
		return 0;
	}
	run->id = generation << 32 | (index + 1);
	run->attempt = slot->attempt;
	doublings = run->attempt < BPF_WQ_RETRY_DOUBLINGS ? run->attempt : BPF_WQ_RETRY_DOUBLINGS;
	run->retry_ns = BPF_WQ_FIRST_RETRY_NS << doublings;
	run->gate = &e->state->gate;
	bpf_wq_add(e->state->gate.running, 1);
	return 1;
}

static __always_inline void bpf_wq_slot_end(const struct bpf_wq_executor *e, __u32 index,
					    struct bpf_wq_timed_slot *timed, int result,
					    const struct bpf_wq_run *run)
{
	struct bpf_wq_gate *gate = &e->state->gate;
	struct bpf_wq_slot *slot = &timed->slot;
	__u64 delayed = bpf_wq_state(slot->state >> 32, BPF_WQ_DELAYED);
	__u64 retry_ns = bpf_wq_wait_ns(run->retry_ns);

	bpf_wq_add(gate->running, -1);
	if (result == -EAGAIN) {
		bpf_wq_add(gate->retried, 1);
		slot->attempt++;
		slot->due = bpf_ktime_get_ns() + retry_ns;
		__sync_lock_test_and_set(&slot->state, delayed);
		bpf_wq_slot_wait(timed, delayed, retry_ns);
		return;
	}
	if (result)
		bpf_wq_add(gate->failed, 1);
	bpf_wq_add(gate->done, 1);
	bpf_wq_slot_release(e, index, slot);
}

#endif
