/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a verdict is about: a file that is executed or opened, or an address that is connected to.
 */
#ifndef SUBJECT_H
#define SUBJECT_H

#include <bpf_wq/gate.bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

enum {
	OF_EXEC,
	OF_OPEN,
	OF_CONNECT,
};

enum {
	AF_INET = 2,
	AF_INET6 = 10,
};

#define FMODE_EXEC 0x20

struct super_block {
	__u32 s_dev;
} __attribute__((preserve_access_index));

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__s64 i_ctime_sec;
	__u32 i_ctime_nsec;
} __attribute__((preserve_access_index));

struct qstr {
	const unsigned char *name;
} __attribute__((preserve_access_index));

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
} __attribute__((preserve_access_index));

struct path {
	struct dentry *dentry;
} __attribute__((preserve_access_index));

struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_flags;
} __attribute__((preserve_access_index));

struct linux_binprm {
	struct file *file;
} __attribute__((preserve_access_index));

struct task_struct {
	struct task_struct *group_leader;
	__u64 start_boottime;
} __attribute__((preserve_access_index));

/*
 * A file: its inode, and the time of its last change, which nobody can set: a file that is written
 * or replaced is another one. An address: as of IPv6; one of IPv4 is ::ffff:a.b.c.d.
 */
struct subject {
	__u32 hook;
	__u32 device;
	__u64 of[3];
};

/* Since 6.13 (4e40eff0b573) the kernel keeps a note in the highest bit. */
#define CTIME_NSEC 0x7fffffff

static __always_inline void subject_of_file(const struct file *file, __u32 hook,
					    struct subject *subject)
{
	const struct inode *inode = file->f_inode;

	subject->hook = hook;
	subject->device = inode->i_sb->s_dev;
	subject->of[0] = inode->i_ino;
	subject->of[1] = inode->i_ctime_sec;
	subject->of[2] = inode->i_ctime_nsec & CTIME_NSEC;
}

struct sockaddr_v4 {
	__u16 family;
	__be16 port;
	__be32 address;
};

struct sockaddr_v6 {
	__u16 family;
	__be16 port;
	__be32 flow;
	__u64 address[2];
} __attribute__((packed));

/* Whether it is one of IP. The kernel has copied it: it is in kernel memory, as long as it says. */
static __always_inline int subject_of_address(const void *address, __u32 length,
					      struct subject *subject)
{
	struct sockaddr_v6 v6 = {};
	struct sockaddr_v4 v4 = {};

	if (length < sizeof(v4) || bpf_probe_read_kernel(&v4, sizeof(v4), address))
		return 0;
	subject->hook = OF_CONNECT;
	if (v4.family == AF_INET) {
		subject->of[1] = bpf_cpu_to_be64(0xffffULL << 32 | bpf_ntohl(v4.address));
		return 1;
	}
	if (v4.family != AF_INET6 || length < sizeof(v6) ||
	    bpf_probe_read_kernel(&v6, sizeof(v6), address))
		return 0;
	subject->of[0] = v6.address[0];
	subject->of[1] = v6.address[1];
	return 1;
}

#endif
