/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gate that all submissions to a map's workqueues, or to an executor, pass. User space sees
 * it, and closes it: then it is known when the work is done.
 */
#ifndef BPF_WQ_GATE_BPF_H
#define BPF_WQ_GATE_BPF_H

#include <bpf_wq/wq.bpf.h>

/* As of <errno.h>, which a BPF program may not have. */
#ifndef ENOENT
#define ENOENT 2
#endif
#ifndef EAGAIN
#define EAGAIN 11
#endif
#ifndef EBUSY
#define EBUSY 16
#endif
#ifndef EINVAL
#define EINVAL 22
#endif
#ifndef ENOSPC
#define ENOSPC 28
#endif
#ifndef EOPNOTSUPP
#define EOPNOTSUPP 95
#endif
#ifndef ESHUTDOWN
#define ESHUTDOWN 108
#endif

enum {
	BPF_WQ_NOT_ARMED, /* as the map was created: submissions are -EINVAL */
	BPF_WQ_OPEN,
	BPF_WQ_CLOSED, /* submissions are -ESHUTDOWN */
};

/* As src/gate.rs reads it. A line of the cache for each who writes. */
struct bpf_wq_gate {
	__u64 phase;
	__u64 read_mostly[7];

	__u64 in_flight; /* being submitted, delayed, queued or running */
	__u64 accepted;
	__u64 refused;
	__u64 longest; /* the most that was in flight at a time */
	__u64 submitters[4];

	__u64 done;	 /* jobs that came to their end: also those that failed */
	__u64 failed;	 /* of these, where the handler returned an error */
	__u64 retried;	 /* runs that the handler asked to have again */
	__u64 cancelled; /* jobs that were accepted, and never ran to their end */
	__u64 running;
	__u64 idle; /* an executor's workers that wait, a bit each */
	__u64 workers[2];
};

/* As many tries as bpf_loop() has, of what only fails where another CPU's succeeds. */
#define BPF_WQ_TRIES (1 << 23)

/* No number of the gate, or of an executor, is kept in a register. */
#define bpf_wq_read(place) (*(const volatile typeof(place) *)&(place))
#define bpf_wq_write(place, value) (*(volatile typeof(place) *)&(place) = (value))

/*
 * An atomic operation whose result nobody uses becomes one that orders nothing, up to LLVM 19, and
 * other CPUs of arm64 may then see what follows it first. With this its result is used.
 */
#define bpf_wq_ordered(operation) \
	({ \
		__u64 bpf_wq_before = (operation); \
		asm volatile("" : : "r"(bpf_wq_before)); \
		bpf_wq_before; \
	})

#define bpf_wq_add(place, number) bpf_wq_ordered(__sync_fetch_and_add(&(place), number))

/* Of what was counted in. */
static __always_inline int bpf_wq_gate_refuse(struct bpf_wq_gate *gate, int err)
{
	bpf_wq_add(gate->in_flight, -1);
	bpf_wq_add(gate->refused, 1);
	return err;
}

/*
 * Counts a submission in, if the gate is open. Whoever closes the gate and then finds nothing in
 * flight knows that nothing will be: all that came through are counted already.
 */
static __always_inline int bpf_wq_gate_enter(struct bpf_wq_gate *gate, __u64 *in_flight)
{
	__u64 phase = bpf_wq_read(gate->phase);

	/* Many that are refused are not seen in flight, so that a drain does not wait for them. */
	if (phase == BPF_WQ_OPEN) {
		*in_flight = bpf_wq_add(gate->in_flight, 1) + 1;
		phase = bpf_wq_read(gate->phase);
		if (phase == BPF_WQ_OPEN)
			return 0;
		bpf_wq_add(gate->in_flight, -1);
	}
	bpf_wq_add(gate->refused, 1);
	return phase == BPF_WQ_CLOSED ? -ESHUTDOWN : -EINVAL;
}

static __always_inline void bpf_wq_gate_accept(struct bpf_wq_gate *gate, __u64 in_flight)
{
	__u64 longest = bpf_wq_read(gate->longest);
	int i;

	bpf_wq_add(gate->accepted, 1);
	/* Whoever comes in between has seen as many, or nearly. */
	for (i = 0; i < 4 && in_flight > longest; i++)
		longest = __sync_val_compare_and_swap(&gate->longest, longest, in_flight);
}

/* Whether a handler's type is that of these pointers; clang itself only warns. */
#define BPF_WQ_IS_HANDLER(handler, first, second) \
	(__builtin_types_compatible_p(typeof(handler), int(first *, second *)) || \
	 __builtin_types_compatible_p(typeof(handler), int(const first *, second *)))

/* One element, which user space maps into its memory. */
#define BPF_WQ_GATE_MAP(name, value_type) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1); \
		__type(key, __u32); \
		__type(value, value_type); \
	} name SEC(".maps")

#endif
