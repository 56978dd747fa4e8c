/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Workqueues in the elements of a map, armed by a program that may sleep and started by any:
 *
 *	struct entry {
 *		__u64 data;
 *		BPF_WQ_WORK(work);
 *	};
 *
 *	struct {
 *		__uint(type, BPF_MAP_TYPE_ARRAY);
 *		...
 *		__type(value, struct entry);
 *	} entries SEC(".maps");
 *
 *	static int handle(__u32 *key, struct entry *entry) { ... return 0; }
 *
 *	BPF_WQ_ARM(entries, struct entry, work, handle);
 *
 *	SEC("fentry/...") ... { return entries_submit(entry); }
 *
 * BPF_WQ_ARM makes
 *
 * - bpf_wq_arm_entries, a SEC("syscall") program that user space runs after loading, and again when
 *   it has added elements to a hash. It arms those that are there and are not armed. One that
 *   nothing has armed, such as one that a program has created, takes no submission (-EINVAL).
 * - entries_submit(entry), for a program of any type that may use a bpf_wq. 0: the handler
 *   begins to run after this call, once for all submissions until then. -ESHUTDOWN: user space
 *   has closed the gate. -EINVAL: not armed. What else bpf_wq_start returns. Before 7.0 not for
 *   a program that the kernel calls under a lock of the scheduler or of a workqueue, such as
 *   tp_btf/sched_switch: its CPU may hang.
 * - entries_gate, a map with the numbers of struct bpf_wq_gate, of submissions.
 *
 * A bare bpf_wq_start(&entry->work, 0) is counted nowhere, and runs nothing.
 *
 * Why a program of its own arms: the workqueue holds the program that has set the callback, and
 * the kernel frees the text of one that may not sleep under a callback that does.
 */
#ifndef BPF_WQ_ARM_BPF_H
#define BPF_WQ_ARM_BPF_H

#include <bpf_wq/gate.bpf.h>

/*
 * Members of a map's value. Who updates or deletes an element takes its workqueue away, and so does
 * an LRU hash that evicts it: what was submitted and has not run never does, and counts as in
 * flight for ever.
 */
#define BPF_WQ_WORK(name) \
	struct bpf_wq name; \
	__u64 name##_runs; \
	__u64 name##_counted

/* A submission that started nothing is taken back, unless a run has begun, which has it. */
struct bpf_wq_taking_back {
	__u64 *runs;
	__u64 begun; /* runs, as it was counted */
	__u64 is_done;
};

static long bpf_wq_try_take_back(__u64 i, struct bpf_wq_taking_back *taking)
{
	__u64 seen = bpf_wq_read(*taking->runs);

	if (seen >> 32 != taking->begun)
		return 1;
	taking->is_done = __sync_val_compare_and_swap(taking->runs, seen, seen - 1) == seen;
	return taking->is_done;
}

/*
 * `runs` counts the handler's runs in its upper half, and submissions in its lower half. A run is
 * of all submissions that were counted before it began, also of those whose bpf_wq_start() comes
 * later: a run that this starts finds nothing to do.
 */
static __always_inline int bpf_wq_submit_to(struct bpf_wq_gate *gate, struct bpf_wq *wq,
					    __u64 *runs)
{
	struct bpf_wq_taking_back taking = {.runs = runs};
	__u64 in_flight;
	int err;

	err = bpf_wq_gate_enter(gate, &in_flight);
	if (err)
		return err;
	bpf_wq_gate_accept(gate, in_flight);
	taking.begun = bpf_wq_add(*runs, 1) >> 32;
	err = bpf_wq_start(wq, 0);
	if (!err)
		return 0;
	bpf_loop(BPF_WQ_TRIES, bpf_wq_try_take_back, &taking, 0);
	if (!taking.is_done)
		return 0;
	bpf_wq_add(gate->accepted, -1);
	return bpf_wq_gate_refuse(gate, err);
}

/* A run begins: of how many submissions. One element's runs come one after the other. */
static __always_inline __u32 bpf_wq_run_of(__u64 *runs, __u64 *counted)
{
	__u32 submissions = bpf_wq_add(*runs, 1ULL << 32);
	__u32 submitted = submissions - (__u32)*counted;

	*counted = submissions;
	return submitted;
}

#define BPF_WQ_ARM(map, type, member, handler) \
	_Static_assert(BPF_WQ_IS_HANDLER(handler, typeof(*map.key), type), \
		       "the handler of " #map " has to be static int " #handler \
		       "(its key *, " #type " *)"); \
	_Static_assert(__builtin_types_compatible_p(typeof(map.value), type *), \
		       "the values of " #map " have to be of type " #type); \
\
	BPF_WQ_GATE_MAP(map##_gate, struct bpf_wq_gate); \
\
	/* On its own, so that no local name hides the handler's. */ \
	static __always_inline int bpf_wq_handle_##map(typeof(map.key) bpf_wq_key, \
						       type *bpf_wq_element) \
	{ \
		return handler(bpf_wq_key, bpf_wq_element); \
	} \
\
	static int bpf_wq_run_##map(void *of, int *key, void *value) \
	{ \
		struct bpf_wq_gate *gate; \
		type *element = value; \
		__u32 submitted, zero = 0; \
\
		gate = bpf_map_lookup_elem(&map##_gate, &zero); \
		if (!gate) \
			return 0; \
		submitted = bpf_wq_run_of(&element->member##_runs, &element->member##_counted); \
		if (!submitted) \
			return 0; \
		bpf_wq_add(gate->running, 1); \
		if (bpf_wq_handle_##map((void *)key, element)) \
			bpf_wq_add(gate->failed, submitted); \
		bpf_wq_add(gate->running, -1); \
		bpf_wq_add(gate->done, submitted); \
		bpf_wq_add(gate->in_flight, -(__u64)submitted); \
		return 0; \
	} \
\
	static long bpf_wq_arm_one_##map(void *of, void *key, type *element, long *err) \
	{ \
		*err = bpf_wq_init(&element->member, &map, 0); \
		if (*err == -EBUSY) { \
			*err = 0; \
			return 0; \
		} \
		if (!*err) \
			*err = bpf_wq_set_callback(&element->member, bpf_wq_run_##map, 0); \
		return *err != 0; \
	} \
\
	SEC("syscall") \
	int bpf_wq_arm_##map(void *ctx) \
	{ \
		struct bpf_wq_gate *gate; \
		__u32 zero = 0; \
		long err = 0; \
\
		gate = bpf_map_lookup_elem(&map##_gate, &zero); \
		if (!gate) \
			return -EINVAL; \
		bpf_for_each_map_elem(&map, bpf_wq_arm_one_##map, &err, 0); \
		if (!err) \
			__sync_val_compare_and_swap(&gate->phase, BPF_WQ_NOT_ARMED, BPF_WQ_OPEN); \
		return err; \
	} \
\
	/* used: else clang has one that nobody listens to return a stale register. */ \
	static __attribute__((noinline, used)) int map##_submit(type *element) \
	{ \
		struct bpf_wq_gate *gate; \
		__u32 zero = 0; \
\
		gate = bpf_map_lookup_elem(&map##_gate, &zero); \
		if (!gate) \
			return -EINVAL; \
		return bpf_wq_submit_to(gate, &element->member, &element->member##_runs); \
	} \
	_Static_assert(1, "a semicolon follows")

#endif
