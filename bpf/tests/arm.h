/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One program for every way of declaring the kfuncs: each .bpf.c file declares
 * them and includes this. Run with BPF_PROG_TEST_RUN, it arms and starts a
 * workqueue, so that its instructions can be counted and its result be read.
 */
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
	struct elem *elem = value;

	elem->value = 42;
	return 0;
}

SEC("syscall")
int arm(void *ctx)
{
	struct elem *elem;
	int key = 0, err;

	elem = bpf_map_lookup_elem(&elems, &key);
	if (!elem)
		return -2;
	err = bpf_wq_init(&elem->work, &elems, 0);
	if (err)
		return err;
	err = SET_CALLBACK(&elem->work, on_work);
	if (err)
		return err;
	return bpf_wq_start(&elem->work, 0);
}

char _license[] SEC("license") = "GPL";
