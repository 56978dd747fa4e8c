/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose a packet is, and whether its bucket has a token. */
#ifndef LIMIT_H
#define LIMIT_H

#include <bpf_wq/gate.bpf.h>
#include <bpf/bpf_endian.h>

enum {
	XDP_DROP = 1,
	XDP_PASS = 2,
};

enum {
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86dd,
	ETH_P_8021Q = 0x8100,
	ETH_P_8021AD = 0x88a8,
};

enum {
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
};

struct xdp_md {
	__u32 data, data_end;
};

struct eth {
	__u8 destination[6], source[6];
	__be16 protocol;
} __attribute__((packed));

struct vlan {
	__be16 tag, protocol;
} __attribute__((packed));

struct ipv4 {
	__u8 before[12];
	__be32 source, destination;
} __attribute__((packed));

struct ipv6 {
	__u8 before[8];
	__u64 source[2], destination[2];
} __attribute__((packed));

/* An address as of IPv6; one of IPv4 is ::ffff:a.b.c.d. */
struct source {
	__u64 address[2];
};

/*
 * A token bucket in one word: when it will be full again. Until then a token is missing for each
 * token_ns. One that is full says nothing that a new one does not.
 */
struct bucket {
	__u64 full_at;
};

/* As src/limiter.rs writes them, also while packets come. */
struct limits {
	__u64 token_ns; /* the time in which a bucket gets a token */
	__u64 spare_ns; /* the time in which an empty one gets all of them but one */
	__u64 sweep_ns; /* how often buckets are looked at, as long as there are any */
};

volatile struct limits limits SEC(".data.limits") = {.token_ns = 1};

struct tracked {
	__u64 created;
	__u64 removed;
	__u64 sweeps;
};

struct tracked tracked SEC(".data.tracked") = {};

struct counts {
	__u64 passed;
	__u64 dropped;
	__u64 untracked; /* of both, those of a source that the map had no place for */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

/* Whether the packet is IP's. */
static __always_inline int source_of(const struct xdp_md *packet, struct source *source)
{
	void *at = (void *)(long)packet->data, *end = (void *)(long)packet->data_end;
	struct eth *eth = at;
	struct vlan *vlan;
	struct ipv4 *ipv4;
	struct ipv6 *ipv6;
	__be16 protocol;
	int i;

	at += sizeof(*eth);
	if (at > end)
		return 0;
	protocol = eth->protocol;
	for (i = 0; i < 2; i++) {
		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		vlan = at;
		at += sizeof(*vlan);
		if (at > end)
			return 0;
		protocol = vlan->protocol;
	}
	if (protocol == bpf_htons(ETH_P_IP)) {
		ipv4 = at;
		if (at + sizeof(*ipv4) > end)
			return 0;
		source->address[0] = 0;
		source->address[1] = bpf_cpu_to_be64(0xffffULL << 32 | bpf_ntohl(ipv4->source));
		return 1;
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		ipv6 = at;
		if (at + sizeof(*ipv6) > end)
			return 0;
		source->address[0] = ipv6->source[0];
		source->address[1] = ipv6->source[1];
		return 1;
	}
	return 0;
}

/* Takes a token, if there is one. */
static __always_inline int take(struct bucket *bucket, __u64 now)
{
	__u64 seen = bpf_wq_read(bucket->full_at), full_at, was;
	int i;

	for (i = 0; i < 8; i++) {
		full_at = seen > now ? seen : now;
		if (full_at - now > limits.spare_ns)
			return 0;
		was = __sync_val_compare_and_swap(&bucket->full_at, seen,
						  full_at + limits.token_ns);
		if (was == seen)
			return 1;
		seen = was;
	}
	/* So many packets of one source at the same moment. */
	return 0;
}

static __always_inline int verdict(int passes, int is_tracked)
{
	struct counts *count;
	__u32 zero = 0;

	count = bpf_map_lookup_elem(&counts, &zero);
	if (count) {
		count->passed += passes;
		count->dropped += !passes;
		count->untracked += !is_tracked;
	}
	return passes ? XDP_PASS : XDP_DROP;
}

#endif
