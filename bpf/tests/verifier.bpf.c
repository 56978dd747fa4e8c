// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs that the verifier accepts, each loaded alone; a callback that sleeps never runs. */
#include <linux/bpf.h>
#include <bpf_wq/wq.bpf.h>

#define CLOCK_MONOTONIC 1

struct task_struct {
	int pid;
	struct task_struct *real_parent;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;
extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;
extern int bpf_copy_from_user_str(void *dst, __u32 dst__sz, const void *unsafe_ptr__ign,
				  __u64 flags) __ksym __weak;

struct elem {
	int value;
	struct bpf_timer timer;
	struct bpf_wq work;
};

#define MAP(name, key_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, 2); \
		__type(key, key_type); \
		__type(value, struct elem); \
	} name SEC(".maps")

MAP(elems, int);
MAP(by_unsigned_key, __u32);
MAP(others, int);

static struct elem *lookup(int key)
{
	return bpf_map_lookup_elem(&elems, &key);
}

static __always_inline int arm(struct elem *elem, void *map,
			       int (*callback)(void *map, int *key, void *value))
{
	int err;

	err = bpf_wq_init(&elem->work, map, 0);
	if (err)
		return err;
	err = bpf_wq_set_callback(&elem->work, callback, 0);
	if (err)
		return err;
	return bpf_wq_start(&elem->work, 0);
}

#define ARM(name, section, callback) \
	SEC(section) \
	int name(void *ctx) \
	{ \
		struct elem *elem = lookup(0); \
\
		if (elem) \
			arm(elem, &elems, callback); \
		return 0; \
	}

static int on_work(void *map, int *key, void *value)
{
	return 0;
}
ARM(plain_callback, "tc", on_work)

/* --- Claim S4: the type of the key. --- */

static int with_unsigned_key(void *map, __u32 *key, void *value)
{
	struct elem *elem = value;

	elem->value = *key;
	return 0;
}

/* Only the compiler sees a difference: without the cast it refuses. */
_Static_assert(!__builtin_types_compatible_p(typeof(with_unsigned_key), typeof(on_work)),
	       "to the compiler, int * and __u32 * are the same");

static int with_key_as_characters(void *map, char *key, void *value)
{
	struct elem *elem = value;

	elem->value = *key;
	return 0;
}

#define ARM_BY_KEY(name, map, callback) \
	SEC("syscall") \
	int name(void *ctx) \
	{ \
		struct elem *elem; \
		int key = 1; \
\
		elem = bpf_map_lookup_elem(&map, &key); \
		return elem ? arm(elem, &map, (void *)callback) : -2; \
	}

ARM_BY_KEY(unsigned_callback_for_int_keys, elems, with_unsigned_key)
ARM_BY_KEY(characters_for_int_keys, elems, with_key_as_characters)

static int with_int_key(void *map, int *key, void *value)
{
	struct elem *elem = value;

	elem->value = *key;
	return 0;
}
ARM_BY_KEY(int_callback_for_unsigned_keys, by_unsigned_key, with_int_key)

/* --- Stack. --- */

static int with_deep_stack(void *map, int *key, void *value)
{
	volatile char room[480] = {};

	return room[0] & 0;
}

SEC("tc")
int separate_stacks(void *ctx)
{
	volatile char room[480] = {};
	struct elem *elem = lookup(room[0]);

	return elem ? arm(elem, &elems, with_deep_stack) : 0;
}

/* --- Workqueues and timers in callbacks. --- */

static int arming_its_own(void *map, int *key, void *value)
{
	return arm(value, map, on_work) & 0;
}
ARM(callback_arms_its_own, "tc", arming_its_own)

static int arming_another(void *map, int *key, void *value)
{
	int another = 0;
	struct elem *elem;

	elem = bpf_map_lookup_elem(&others, &another);
	return elem ? arm(elem, &others, on_work) & 0 : 0;
}
ARM(callback_arms_another, "tc", arming_another)

static int on_timer(void *map, int *key, void *value)
{
	return 0;
}

static int arming_a_timer(void *map, int *key, void *value)
{
	struct elem *elem = lookup(1);

	if (!elem)
		return 0;
	bpf_timer_init(&elem->timer, &elems, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&elem->timer, on_timer);
	bpf_timer_start(&elem->timer, 0, 0);
	return 0;
}
ARM(callback_arms_a_timer, "tc", arming_a_timer)

static int starting_a_wq(void *map, int *key, void *value)
{
	struct elem *elem = value;

	bpf_wq_start(&elem->work, 0);
	return 0;
}

SEC("tc")
int timer_starts_a_wq(void *ctx)
{
	struct elem *elem = lookup(0);

	if (elem)
		bpf_timer_set_callback(&elem->timer, starting_a_wq);
	return 0;
}

/* --- Callbacks that sleep. --- */

static int sleeping_by_helper(void *map, int *key, void *value)
{
	int number;

	bpf_copy_from_user(&number, sizeof(number), 0);
	return 0;
}
ARM(wq_of_fentry_sleeps_by_helper, "fentry/bpf_fentry_test1", sleeping_by_helper)
ARM(wq_of_lsm_s_sleeps_by_helper, "lsm.s/file_open", sleeping_by_helper)

static int sleeping_by_kfunc(void *map, int *key, void *value)
{
	char text[4];

	bpf_copy_from_user_str(text, sizeof(text), 0, 0);
	return 0;
}
ARM(wq_of_fentry_sleeps_by_kfunc, "fentry/bpf_fentry_test1", sleeping_by_kfunc)

static __noinline int static_that_sleeps(void *ctx)
{
	char text[4];

	return bpf_copy_from_user_str(text, sizeof(text), ctx, 0);
}

static int sleeping_in_a_static(void *map, int *key, void *value)
{
	static_that_sleeps(0);
	return 0;
}
ARM(wq_sleeps_in_a_static, "fentry/bpf_fentry_test1", sleeping_in_a_static)

__noinline int global_that_sleeps(void)
{
	int number;

	bpf_copy_from_user(&number, sizeof(number), 0);
	return 0;
}

static int sleeping_in_a_global(void *map, int *key, void *value)
{
	global_that_sleeps();
	return 0;
}
ARM(wq_sleeps_in_a_global, "fentry/bpf_fentry_test1", sleeping_in_a_global)

/* --- RCU pointers in what a callback calls: it runs under no ordinary RCU. --- */

static __always_inline int hold_the_parent(void)
{
	struct task_struct *parent = bpf_get_current_task_btf()->real_parent;

	parent = bpf_task_acquire(parent);
	if (parent)
		bpf_task_release(parent);
	return 0;
}

__noinline int global_with_rcu_pointer(void)
{
	return hold_the_parent();
}

__noinline int global_with_rcu_lock(void)
{
	bpf_rcu_read_lock();
	hold_the_parent();
	bpf_rcu_read_unlock();
	return 0;
}

__noinline int global_without_rcu_pointer(void)
{
	return bpf_get_prandom_u32() & 0;
}

#define CALLING(name, called) \
	static int calling_##name(void *map, int *key, void *value) \
	{ \
		called(); \
		return 0; \
	} \
	ARM(name, "fentry/bpf_fentry_test1", calling_##name)

CALLING(wq_global_uses_rcu_pointer, global_with_rcu_pointer)
CALLING(wq_global_locks_rcu, global_with_rcu_lock)
CALLING(wq_global_uses_no_rcu_pointer, global_without_rcu_pointer)

char _license[] SEC("license") = "GPL";
