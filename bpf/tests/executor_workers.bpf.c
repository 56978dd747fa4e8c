// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The executor's workers and timers: who does a job, for how long at a time, and where interrupts
// are off.
#include <linux/bpf.h>

#include <bpf_wq/arm.bpf.h>
#include <bpf_wq/executor.bpf.h>

#include <bpf/bpf_tracing.h>

struct job {
	__u64 unused;
};

/* Where the last job ran, and which workers waited meanwhile. */
__u64 ran_on = 0;
__u64 waited = 0;

static struct bpf_wq_executor_state *jobs_state(void);

static int work(struct job *job, struct bpf_wq_run *run)
{
	struct bpf_wq_executor_state *state = jobs_state();

	ran_on = bpf_get_smp_processor_id();
	if (state)
		waited = bpf_wq_read(state->gate.idle);
	return 0;
}

#define WORKERS 2

BPF_WQ_EXECUTOR(jobs, struct job, 1024, WORKERS, work);

static struct bpf_wq_executor_state *jobs_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&jobs_gate, &zero);
}

/* A worker may not wait yet when its last job is counted as done. */
SEC("syscall")
int all_workers_wait(void *ctx)
{
	struct bpf_wq_executor_state *state = jobs_state();

	return state && bpf_wq_read(state->gate.idle) == (1 << WORKERS) - 1;
}

/* Other work of the CPU, which sees how many jobs were done before it. */
struct element {
	BPF_WQ_WORK(work);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct element);
} others SEC(".maps");

__u64 done_before = 0;

static int look(__u32 *key, struct element *other)
{
	struct bpf_wq_executor_state *state = jobs_state();

	if (state)
		done_before = bpf_wq_read(state->gate.done);
	return 0;
}

BPF_WQ_ARM(others, struct element, work, look);

/* Since 6.10: fc7566ad0a82. */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

static long submit_one(__u64 i, int *err)
{
	struct job job = {};

	*err = jobs_submit(&job);
	return *err != 0;
}

/* All before a worker can run. */
SEC("syscall")
int submit_many_and_other(void *ctx)
{
	struct element *other;
	__u32 zero = 0;
	int err = 0;

	other = bpf_map_lookup_elem(&others, &zero);
	if (!other)
		return -EINVAL;
	bpf_preempt_disable();
	bpf_loop(1024, submit_one, &err, 0);
	if (!err)
		err = others_submit(other);
	bpf_preempt_enable();
	return err;
}

/* Of one place, which each job gets from the one before. */
BPF_WQ_EXECUTOR(places, struct job, 1, 1, work);

#define HOUR_NS 3600000000000ULL

/* The job that is due in an hour. */
__u64 late_id = 0;

static __always_inline int submit_late(void)
{
	struct bpf_wq_options options = {.delay_ns = HOUR_NS};
	struct job job = {};
	__u64 id = 0;
	int err;

	err = places_submit_with(&job, &options, &id);
	bpf_wq_write(late_id, id);
	return err;
}

__u64 others_are_done = 0;

static long look_whether_done(__u64 i, void *ctx)
{
	return bpf_wq_read(others_are_done) != 0;
}

/* With interrupts off for 20 seconds, the kernel's watchdog reports a lockup. */
#define LONGEST_WAIT_NS 10000000000ULL

static long wait_for_others(__u64 i, __u64 *began)
{
	bpf_loop(1000, look_whether_done, 0, 0);
	return bpf_wq_read(others_are_done) || bpf_ktime_get_ns() - *began > LONGEST_WAIT_NS;
}

/* Since 6.14: c8e2ee1f3df0. */
extern void bpf_local_irq_save(unsigned long *flags) __ksym __weak;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym __weak;

/* Until somebody else has cancelled the job and taken its place, interrupts are off. */
SEC("?syscall")
int submit_late_without_interrupts(void *ctx)
{
	__u64 began = bpf_ktime_get_ns();
	unsigned long flags;
	int err;

	bpf_local_irq_save(&flags);
	err = submit_late();
	bpf_loop(BPF_WQ_TRIES, wait_for_others, &began, 0);
	bpf_local_irq_restore(&flags);
	return err ?: bpf_wq_read(others_are_done) ? 0 : -EBUSY;
}

__u64 nmis = 0;
int cancelled = 1;

SEC("?tp_btf/nmi_handler")
int BPF_PROG(cancel_in_nmi)
{
	if (!__sync_fetch_and_add(&nmis, 1))
		cancelled = jobs_cancel(late_id);
	return 0;
}

char _license[] SEC("license") = "GPL";
