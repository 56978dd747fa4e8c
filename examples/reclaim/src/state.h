/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is known of each process: an entry for each address that it connected or sent to. */
#ifndef STATE_H
#define STATE_H

#include "kernel.h"

/* A pid alone would name another process later, while the first one's entries are still there. */
struct process {
	__u64 pid;
	__u64 started_ns;
};

/* As of IPv6; one of IPv4 is ::ffff:a.b.c.d. */
struct address {
	__u64 ip[2];
	__u64 port;
};

struct entry_key {
	struct process process;
	struct address address;
};

struct entry {
	__u64 count;
	struct address older; /* the entry of this process that was made before it */
};

#define TOP 4

struct counted {
	struct address address;
	__u64 count;
};

/* What user space is told of a process that has ended: as src/summary.rs reads it. */
struct summary {
	struct process process;
	char name[16];
	__u64 addresses; /* so many entries */
	__u64 connects;	 /* the sum of their counts */
	__u64 untracked; /* connects besides, to addresses for which there was no place */
	__u64 steps;	 /* in so many steps the entries were freed */
	struct counted top[TOP];
};

struct owner {
	struct bpf_spin_lock lock; /* for the newest entry, of threads that make one at a time */
	__u32 padding;
	__u64 unclaimed; /* the process's token until it has ended and somebody has claimed it */
	__u64 entries;
	struct address newest;
	struct summary summary;
};

/*
 * Each has a job of the executor when its process ends, and there are so many: its queue is never
 * full. A worker may still have a job whose owner is gone: it has more places by the workers.
 */
#define JOBS 1024
#define WORKERS 4
#define MOST_OWNERS (JOBS - WORKERS)

struct {
	__uint(type, BPF_MAP_TYPE_HASH); /* preallocated: there are never more */
	__uint(max_entries, MOST_OWNERS);
	__type(key, struct process);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* the memory of those that are freed is free */
	__uint(max_entries, 262144);
	__type(key, struct entry_key);
	__type(value, struct entry);
} entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} summaries SEC(".maps");

/* As src/tracker.rs reads it. */
struct tracked {
	__u64 processes; /* that have connected to something */
	__u64 missed;	 /* connects of processes for which there was no place */
	__u64 summaries; /* of processes that have ended, written for user space */
	__u64 lost;	 /* of exit_inline alone, which cannot wait for a place in the ring */
	__u64 entries;
	__u64 freed_by_owner;  /* of these: in the exit of their process */
	__u64 freed_by_worker; /* and those freed by anybody else */
	__u64 exits;
	__u64 exit_ns;	   /* in which the program for exits ran, for all of these */
	__u64 found_later; /* ends of processes that a look found */
};

struct tracked tracked SEC(".data.tracked") = {};

static __always_inline void process_of(struct task_struct *task, struct process *process)
{
	process->pid = task->tgid;
	process->started_ns = task->group_leader->start_time;
}

/* Names one process in a word. */
static __always_inline __u64 token_of(const struct process *process)
{
	return process->started_ns + process->pid * 0x9e3779b97f4a7c15ULL;
}

/*
 * Whoever comes first has what a process left. The owner may be another's meanwhile: its place is
 * used again at once.
 */
static __always_inline int claim(struct owner *owner, const struct process *process)
{
	__u64 token = token_of(process);

	return __sync_val_compare_and_swap(&owner->unclaimed, token, 0) == token;
}

#endif
