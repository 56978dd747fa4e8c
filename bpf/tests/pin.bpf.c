// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <linux/bpf.h>

#include <bpf_wq/executor.bpf.h>

struct job {
	__u64 number;
};

/* How often each job has come to its end. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");

/* As long as its element is 1, no job comes to its end. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} hold SEC(".maps");

/* The number of the next job that the attached program submits. */
__u64 next = 16000;

static int count(struct job *job, struct bpf_wq_run *run)
{
	__u32 number = job->number, zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&runs, &number);
	__u64 *is_held = bpf_map_lookup_elem(&hold, &zero);

	if (is_held && bpf_wq_read(*is_held)) {
		run->retry_ns = 1000000;
		return -EAGAIN;
	}
	if (!seen)
		return -EINVAL;
	__sync_fetch_and_add(seen, 1);
	return 0;
}

BPF_WQ_EXECUTOR(jobs, struct job, 64, 2, count);

/* A test run of this program calls the function that it is attached to. */
SEC("fentry/bpf_fentry_test1")
int attached(void *ctx)
{
	struct job job = {.number = __sync_fetch_and_add(&next, 1)};

	jobs_submit(&job);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} ticks SEC(".maps");

/* A link of a perf event, which libbpf would disable with its own handle. */
SEC("perf_event")
int tick(void *ctx)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&ticks, &zero);

	if (seen)
		__sync_fetch_and_add(seen, 1);
	return 0;
}

char _license[] SEC("license") = "GPL";
