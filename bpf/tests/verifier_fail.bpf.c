// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs that the verifier refuses, each loaded alone. What it says is beside the
 * program's name in tests/suite/verifier.rs.
 */
#include <linux/bpf.h>
#include <bpf_wq/wq.bpf.h>

extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;
extern int bpf_copy_from_user_str(void *dst, __u32 dst__sz, const void *unsafe_ptr__ign,
				  __u64 flags) __ksym __weak;

/* The workqueue is at offset 8. */
struct elem {
	int value;
	struct bpf_wq work;
};

struct first {
	struct bpf_wq work;
	int value;
};

struct locked {
	int value;
	struct bpf_spin_lock lock;
	struct bpf_wq work;
};

struct timed {
	int value;
	struct bpf_timer timer;
	struct bpf_wq work;
};

#define MAP(name, map_type, value_type) \
	struct { \
		__uint(type, map_type); \
		__uint(max_entries, 1); \
		__type(key, int); \
		__type(value, value_type); \
	} name SEC(".maps")

MAP(elems, BPF_MAP_TYPE_HASH, struct elem);
MAP(others, BPF_MAP_TYPE_HASH, struct elem);
MAP(plain, BPF_MAP_TYPE_HASH, long);
MAP(firsts, BPF_MAP_TYPE_HASH, struct first);
MAP(array_of_firsts, BPF_MAP_TYPE_ARRAY, struct first);
MAP(lockeds, BPF_MAP_TYPE_HASH, struct locked);
MAP(timeds, BPF_MAP_TYPE_HASH, struct timed);

static struct elem *lookup(void)
{
	int key = 0;

	return bpf_map_lookup_elem(&elems, &key);
}

static int on_work(void *map, int *key, void *value)
{
	return 0;
}

/* --- What bpf_wq_init is given. --- */

SEC("tc")
int map_is_no_map(void *ctx)
{
	struct elem *elem = lookup();
	int key = 0;

	return elem ? bpf_wq_init(&elem->work, &key, 0) : 0;
}

SEC("tc")
int map_is_null(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? bpf_wq_init(&elem->work, 0, 0) : 0;
}

SEC("tc")
int map_is_another(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? bpf_wq_init(&elem->work, &others, 0) : 0;
}

/* Not even to be loaded on older kernels: the verifier has an oops, on 7.0.13 too. */
SEC("tc")
int map_without_a_wq(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? bpf_wq_init(&elem->work, &plain, 0) : 0;
}

SEC("tc")
int wq_on_the_stack(void *ctx)
{
	struct bpf_wq work = {};

	return bpf_wq_init(&work, &elems, 0);
}

SEC("tc")
int wq_on_the_stack_set_callback(void *ctx)
{
	struct bpf_wq work = {};

	return bpf_wq_set_callback(&work, on_work, 0);
}

SEC("tc")
int wq_is_the_context(void *ctx)
{
	return bpf_wq_init(ctx, &elems, 0);
}

SEC("tc")
int wrong_offset(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? bpf_wq_init((void *)&elem->work + 1, &elems, 0) : 0;
}

SEC("tc")
int wrong_offset_set_callback(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? bpf_wq_set_callback((void *)&elem->work + 1, on_work, 0) : 0;
}

SEC("tc")
int variable_offset(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? bpf_wq_init((void *)&elem->work + (bpf_get_prandom_u32() & 8), &elems, 0) : 0;
}

SEC("tc")
int unchecked_lookup(void *ctx)
{
	int key = 0;

	return bpf_wq_init(bpf_map_lookup_elem(&firsts, &key), &firsts, 0);
}

SEC("tc")
int unchecked_lookup_in_array(void *ctx)
{
	int key = 0;

	return bpf_wq_init(bpf_map_lookup_elem(&array_of_firsts, &key), &array_of_firsts, 0);
}

/* --- The callback. --- */

SEC("tc")
int callback_is_null(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? bpf_wq_set_callback(&elem->work, 0, 0) : 0;
}

#define SET_CALLBACK(name, callback) \
	SEC("tc") \
	int name(void *ctx) \
	{ \
		struct elem *elem = lookup(); \
\
		return elem ? bpf_wq_set_callback(&elem->work, callback, 0) : 0; \
	}

__noinline int global_callback(void *map, int *key, void *value)
{
	return 0;
}
SET_CALLBACK(callback_is_global, global_callback)

static int returning_one(void *map, int *key, void *value)
{
	return 1;
}
SET_CALLBACK(callback_returns_one, returning_one)

static int reading_too_much_of_the_key(void *map, int *key, void *value)
{
	return *(volatile long *)key & 0;
}
SET_CALLBACK(key_read_too_wide, reading_too_much_of_the_key)

static int writing_the_key(void *map, int *key, void *value)
{
	*key = 1;
	return 0;
}
SET_CALLBACK(key_written, writing_the_key)

/* --- What else may not be done with a bpf_wq. --- */

SEC("tc")
int load_from_the_wq(void *ctx)
{
	struct elem *elem = lookup();

	return elem ? *(volatile int *)&elem->work : 0;
}

SEC("tc")
int store_to_the_wq(void *ctx)
{
	struct elem *elem = lookup();

	if (elem)
		*(volatile int *)&elem->work = 1;
	return 0;
}

SEC("tc")
int under_a_spin_lock(void *ctx)
{
	struct locked *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&lockeds, &key);
	if (!elem)
		return 0;
	bpf_spin_lock(&elem->lock);
	bpf_wq_start(&elem->work, 0);
	bpf_spin_unlock(&elem->lock);
	return 0;
}

/* --- Sleeping where that is not allowed. --- */

static int copy_by_helper(void)
{
	int number;

	bpf_copy_from_user(&number, sizeof(number), 0);
	return 0;
}

static int copy_by_kfunc(void)
{
	char text[4];

	bpf_copy_from_user_str(text, sizeof(text), 0, 0);
	return 0;
}

static int timer_with_helper(void *map, int *key, void *value)
{
	return copy_by_helper();
}

static int timer_with_kfunc(void *map, int *key, void *value)
{
	return copy_by_kfunc();
}

static int helper_under_rcu(void *map, int *key, void *value)
{
	bpf_rcu_read_lock();
	copy_by_helper();
	bpf_rcu_read_unlock();
	return 0;
}

SEC("fentry/bpf_fentry_test1")
int callback_sleeps_under_rcu(void *ctx)
{
	struct elem *elem = lookup();

	if (elem)
		bpf_wq_set_callback(&elem->work, helper_under_rcu, 0);
	return 0;
}

static int helper_without_preemption(void *map, int *key, void *value)
{
	bpf_preempt_disable();
	copy_by_helper();
	bpf_preempt_enable();
	return 0;
}

SEC("fentry/bpf_fentry_test1")
int callback_sleeps_without_preemption(void *ctx)
{
	struct elem *elem = lookup();

	if (elem)
		bpf_wq_set_callback(&elem->work, helper_without_preemption, 0);
	return 0;
}

SEC("fentry/bpf_fentry_test1")
int main_sleeps_by_helper(void *ctx)
{
	return copy_by_helper();
}

SEC("fentry/bpf_fentry_test1")
int main_sleeps_by_kfunc(void *ctx)
{
	return copy_by_kfunc();
}

#define SET_TIMER(name, section, callback) \
	SEC(section) \
	int name(void *ctx) \
	{ \
		struct timed *elem; \
		int key = 0; \
\
		elem = bpf_map_lookup_elem(&timeds, &key); \
		if (elem) \
			bpf_timer_set_callback(&elem->timer, callback); \
		return 0; \
	}

SET_TIMER(timer_sleeps_by_helper, "fentry/bpf_fentry_test1", timer_with_helper)
SET_TIMER(timer_sleeps_by_kfunc, "fentry/bpf_fentry_test1", timer_with_kfunc)
SET_TIMER(timer_of_sleepable_sleeps_by_helper, "lsm.s/file_open", timer_with_helper)
SET_TIMER(timer_of_sleepable_sleeps_by_kfunc, "lsm.s/file_open", timer_with_kfunc)

/* --- Stack: 512 bytes for a program with all that it calls. --- */

static __noinline int deep(void)
{
	volatile char room[480] = {};

	return room[0];
}

SEC("tc")
int stack_of_caller_and_callee(void *ctx)
{
	volatile char room[480] = {};

	return deep() + room[0];
}

char _license[] SEC("license") = "GPL";
