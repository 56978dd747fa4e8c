/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A program of each type. Its body is use(), or USE(name): whoever includes this defines it. */
#ifndef PROGRAM_TYPES_H
#define PROGRAM_TYPES_H

#ifndef USE
#define USE(name) use()
#endif

/* 0 and 1 are values that every type may return. */
#define PROGRAM(name, section, result) \
	SEC(section) \
	int type_##name(void *ctx) \
	{ \
		USE(name); \
		return result; \
	}

PROGRAM(fentry, "fentry/bpf_fentry_test1", 0)
PROGRAM(fentry_s, "fentry.s/bpf_fentry_test1", 0)
PROGRAM(fexit, "fexit/bpf_fentry_test1", 0)
PROGRAM(fexit_s, "fexit.s/bpf_fentry_test1", 0)
PROGRAM(fmod_ret, "fmod_ret/bpf_modify_return_test", 0)
PROGRAM(tp_btf, "tp_btf/task_rename", 0)
PROGRAM(iter, "iter/task", 0)
PROGRAM(iter_s, "iter.s/task", 0)
PROGRAM(lsm, "lsm/file_open", 0)
PROGRAM(lsm_s, "lsm.s/file_open", 0)
PROGRAM(lsm_cgroup, "lsm_cgroup/socket_bind", 1)
PROGRAM(syscall, "syscall", 0)

PROGRAM(xdp, "xdp", 1)
PROGRAM(tc, "tc", 0)
PROGRAM(action, "action", 0)
PROGRAM(socket, "socket", 0)
PROGRAM(sk_skb, "sk_skb/verdict", 1)
PROGRAM(sk_msg, "sk_msg", 1)
PROGRAM(sk_lookup, "sk_lookup", 1)
PROGRAM(sk_reuseport, "sk_reuseport", 1)
PROGRAM(sockops, "sockops", 1)
PROGRAM(lwt_in, "lwt_in", 0)
PROGRAM(lwt_out, "lwt_out", 0)
PROGRAM(lwt_xmit, "lwt_xmit", 0)
PROGRAM(lwt_seg6local, "lwt_seg6local", 0)
PROGRAM(netfilter, "netfilter", 1)
PROGRAM(flow_dissector, "flow_dissector", 0)

PROGRAM(cgroup_skb, "cgroup_skb/ingress", 1)
PROGRAM(cgroup_sock, "cgroup/sock_create", 1)
PROGRAM(cgroup_connect4, "cgroup/connect4", 1)
PROGRAM(cgroup_dev, "cgroup/dev", 1)
PROGRAM(cgroup_sysctl, "cgroup/sysctl", 1)
PROGRAM(cgroup_getsockopt, "cgroup/getsockopt", 1)
PROGRAM(cgroup_setsockopt, "cgroup/setsockopt", 1)

PROGRAM(kprobe, "kprobe", 0)
PROGRAM(kprobe_multi, "kprobe.multi", 0)
PROGRAM(uprobe, "uprobe", 0)
PROGRAM(uprobe_s, "uprobe.s", 0)
PROGRAM(tracepoint, "tracepoint/task/task_rename", 0)
PROGRAM(raw_tp, "raw_tp/task_rename", 0)
PROGRAM(raw_tp_w, "raw_tp.w/task_rename", 0)
PROGRAM(perf_event, "perf_event", 0)

#endif
