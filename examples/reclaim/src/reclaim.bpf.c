/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What each process of a cgroup connects to is counted, in an entry for each address. When the
 * process ends, a workqueue adds its entries up, tells user space, and frees them: the process
 * waits for none of it.
 */
#include "count.h"

/* What a process left, if this is the exit of its last thread. Two may see that they are. */
static __always_inline struct owner *of_ended(struct task_struct *task, struct process *process)
{
	struct owner *owner;

	if (task->signal->live.counter)
		return 0;
	process_of(task, process);
	owner = bpf_map_lookup_elem(&owners, process);
	if (!owner || !claim(owner, process))
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
	struct owner *owner;

	owner = of_ended(task, &process);
	if (!owner)
		return 0;
	/* Refused while user space drains: the last look finds it. */
	if (releases_submit(&process))
		bpf_wq_write(owner->unclaimed, token_of(&process));
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
