/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Looks for processes that have ended without a call of the program for exits: the kernel does not
 * call a program on a CPU where it is being run already. Since 7.0 one at a tracepoint may be
 * preempted (a46023d5616e), and the next one to run there may be a process that ends.
 */
#ifndef LOOK_H
#define LOOK_H

#include "release.h"

/* How often, as long as there are processes. */
#define LOOK_NS 500000000

extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

/* A look is submitted, and has not come to its end. */
static __u64 is_due;

struct look {
	struct process found;
};

static long look_at_one(void *map, struct process *process, struct owner *owner, struct look *look)
{
	struct process process_now = *process;
	struct task_struct *task;
	int lives = 0;

	if (!bpf_wq_read(owner->unclaimed))
		return 0;
	task = bpf_task_from_pid(process_now.pid);
	if (task) {
		lives = task->start_time == process_now.started_ns && task->signal->live.counter;
		bpf_task_release(task);
	}
	if (lives || !claim(owner, &process_now))
		return 0;
	bpf_wq_add(tracked.found_later, 1);
	look->found = process_now;
	return 1;
}

/* Runs in a kernel worker. During a drain it frees what it finds itself. */
static int look_for_ended(struct look *look, struct bpf_wq_run *run)
{
	struct look now = *look;

	if (!now.found.pid)
		bpf_for_each_map_elem(&owners, look_at_one, &now, 0);
	if (now.found.pid) {
		run->retry_ns = 0;
		if (!releases_submit(&now.found) || release_owner(&now.found, run) != -EAGAIN)
			now.found.pid = 0;
		*look = now;
		return -EAGAIN;
	}
	run->retry_ns = LOOK_NS;
	/* Whoever drains this waits until it ends. */
	if (bpf_wq_is_draining(run))
		return 0;
	if (!has_told_all())
		return -EAGAIN;
	/* Whoever makes a place from here on submits the next look, or is seen below. */
	__sync_lock_test_and_set(&is_due, 0);
	if (has_told_all())
		return 0;
	return __sync_val_compare_and_swap(&is_due, 0, 1) ? 0 : -EAGAIN;
}

BPF_WQ_EXECUTOR(looks, struct look, 4, 1, look_for_ended);

static __always_inline void look_later(void)
{
	struct bpf_wq_options options = {.delay_ns = LOOK_NS};
	struct look look = {};
	__u64 id;

	if (bpf_wq_read(is_due) || __sync_val_compare_and_swap(&is_due, 0, 1))
		return;
	if (looks_submit_with(&look, &options, &id))
		__sync_lock_test_and_set(&is_due, 0);
}

#endif
