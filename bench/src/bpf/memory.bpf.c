// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The memory of jobs that can be pending: of each way, as many places, armed.
#include <bpf_wq/executor.bpf.h>

#define CLOCK_MONOTONIC 1
#define PLACES (1 << 18)

struct job {
	__u64 first;
	__u64 second;
};

struct bare {
	struct bpf_wq work;
	struct job job;
};

struct timed {
	struct bpf_timer timer;
	struct job job;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct bare);
} bares SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct timed);
} timers SEC(".maps");

/* With room for as many: each has a header of 8 bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} ring SEC(".maps");

static int on_work(void *map, int *key, void *value)
{
	return 0;
}

static int on_timer(void *map, int *key, void *value)
{
	return 0;
}

static int on_job(struct job *job, struct bpf_wq_run *run)
{
	return 0;
}

BPF_WQ_EXECUTOR(jobs, struct job, PLACES, 4, on_job);

static long arm_bare(void *map, __u32 *key, struct bare *bare, int *err)
{
	*err = bpf_wq_init(&bare->work, &bares, 0);
	if (!*err)
		*err = bpf_wq_set_callback(&bare->work, on_work, 0);
	return *err != 0;
}

SEC("syscall")
int arm_bares(void *ctx)
{
	int err = 0;

	bpf_for_each_map_elem(&bares, arm_bare, &err, 0);
	return err;
}

static long arm_timer(void *map, __u32 *key, struct timed *timed, int *err)
{
	*err = bpf_timer_init(&timed->timer, &timers, CLOCK_MONOTONIC);
	if (!*err)
		*err = bpf_timer_set_callback(&timed->timer, on_timer);
	return *err != 0;
}

SEC("syscall")
int arm_timers(void *ctx)
{
	int err = 0;

	bpf_for_each_map_elem(&timers, arm_timer, &err, 0);
	return err;
}

static long fill_one(__u64 i, __u64 *filled)
{
	struct job job = {};

	if (bpf_ringbuf_output(&ring, &job, sizeof(job), 0))
		return 1;
	*filled += 1;
	return 0;
}

/* How many it takes. */
SEC("syscall")
int fill_ring(void *ctx)
{
	__u64 filled = 0;

	bpf_loop(1 << 20, fill_one, &filled, 0);
	return filled;
}

char LICENSE[] SEC("license") = "GPL";
