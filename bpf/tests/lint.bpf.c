// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What lint looks for and no other test's object has. Only the first maps are ever loaded, in a
 * machine of their own.
 */
#include <linux/bpf.h>
#include <bpf_wq/wq.bpf.h>

struct elem {
	int value;
	struct bpf_wq work;
};

/* Its value has a size and no type. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(int));
	__uint(value_size, sizeof(struct elem));
} untyped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct elem);
} elems SEC(".maps");

/* Its key has a size and no type. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(int));
	__type(value, struct elem);
} untyped_key SEC(".maps");

enum place {
	PLACE,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, enum place);
	__type(value, struct elem);
} enum_key SEC(".maps");

struct pair {
	struct bpf_wq one;
	struct bpf_wq other;
};

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct pair);
} pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(int));
	__array(values, struct inner);
} outer SEC(".maps");

#define INIT(map) \
	SEC("syscall") \
	int inits_##map(void *ctx) \
	{ \
		struct elem *elem; \
		int key = 0; \
\
		elem = bpf_map_lookup_elem(&map, &key); \
		return elem ? bpf_wq_init(&elem->work, &map, 0) : 0; \
	}

INIT(untyped)
INIT(untyped_key)
INIT(enum_key)
/* First, so that clang defines the struct in BTF. */
INIT(pairs)

SEC("syscall")
int inits_inner(void *ctx)
{
	struct pair *pair;
	int key = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer, &key);
	if (!inner)
		return 0;
	pair = bpf_map_lookup_elem(inner, &key);
	return pair ? bpf_wq_init(&pair->one, inner, 0) : 0;
}

/* No harm, as long as no program gives it to bpf_wq_init. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct elem);
} scratch SEC(".maps");

static __noinline int init(void *map, struct elem *elem)
{
	return bpf_wq_init(&elem->work, map, 0);
}

SEC("syscall")
int inits_what_it_is_given(void *ctx)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	return elem ? init(&elems, elem) + init(&untyped_key, elem) : 0;
}

SEC("syscall")
int inits_what_it_keeps(void *ctx)
{
	void *volatile kept = &elems;
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	return elem ? bpf_wq_init(&elem->work, kept, 0) : 0;
}

extern void a_function_of_a_module(void) __ksym __weak;
extern void bpf_ksock_create(void) __ksym __weak;

static int calling_a_module(void *map, int *key, void *value)
{
	a_function_of_a_module();
	return 0;
}

static int plain(void *map, int *key, void *value)
{
	return 0;
}

static __noinline int copying(void)
{
	int number;

	bpf_copy_from_user(&number, sizeof(number), 0);
	return 0;
}

static int sleeping_below(void *map, int *key, void *value)
{
	copying();
	return 0;
}

/* The first is refused to programs that do not sleep, if the kernel comes to it. */
static int sleeping_twice(void *map, int *key, void *value)
{
	if (bpf_ksym_exists(bpf_ksock_create))
		bpf_ksock_create();
	copying();
	return 0;
}

static __noinline int set(struct elem *elem, int (*callback)(void *map, int *key, void *value))
{
	return bpf_wq_set_callback(&elem->work, callback, 0);
}

#define SET(name, section, how) \
	SEC(section) \
	int name(void *ctx) \
	{ \
		struct elem *elem; \
		int key = 0; \
\
		elem = bpf_map_lookup_elem(&elems, &key); \
		if (elem) \
			how; \
		return 0; \
	}

SET(sets_plain, "tc", bpf_wq_set_callback(&elem->work, plain, 0))
SET(sets_calling_a_module, "tc", bpf_wq_set_callback(&elem->work, calling_a_module, 0))
SET(sets_sleeping_below, "fentry", bpf_wq_set_callback(&elem->work, sleeping_below, 0))
SET(sets_sleeping_below_s, "fentry.s", bpf_wq_set_callback(&elem->work, sleeping_below, 0))
SET(sets_sleeping_twice, "fentry", bpf_wq_set_callback(&elem->work, sleeping_twice, 0))
SET(sets_what_it_is_given, "tc", set(elem, ctx))

#define UPDATE(name, flags) \
	SEC("tc") \
	int name(void *ctx) \
	{ \
		struct elem fresh = {}; \
		int key = 0; \
\
		bpf_map_update_elem(&elems, &key, &fresh, flags); \
		return 0; \
	}

UPDATE(update_any, BPF_ANY)
UPDATE(update_exist, BPF_EXIST)
UPDATE(update_noexist, BPF_NOEXIST)
UPDATE(update_locked, BPF_F_LOCK)

#define MAP(name, type_name, entries) \
	struct { \
		__uint(type, type_name); \
		__uint(max_entries, entries); \
		__type(key, int); \
		__type(value, struct elem); \
	} name SEC(".maps")

MAP(armed_in_a_loop, BPF_MAP_TYPE_ARRAY, 8);
MAP(armed_for_each, BPF_MAP_TYPE_HASH, 8);
MAP(not_armed, BPF_MAP_TYPE_ARRAY, 1);
MAP(only_inited, BPF_MAP_TYPE_ARRAY, 1);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct elem);
} armed_elsewhere SEC(".maps");

static long arm_at(__u64 i, void *ctx)
{
	struct elem *elem;
	int key = i;

	elem = bpf_map_lookup_elem(&armed_in_a_loop, &key);
	if (elem && !bpf_wq_init(&elem->work, &armed_in_a_loop, 0))
		bpf_wq_set_callback(&elem->work, sleeping_below, 0);
	return 0;
}

static long arm_each(void *map, int *key, struct elem *elem, void *ctx)
{
	if (!bpf_wq_init(&elem->work, &armed_for_each, 0))
		bpf_wq_set_callback(&elem->work, sleeping_below, 0);
	return 0;
}

SEC("syscall")
int arms(void *ctx)
{
	bpf_loop(8, arm_at, 0, 0);
	bpf_for_each_map_elem(&armed_for_each, arm_each, 0, 0);
	return 0;
}

#define START(map, before) \
	SEC("fentry") \
	int starts_##map(void *ctx) \
	{ \
		struct elem *elem; \
		int key = 0; \
\
		elem = bpf_map_lookup_elem(&map, &key); \
		if (!elem) \
			return 0; \
		before; \
		return bpf_wq_start(&elem->work, 0); \
	}

START(armed_in_a_loop, )
START(armed_for_each, )
START(armed_elsewhere, )
START(not_armed, )
START(only_inited, bpf_wq_init(&elem->work, &only_inited, 0))

SEC("kprobe/do_unlinkat")
int probes_unlink(void *ctx)
{
	return 0;
}

SEC("fentry/there_is_no_such_function")
int attaches_to_nothing(void *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
