/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs of several topics share. A test calls a SEC("syscall") program
 * with an array of ints, into which the program writes what its calls returned. The
 * rest is in the maps below, which user space reads while callbacks run.
 *
 * Everything is armed by a SEC("syscall") program: the text of one that may not sleep
 * could be freed under a callback that still runs.
 */
#ifndef BPF_WQ_TESTS_RULES_H
#define BPF_WQ_TESTS_RULES_H

#include <linux/bpf.h>

#include <bpf_wq/wq.bpf.h>

/* Since 6.10: fc7566ad0a82. */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

struct elem {
	__u64 data;
	struct bpf_wq work;
};

/* What callbacks did, as tests/suite/support/called.rs reads it. */
struct seen {
	__u64 entered; /* callbacks that began */
	__u64 runs;    /* callbacks that ended */
	__u64 others;  /* the same, of a test's second callback */
	__u64 inside;  /* in one now */
	__u64 most;    /* in one at a time, at most */
	__u64 cpu;
	__u64 pid;
	__u64 key;
	__u64 data;
	__s64 err[3];	 /* what calls into the kernel returned */
	__u64 timed_out; /* waits for the gate that gave up */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} seen SEC(".maps");

/* 1: closed, whoever comes to it waits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} gate SEC(".maps");

/* One a CPU: a work that has not returned yet is queued where it runs, and nowhere else. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct elem);
} barriers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct elem);
} array SEC(".maps");

static __always_inline struct elem *element(void *map, __u32 key)
{
	return bpf_map_lookup_elem(map, &key);
}

/* On the way into and out of a callback. */
static __always_inline struct seen *enter(void)
{
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);
	__u64 inside;

	if (!s)
		return 0;
	inside = __sync_fetch_and_add(&s->inside, 1) + 1;
	if (inside > s->most)
		s->most = inside;
	s->cpu = bpf_get_smp_processor_id();
	s->pid = (__u32)bpf_get_current_pid_tgid();
	__sync_fetch_and_add(&s->entered, 1);
	return s;
}

static __always_inline void leave(struct seen *s)
{
	__sync_fetch_and_add(&s->inside, -1);
	__sync_fetch_and_add(&s->runs, 1);
}

/* Counts itself. */
static int __attribute__((unused)) on_work_count(void *map, int *key, void *value)
{
	struct seen *s = enter();

	if (s)
		leave(s);
	return 0;
}

/* Arms an element and starts it, and keeps what each call returned. */
static __always_inline int
init_set_start(void *map, __u32 key, int (*callback)(void *map, int *key, void *value), int *err)
{
	struct elem *elem = element(map, key);

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, map, 0);
	err[1] = bpf_wq_set_callback(&elem->work, callback, 0);
	err[2] = bpf_wq_start(&elem->work, 0);
	return 0;
}

/* Far below what the kernel's watchdogs bear. */
#define LONGEST_WAIT_NS 10000000000ULL

static long look_at_gate(__u64 i, __u64 *began)
{
	__u32 zero = 0;
	__u32 *closed = bpf_map_lookup_elem(&gate, &zero);

	return !closed || !*(volatile __u32 *)closed ||
	       bpf_ktime_get_ns() - *began > LONGEST_WAIT_NS;
}

static long look_again(__u64 i, __u64 *began)
{
	/* It stops early only where it need not look again. */
	return bpf_loop(1 << 20, look_at_gate, began, 0) < 1 << 20;
}

/* Waits, without sleeping, until user space opens the gate. */
static __always_inline void wait_at_gate(void)
{
	__u64 began = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct seen *s;

	bpf_loop(1 << 20, look_again, &began, 0);
	if (bpf_ktime_get_ns() - began <= LONGEST_WAIT_NS)
		return;
	s = bpf_map_lookup_elem(&seen, &zero);
	if (s)
		__sync_fetch_and_add(&s->timed_out, 1);
}

static int on_barrier(void *map, int *key, void *value)
{
	struct elem *elem = value;

	__sync_fetch_and_add(&elem->data, 1);
	return 0;
}

/* Queues a callback behind all that this CPU has. */
SEC("syscall")
int behind(int *err)
{
	struct elem *elem = element(&barriers, bpf_get_smp_processor_id());

	if (!elem)
		return 0;
	bpf_wq_init(&elem->work, &barriers, 0);
	bpf_wq_set_callback(&elem->work, on_barrier, 0);
	err[0] = bpf_wq_start(&elem->work, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";

#endif
