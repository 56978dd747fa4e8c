// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Rules 8 and 9: init, set_callback and start where the kernel itself was interrupted.
#include "rules.h"

#include <bpf/bpf_tracing.h>

struct hrtimer {
	__u8 is_soft;
} __attribute__((preserve_access_index));

static __u64 turns;

static __always_inline int arm_once(void)
{
	struct elem *elem = element(&array, 0);
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);

	if (!elem || !s || __sync_fetch_and_add(&turns, 1))
		return 0;
	s->err[0] = bpf_wq_init(&elem->work, &array, 0);
	s->err[1] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	s->err[2] = bpf_wq_start(&elem->work, 0);
	__sync_fetch_and_add(&s->others, 1);
	return 0;
}

SEC("tp_btf/hrtimer_expire_entry")
int BPF_PROG(in_hardirq, struct hrtimer *timer)
{
	/* A soft one expires outside of hardirq. */
	if (timer->is_soft)
		return 0;
	return arm_once();
}

/* Before the one below, which only starts. */
SEC("syscall")
int arm_ahead(int *err)
{
	struct elem *elem = element(&array, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 0);
	err[1] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	return 0;
}

/* The scheduler holds the lock of this CPU's queue. */
SEC("tp_btf/sched_switch")
int BPF_PROG(under_the_scheduler)
{
	struct elem *elem = element(&array, 0);
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);

	if (!elem || !s)
		return 0;
	s->err[2] = bpf_wq_start(&elem->work, 0);
	__sync_fetch_and_add(&s->others, 1);
	return 0;
}

SEC("tp_btf/nmi_handler")
int BPF_PROG(in_nmi)
{
	return arm_once();
}

SEC("perf_event")
int in_perf_event(void *ctx)
{
	return arm_once();
}
