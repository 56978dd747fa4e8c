// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program of each type submits jobs to an executor, each loaded alone. */
#include <linux/bpf.h>

#include <bpf_wq/executor.bpf.h>

/* As many runs of the program submit, each a job of its own; later ones do not. */
#define MOST 8

struct job {
	__u64 number;
};

/* How often the program has run, what it was told, and how often each job was done. */
__u64 runs = 0;
int told[MOST] = {};
__u64 done[MOST] = {};

static int work(struct job *job, struct bpf_wq_run *run)
{
	__sync_fetch_and_add(&done[job->number & (MOST - 1)], 1);
	return 0;
}

BPF_WQ_EXECUTOR(jobs, struct job, MOST, 2, work);

static __always_inline void use(void)
{
	struct job job = {.number = __sync_fetch_and_add(&runs, 1)};

	if (job.number < MOST)
		told[job.number & (MOST - 1)] = jobs_submit(&job);
}

#include "program_types.h"

char _license[] SEC("license") = "GPL";
