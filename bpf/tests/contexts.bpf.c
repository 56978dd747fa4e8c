// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Rules 8 and 9: init, set_callback and start where the kernel itself was interrupted.
#include "rules.h"

#include <bpf/bpf_tracing.h>

struct hrtimer {
	__u8 is_soft;
} __attribute__((preserve_access_index));

static __u64 turns;

static int on_work(void *map, int *key, void *value)
{
	struct seen *s = enter();

	if (s)
		leave(s);
	return 0;
}

static __always_inline int arm_once(void)
{
	struct elem *elem = element(&array, 0);
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);

	if (!elem || !s || __sync_fetch_and_add(&turns, 1))
		return 0;
	s->err[0] = bpf_wq_init(&elem->work, &array, 0);
	s->err[1] = bpf_wq_set_callback(&elem->work, on_work, 0);
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
