// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Sockets of BPF programs, in a program and in its callback.
#include "rules.h"

#define AF_INET 2
#define SOCK_DGRAM 2

struct bpf_ksock {
	void *sock;
} __attribute__((preserve_access_index));

struct bpf_ksock_create_opts {
	__u8 family;
	__u8 type;
	__u8 protocol;
	__u8 reserved;
};

/* An address of IPv4 is the first 16 bytes. */
union bpf_ksock_addr {
	__u16 family;
	__u8 bytes[28];
};

/* Between 7.2 and 7.3. */
extern struct bpf_ksock *bpf_ksock_create(const struct bpf_ksock_create_opts *opts, __u32 opts__sz,
					  int *err__uninit) __ksym __weak;
extern int bpf_ksock_connect(struct bpf_ksock *ks, const union bpf_ksock_addr *addr,
			     __u32 addr__sz) __ksym __weak;
extern int bpf_ksock_send(struct bpf_ksock *ks, const void *data, __u32 data__sz) __ksym __weak;
extern void bpf_ksock_release(struct bpf_ksock *ks) __ksym __weak;

/* Where to, as user space writes it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union bpf_ksock_addr);
} address SEC(".maps");

static __always_inline struct bpf_ksock *udp_socket(int *err)
{
	struct bpf_ksock_create_opts opts = {.family = AF_INET, .type = SOCK_DGRAM};

	*err = 0;
	return bpf_ksock_create(&opts, sizeof(opts), err);
}

static __always_inline int connect(struct bpf_ksock *socket)
{
	__u32 zero = 0;
	union bpf_ksock_addr *to = bpf_map_lookup_elem(&address, &zero);

	return to ? bpf_ksock_connect(socket, to, sizeof(*to)) : -1;
}

/* 0, or what went wrong. */
static __always_inline int send(struct bpf_ksock *socket)
{
	char text[4] = "sent";
	int sent = bpf_ksock_send(socket, text, sizeof(text));

	return sent == sizeof(text) ? 0 : sent;
}

/*
 * To be given a socket, it would have to be kept in a map, in a field whose BTF has a tag that
 * clang 14 does not write.
 */
static int on_work(void *map, int *key, void *value)
{
	struct bpf_ksock *socket;
	struct seen *s = enter();
	int err;

	if (!s)
		return 0;
	socket = udp_socket(&err);
	s->err[0] = err;
	if (socket)
		bpf_ksock_release(socket);
	leave(s);
	return 0;
}

/* Sends, and starts the callback. */
SEC("syscall")
int sends(int *err)
{
	struct elem *elem = element(&array, 0);
	struct bpf_ksock *socket;
	int created;

	if (!elem)
		return 0;
	socket = udp_socket(&created);
	err[0] = created;
	if (!socket)
		return 0;
	err[1] = connect(socket);
	err[2] = send(socket);
	bpf_ksock_release(socket);
	err[3] = bpf_wq_init(&elem->work, &array, 0);
	err[4] = bpf_wq_set_callback(&elem->work, on_work, 0);
	err[5] = bpf_wq_start(&elem->work, 0);
	return 0;
}
