// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The executor under load: programs of several types submit and cancel on all CPUs at once, and
// each job leaves its mark.
#include <linux/bpf.h>

#include <bpf_wq/executor.bpf.h>

#include <bpf/bpf_tracing.h>

/* As tests/suite/executor_load.rs has it. */
enum { SYSCALL, XDP, TC, TRACING, SOURCES };

#define MOST_JOBS (1 << 20)

/* A job's number: those of a source come one after the other. */
#define JOBS_OF_A_SOURCE (MOST_JOBS / SOURCES)

/* What a job is follows from its number. Some are all of it: no number divides two of these. */
static __always_inline int is_ordered(__u64 number)
{
	return number % 8 == 3;
}

static __always_inline int is_delayed(__u64 number)
{
	return number % 13 == 9;
}

static __always_inline int is_retried(__u64 number)
{
	return number % 127 == 5;
}

#define DELAY_NS 100000

struct job {
	__u64 number;
	__u64 before; /* jobs of its key that were submitted earlier, without a delay */
};

/* How often each was done. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_JOBS);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");

/* Added to it for a job that was cancelled. */
#define CANCELLED (1ULL << 32)

/* A source's jobs that are to be cancelled, by another source: so many at a time. */
#define DOOMED 16

struct doomed {
	__u64 id; /* 0: there is none */
	__u64 number;
	__u64 when_ns;
};

/* Each is written by one thread, but `doomed`, and has lines of its own. */
struct source {
	__u64 accepted;
	__u64 full;
	__s64 error; /* any other */
	__u64 cancelled;
	__u64 running; /* too late to be cancelled */
	__u64 gone;    /* the same */
	__s64 cancel_error;
	__u64 looks; /* at jobs to cancel */
	struct doomed doomed[DOOMED];
};

struct source sources[SOURCES] = {};

/* A source has keys of its own. All jobs without a delay count. */
#define KEYS 4

struct key {
	__u64 submitted;
	__u64 done;
	__u64 others[6];
};

struct key keys[SOURCES * KEYS] = {};

/* Jobs that ran before their turn, or after it. */
__u64 out_of_order = 0;

__u64 retried = 0;

/* How many each source is to submit. */
const volatile __u64 wanted = 0;

/* The thread whose system calls submit, by its id. */
int tracing_tid = 0;

static __always_inline struct key *key_of(__u64 number)
{
	return &keys[number / JOBS_OF_A_SOURCE % SOURCES * KEYS + number / 8 % KEYS];
}

/*
 * One without a delay runs after all that were submitted earlier, and before all later ones. One
 * with a delay takes its place when its timer fires: all that is promised is that those that were
 * submitted earlier are done.
 */
static __always_inline void check_order(const struct job *job)
{
	__u64 done = bpf_wq_read(key_of(job->number)->done);

	if (is_delayed(job->number) ? done < job->before : done != job->before)
		__sync_fetch_and_add(&out_of_order, 1);
}

static int work(struct job *job, struct bpf_wq_run *run)
{
	__u32 number = job->number;
	__u64 *seen = bpf_map_lookup_elem(&runs, &number);

	if (is_ordered(number))
		check_order(job);
	if (is_retried(number) && run->attempt == 0) {
		__sync_fetch_and_add(&retried, 1);
		run->retry_ns = 50000;
		return -EAGAIN;
	}
	if (seen)
		__sync_fetch_and_add(seen, 1);
	if (is_ordered(number) && !is_delayed(number))
		__sync_fetch_and_add(&key_of(number)->done, 1);
	return 0;
}

BPF_WQ_EXECUTOR(load, struct job, 1024, 4, work);

/* Cancels a job of a source on another CPU, at about the time when its timer fires. */
static __always_inline void cancel(struct source *source, struct source *other)
{
	struct doomed *doomed = &other->doomed[source->looks++ % DOOMED];
	__u64 id = bpf_wq_read(doomed->id), *seen;
	__u32 number = doomed->number;
	int err;

	if (!id || bpf_ktime_get_ns() < doomed->when_ns)
		return;
	err = load_cancel(id);
	seen = bpf_map_lookup_elem(&runs, &number);
	if (!err && seen) {
		__sync_fetch_and_add(seen, CANCELLED);
		source->cancelled++;
	} else if (err == -EBUSY) {
		source->running++;
	} else if (err == -ENOENT) {
		source->gone++;
	} else {
		source->cancel_error = err;
	}
	bpf_wq_ordered(__sync_lock_test_and_set(&doomed->id, 0));
}

/* Submits the source's next job; 0 if it can go on. */
static __always_inline long submit(__u32 which)
{
	struct source *source = &sources[which];
	__u64 next = source->accepted, number = which * JOBS_OF_A_SOURCE + next, id;
	struct doomed *doomed = &source->doomed[next / 13 % DOOMED];
	struct job job = {.number = number};
	struct bpf_wq_options options = {};
	struct key *key = key_of(number);
	int err;

	cancel(source, &sources[which ^ 1]);
	if (next >= wanted)
		return 1;
	if (is_ordered(number)) {
		options.is_ordered = 1;
		/* The hash drops the upper bits, so that keys of all sources share lanes. */
		options.key = (__u64)which << 42 | number / 8 % KEYS;
		job.before = key->submitted;
	}
	if (is_delayed(number))
		options.delay_ns = DELAY_NS;
	err = load_submit_with(&job, &options, &id);
	if (err == -ENOSPC) {
		source->full++;
		return 1;
	}
	if (err) {
		source->error = err;
		return 1;
	}
	source->accepted = next + 1;
	if (is_ordered(number) && !is_delayed(number))
		key->submitted++;
	if (is_delayed(number) && !bpf_wq_read(doomed->id)) {
		doomed->number = number;
		doomed->when_ns = bpf_ktime_get_ns() + number % 16 * (DELAY_NS / 8);
		bpf_wq_ordered(__sync_lock_test_and_set(&doomed->id, id));
	}
	return 0;
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
	__u64 not_cancelled;
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
	if (is_accepted && *seen > 1 && *seen < CANCELLED)
		wrong->repeated++;
	if (!is_accepted && *seen)
		wrong->invented++;
	if (*seen > CANCELLED)
		wrong->not_cancelled++;
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
