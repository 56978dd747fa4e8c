// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Claim S7: what the callback of a workqueue may do, and that of a timer may not.
#include "rules.h"

#define CLOCK_MONOTONIC 1
#define NUMA_NO_NODE (-1)

/* Since 6.9: 317460317a02. <linux/bpf.h> may be older. */
#define MAP_TYPE_ARENA 33
#define SEGV_ON_FAULT (1U << 17)

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;
extern void *bpf_arena_alloc_pages(void *p__map, void *addr__ign, __u32 page_cnt, int node_id,
				   __u64 flags) __ksym __weak;

struct sleeper {
	__u64 unused;
	struct bpf_timer timer;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sleeper);
} sleepers SEC(".maps");

/* As tests/suite/sleeping.rs reads it; times by CLOCK_MONOTONIC, in ns. */
struct sleep {
	/* What to read, as user space says. */
	__u64 pid;
	__u64 address;
	/* What the program did that only starts. */
	__u64 start_called;
	__u64 start_returned;
	__s64 start;
	/* What the callback did. */
	__u64 kworker;
	__u64 began;
	__u64 ended;
	__s64 err;
	__u8 data[32];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sleep);
} sleeps SEC(".maps");

struct {
	__uint(type, MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE | SEGV_ON_FAULT);
	__uint(max_entries, 4);
} arena SEC(".maps");

static __always_inline struct sleep *begin(void)
{
	__u32 zero = 0;
	struct sleep *sleep = bpf_map_lookup_elem(&sleeps, &zero);

	if (!sleep)
		return 0;
	sleep->kworker = (__u32)bpf_get_current_pid_tgid();
	sleep->began = bpf_ktime_get_ns();
	return sleep;
}

static __always_inline void end(struct sleep *sleep, __s64 err)
{
	sleep->err = err;
	sleep->ended = bpf_ktime_get_ns();
}

/* The same function for the timer and for the workqueue. */
static int read_page(void *map, int *key, void *value)
{
	struct task_struct *task;
	struct sleep *sleep = begin();
	long err;

	if (!sleep)
		return 0;
	task = bpf_task_from_pid(sleep->pid);
	if (!task)
		return 0;
	err = bpf_copy_from_user_task(sleep->data, sizeof(sleep->data), (void *)sleep->address,
				      task, 0);
	bpf_task_release(task);
	end(sleep, err);
	return 0;
}

static __always_inline struct sleeper *sleeper(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sleepers, &zero);
}

SEC("fentry/bpf_fentry_test1")
int by_timer(void *ctx)
{
	struct sleeper *elem = sleeper();

	if (!elem)
		return 0;
	bpf_timer_init(&elem->timer, &sleepers, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&elem->timer, read_page);
	bpf_timer_start(&elem->timer, 0, 0);
	return 0;
}

/* To be loaded only: unlike the next, it could not be unloaded while the callback sleeps. */
SEC("fentry/bpf_fentry_test1")
int by_workqueue(void *ctx)
{
	struct sleeper *elem = sleeper();

	if (!elem)
		return 0;
	bpf_wq_init(&elem->work, &sleepers, 0);
	bpf_wq_set_callback(&elem->work, read_page, 0);
	bpf_wq_start(&elem->work, 0);
	return 0;
}

#define ARM(name, callback) \
	SEC("syscall") \
	int name(int *err) \
	{ \
		struct sleeper *elem = sleeper(); \
\
		if (!elem) \
			return 0; \
		err[0] = bpf_wq_init(&elem->work, &sleepers, 0); \
		err[1] = bpf_wq_set_callback(&elem->work, callback, 0); \
		return 0; \
	}

ARM(arm, read_page)

/* The fast paths: all that they do is to start. */
static __always_inline void start(void)
{
	__u32 zero = 0;
	struct sleep *sleep = bpf_map_lookup_elem(&sleeps, &zero);
	struct sleeper *elem = sleeper();

	if (!sleep || !elem)
		return;
	sleep->start_called = bpf_ktime_get_ns();
	sleep->start = bpf_wq_start(&elem->work, 0);
	sleep->start_returned = bpf_ktime_get_ns();
}

SEC("fentry/bpf_fentry_test1")
int from_fentry(void *ctx)
{
	start();
	return 0;
}

SEC("xdp")
int from_xdp(void *ctx)
{
	start();
	return 1;
}

SEC("tc")
int from_tc(void *ctx)
{
	start();
	return 0;
}

#define WRITTEN 0x5750617265

static int allocate(void *map, int *key, void *value)
{
	struct sleep *sleep = begin();
	void *page;

	if (!sleep)
		return 0;
	page = bpf_arena_alloc_pages(&arena, 0, 1, NUMA_NO_NODE, 0);
	sleep->address = (__u64)page;
	/*
	 * clang before 19 has no address spaces. The middle one is addr_space_cast, which
	 * makes of the arena's r1 a pointer of the kernel's.
	 */
	if (page)
		asm volatile("r1 = %[page]\n"
			     ".byte 0xbf, 0x11, 1, 0, 1, 0, 0, 0\n"
			     "*(u64 *)(r1 + 0) = %[written]\n"
			     :
			     : [page] "r"(page), [written] "r"(WRITTEN)
			     : "r1", "memory");
	end(sleep, page ? 0 : -12);
	return 0;
}

ARM(arm_allocating, allocate)

static int read_own(void *map, int *key, void *value)
{
	struct sleep *sleep = begin();

	if (sleep)
		end(sleep,
		    bpf_copy_from_user(sleep->data, sizeof(sleep->data), (void *)sleep->address));
	return 0;
}

ARM(arm_reading_own, read_own)
