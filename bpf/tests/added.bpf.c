// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Elements that user space adds to a hash when it is armed already.
#include <linux/bpf.h>

#include <bpf_wq/arm.bpf.h>
#include <bpf_wq/executor.bpf.h>

struct elem {
	__u64 runs;
	BPF_WQ_WORK(work);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct elem);
} elems SEC(".maps");

static int run(__u32 *key, struct elem *elem)
{
	elem->runs++;
	return 0;
}

BPF_WQ_ARM(elems, struct elem, work, run);

struct job {
	__u64 number;
};

static int work(struct job *job, struct bpf_wq_run *run)
{
	return 0;
}

/* To which nothing can be added. */
BPF_WQ_EXECUTOR(jobs, struct job, 4, 1, work);

SEC("syscall")
int submit(__u32 *number)
{
	struct elem *elem;
	__u32 key = *number;

	elem = bpf_map_lookup_elem(&elems, &key);
	return elem ? elems_submit(elem) : -ENOENT;
}

char _license[] SEC("license") = "GPL";
