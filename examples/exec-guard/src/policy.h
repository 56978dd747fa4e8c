/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space wants of the guard: whom it watches, what is settled, and what is done else. */
#ifndef POLICY_H
#define POLICY_H

#include "subject.h"

enum {
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
};

enum {
	ALLOW,
	DENY,
	LOG, /* allow, and tell */
	ASK, /* of a rule: find out */
	NO_RULE,
};

/* As src/policy.rs writes them, also while programs run. */
struct hook {
	__u32 unknown;	   /* until the answer comes */
	__u32 unreachable; /* if none comes */
	__u32 signal;	   /* to processes that turn out bad; 0: none */
	__u32 unused;
};

struct settings {
	struct hook hooks[4]; /* by OF_EXEC and so on */
	__u64 again_ns;	      /* when a question is put again */
	__u64 give_up_ns;     /* when no answer is waited for any more */
	__u64 unreachable_ns; /* for how long the verdict without an answer holds */
};

volatile struct settings settings SEC(".data.settings") = {};

/* Only processes in this cgroup are watched: none, as long as it is empty. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} scope SEC(".maps");

/* A file by its name, so that another one of this name is meant, too. */
struct name {
	__u32 device;
	__u32 unused;
	__u64 directory;
	char name[64]; /* longer ones are cut, and no rule is for one of 63 */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct name);
	__type(value, __u32);
} file_rules SEC(".maps");

struct address {
	__u64 of[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u32);
} address_rules SEC(".maps");

static __always_inline int is_watched(void)
{
	return bpf_current_task_under_cgroup(&scope, 0) == 1;
}

static __noinline __u32 rule_of_file(const struct file *file)
{
	const struct dentry *dentry = file->f_path.dentry;
	const struct inode *directory = dentry->d_parent->d_inode;
	struct name name = {};
	__u32 *rule;

	name.device = file->f_inode->i_sb->s_dev;
	name.directory = directory->i_ino;
	bpf_probe_read_kernel_str(name.name, sizeof(name.name), dentry->d_name.name);
	rule = bpf_map_lookup_elem(&file_rules, &name);
	return rule ? *rule : NO_RULE;
}

static __always_inline __u32 rule_of_address(const struct subject *subject)
{
	struct address address = {.of = {subject->of[0], subject->of[1]}};
	__u32 *rule = bpf_map_lookup_elem(&address_rules, &address);

	return rule ? *rule : NO_RULE;
}

#endif
