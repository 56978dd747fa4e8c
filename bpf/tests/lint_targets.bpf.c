// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What programs may be attached to: what each kernel has, and what none has. Each is loaded and
 * attached alone, so that lint is compared with the kernel.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define PROGRAM(name, section) \
	SEC("?" section) \
	int name(void *ctx) \
	{ \
		return 0; \
	}

PROGRAM(has_fentry, "fentry/bpf_fentry_test1")
PROGRAM(has_lsm, "lsm/file_open")
PROGRAM(has_iter, "iter/task")
PROGRAM(has_tp_btf, "tp_btf/task_rename")
PROGRAM(has_tp_btf_of_module, "tp_btf/9p_client_req")
PROGRAM(has_raw_tp, "raw_tp/task_rename")
PROGRAM(has_raw_tp_of_module, "raw_tracepoint/9p_client_req")
PROGRAM(has_tracepoint, "tracepoint/task/task_rename")
PROGRAM(has_tracepoint_of_module, "tp/9p/9p_client_req")
PROGRAM(has_enter, "tracepoint/syscalls/sys_enter_openat")
PROGRAM(has_exit, "tp/syscalls/sys_exit_openat")
PROGRAM(has_ksyscall, "ksyscall/openat")
PROGRAM(has_kprobe, "kprobe/vfs_unlink")
PROGRAM(has_kprobe_multi, "kprobe.multi/vfs_unlink")
PROGRAM(has_kretprobe_multi, "kretprobe.multi/vfs_*lin?")

PROGRAM(no_fentry, "fentry/there_is_none")
PROGRAM(no_lsm, "lsm/there_is_none")
PROGRAM(no_lsm_cgroup, "lsm_cgroup/there_is_none")
PROGRAM(no_iter, "iter/there_is_none")
PROGRAM(no_tp_btf, "tp_btf/there_is_none")
PROGRAM(no_raw_tp, "raw_tp/there_is_none")
PROGRAM(no_raw_tp_w, "raw_tp.w/there_is_none")
PROGRAM(no_tracepoint, "tracepoint/task/there_is_none")
PROGRAM(no_enter, "tracepoint/syscalls/sys_enter_there_is_none")
PROGRAM(no_exit, "tp/syscalls/sys_exit_there_is_none")
PROGRAM(no_ksyscall, "ksyscall/there_is_none")
PROGRAM(no_kprobe, "kprobe/there_is_none")
PROGRAM(no_kprobe_multi, "kprobe.multi/there_is_none")
PROGRAM(no_kretprobe_multi, "kretprobe.multi/*_there_is_n?ne")

char _license[] SEC("license") = "GPL";
