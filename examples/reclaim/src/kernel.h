/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is used of the kernel's types. */
#ifndef KERNEL_H
#define KERNEL_H

#include <bpf_wq/executor.bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

struct bpf_spin_lock {
	__u32 val;
};

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
} __attribute__((preserve_access_index));

struct task_struct {
	int tgid;
	__u64 start_time;
	struct task_struct *group_leader;
	struct signal_struct *signal;
	char comm[16];
} __attribute__((preserve_access_index));

#endif
