// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Calls that may sleep, each in the callback of a program of each type. Each program is loaded
 * alone. Only those of the type SEC("syscall") are run: the text of another could be freed under
 * a callback that sleeps.
 */
#include "rules.h"

#define NUMA_NO_NODE (-1)
#define MAP_TYPE_ARENA 33

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

struct cgroup_subsys_state {
	int id;
} __attribute__((preserve_access_index));

struct cgroup {
	struct cgroup_subsys_state self;
} __attribute__((preserve_access_index));

struct file {
	unsigned int f_flags;
} __attribute__((preserve_access_index));

struct bpf_key {
	_Bool has_ref;
} __attribute__((preserve_access_index));

struct bpf_crypto_ctx {
	__u32 siv_len;
} __attribute__((preserve_access_index));

struct bpf_crypto_params {
	char type[14];
	__u8 reserved[2];
	char algo[128];
	__u8 key[256];
	__u32 key_len;
	__u32 authsize;
};

struct bpf_ksock {
	void *sock;
} __attribute__((preserve_access_index));

struct bpf_ksock_create_opts {
	__u8 family;
	__u8 type;
	__u8 protocol;
	__u8 reserved;
};

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;
extern int bpf_copy_from_user_str(void *dst, __u32 dst__sz, const void *unsafe_ptr__ign,
				  __u64 flags) __ksym __weak;
extern void *bpf_arena_alloc_pages(void *p__map, void *addr__ign, __u32 page_cnt, int node_id,
				   __u64 flags) __ksym __weak;
extern struct bpf_crypto_ctx *bpf_crypto_ctx_create(const struct bpf_crypto_params *params,
						    __u32 params__sz, int *err) __ksym __weak;
extern void bpf_crypto_ctx_release(struct bpf_crypto_ctx *ctx) __ksym __weak;
extern struct bpf_key *bpf_lookup_user_key(__s32 serial, __u64 flags) __ksym __weak;
extern struct bpf_key *bpf_lookup_system_key(__u64 id) __ksym __weak;
extern void bpf_key_put(struct bpf_key *bkey) __ksym __weak;
extern int bpf_verify_pkcs7_signature(struct bpf_dynptr *data_p, struct bpf_dynptr *sig_p,
				      struct bpf_key *trusted_keyring) __ksym __weak;
extern struct file *bpf_get_task_exe_file(struct task_struct *task) __ksym __weak;
extern void bpf_put_file(struct file *file) __ksym __weak;
extern int bpf_get_file_xattr(struct file *file, const char *name__str,
			      struct bpf_dynptr *value_p) __ksym __weak;
extern struct cgroup *bpf_cgroup_from_id(__u64 cgid) __ksym __weak;
extern void bpf_cgroup_release(struct cgroup *cgrp) __ksym __weak;
/* Up to 6.15, and since 6.16. */
extern void cgroup_rstat_flush(struct cgroup *cgrp) __ksym __weak;
extern void css_rstat_flush(struct cgroup_subsys_state *css) __ksym __weak;
extern struct bpf_ksock *bpf_ksock_create(const struct bpf_ksock_create_opts *opts, __u32 opts__sz,
					  int *err__uninit) __ksym __weak;
extern void bpf_ksock_release(struct bpf_ksock *ks) __ksym __weak;
extern void *bpf_obj_new_impl(__u64 local_type_id__k, void *meta__ign) __ksym __weak;
extern void bpf_obj_drop_impl(void *p__alloc, void *meta__ign) __ksym __weak;

struct {
	__uint(type, MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
} arena SEC(".maps");

struct buffer {
	__u8 data[16];
	__u8 signature[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct buffer);
} buffers SEC(".maps");

#define PROGRAM(call, type, section, result) \
	SEC(section) \
	int type##_##call(void *ctx) \
	{ \
		struct elem *elem = element(&array, 0); \
\
		if (elem) \
			bpf_wq_set_callback(&elem->work, on_##call, 0); \
		return result; \
	}

/* A callback around a call, which yields 0 or an errno, in programs of each type. */
#define CALL(call) \
	static int on_##call(void *map, int *key, void *value) \
	{ \
		struct seen *s = enter(); \
\
		if (!s) \
			return 0; \
		s->err[0] = call(); \
		leave(s); \
		return 0; \
	} \
\
	SEC("syscall") \
	int syscall_##call(int *err) \
	{ \
		struct elem *elem = element(&array, 0); \
\
		if (!elem) \
			return 0; \
		err[0] = bpf_wq_init(&elem->work, &array, 0); \
		err[1] = bpf_wq_set_callback(&elem->work, on_##call, 0); \
		err[2] = bpf_wq_start(&elem->work, 0); \
		return 0; \
	} \
\
	PROGRAM(call, fentry, "fentry/bpf_fentry_test1", 0) \
	PROGRAM(call, lsm, "lsm/file_open", 0) \
	PROGRAM(call, xdp, "xdp", 1) \
	PROGRAM(call, tc, "tc", 0) \
	PROGRAM(call, socket, "socket", 0) \
	PROGRAM(call, cgroup_skb, "cgroup_skb/ingress", 1) \
	PROGRAM(call, raw_tp, "raw_tp/sched_switch", 0) \
	PROGRAM(call, perf_event, "perf_event", 0) \
	PROGRAM(call, kprobe, "kprobe", 0)

static __always_inline long copy_from_user_task(void)
{
	struct task_struct *task = bpf_task_from_pid(1);
	char byte;
	long err;

	if (!task)
		return -3;
	err = bpf_copy_from_user_task(&byte, sizeof(byte), 0, task, 0);
	bpf_task_release(task);
	return err;
}
CALL(copy_from_user_task)

static __always_inline long copy_from_user_str(void)
{
	char text[4];

	return bpf_copy_from_user_str(text, sizeof(text), 0, 0);
}
CALL(copy_from_user_str)

static __always_inline long arena_alloc_pages(void)
{
	return bpf_arena_alloc_pages(&arena, 0, 1, NUMA_NO_NODE, 0) ? 0 : -12;
}
CALL(arena_alloc_pages)

static __always_inline long crypto_ctx_create(void)
{
	struct bpf_crypto_params params = {
		.type = "skcipher",
		.algo = "ecb(aes)",
		.key_len = 16,
	};
	struct bpf_crypto_ctx *ctx;
	int err;

	ctx = bpf_crypto_ctx_create(&params, sizeof(params), &err);
	if (!ctx)
		return err;
	bpf_crypto_ctx_release(ctx);
	return 0;
}
CALL(crypto_ctx_create)

static __always_inline long verify_pkcs7_signature(void)
{
	struct bpf_dynptr data, signature;
	struct bpf_key *keys;
	struct buffer *buffer;
	__u32 zero = 0;
	long err;

	buffer = bpf_map_lookup_elem(&buffers, &zero);
	if (!buffer)
		return 0;
	bpf_dynptr_from_mem(buffer->data, sizeof(buffer->data), 0, &data);
	bpf_dynptr_from_mem(buffer->signature, sizeof(buffer->signature), 0, &signature);
	/* The kernel's own. */
	keys = bpf_lookup_system_key(0);
	if (!keys)
		return -2;
	err = bpf_verify_pkcs7_signature(&data, &signature, keys);
	bpf_key_put(keys);
	return err;
}
CALL(verify_pkcs7_signature)

static __always_inline long lookup_user_key(void)
{
	/* There is no key of this number. */
	struct bpf_key *key = bpf_lookup_user_key(1, 0);

	if (!key)
		return -2;
	bpf_key_put(key);
	return 0;
}
CALL(lookup_user_key)

static __always_inline long get_file_xattr(void)
{
	struct bpf_dynptr value;
	struct buffer *buffer;
	struct file *file;
	__u32 zero = 0;
	long err;

	buffer = bpf_map_lookup_elem(&buffers, &zero);
	if (!buffer)
		return 0;
	file = bpf_get_task_exe_file(bpf_get_current_task_btf());
	if (!file)
		return -2;
	bpf_dynptr_from_mem(buffer->data, sizeof(buffer->data), 0, &value);
	err = bpf_get_file_xattr(file, "user.name", &value);
	bpf_put_file(file);
	return err;
}
CALL(get_file_xattr)

static __always_inline long rstat_flush(void)
{
	/* The root. */
	struct cgroup *cgroup = bpf_cgroup_from_id(1);

	if (!cgroup)
		return -2;
	if (bpf_ksym_exists(css_rstat_flush))
		css_rstat_flush(&cgroup->self);
	else
		cgroup_rstat_flush(cgroup);
	bpf_cgroup_release(cgroup);
	return 0;
}
CALL(rstat_flush)

static __always_inline long ksock_create(void)
{
	/* AF_INET, SOCK_DGRAM, IPPROTO_UDP. */
	struct bpf_ksock_create_opts opts = {.family = 2, .type = 2, .protocol = 17};
	struct bpf_ksock *socket;
	int err = 0;

	socket = bpf_ksock_create(&opts, sizeof(opts), &err);
	if (!socket)
		return err;
	bpf_ksock_release(socket);
	return 0;
}
CALL(ksock_create)

struct object {
	__u64 value;
};

/* Does not sleep, so that the program itself may call it. */
SEC("fentry/bpf_fentry_test1")
int main_obj_new(void *ctx)
{
	struct object *object = bpf_obj_new_impl(bpf_core_type_id_local(struct object), 0);

	if (object)
		bpf_obj_drop_impl(object, 0);
	return 0;
}
