// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* How kernels differ in what they offer to programs with workqueues. */
#include <linux/bpf.h>
#include <bpf_wq/wq.bpf.h>

/* libbpf compares prototypes by structure: this one is declared, and that one defined. */
struct task_struct___declared;

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern struct task_struct___declared *bpf_task_from_pid___declared(int pid) __ksym __weak;
extern struct task_struct *bpf_task_from_pid___defined(int pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;

SEC("syscall")
int finds_declared(void *ctx)
{
	return bpf_ksym_exists(bpf_task_from_pid___declared);
}

SEC("syscall")
int finds_defined(void *ctx)
{
	return bpf_ksym_exists(bpf_task_from_pid___defined);
}

/* The old name, which 7.0 kept with another type of its last argument. */
struct bpf_prog_aux {
	int unused;
} __attribute__((preserve_access_index));

extern int bpf_wq_set_callback_impl___void(struct bpf_wq *wq,
					   int (*callback)(void *map, int *key, void *value),
					   unsigned int flags, void *aux__ign) __ksym __weak;
extern int bpf_wq_set_callback_impl___aux(struct bpf_wq *wq,
					  int (*callback)(void *map, int *key, void *value),
					  unsigned int flags,
					  struct bpf_prog_aux *aux) __ksym __weak;

struct elem {
	int value;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct elem);
} elems SEC(".maps");

static int on_work(void *map, int *key, void *value)
{
	return 0;
}

SEC("syscall")
int finds_impl_with_void(void *ctx)
{
	return bpf_ksym_exists(bpf_wq_set_callback_impl___void);
}

SEC("syscall")
int calls_impl_with_aux(void *ctx)
{
	struct elem *elem;
	int key = 0;

	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem || !bpf_ksym_exists(bpf_wq_set_callback_impl___aux))
		return 0;
	return bpf_wq_set_callback_impl___aux(&elem->work, on_work, 0, 0);
}

/* Sleepable helpers in the callbacks of network programs; they never run. */
static int copying(void *map, int *key, void *value)
{
	int number;

	bpf_copy_from_user(&number, sizeof(number), 0);
	return 0;
}

static int copying_from_a_task(void *map, int *key, void *value)
{
	struct task_struct *task;
	int number;

	task = bpf_task_from_pid___defined(1);
	if (!task)
		return 0;
	bpf_copy_from_user_task(&number, sizeof(number), 0, task, 0);
	bpf_task_release(task);
	return 0;
}

#define SET_CALLBACK(name, section, callback) \
	SEC(section) \
	int name(void *ctx) \
	{ \
		struct elem *elem; \
		int key = 0; \
\
		elem = bpf_map_lookup_elem(&elems, &key); \
		if (elem) \
			bpf_wq_set_callback(&elem->work, callback, 0); \
		return 0; \
	}

SET_CALLBACK(xdp_copies, "xdp", copying)
SET_CALLBACK(tc_copies, "tc", copying)
SET_CALLBACK(xdp_copies_from_a_task, "xdp", copying_from_a_task)
SET_CALLBACK(tc_copies_from_a_task, "tc", copying_from_a_task)
SET_CALLBACK(cgroup_copies_from_a_task, "cgroup/connect4", copying_from_a_task)

char _license[] SEC("license") = "GPL";
