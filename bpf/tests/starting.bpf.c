// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Rules 10 to 13 and 20 to 24: starting, and how the callback runs.
#include "rules.h"

#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct elem);
} hash SEC(".maps");

static int on_other_work(void *map, int *key, void *value)
{
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);

	if (s)
		__sync_fetch_and_add(&s->others, 1);
	return 0;
}

static int on_work_wait(void *map, int *key, void *value)
{
	struct seen *s = enter();

	if (!s)
		return 0;
	wait_at_gate();
	leave(s);
	return 0;
}

/* Rule 10: with preemption off, nothing else can run on this CPU. */
SEC("syscall")
int three_starts(int *err)
{
	struct elem *elem = element(&array, 0);
	int first, second, third;

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 0);
	err[1] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	bpf_preempt_disable();
	first = bpf_wq_start(&elem->work, 0);
	second = bpf_wq_start(&elem->work, 0);
	third = bpf_wq_start(&elem->work, 0);
	bpf_preempt_enable();
	err[2] = first;
	err[3] = second;
	err[4] = third;
	return 0;
}

/* Rule 11. */
SEC("syscall")
int start_and_wait(int *err)
{
	return init_set_start(&array, 0, on_work_wait, err);
}

/* Rule 11: of what is armed already. */
SEC("syscall")
int start_twice(int *err)
{
	struct elem *elem = element(&array, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_start(&elem->work, 0);
	err[1] = bpf_wq_start(&elem->work, 0);
	return 0;
}

#define RUNS 1000

/* Rule 12. */
static int on_work_restart(void *map, int *key, void *value)
{
	struct elem *elem = value;
	struct seen *s = enter();

	if (!s)
		return 0;
	if (s->entered < RUNS && bpf_wq_start(&elem->work, 0))
		__sync_fetch_and_add(&s->err[0], 1);
	leave(s);
	return 0;
}

SEC("syscall")
int restarts_itself(int *err)
{
	return init_set_start(&array, 0, on_work_restart, err);
}

/* Rule 13. */
SEC("syscall")
int change_callback(int *err)
{
	struct elem *elem = element(&array, 0);
	int started, changed;

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 0);
	err[1] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	bpf_preempt_disable();
	started = bpf_wq_start(&elem->work, 0);
	changed = bpf_wq_set_callback(&elem->work, on_other_work, 0);
	bpf_preempt_enable();
	err[2] = started;
	err[3] = changed;
	return 0;
}

/* Rule 20. */
static int on_work_forever(void *map, int *key, void *value)
{
	struct elem *elem = value;
	struct seen *s = enter();

	if (!s)
		return 0;
	bpf_wq_start(&elem->work, 0);
	leave(s);
	return 0;
}

SEC("syscall")
int forever(int *err)
{
	return init_set_start(&array, 0, on_work_forever, err);
}

/* Rule 21: the map is the right one if the key finds the value in it. */
static int on_work_look(void *map, int *key, void *value)
{
	struct elem *elem = value, *found;
	struct seen *s = enter();

	if (!s)
		return 0;
	s->key = *key;
	s->data = elem->data;
	elem->data = 99;
	found = bpf_map_lookup_elem(map, key);
	s->err[0] = found ? *(volatile __u64 *)&found->data : -1;
	leave(s);
	return 0;
}

static __always_inline int start_look(void *map, __u32 key, int *err)
{
	return init_set_start(map, key, on_work_look, err);
}

SEC("syscall")
int look_array(int *err)
{
	return start_look(&array, 5, err);
}

SEC("syscall")
int look_hash(int *err)
{
	return start_look(&hash, 4711, err);
}

/* Rule 24. */
SEC("syscall")
int start_other_element(int *err)
{
	return init_set_start(&array, 1, on_other_work, err);
}

struct workqueue_struct {
	int max_active;
	char name[24];
} __attribute__((preserve_access_index));

struct pool_workqueue {
	struct workqueue_struct *wq;
} __attribute__((preserve_access_index));

struct work_struct {
	void *func;
} __attribute__((preserve_access_index));

/* The function of all works of bpf_wq. */
extern const void bpf_wq_work __ksym;

/* What the kernel queued while `queueing` was this CPU's number plus one. */
struct queued {
	__u64 times;
	__u64 max_active;
	char name[24];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct queued);
} queued SEC(".maps");

static __u32 queueing;

/* Rules 22 and 24: sees between which marks the kernel queues the work. */
SEC("tp_btf/workqueue_queue_work")
int BPF_PROG(on_queue, int cpu, struct pool_workqueue *pwq, struct work_struct *work)
{
	__u32 zero = 0;
	struct queued *q;

	if (*(volatile __u32 *)&queueing != bpf_get_smp_processor_id() + 1)
		return 0;
	/* An interrupt may queue work of its own meanwhile. */
	if (work->func != &bpf_wq_work)
		return 0;
	q = bpf_map_lookup_elem(&queued, &zero);
	if (!q)
		return 0;
	q->times++;
	q->max_active = pwq->wq->max_active;
	bpf_probe_read_kernel_str(q->name, sizeof(q->name), pwq->wq->name);
	return 0;
}

SEC("syscall")
int start_marked(int *err)
{
	struct elem *elem = element(&array, 0);
	int started;

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 0);
	err[1] = bpf_wq_set_callback(&elem->work, on_work_count, 0);
	bpf_preempt_disable();
	*(volatile __u32 *)&queueing = bpf_get_smp_processor_id() + 1;
	started = bpf_wq_start(&elem->work, 0);
	*(volatile __u32 *)&queueing = 0;
	bpf_preempt_enable();
	err[2] = started;
	return 0;
}

/* Rule 23. */
struct task_struct {
	int trc_reader_nesting;
	int rcu_read_lock_nesting;
	unsigned short migration_disabled;
} __attribute__((preserve_access_index));

static int on_work_self(void *map, int *key, void *value)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct seen *s = enter();

	if (!s)
		return 0;
	s->err[0] = BPF_CORE_READ(task, trc_reader_nesting);
	s->err[1] = BPF_CORE_READ(task, migration_disabled);
	s->err[2] = BPF_CORE_READ(task, rcu_read_lock_nesting);
	leave(s);
	return 0;
}

SEC("syscall")
int look_at_task(int *err)
{
	return init_set_start(&array, 0, on_work_self, err);
}
