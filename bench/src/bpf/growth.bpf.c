// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// An executor with many jobs that wait, and one with many workers whose handlers sleep.
#include <bpf_wq/executor.bpf.h>

#define PAGE 4096

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;

/* Pages of another process's memory, each of which takes its time when it is read first. */
__u32 holder = 0;
__u64 pages = 0;
__u64 next_page = 0;

/* The time that reading them took, and how many could not be read. */
__u64 slept_ns = 0;
__u64 unread = 0;

/* Set by the first job that has run since it was 0, and by each. */
__u64 first_ns = 0;
__u64 last_ns = 0;

__u64 failed = 0;
__u64 took_ns = 0;

struct job {
	__u64 number;
	__u64 sleeps;
};

static __always_inline int handle(struct job *job)
{
	__u64 now = bpf_ktime_get_ns(), page;
	struct task_struct *task;
	char byte;

	if (!bpf_wq_read(first_ns))
		first_ns = now;
	if (job->sleeps) {
		page = bpf_wq_add(next_page, 1);
		task = bpf_task_from_pid(holder);
		if (!task ||
		    bpf_copy_from_user_task(&byte, 1, (void *)(pages + page * PAGE), task, 0))
			bpf_wq_add(unread, 1);
		if (task)
			bpf_task_release(task);
		bpf_wq_add(slept_ns, bpf_ktime_get_ns() - now);
	}
	last_ns = bpf_ktime_get_ns();
	return 0;
}

static int on_deep(struct job *job, struct bpf_wq_run *run)
{
	return handle(job);
}

static int on_wide(struct job *job, struct bpf_wq_run *run)
{
	return handle(job);
}

BPF_WQ_EXECUTOR(deep, struct job, 1 << 20, 1, on_deep);
BPF_WQ_EXECUTOR(wide, struct job, 1024, 64, on_wide);

struct order {
	__u64 count;
	__u64 sleeps;
	__u64 accepted;
};

#define SUBMIT(name) \
	static long one_##name(__u64 i, struct order *order) \
	{ \
		struct job job = {.number = i, .sleeps = order->sleeps}; \
		int err = name##_submit(&job); \
\
		if (!err) \
			order->accepted++; \
		else if (err != -ENOSPC) \
			failed++; \
		return err != 0; \
	} \
\
	SEC("syscall") \
	int submit_##name(struct order *order) \
	{ \
		struct order given = *order; \
\
		bpf_loop(given.count, one_##name, &given, 0); \
		return given.accepted; \
	} \
\
	/* Nothing else runs on this CPU meanwhile. */ \
	SEC("syscall") \
	int measure_##name(struct order *order) \
	{ \
		struct order given = *order; \
		__u64 began; \
\
		bpf_preempt_disable(); \
		began = bpf_ktime_get_ns(); \
		bpf_loop(given.count, one_##name, &given, 0); \
		took_ns = bpf_ktime_get_ns() - began; \
		bpf_preempt_enable(); \
		return given.accepted; \
	}

SUBMIT(deep)
SUBMIT(wide)

char LICENSE[] SEC("license") = "GPL";
