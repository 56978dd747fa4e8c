// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that do not look at what submit and cancel return.
#include <linux/bpf.h>

#include <bpf_wq/executor.bpf.h>

struct job {
	__u64 unused;
};

static int work(struct job *job, struct bpf_wq_run *run)
{
	return 0;
}

BPF_WQ_EXECUTOR(jobs, struct job, 64, 2, work);

SEC("xdp")
int careless(struct xdp_md *ctx)
{
	struct bpf_wq_options later = {.delay_ns = 1000};
	struct job job = {};
	__u64 id = 0;

	jobs_submit(&job);
	jobs_submit_with(&job, &later, &id);
	jobs_cancel(id ^ 1ULL << 63);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
