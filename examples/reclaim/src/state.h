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
	__u64 is_over;
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
	__u64 exit_ns; /* in which the program for exits ran, for all of these */
};

struct tracked tracked SEC(".data.tracked") = {};

static __always_inline void process_of(struct task_struct *task, struct process *process)
{
	process->pid = task->tgid;
	process->started_ns = task->group_leader->start_time;
}

/* Makes a place for a process. Another thread of it may be first. */
static __attribute__((noinline)) struct owner *admit(const struct process *process)
{
	struct owner owner = {.summary.process = *process};

	if (!bpf_map_update_elem(&owners, process, &owner, BPF_NOEXIST))
		bpf_wq_add(tracked.processes, 1);
	return bpf_map_lookup_elem(&owners, process);
}

/* Makes an entry for an address. Another thread of the process may be first. */
static __attribute__((noinline)) int count_first(struct owner *owner, const struct entry_key *key)
{
	struct entry entry = {.count = 1}, *found;
	int err;

	err = bpf_map_update_elem(&entries, key, &entry, BPF_NOEXIST);
	found = bpf_map_lookup_elem(&entries, key);
	if (!found) {
		bpf_wq_add(owner->summary.untracked, 1);
		return 0;
	}
	if (err) {
		bpf_wq_add(found->count, 1);
		return 0;
	}
	bpf_spin_lock(&owner->lock);
	found->older = owner->newest;
	owner->newest = key->address;
	owner->entries++;
	bpf_spin_unlock(&owner->lock);
	bpf_wq_add(tracked.entries, 1);
	return 0;
}

#endif
