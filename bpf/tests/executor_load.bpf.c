// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The executor under load: programs of several types submit on all CPUs at once, and each job
// leaves its mark.
#include <linux/bpf.h>

#include <bpf_wq/executor.bpf.h>

#include <bpf/bpf_tracing.h>

/* As tests/suite/executor_load.rs has it. */
enum { SYSCALL, XDP, TC, TRACING, SOURCES };

#define MOST_JOBS (1 << 20)

/* A job's number: those of a source come one after the other. */
#define JOBS_OF_A_SOURCE (MOST_JOBS / SOURCES)

struct job {
	__u64 number;
};

/* How often each was done. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_JOBS);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");

/* How many jobs of each source were accepted, each on lines of its own. */
struct source {
	__u64 accepted;
	__u64 full;
	__s64 error; /* any other */
	__u64 others[13];
};

struct source sources[SOURCES] = {};

/* How many each source is to submit. */
const volatile __u64 wanted = 0;

/* The thread whose system calls submit, by its id. */
int tracing_tid = 0;

static int work(struct job *job, struct bpf_wq_run *run)
{
	__u32 number = job->number;
	__u64 *seen = bpf_map_lookup_elem(&runs, &number);

	/* Some run again, some are ordered, and some were delayed. */
	if (job->number % 128 == 5 && run->attempt == 0) {
		run->retry_ns = 50000;
		return -EAGAIN;
	}
	if (seen)
		__sync_fetch_and_add(seen, 1);
	return 0;
}

BPF_WQ_EXECUTOR(load, struct job, 1024, 4, work);

/* Submits the source's next job; 0 if it can go on. */
static __always_inline long submit(__u32 which)
{
	struct source *source = &sources[which];
	struct bpf_wq_options options = {};
	struct job job;
	__u64 next = source->accepted, id;
	int err;

	if (next >= wanted)
		return 1;
	job.number = which * JOBS_OF_A_SOURCE + next;
	if (next % 16 == 3) {
		options.is_ordered = 1;
		options.key = next % 64;
	}
	if (next % 64 == 9)
		options.delay_ns = 100000;
	err = load_submit_with(&job, &options, &id);
	if (!err) {
		source->accepted = next + 1;
		return 0;
	}
	if (err == -ENOSPC)
		source->full++;
	else
		source->error = err;
	return 1;
}

static long submit_from_syscall(__u64 i, void *ctx)
{
	return submit(SYSCALL);
}

SEC("syscall")
int from_syscall(void *ctx)
{
	bpf_loop(1024, submit_from_syscall, 0, 0);
	return 0;
}

SEC("xdp")
int from_xdp(struct xdp_md *ctx)
{
	submit(XDP);
	return XDP_PASS;
}

SEC("tc")
int from_tc(struct __sk_buff *ctx)
{
	submit(TC);
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(from_tracing)
{
	if ((__u32)bpf_get_current_pid_tgid() == (__u32)tracing_tid)
		submit(TRACING);
	return 0;
}

/* Jobs that were not done as often as they should have. */
struct wrong {
	__u64 lost;
	__u64 repeated;
	__u64 invented;
};

static long look(__u64 number, struct wrong *wrong)
{
	__u32 key = number, which = number / JOBS_OF_A_SOURCE;
	__u64 *seen = bpf_map_lookup_elem(&runs, &key);
	int is_accepted;

	if (!seen || which >= SOURCES)
		return 1;
	is_accepted = number % JOBS_OF_A_SOURCE < sources[which].accepted;
	if (is_accepted && *seen == 0)
		wrong->lost++;
	if (is_accepted && *seen > 1)
		wrong->repeated++;
	if (!is_accepted && *seen)
		wrong->invented++;
	return 0;
}

SEC("syscall")
int look_at_all(struct wrong *wrong)
{
	struct wrong found = {};

	bpf_loop(MOST_JOBS, look, &found, 0);
	*wrong = found;
	return 0;
}

char _license[] SEC("license") = "GPL";
