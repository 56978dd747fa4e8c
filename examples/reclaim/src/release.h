/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is done with a process that has ended: by then, nobody else touches what it left. */
#ifndef RELEASE_H
#define RELEASE_H

#include "state.h"

struct release {
	struct owner *owner;
	struct entry_key key;
	__u64 freed;
};

/* Keeps those with the highest counts, the highest first. */
static __always_inline void rank(struct summary *summary, const struct address *address,
				 __u64 count)
{
	struct counted next = {.address = *address, .count = count}, lower;
	int i;

	for (i = 0; i < TOP; i++) {
		if (next.count <= summary->top[i].count)
			continue;
		lower = summary->top[i];
		summary->top[i] = next;
		next = lower;
	}
}

static long release_one(__u64 i, struct release *release)
{
	struct owner *owner = release->owner;
	struct entry *entry;

	if (!owner->entries)
		return 1;
	release->key.address = owner->newest;
	entry = bpf_map_lookup_elem(&entries, &release->key);
	if (!entry) {
		/* Somebody has deleted it from outside, and with it the way to those before it. */
		owner->entries = 0;
		return 1;
	}
	owner->summary.addresses++;
	owner->summary.connects += entry->count;
	rank(&owner->summary, &release->key.address, entry->count);
	owner->newest = entry->older;
	owner->entries--;
	bpf_map_delete_elem(&entries, &release->key);
	release->freed++;
	return 0;
}

/* Adds up and frees entries of a process, at most so many. */
static __always_inline void release_some(const struct process *process, struct owner *owner,
					 __u32 most)
{
	struct release release = {.owner = owner, .key.process = *process};

	bpf_loop(most, release_one, &release, 0);
	owner->summary.steps++;
	if (bpf_get_current_pid_tgid() >> 32 == process->pid)
		bpf_wq_add(tracked.freed_by_owner, release.freed);
	else
		bpf_wq_add(tracked.freed_by_worker, release.freed);
}

/* Tells user space of a process, and forgets it. -EAGAIN: there is no place to tell it now. */
static __always_inline int report(const struct process *process, struct owner *owner)
{
	if (bpf_ringbuf_output(&summaries, &owner->summary, sizeof(owner->summary), 0))
		return -EAGAIN;
	/* Its place first: when all are told of, there is place for as many. */
	bpf_map_delete_elem(&owners, process);
	bpf_wq_add(tracked.summaries, 1);
	return 0;
}

static __always_inline int has_told_all(void)
{
	return bpf_wq_read(tracked.processes) ==
	       bpf_wq_read(tracked.summaries) + bpf_wq_read(tracked.lost);
}

/* Entries that are freed before other work of the same worker has its turn. */
#define STEP 256

/* When to look again whether somebody has read what the ring is full of. */
#define FULL_NS 50000000

/* What a worker does in one run with a process that is claimed. -EAGAIN: there is more to do. */
static int release_owner(const struct process *process, struct bpf_wq_run *run)
{
	struct owner *owner = bpf_map_lookup_elem(&owners, process);

	if (!owner)
		return -ENOENT;
	if (owner->entries) {
		release_some(process, owner, STEP);
		run->retry_ns = 0;
		return -EAGAIN;
	}
	run->retry_ns = FULL_NS;
	return report(process, owner);
}

BPF_WQ_EXECUTOR(releases, struct process, JOBS, WORKERS, release_owner);

#endif
