// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The smallest use of a BPF workqueue: when the watched process removes a file,
 * a program runs on the kernel's function behind unlink(2) and defers work, and
 * the callback does that work a little later, in a kernel thread.
 */
#include <bpf_wq/wq.bpf.h>

#include <bpf/bpf_tracing.h>

#define EBUSY 16

struct elem {
	int value;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct elem);
} elems SEC(".maps");

/* The watched process: its id, and the pid namespace in which that is its id. */
const volatile __u64 watched_ns_dev;
const volatile __u64 watched_ns_ino;
const volatile __u32 watched_tgid;

/* How often the program and the callback ran. */
__u32 main_executed;
__u32 wq_executed;

/* What the step returned last: 0 or a negative errno. */
int init_result;
int set_callback_result;
int start_result;

/*
 * Reads, writes and returns: it must not sleep. A callback belongs to the program
 * that set it, and the text of a program that may not sleep, like this fentry
 * program, is freed without waiting for a sleeping callback: the kernel would run
 * on freed memory (seen on 6.12 to 7.3). Where a callback has to sleep, a
 * SEC("syscall") program does bpf_wq_init and bpf_wq_set_callback, and the fast
 * path only does bpf_wq_start.
 */
static int on_work(void *map, int *key, void *value)
{
	struct elem *elem = value;

	elem->value = 42;
	__sync_fetch_and_add(&wq_executed, 1);
	return 0;
}

/* Attached to do_unlinkat, or from 7.0 on to filename_unlinkat. */
SEC("fentry")
int BPF_PROG(on_unlink)
{
	struct bpf_pidns_info pid;
	struct elem *elem;
	int key = 0;

	if (bpf_get_ns_current_pid_tgid(watched_ns_dev, watched_ns_ino, &pid, sizeof(pid)) ||
	    pid.tgid != watched_tgid)
		return 0;

	__sync_fetch_and_add(&main_executed, 1);
	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem)
		return 0;

	/*
	 * The element is never written anew: that would cancel work that is
	 * pending. So from the second time on the workqueue is there already.
	 */
	init_result = bpf_wq_init(&elem->work, &elems, 0);
	if (init_result && init_result != -EBUSY)
		return 0;
	set_callback_result = bpf_wq_set_callback(&elem->work, on_work, 0);
	if (set_callback_result)
		return 0;
	start_result = bpf_wq_start(&elem->work, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
