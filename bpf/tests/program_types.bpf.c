// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The same body in a program of each type, each loaded alone. */
#include <linux/bpf.h>
#include <bpf_wq/wq.bpf.h>

struct elem {
	int value;
	struct bpf_wq work;
};

struct with_timer {
	int value;
	struct bpf_timer timer;
	struct bpf_wq work;
};

#define MAP(name, value_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, 1); \
		__type(key, int); \
		__type(value, value_type); \
	} name SEC(".maps")

MAP(elems, struct elem);
MAP(with_timers, struct with_timer);

static int on_work(void *map, int *key, void *value)
{
	struct elem *elem = value;

	elem->value = 42;
	return 0;
}

static __always_inline int use(void)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem)
		return 0;
	if (bpf_wq_init(&elem->work, &elems, 0))
		return 0;
	if (bpf_wq_set_callback(&elem->work, on_work, 0))
		return 0;
	return bpf_wq_start(&elem->work, 0);
}

/* 0 and 1 are values that every type may return. */
#define PROGRAM(name, section, result) \
	SEC(section) \
	int type_##name(void *ctx) \
	{ \
		use(); \
		return result; \
	}

PROGRAM(fentry, "fentry/bpf_fentry_test1", 0)
PROGRAM(fentry_s, "fentry.s/bpf_fentry_test1", 0)
PROGRAM(fexit, "fexit/bpf_fentry_test1", 0)
PROGRAM(fexit_s, "fexit.s/bpf_fentry_test1", 0)
PROGRAM(fmod_ret, "fmod_ret/bpf_modify_return_test", 0)
PROGRAM(tp_btf, "tp_btf/sched_switch", 0)
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
PROGRAM(sk_skb, "sk_skb", 1)
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
PROGRAM(tracepoint, "tracepoint/sched/sched_switch", 0)
PROGRAM(raw_tp, "raw_tp/sched_switch", 0)
PROGRAM(raw_tp_w, "raw_tp.w/sched_switch", 0)
PROGRAM(perf_event, "perf_event", 0)

/* These use the map alone. */
SEC("kprobe")
int only_looks_up(void *ctx)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	return elem ? elem->value & 0 : 0;
}

SEC("kprobe")
int looks_up_with_timer(void *ctx)
{
	struct with_timer *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&with_timers, &key);
	return elem ? elem->value & 0 : 0;
}

char _license[] SEC("license") = "GPL";
