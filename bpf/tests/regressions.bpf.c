// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Bugs of bpf_wq that were fixed.
#include "rules.h"

#include <bpf/bpf_tracing.h>

#define HASH(name, flags) \
	struct { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 8); \
		__uint(map_flags, flags); \
		__type(key, __u32); \
		__type(value, struct elem); \
	} name SEC(".maps")

HASH(hash, 0);
HASH(no_prealloc, BPF_F_NO_PREALLOC);

/* --- 81502d7f20bf: a callback that is set, and never started. --- */

static __always_inline int set(void *map, int *err)
{
	struct elem *elem = element(map, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, map, 0);
	err[1] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	return 0;
}

SEC("syscall")
int set_hash(int *err)
{
	return set(&hash, err);
}

SEC("syscall")
int set_array(int *err)
{
	return set(&array, err);
}

/* --- 1bfbc267ec91: start against delete. --- */

enum call {
	/* Of who makes the elements and deletes them. */
	UPDATE,
	INIT,
	SET_CALLBACK,
	START,
	DELETE,
	/* Of who comes in between. */
	OTHER_SET_CALLBACK,
	OTHER_START,
	CALLS,
};

#define ERRNOS 256

/* How often a call returned which errno. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CALLS *ERRNOS);
	__type(key, __u32);
	__type(value, __u64);
} codes SEC(".maps");

static __always_inline int count(enum call call, int err)
{
	__u32 key = call * ERRNOS + (-err & (ERRNOS - 1));
	__u64 *n = bpf_map_lookup_elem(&codes, &key);

	if (n)
		__sync_fetch_and_add(n, 1);
	return err;
}

#define ROUNDS 1000

#define RACE(map) \
	static long round_##map(__u64 i, void *ctx) \
	{ \
		struct elem fresh = {}, *elem; \
		__u32 key = 0; \
\
		count(UPDATE, bpf_map_update_elem(&map, &key, &fresh, BPF_NOEXIST)); \
		elem = bpf_map_lookup_elem(&map, &key); \
		if (!elem) \
			return 1; \
		count(INIT, bpf_wq_init(&elem->work, &map, 0)); \
		count(SET_CALLBACK, bpf_wq_set_callback(&elem->work, on_work_count, 0)); \
		count(START, bpf_wq_start(&elem->work, 0)); \
		count(DELETE, bpf_map_delete_elem(&map, &key)); \
		return 0; \
	} \
\
	SEC("syscall") \
	int rounds_##map(int *err) \
	{ \
		err[0] = bpf_loop(ROUNDS, round_##map, 0, 0) - ROUNDS; \
		return 0; \
	} \
\
	/* Stays with an element as long as it is there, and a bit longer. */ \
	static long disturb_##map(__u64 i, void *ctx) \
	{ \
		struct elem *elem = element(&map, 0); \
\
		if (!elem) \
			return 0; \
		count(OTHER_START, bpf_wq_start(&elem->work, 0)); \
		count(OTHER_SET_CALLBACK, bpf_wq_set_callback(&elem->work, on_work_count, 0)); \
		count(OTHER_START, bpf_wq_start(&elem->work, 0)); \
		return 0; \
	} \
\
	SEC("syscall") \
	int disturbs_##map(int *err) \
	{ \
		err[0] = bpf_loop(ROUNDS, disturb_##map, 0, 0) - ROUNDS; \
		return 0; \
	}

RACE(hash)
RACE(no_prealloc)

/* --- 6d78b4473cdb: init where the scheduler holds its lock. --- */

#define MANY 20000

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MANY);
	__type(key, __u32);
	__type(value, struct elem);
} many SEC(".maps");

struct task_struct {
	int tgid;
} __attribute__((preserve_access_index));

/* Whose switches count; 0: nobody's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} who SEC(".maps");

struct turn {
	struct seen *seen;
};

static long init_next(__u64 i, struct turn *turn)
{
	struct seen *s = turn->seen;
	struct elem *elem;

	if (!s)
		return 1;
	elem = element(&many, __sync_fetch_and_add(&s->data, 1));
	if (!elem)
		return 1;
	count(INIT, bpf_wq_init(&elem->work, &many, 0));
	return 0;
}

/* The scheduler holds the lock of this CPU's queue. */
SEC("tp_btf/sched_switch")
int BPF_PROG(in_sched_switch, int preempt, struct task_struct *prev, struct task_struct *next)
{
	struct turn turn = {};
	__u32 zero = 0;
	__u64 *tgid;

	tgid = bpf_map_lookup_elem(&who, &zero);
	turn.seen = bpf_map_lookup_elem(&seen, &zero);
	if (!tgid || prev->tgid != *tgid)
		return 0;
	bpf_loop(32, init_next, &turn, 0);
	return 0;
}
