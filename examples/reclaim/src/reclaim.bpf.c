/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What each process of a cgroup connects to is counted, in an entry for each address. When the
 * process ends, a workqueue adds its entries up, tells user space, and frees them: the process
 * waits for none of it.
 */
#include "release.h"

/* Entries that are freed before other work of the same worker has its turn. */
#define STEP 256

/* When to look again whether somebody has read what the ring is full of. */
#define FULL_NS 50000000

/* Runs in a kernel worker. */
static int release_owner(struct process *process, struct bpf_wq_run *run)
{
	struct owner *owner = bpf_map_lookup_elem(&owners, process);

	if (!owner)
		return -ENOENT;
	if (owner->entries) {
		release_some(process, owner, STEP);
		run->retry_ns = 0;
		return -EAGAIN;
	}
	run->retry_ns = FULL_NS;
	return report(process, owner);
}

BPF_WQ_EXECUTOR(releases, struct process, JOBS, WORKERS, release_owner);

/* What a process left, if this is the exit of its last thread. Two may see that they are. */
static __always_inline struct owner *of_ended(struct task_struct *task, struct process *process)
{
	struct owner *owner;

	if (task->signal->live.counter)
		return 0;
	process_of(task, process);
	owner = bpf_map_lookup_elem(&owners, process);
	if (!owner || __sync_lock_test_and_set(&owner->is_over, 1))
		return 0;
	BPF_CORE_READ_INTO(&owner->summary.name, task, group_leader, comm);
	return owner;
}

static __always_inline void exit_took(__u64 began_ns)
{
	bpf_wq_add(tracked.exit_ns, bpf_ktime_get_ns() - began_ns);
	bpf_wq_add(tracked.exits, 1);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exit_deferred, struct task_struct *task)
{
	__u64 began_ns = bpf_ktime_get_ns();
	struct process process;

	if (!of_ended(task, &process))
		return 0;
	releases_submit(&process);
	exit_took(began_ns);
	return 0;
}

/* For comparison: the exit itself frees all that the process left. */
SEC("?tp_btf/sched_process_exit")
int BPF_PROG(exit_inline, struct task_struct *task)
{
	__u64 began_ns = bpf_ktime_get_ns();
	struct process process;
	struct owner *owner;

	owner = of_ended(task, &process);
	if (!owner)
		return 0;
	release_some(&process, owner, owner->entries);
	if (report(&process, owner)) {
		bpf_wq_add(tracked.lost, 1);
		bpf_map_delete_elem(&owners, &process);
	}
	exit_took(began_ns);
	return 0;
}

static __always_inline int count(const struct address *address)
{
	struct entry_key key = {.address = *address};
	struct owner *owner;
	struct entry *entry;

	process_of(bpf_get_current_task_btf(), &key.process);
	owner = bpf_map_lookup_elem(&owners, &key.process);
	if (!owner)
		owner = admit(&key.process);
	if (!owner) {
		bpf_wq_add(tracked.missed, 1);
		return 1;
	}
	entry = bpf_map_lookup_elem(&entries, &key);
	if (entry)
		bpf_wq_add(entry->count, 1);
	else
		count_first(owner, &key);
	return 1;
}

static __always_inline int count_v4(const struct bpf_sock_addr *to)
{
	struct address address = {.port = bpf_ntohs(to->user_port)};

	address.ip[1] = bpf_cpu_to_be64(0xffffULL << 32 | bpf_ntohl(to->user_ip4));
	return count(&address);
}

static __always_inline int count_v6(const struct bpf_sock_addr *to)
{
	struct address address = {.port = bpf_ntohs(to->user_port)};
	__u32 *words = (__u32 *)address.ip;

	words[0] = to->user_ip6[0];
	words[1] = to->user_ip6[1];
	words[2] = to->user_ip6[2];
	words[3] = to->user_ip6[3];
	return count(&address);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *to)
{
	return count_v4(to);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *to)
{
	return count_v6(to);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *to)
{
	return count_v4(to);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *to)
{
	return count_v6(to);
}

char LICENSE[] SEC("license") = "GPL";
