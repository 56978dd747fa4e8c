/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few names of the kernel's user-space API that a BPF program with a
 * workqueue needs, for programs that include neither vmlinux.h nor
 * <linux/bpf.h>. wq.bpf.h includes this file; there is no need to do it by hand.
 */
#ifndef BPF_WQ_BARE_BPF_H
#define BPF_WQ_BARE_BPF_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
	BPF_F_LOCK = 4,
};

enum {
	BPF_F_NO_PREALLOC = 1,
	BPF_F_MMAPABLE = 1024,
};

struct bpf_timer {
	__u64 __opaque[2];
} __attribute__((aligned(8)));

struct bpf_pidns_info {
	__u32 pid;
	__u32 tgid;
};

#endif
