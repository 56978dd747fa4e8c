// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Hazard H1: programs that go away while their callback sleeps.
#include <linux/bpf.h>

#include <bpf_wq/wq.bpf.h>

#include <bpf/bpf_tracing.h>

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

struct elem {
	__u64 data;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct elem);
} elems SEC(".maps");

/* Memory that nobody gets before the test says so, and how far the callback has come. */
struct page {
	__u64 pid;
	__u64 address;
	__u64 began;
	__u64 ended;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct page);
} pages SEC(".maps");

static int sleeps_on_the_page(void *map, int *key, void *value)
{
	struct elem *elem = value;
	struct task_struct *task;
	struct page *page;
	__u32 zero = 0;

	page = bpf_map_lookup_elem(&pages, &zero);
	if (!page)
		return 0;
	page->began = 1;
	task = bpf_task_from_pid(page->pid);
	if (!task)
		return 0;
	bpf_copy_from_user_task(&elem->data, sizeof(elem->data), (void *)page->address, task, 0);
	bpf_task_release(task);
	page->ended = 1;
	return 0;
}

static long count(__u64 i, __u64 *runs)
{
	*runs += 1;
	return 0;
}

static long count_long(__u64 i, __u64 *runs)
{
	bpf_loop(1 << 23, count, runs, 0);
	return 0;
}

/* Hours, without a call that sleeps. */
static int runs_long(void *map, int *key, void *value)
{
	struct page *page;
	__u64 runs = 0;
	__u32 zero = 0;

	page = bpf_map_lookup_elem(&pages, &zero);
	if (!page)
		return 0;
	page->began = 1;
	bpf_loop(1 << 23, count_long, &runs, 0);
	page->ended = 1;
	return 0;
}

static __always_inline int arm_it(struct elem *elem)
{
	int err = bpf_wq_init(&elem->work, &elems, 0);

	if (err)
		return err;
	return bpf_wq_set_callback(&elem->work, sleeps_on_the_page, 0);
}

static __always_inline void arm_and_start(void)
{
	__u32 zero = 0;
	struct elem *elem = bpf_map_lookup_elem(&elems, &zero);

	if (elem && !arm_it(elem))
		bpf_wq_start(&elem->work, 0);
}

static __always_inline void only_start(void)
{
	__u32 zero = 0;
	struct elem *elem = bpf_map_lookup_elem(&elems, &zero);

	if (elem)
		bpf_wq_start(&elem->work, 0);
}

SEC("syscall")
int arm(void *ctx)
{
	__u32 zero = 0;
	struct elem *elem = bpf_map_lookup_elem(&elems, &zero);

	return elem ? arm_it(elem) : -1;
}

SEC("fentry/bpf_fentry_test1")
int fentry_arms_itself(void *ctx)
{
	arm_and_start();
	return 0;
}

SEC("xdp")
int xdp_arms_itself_to_run_long(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct elem *elem = bpf_map_lookup_elem(&elems, &zero);

	if (elem && !bpf_wq_init(&elem->work, &elems, 0) &&
	    !bpf_wq_set_callback(&elem->work, runs_long, 0))
		bpf_wq_start(&elem->work, 0);
	return XDP_PASS;
}

SEC("fentry.s/bpf_fentry_test1")
int fentry_s_arms_itself(void *ctx)
{
	arm_and_start();
	return 0;
}

SEC("fentry/bpf_fentry_test1")
int fentry_only_starts(void *ctx)
{
	only_start();
	return 0;
}

SEC("xdp")
int xdp_arms_itself(struct xdp_md *ctx)
{
	arm_and_start();
	return XDP_PASS;
}

SEC("xdp")
int xdp_only_starts(struct xdp_md *ctx)
{
	only_start();
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
