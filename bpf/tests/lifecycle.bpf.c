// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A loader goes away while a callback sleeps that a program of each type has started.
#include <linux/bpf.h>

#include <bpf_wq/arm.bpf.h>

#include <bpf/bpf_tracing.h>

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

struct elem {
	__u64 data;
	BPF_WQ_WORK(work);
};

/* The element of each who submits. */
enum {
	FENTRY,
	KPROBE,
	LSM,
	TP_BTF,
	TRACEPOINT,
	OF_XDP,
	TC,
	USER_SPACE,
	ELEMENTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ELEMENTS);
	__type(key, __u32);
	__type(value, struct elem);
} elems SEC(".maps");

/* How many runs have begun, and how many have ended, for whoever outlives the loader. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} began SEC(".maps"), ended SEC(".maps");

/* Memory of another process that nobody gets before the test says so. */
const volatile __s32 holder;
const volatile __u64 address;

/* Whose files, names and frames count. */
const volatile __u32 loader;

/* One event may be several calls of a function, such as of a file system above another. */
__u64 events[ELEMENTS];

static __always_inline void count(void *map)
{
	__u32 zero = 0;
	__u64 *runs = bpf_map_lookup_elem(map, &zero);

	if (runs)
		__sync_fetch_and_add(runs, 1);
}

static int sleeps_on_the_page(__u32 *key, struct elem *elem)
{
	struct task_struct *task = bpf_task_from_pid(holder);

	if (!task)
		return -ENOENT;
	count(&began);
	bpf_copy_from_user_task(&elem->data, sizeof(elem->data), (void *)address, task, 0);
	bpf_task_release(task);
	count(&ended);
	return 0;
}

BPF_WQ_ARM(elems, struct elem, work, sleeps_on_the_page);

static __always_inline struct elem *element(__u32 program)
{
	return bpf_map_lookup_elem(&elems, &program);
}

static __always_inline void submit_once(__u32 program)
{
	struct elem *elem = element(program);

	if (elem && !__sync_fetch_and_add(&events[program], 1))
		elems_submit(elem);
}

static __always_inline int is_loader(void)
{
	return bpf_get_current_pid_tgid() >> 32 == loader;
}

/* The loader removes a file. */
SEC("?fentry/vfs_unlink")
int fentry(void *ctx)
{
	if (is_loader())
		submit_once(FENTRY);
	return 0;
}

SEC("?kprobe/vfs_unlink")
int kprobe(void *ctx)
{
	if (is_loader())
		submit_once(KPROBE);
	return 0;
}

SEC("?lsm/inode_unlink")
int lsm(void *ctx)
{
	if (is_loader())
		submit_once(LSM);
	return 0;
}

/* It gives itself a name. */
SEC("?tp_btf/task_rename")
int tp_btf(void *ctx)
{
	if (is_loader())
		submit_once(TP_BTF);
	return 0;
}

SEC("?tracepoint/task/task_rename")
int tracepoint(void *ctx)
{
	if (is_loader())
		submit_once(TRACEPOINT);
	return 0;
}

/* It sends itself, in a UDP datagram by Ethernet and IPv4, its id. */
static __always_inline int is_from_loader(void *data, void *end)
{
	void *text = data + 14 + 20 + 8;

	return text + sizeof(__u32) <= end && *(__u32 *)text == loader;
}

SEC("?xdp")
int xdp(struct xdp_md *ctx)
{
	if (is_from_loader((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		submit_once(OF_XDP);
	return XDP_PASS;
}

SEC("?tcx/ingress")
int tc(struct __sk_buff *skb)
{
	if (is_from_loader((void *)(long)skb->data, (void *)(long)skb->data_end))
		submit_once(TC);
	return 0;
}

/* User space submits by itself. */
SEC("?syscall")
int submit(void *ctx)
{
	struct elem *elem = element(USER_SPACE);

	return elem ? elems_submit(elem) : -ENOENT;
}

static long submit_again(__u32 index, __u32 *accepted)
{
	struct elem *elem = element(USER_SPACE);

	if (elem && !elems_submit(elem))
		++*accepted;
	return 0;
}

/* How many of a thousand were accepted. */
SEC("?syscall")
int submit_often(void *ctx)
{
	__u32 accepted = 0;

	bpf_loop(1000, submit_again, &accepted, 0);
	return accepted;
}

static int as_it_is(void *map, int *key, void *elem)
{
	sleeps_on_the_page((void *)key, elem);
	return 0;
}

/* Hazard H1: the workqueue holds this program, which may not sleep. */
SEC("?fentry/vfs_unlink")
int arms_itself(void *ctx)
{
	struct elem *elem = element(FENTRY);

	if (!elem || !is_loader() || __sync_fetch_and_add(&events[FENTRY], 1))
		return 0;
	if (!bpf_wq_init(&elem->work, &elems, 0) && !bpf_wq_set_callback(&elem->work, as_it_is, 0))
		bpf_wq_start(&elem->work, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
