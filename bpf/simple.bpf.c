// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The smallest use of a BPF workqueue: when the watched process removes a file,
 * a program runs on the kernel's function behind unlink(2) and defers work, and
 * the callback does that work a little later, in a kernel thread. Another program
 * has armed the workqueue before.
 */
#include <bpf_wq/wq.bpf.h>

#include <bpf/bpf_tracing.h>

#define ENOENT 2

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

/*
 * The watched process: its id, and the pid namespace in which that is its id. A kernel
 * without CONFIG_PID_NS has one, which no file names: 0.
 */
const volatile __u64 watched_ns_dev;
const volatile __u64 watched_ns_ino;
const volatile __u32 watched_tgid;

/* How often the program and the callback ran. */
__u32 main_executed;
__u32 wq_executed;

/* What bpf_wq_start returned last: 0 or a negative errno. */
int start_result;

static int on_work(void *map, int *key, void *value)
{
	struct elem *elem = value;

	elem->value = 42;
	__sync_fetch_and_add(&wq_executed, 1);
	return 0;
}

/*
 * Run once, by user space. A callback belongs to the program that set it, and the
 * text of a program that may not sleep, like the one below, is freed without
 * waiting for a callback: the kernel would run on freed memory (seen on 6.12 to
 * 7.3). This one may.
 */
SEC("syscall")
int arm(void *ctx)
{
	struct elem *elem;
	int key = 0, err;

	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem)
		return -ENOENT;
	err = bpf_wq_init(&elem->work, &elems, 0);
	if (err)
		return err;
	return bpf_wq_set_callback(&elem->work, on_work, 0);
}

static __always_inline int is_watched(void)
{
	struct bpf_pidns_info pid;

	if (!watched_ns_ino)
		return bpf_get_current_pid_tgid() >> 32 == watched_tgid;
	return !bpf_get_ns_current_pid_tgid(watched_ns_dev, watched_ns_ino, &pid, sizeof(pid)) &&
	       pid.tgid == watched_tgid;
}

/* Attached to do_unlinkat, or from 7.0 on to filename_unlinkat. */
SEC("fentry")
int BPF_PROG(on_unlink)
{
	struct elem *elem;
	int key = 0;

	if (!is_watched())
		return 0;

	__sync_fetch_and_add(&main_executed, 1);
	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem)
		return 0;
	/* The element is never written anew: that would cancel work that is pending. */
	start_result = bpf_wq_start(&elem->work, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
