/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Work for a task, which it does on its way back to user mode; since 6.18. */
#ifndef TASK_WORK_H
#define TASK_WORK_H

#include <bpf_wq/wq.bpf.h>

struct bpf_task_work {
	__u64 __opaque;
} __attribute__((aligned(8)));

/* libbpf compares prototypes by their structs, which have to be defined. */
struct bpf_map {
	__u32 id;
} __attribute__((preserve_access_index));

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;

typedef int (*task_work_callback_t)(struct bpf_map *map, void *key, void *value);

/* 6.18 and 6.19: ea0714d61dea. */
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *work,
					      void *map, task_work_callback_t callback,
					      void *aux) __ksym __weak;

/* Since 7.0: 6e663ffdf760. */
extern int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *work,
					 void *map, task_work_callback_t callback) __ksym __weak;

/* A macro, as the verifier wants to see the map and the callback themselves. */
#define schedule_task_work(tid, work, map, callback) \
	({ \
		struct task_struct *task = bpf_task_from_pid(tid); \
		int err = -ENOENT; \
\
		if (task) { \
			if (bpf_ksym_exists(bpf_task_work_schedule_resume)) \
				err = bpf_task_work_schedule_resume(task, work, map, callback); \
			else \
				err = bpf_task_work_schedule_resume_impl(task, work, map, \
									 callback, 0); \
			bpf_task_release(task); \
		} \
		err; \
	})

#endif
