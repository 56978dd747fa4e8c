// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is tortured: an executor, to which a program of each type submits, and workqueues in the
 * elements of three hashes, which user space adds, updates, deletes and evicts. Each submission and
 * each run leaves a mark, in maps that outlive the loader.
 */
#include <linux/bpf.h>

#include <bpf_wq/arm.bpf.h>
#include <bpf_wq/executor.bpf.h>

#define ENOMEM 12

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

/* What a job does follows from this and from its number. */
const volatile __u64 seed;

/* Memory of another process, for which whoever reads it has to wait a little. */
const volatile __s32 holder;
const volatile __u64 address;

/* Whether an element's handler submits its element again. */
const volatile __u32 rearms;

/* As src/ledger.rs has them. */
#define NUMBERS (1 << 15)

#define TRIED 1ULL
#define ACCEPTED (1ULL << 16)
#define DONE (1ULL << 32)
#define CANCELLED (1ULL << 48)

#define ARRAY(name, entries, value_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, entries); \
		__type(key, __u32); \
		__type(value, value_type); \
	} name SEC(".maps")

/* What became of each job, by its number, and the id that it was accepted under. */
ARRAY(marks, NUMBERS, __u64);
ARRAY(ids, NUMBERS, __u64);

enum { ELEMS, LOOSE, RECENT, HASHES };

/* What who submits was told, and what handlers did. */
struct told {
	__u64 accepted;
	__u64 refused;
	__u64 runs;
	__u64 failed;
};

struct totals {
	__u64 next;  /* the number of the next job */
	__s64 wrong; /* an error that no submission and no cancelling may give, if there was one */
	__s64 gone;  /* one that a submission gives whose timers and workqueues are gone */
	__u64 cancelled;
	__u64 slept;
	struct told jobs;
	struct told hashes[HASHES];
};

ARRAY(totals, 1, struct totals);

static __always_inline struct totals *the_totals(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&totals, &zero);
}

/* splitmix64 */
static __always_inline __u64 mix(__u64 number)
{
	__u64 z = seed + number * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static __attribute__((noinline)) int sleep_on_the_page(struct totals *totals)
{
	struct task_struct *task = bpf_task_from_pid(holder);
	__u64 content;
	int err;

	if (!task || !totals)
		return -ENOENT;
	err = bpf_copy_from_user_task(&content, sizeof(content), (void *)address, task, 0);
	bpf_task_release(task);
	bpf_wq_add(totals->slept, 1);
	return err;
}

struct job {
	__u64 number;
};

static int work(struct job *job, struct bpf_wq_run *run)
{
	struct totals *totals = the_totals();
	__u64 what = mix(job->number);
	__u32 number = job->number;
	__u64 *mark = bpf_map_lookup_elem(&marks, &number);
	int result = 0;

	if (!mark || !totals)
		return -EINVAL;
	switch (what % 16) {
	case 0:
		result = -EINVAL;
		break;
	case 1:
	case 2:
		if (run->attempt < 2) {
			run->retry_ns = 200000;
			return -EAGAIN;
		}
		break;
	case 3:
		sleep_on_the_page(totals);
		break;
	}
	bpf_wq_add(*mark, DONE);
	bpf_wq_add(totals->jobs.runs, 1);
	if (result)
		bpf_wq_add(totals->jobs.failed, 1);
	return result;
}

BPF_WQ_EXECUTOR(jobs, struct job, 64, 4, work);

/* Who has submitted jobs that were accepted: a type of program, by its name. */
struct origin {
	__u64 accepted;
	char type[24];
};

ARRAY(origins, 64, struct origin);

/* 1 if it was accepted. */
static __attribute__((noinline)) int submit_one(void)
{
	struct bpf_wq_options options = {};
	struct totals *totals = the_totals();
	__u64 *mark, *place, id = 0, what;
	struct job job = {};
	__u32 number;
	int err;

	if (!totals)
		return 0;
	job.number = bpf_wq_add(totals->next, 1);
	number = job.number;
	mark = bpf_map_lookup_elem(&marks, &number);
	place = bpf_map_lookup_elem(&ids, &number);
	/* All numbers are used up. */
	if (!mark || !place)
		return 0;
	what = mix(job.number) >> 8;
	/* Up to 17 ms, some up to a second. */
	if (what % 4 == 0)
		options.delay_ns = (what >> 8) & (what % 64 ? 0xffffff : 0x3fffffff);
	if (what % 8 == 5) {
		options.is_ordered = 1;
		options.key = (what >> 8) % 4;
	}
	bpf_wq_add(*mark, TRIED);
	err = jobs_submit_with(&job, &options, &id);
	if (!err) {
		bpf_wq_add(*mark, ACCEPTED);
		bpf_wq_add(totals->jobs.accepted, 1);
		bpf_wq_write(*place, id);
		return 1;
	}
	bpf_wq_add(totals->jobs.refused, 1);
	if (err == -EINVAL || err == -ENOENT)
		bpf_wq_write(totals->gone, err);
	else if (err != -ENOSPC && err != -ESHUTDOWN && err != -ENOMEM && err != -EOPNOTSUPP)
		bpf_wq_write(totals->wrong, err);
	return 0;
}

static __always_inline void submit_as(__u32 number, struct origin who)
{
	struct origin *origin;

	if (!submit_one())
		return;
	origin = bpf_map_lookup_elem(&origins, &number);
	if (!origin)
		return;
	__builtin_memcpy(origin->type, who.type, sizeof(who.type));
	bpf_wq_add(origin->accepted, 1);
}

#define USE(name) submit_as(__COUNTER__, (struct origin){.type = #name})

#include "program_types.h"

struct sock;

/* A program of another form: what TCP calls for the connections that choose this. */
struct tcp_congestion_ops {
	void (*init)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*ssthresh)(struct sock *sk);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
};

SEC("struct_ops")
int type_struct_ops(void *ctx)
{
	USE(struct_ops);
	return 0;
}

SEC("struct_ops")
int type_struct_ops_acked(void *ctx)
{
	USE(struct_ops);
	return 0;
}

SEC("struct_ops")
int type_struct_ops_ssthresh(void *ctx)
{
	return 2;
}

SEC("struct_ops")
int type_struct_ops_undo_cwnd(void *ctx)
{
	return 2;
}

/* Each loader gives it a name of its own. */
SEC(".struct_ops.link")
struct tcp_congestion_ops congestion = {
	.init = (void *)type_struct_ops,
	.cong_avoid = (void *)type_struct_ops_acked,
	.ssthresh = (void *)type_struct_ops_ssthresh,
	.undo_cwnd = (void *)type_struct_ops_undo_cwnd,
	.name = "torture",
};

struct request {
	__u32 key; /* of the first element */
	__u32 times;
};

static long submit_next(__u64 i, void *nothing)
{
	USE(submit_jobs);
	return 0;
}

SEC("syscall")
int submit_jobs(struct request *request)
{
	bpf_loop(request->times, submit_next, (void *)0, 0);
	return 0;
}

/* From the newest on. */
static long cancel_next(__u64 i, void *nothing)
{
	struct totals *totals = the_totals();
	__u64 *mark, *place, id;
	__u32 number;
	int err;

	if (!totals)
		return 1;
	number = bpf_wq_read(totals->next) - 1 - i;
	mark = bpf_map_lookup_elem(&marks, &number);
	place = bpf_map_lookup_elem(&ids, &number);
	if (!mark || !place)
		return 0;
	id = bpf_wq_read(*place);
	if (!id)
		return 0;
	err = jobs_cancel(id);
	if (!err) {
		bpf_wq_add(*mark, CANCELLED);
		bpf_wq_add(totals->cancelled, 1);
	} else if (err != -EBUSY && err != -ENOENT) {
		bpf_wq_write(totals->wrong, err);
	}
	return 0;
}

SEC("syscall")
int cancel_jobs(struct request *request)
{
	bpf_loop(request->times, cancel_next, (void *)0, 0);
	return 0;
}

struct elem {
	__u64 runs;
	BPF_WQ_WORK(work);
};

static __always_inline void note(struct totals *totals, struct told *told, int err)
{
	if (!err) {
		bpf_wq_add(told->accepted, 1);
		return;
	}
	bpf_wq_add(told->refused, 1);
	/* Not armed, or deleted. */
	if (err != -EINVAL && err != -ENOENT && err != -ESHUTDOWN && err != -ENOMEM)
		bpf_wq_write(totals->wrong, err);
}

/* Whether the element is to be submitted again. */
static __always_inline int run_element(struct totals *totals, struct told *told, __u32 key,
				       struct elem *elem, int *again)
{
	__u64 what = mix(bpf_wq_add(elem->runs, 1) + ((__u64)key << 32));

	bpf_wq_add(told->runs, 1);
	if (what % 16 == 3)
		sleep_on_the_page(totals);
	*again = rearms && what % 4 == 1;
	if (what % 16 != 4)
		return 0;
	bpf_wq_add(told->failed, 1);
	return -EINVAL;
}

#define HASH(name, number, kind, flags, entries) \
	struct { \
		__uint(type, kind); \
		__uint(map_flags, flags); \
		__uint(max_entries, entries); \
		__type(key, __u32); \
		__type(value, struct elem); \
	} name SEC(".maps"); \
\
	static int name##_submit(struct elem *elem); \
\
	static int run_##name(__u32 *key, struct elem *elem) \
	{ \
		struct totals *totals = the_totals(); \
		int result, again = 0; \
\
		if (!totals) \
			return -EINVAL; \
		result = run_element(totals, &totals->hashes[number], *key, elem, &again); \
		if (again) \
			note(totals, &totals->hashes[number], name##_submit(elem)); \
		return result; \
	} \
\
	BPF_WQ_ARM(name, struct elem, work, run_##name); \
\
	static long submit_next_of_##name(__u64 i, __u32 *first) \
	{ \
		struct totals *totals = the_totals(); \
		__u32 key = *first + i % 4; \
		struct elem *elem = bpf_map_lookup_elem(&name, &key); \
\
		if (totals && elem) \
			note(totals, &totals->hashes[number], name##_submit(elem)); \
		return 0; \
	} \
\
	SEC("syscall") \
	int submit_##name(struct request *request) \
	{ \
		__u32 first = request->key; \
\
		bpf_loop(request->times, submit_next_of_##name, &first, 0); \
		return 0; \
	} \
	_Static_assert(1, "a semicolon follows")

HASH(elems, ELEMS, BPF_MAP_TYPE_HASH, 0, 16);
HASH(loose, LOOSE, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, 16);
HASH(recent, RECENT, BPF_MAP_TYPE_LRU_HASH, 0, 16);

char _license[] SEC("license") = "GPL";
