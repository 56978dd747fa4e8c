// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Maps that may hold a bpf_wq, and maps that may not. A test creates one of them, and loads
 * the program that uses it.
 */
#include <linux/bpf.h>
#include <bpf_wq/wq.bpf.h>

/* Newer than the <linux/bpf.h> of Debian 12: 6.2 and 7.2. */
#define MAP_TYPE_CGRP_STORAGE 32
#define MAP_TYPE_RHASH 35

struct elem {
	int value;
	struct bpf_wq work;
};

#define MAP(name, map_type, entries, flags, value_type) \
	struct { \
		__uint(type, map_type); \
		__uint(max_entries, entries); \
		__uint(map_flags, flags); \
		__type(key, int); \
		__type(value, value_type); \
	} name SEC(".maps")

MAP(array, BPF_MAP_TYPE_ARRAY, 1, 0, struct elem);
MAP(hash, BPF_MAP_TYPE_HASH, 1, 0, struct elem);
MAP(hash_no_prealloc, BPF_MAP_TYPE_HASH, 1, BPF_F_NO_PREALLOC, struct elem);
MAP(lru_hash, BPF_MAP_TYPE_LRU_HASH, 16, 0, struct elem);
MAP(rhash, MAP_TYPE_RHASH, 1, BPF_F_NO_PREALLOC, struct elem);

MAP(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY, 1, 0, struct elem);
MAP(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, 1, 0, struct elem);
MAP(lru_percpu_hash, BPF_MAP_TYPE_LRU_PERCPU_HASH, 16, 0, struct elem);
MAP(task_storage, BPF_MAP_TYPE_TASK_STORAGE, 0, BPF_F_NO_PREALLOC, struct elem);
MAP(sk_storage, BPF_MAP_TYPE_SK_STORAGE, 0, BPF_F_NO_PREALLOC, struct elem);
MAP(inode_storage, BPF_MAP_TYPE_INODE_STORAGE, 0, BPF_F_NO_PREALLOC, struct elem);
MAP(cgrp_storage, MAP_TYPE_CGRP_STORAGE, 0, BPF_F_NO_PREALLOC, struct elem);

MAP(rdonly_prog, BPF_MAP_TYPE_ARRAY, 1, BPF_F_RDONLY_PROG, struct elem);
MAP(wronly_prog, BPF_MAP_TYPE_ARRAY, 1, BPF_F_WRONLY_PROG, struct elem);

struct array_of_one {
	int value;
	struct bpf_wq work[1];
};

struct nested {
	int value;
	struct {
		struct {
			struct {
				struct bpf_wq work;
			} three;
		} two;
	} one;
};

struct beside_a_timer {
	int value;
	struct bpf_timer timer;
	struct bpf_wq work;
};

MAP(array_of_one, BPF_MAP_TYPE_ARRAY, 1, 0, struct array_of_one);
MAP(nested, BPF_MAP_TYPE_ARRAY, 1, 0, struct nested);
MAP(beside_a_timer, BPF_MAP_TYPE_ARRAY, 1, 0, struct beside_a_timer);

struct two {
	int value;
	struct bpf_wq work;
	struct bpf_wq another;
};

struct array_of_two {
	int value;
	struct bpf_wq work[2];
};

struct misaligned {
	int value;
	struct bpf_wq work;
} __attribute__((packed));

struct in_a_union {
	int value;
	union {
		struct bpf_wq work;
		long number;
	} either;
};

MAP(two, BPF_MAP_TYPE_ARRAY, 1, 0, struct two);
MAP(array_of_two, BPF_MAP_TYPE_ARRAY, 1, 0, struct array_of_two);
MAP(misaligned, BPF_MAP_TYPE_ARRAY, 1, 0, struct misaligned);
MAP(in_a_union, BPF_MAP_TYPE_ARRAY, 1, 0, struct in_a_union);
MAP(value_is_wq, BPF_MAP_TYPE_ARRAY, 1, 0, struct bpf_wq);

static int on_work(void *map, int *key, void *value)
{
	*(int *)value = 42;
	return 0;
}

/* A program that creates the element and starts its workqueue: 0 or an errno. */
#define PROGRAM(name, section, map, value_type, member) \
	SEC(section) \
	int name(void *ctx) \
	{ \
		value_type fresh = {}, *elem; \
		int key = 0, err; \
\
		err = bpf_map_update_elem(&map, &key, &fresh, BPF_ANY); \
		if (err) \
			return err; \
		elem = bpf_map_lookup_elem(&map, &key); \
		if (!elem) \
			return -1; \
		err = bpf_wq_init(&elem->member, &map, 0); \
		if (err) \
			return err; \
		err = bpf_wq_set_callback(&elem->member, on_work, 0); \
		if (err) \
			return err; \
		return bpf_wq_start(&elem->member, 0); \
	}

#define USE(name, value_type, member) PROGRAM(use_##name, "syscall", name, value_type, member)

USE(array, struct elem, work)
USE(hash, struct elem, work)
USE(hash_no_prealloc, struct elem, work)
USE(lru_hash, struct elem, work)
USE(rhash, struct elem, work)
USE(array_of_one, struct array_of_one, work[0])
USE(nested, struct nested, one.two.three.work)
USE(beside_a_timer, struct beside_a_timer, work)

/* As the kernel's own selftests. */
PROGRAM(tc_array, "tc", array, struct elem, work)
PROGRAM(tc_hash, "tc", hash, struct elem, work)
PROGRAM(tc_hash_no_prealloc, "tc", hash_no_prealloc, struct elem, work)
PROGRAM(tc_lru_hash, "tc", lru_hash, struct elem, work)

/* Only loaded: they are refused. */
#define INIT(name, value_type, member) \
	SEC("syscall") \
	int init_in_##name(void *ctx) \
	{ \
		value_type *elem; \
		int key = 0; \
\
		elem = bpf_map_lookup_elem(&name, &key); \
		if (!elem) \
			return -1; \
		return bpf_wq_init((void *)&elem->member, &name, 0); \
	}

INIT(array, struct elem, work)
INIT(two, struct two, work)
INIT(array_of_two, struct array_of_two, work[0])
INIT(misaligned, struct misaligned, work)
INIT(in_a_union, struct in_a_union, either.work)
INIT(value_is_wq, struct bpf_wq, __opaque)

char _license[] SEC("license") = "GPL";
