// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Rules 14 to 19, 25 and 26: what becomes of the workqueue in an element.
#include "rules.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct elem);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct elem);
} no_prealloc SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	/* So that the next element evicts it, although it was looked up a moment ago. */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct elem);
} lru SEC(".maps");

struct locked {
	__u64 data;
	struct bpf_spin_lock lock;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct locked);
} locked_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct locked);
} locked_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct elem);
} mmapable SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} mmapable_plain SEC(".maps");

/*
 * Starts the workqueue, and keeps its CPU until the gate opens: so long the work is
 * pending.
 */
static __always_inline void hold_pending(struct bpf_wq *work, void *map, int *err)
{
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);
	int started;

	if (!s)
		return;
	err[0] = bpf_wq_init(work, map, 0);
	err[1] = bpf_wq_set_callback(work, on_work_count, 0);
	bpf_preempt_disable();
	started = bpf_wq_start(work, 0);
	__sync_fetch_and_add(&s->others, 1);
	wait_at_gate();
	bpf_preempt_enable();
	err[2] = started;
}

#define HOLD(name, map, type) \
	SEC("syscall") \
	int hold_##name(int *err) \
	{ \
		__u32 key = 0; \
		type *elem = bpf_map_lookup_elem(&map, &key); \
\
		if (elem) \
			hold_pending(&elem->work, &map, err); \
		return 0; \
	}

HOLD(array, array, struct elem)
HOLD(hash, hash, struct elem)
HOLD(no_prealloc, no_prealloc, struct elem)
HOLD(lru, lru, struct elem)
HOLD(locked_array, locked_array, struct locked)
HOLD(locked_hash, locked_hash, struct locked)

/* What the element's workqueue is now: start and init tell. */
#define STATE(name, type) \
	SEC("syscall") \
	int state_##name(int *err) \
	{ \
		__u32 key = 0; \
		type *elem = bpf_map_lookup_elem(&name, &key); \
\
		if (!elem) \
			return 0; \
		err[0] = bpf_wq_start(&elem->work, 0); \
		err[1] = bpf_wq_init(&elem->work, &name, 0); \
		return 0; \
	}

STATE(array, struct elem)
STATE(hash, struct elem)
STATE(no_prealloc, struct elem)
STATE(locked_array, struct locked)
STATE(locked_hash, struct locked)

/* Rules 14 to 16: the program itself updates or deletes what is pending. */
#define START_AND(name, map, action) \
	SEC("syscall") \
	int start_and_##name(int *err) \
	{ \
		struct elem fresh __attribute__((unused)) = {}; \
		struct elem *elem = element(&map, 0); \
		int started, acted; \
		__u32 key = 0; \
\
		if (!elem) \
			return 0; \
		err[0] = bpf_wq_init(&elem->work, &map, 0); \
		err[1] = bpf_wq_set_callback(&elem->work, on_work_count, 0); \
		bpf_preempt_disable(); \
		started = bpf_wq_start(&elem->work, 0); \
		acted = action; \
		bpf_preempt_enable(); \
		err[2] = started; \
		err[3] = acted; \
		return 0; \
	}

START_AND(update_array, array, bpf_map_update_elem(&array, &key, &fresh, BPF_ANY))
START_AND(delete_array, array, bpf_map_delete_elem(&array, &key))
START_AND(update_hash, hash, bpf_map_update_elem(&hash, &key, &fresh, BPF_ANY))
START_AND(delete_hash, hash, bpf_map_delete_elem(&hash, &key))
START_AND(update_no_prealloc, no_prealloc, bpf_map_update_elem(&no_prealloc, &key, &fresh, BPF_ANY))
START_AND(delete_no_prealloc, no_prealloc, bpf_map_delete_elem(&no_prealloc, &key))
START_AND(delete_lru, lru, bpf_map_delete_elem(&lru, &key))

/* Rule 17: tries to start itself at the end. */
static int on_work_wait(void *map, int *key, void *value)
{
	struct elem *elem = value;
	struct seen *s = enter();

	if (!s)
		return 0;
	wait_at_gate();
	s->err[0] = bpf_wq_start(&elem->work, 0);
	leave(s);
	return 0;
}

static __always_inline int start_waiting(void *map, int *err)
{
	return init_set_start(map, 0, on_work_wait, err);
}

SEC("syscall")
int wait_in_array(int *err)
{
	return start_waiting(&array, err);
}

SEC("syscall")
int wait_in_hash(int *err)
{
	return start_waiting(&hash, err);
}

SEC("syscall")
int wait_in_no_prealloc(int *err)
{
	return start_waiting(&no_prealloc, err);
}

SEC("syscall")
int wait_in_lru(int *err)
{
	return start_waiting(&lru, err);
}

/* Rule 18. */
static int on_work_delete(void *map, int *key, void *value)
{
	struct elem *elem = value;
	struct seen *s = enter();

	if (!s)
		return 0;
	s->err[0] = bpf_map_delete_elem(&hash, key);
	s->err[1] = bpf_wq_start(&elem->work, 0);
	s->err[2] = bpf_wq_init(&elem->work, &hash, 0);
	leave(s);
	return 0;
}

SEC("syscall")
int deletes_itself(int *err)
{
	return init_set_start(&hash, 0, on_work_delete, err);
}

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct elem);
} one SEC(".maps");

/* Rule 19: `elem` is stale after the delete; the memory is next the new element's. */
SEC("syscall")
int init_stale(int *err)
{
	struct elem *elem = element(&one, 0), *again, fresh = {};
	__u32 key = 0;

	if (!elem)
		return 0;
	err[0] = bpf_map_delete_elem(&one, &key);
	err[1] = bpf_wq_init(&elem->work, &one, 0);
	err[2] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	err[3] = bpf_wq_start(&elem->work, 0);
	key = 1;
	err[4] = bpf_map_update_elem(&one, &key, &fresh, BPF_NOEXIST);
	again = element(&one, 1);
	if (!again)
		return 0;
	err[5] = again == elem ? 0 : -1;
	err[6] = bpf_wq_init(&again->work, &one, 0);
	return 0;
}

/* Rule 25. */
SEC("syscall")
int arm_both(int *err)
{
	struct elem *in_array = element(&array, 0), *in_hash = element(&hash, 0);

	if (!in_array || !in_hash)
		return 0;
	err[0] = bpf_wq_init(&in_array->work, &array, 0);
	err[1] = bpf_wq_init(&in_hash->work, &hash, 0);
	return 0;
}
