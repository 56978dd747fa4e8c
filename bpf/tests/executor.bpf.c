// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The executor: what becomes of jobs of several kinds.
#include <linux/bpf.h>

#include <bpf_wq/executor.bpf.h>

#include <bpf/bpf_tracing.h>

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

/* As tests/suite/executor.rs has it. */
enum {
	COUNT,
	FAIL,
	AGAIN,	     /* until the third attempt */
	AGAIN_LATER, /* the same, with a wait of its own */
	SLEEP,	     /* until the page is there */
	ATTEND,	     /* again, until user space drains */
};

struct job {
	__u64 kind;
	__u64 number;
	__u32 odd; /* so that the struct is no multiple of 8 bytes without its padding */
};

struct record {
	__u64 runs;
	__u64 attempt;
	__u64 id;
	__u64 began_ns[3]; /* of each attempt */
	__u64 place;	   /* in the order in which jobs ended */
	__u64 content;	   /* of the page */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

/* Memory that nobody gets before the test says so. */
struct page {
	__u64 pid;
	__u64 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct page);
} pages SEC(".maps");

__u64 places = 0;

static __always_inline int read_page(struct record *record)
{
	struct task_struct *task;
	struct page *page;
	__u32 zero = 0;
	__u64 content;
	long err;

	page = bpf_map_lookup_elem(&pages, &zero);
	if (!page)
		return -EINVAL;
	task = bpf_task_from_pid(page->pid);
	if (!task)
		return -ENOENT;
	err = bpf_copy_from_user_task(&content, sizeof(content), (void *)page->address, task, 0);
	bpf_task_release(task);
	if (!err)
		record->content = content;
	return err;
}

static int work(struct job *job, struct bpf_wq_run *run)
{
	__u32 number = job->number;
	struct record *record = bpf_map_lookup_elem(&records, &number);
	int result = 0;

	if (!record)
		return -EINVAL;
	record->id = run->id;
	record->attempt = run->attempt;
	if (run->attempt < 3)
		record->began_ns[run->attempt] = bpf_ktime_get_ns();
	switch (job->kind) {
	case FAIL:
		result = -EINVAL;
		break;
	case AGAIN_LATER:
		run->retry_ns = 20000000;
	case AGAIN:
		if (run->attempt < 2)
			result = -EAGAIN;
		break;
	case SLEEP:
		result = read_page(record);
		break;
	case ATTEND:
		if (!bpf_wq_is_draining(run))
			result = -EAGAIN;
		break;
	}
	if (result != -EAGAIN) {
		record->place = __sync_fetch_and_add(&places, 1) + 1;
		__sync_fetch_and_add(&record->runs, 1);
	}
	return result;
}

BPF_WQ_EXECUTOR(jobs, struct job, 64, 2, work);

/* Jobs in order: each of a key has to find that all before it were done. */
struct step {
	__u64 key;
	__u64 number;
};

#define KEYS 8

__u64 steps[KEYS] = {};
__u64 out_of_order = 0;

static int walk(struct step *step, struct bpf_wq_run *run)
{
	__u64 *steps_of = &steps[step->key & (KEYS - 1)];

	if (step->number % 5 == 3 && run->attempt == 0)
		return -EAGAIN;
	if (*steps_of != step->number)
		__sync_fetch_and_add(&out_of_order, 1);
	*steps_of = step->number + 1;
	return 0;
}

BPF_WQ_EXECUTOR(walks, struct step, 256, 4, walk);

/* What the programs below submit, and what they were told. */
struct job job = {};
int submitted = 1;

static __always_inline void submit(void)
{
	struct job copy = job;

	submitted = jobs_submit(&copy);
}

SEC("xdp")
int from_xdp(struct xdp_md *ctx)
{
	submit();
	return XDP_PASS;
}

SEC("tc")
int from_tc(struct __sk_buff *ctx)
{
	submit();
	return 0;
}

SEC("fentry/bpf_fentry_test1")
int BPF_PROG(from_fentry)
{
	submit();
	return 0;
}

__u64 nmis = 0;
int nmi_submitted = 1;

static long submit_one(__u64 number, int *err)
{
	struct job count = {.kind = COUNT, .number = number};

	*err = jobs_submit(&count);
	return 0;
}

/* Once, as many as there is room for. */
SEC("?tp_btf/nmi_handler")
int BPF_PROG(from_nmi)
{
	int err;

	if (__sync_fetch_and_add(&nmis, 1))
		return 0;
	bpf_loop(64, submit_one, &err, 0);
	nmi_submitted = err;
	return 0;
}

/* Since 6.10: fc7566ad0a82. */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

/* Two jobs before a worker can run, which then takes the first. */
SEC("syscall")
int sleep_and_count(void *ctx)
{
	struct job sleep = {.kind = SLEEP, .number = 0};
	struct job count = {.kind = COUNT, .number = 1};
	int err;

	bpf_preempt_disable();
	err = jobs_submit(&sleep);
	if (!err)
		err = jobs_submit(&count);
	bpf_preempt_enable();
	return err;
}

char _license[] SEC("license") = "GPL";
