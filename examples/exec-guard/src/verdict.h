/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is known, and what user space is told. */
#ifndef VERDICT_H
#define VERDICT_H

#include "policy.h"

#define PATH_LENGTH 192

/* Why a verdict is as it is. */
enum {
	BY_RULE,
	BY_DEFAULT, /* it is not known yet */
	BY_ANSWER,
	BY_ANSWER_BAD,	/* ... which is that it is bad */
	BY_UNREACHABLE, /* nobody has answered */
};

/* Of expires_ns: long ago, and a sweep is about to remove it. */
#define IS_SWEPT 1

struct verdict {
	__u64 expires_ns; /* of CLOCK_BOOTTIME; 0: it is asked for */
	__u32 action;
	__u32 why;
	__u64 asked_by; /* the process that did so last, by its number and when it began */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct subject);
	__type(value, struct verdict);
} verdicts SEC(".maps");

/* As the agent writes them. Who asks next finds also what came too late for whom it was for. */
struct answer {
	__u64 expires_ns; /* as of the verdict that it becomes, however late that is */
	__u32 action;
	__u32 why;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct subject);
	__type(value, struct answer);
} answers SEC(".maps");

/* What IMA has measured, of files that are asked for. */
struct digest {
	__u32 algorithm; /* as the kernel numbers them */
	__u8 bytes[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct subject);
	__type(value, struct digest);
} digests SEC(".maps");

/* The agent's threads, and what each has opened: so it knows files by what they are here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct subject);
} openers SEC(".maps");

enum {
	TO_ANSWER,
	TO_REVOKE,
};

/* A job, and what the agent gets of it. */
struct question {
	struct subject subject;
	__u32 what;
	__u32 process;
	__u64 started_ns; /* so that no other one of this number is meant */
	__u32 asks;	  /* else it waits for the answer that another one has asked for */
	__u32 let_in;	  /* the process */
	__u64 put;	  /* how often */
	__u64 again_ns;
	__u64 began_ns; /* when it was looked at first */
	char path[PATH_LENGTH];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} to_agent SEC(".maps");

/* What people are told. It may be lost. */
struct event {
	struct subject subject;
	__u32 action;
	__u32 why;
	__u32 process; /* 0: a verdict that was learned */
	char command[16];
	char path[PATH_LENGTH];
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 131072);
} events SEC(".maps");

struct counts {
	__u64 allowed; /* at once, as known; the next two also by default */
	__u64 denied;
	__u64 logged;
	__u64 unknown;	   /* decided by default */
	__u64 queue_full;  /* of these, not asked for as too many questions are open */
	__u64 no_place;	   /* ... or too many verdicts are known */
	__u64 put;	   /* questions that the agent was handed */
	__u64 agent_full;  /* ... was not handed, for now */
	__u64 learned;	   /* answers */
	__u64 unreachable; /* questions that were given up */
	__u64 forgotten;   /* ... or that were open when user space drained */
	__u64 revoked;	   /* processes that the agent was told to stop, or that stopped at once */
	__u64 expired;
	__u64 created;
	__u64 removed;
	__u64 events_lost;
};

struct counts counts SEC(".data.counts") = {};

static __always_inline void count_decision(__u32 action)
{
	switch (action) {
	case DENY:
		bpf_wq_add(counts.denied, 1);
		break;
	case LOG:
		bpf_wq_add(counts.logged, 1);
		break;
	default:
		bpf_wq_add(counts.allowed, 1);
	}
}

/* Of a decision for a process, or of a verdict that was learned, for none. */
static __noinline void tell(const struct question *question, __u32 action, __u32 why, __u32 process)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		bpf_wq_add(counts.events_lost, 1);
		return;
	}
	event->subject = question->subject;
	event->action = action;
	event->why = why;
	event->process = process;
	event->unused = 0;
	bpf_get_current_comm(event->command, sizeof(event->command));
	__builtin_memcpy(event->path, question->path, sizeof(event->path));
	bpf_ringbuf_submit(event, 0);
}

/* Is 0 if it was known, or asked for. */
static __always_inline int forget(const struct subject *subject)
{
	int err = bpf_map_delete_elem(&verdicts, subject);

	if (!err)
		bpf_wq_add(counts.removed, 1);
	return err;
}

#endif
