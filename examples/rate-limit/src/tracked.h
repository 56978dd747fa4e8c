/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The limiter, but for what removes its buckets: so many packets a second of each source address
 * pass, and the others are dropped. Before it is included, a program declares `struct entry`, whose
 * first member is the bucket; it defines clean_up_later.
 */
#ifndef TRACKED_H
#define TRACKED_H

#include "limit.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* the memory of those that are removed is free */
	__uint(max_entries, 65536);
	__type(key, struct source);
	__type(value, struct entry);
} buckets SEC(".maps");

#ifndef EEXIST
#define EEXIST 17
#endif

/* The one bucket of all sources for which the map has no place. */
static struct bucket others;

/* A source has come that has a new bucket, or none, as there is no place. */
static __always_inline void clean_up_later(const struct source *source, int is_tracked);

static __always_inline int first_packet(const struct source *source, __u64 now)
{
	struct entry entry = {.bucket.full_at = now + limits.token_ns}, *found;

	switch (bpf_map_update_elem(&buckets, source, &entry, BPF_NOEXIST)) {
	case 0:
		bpf_wq_add(tracked.created, 1);
		clean_up_later(source, 1);
		return verdict(1, 1);
	case -EEXIST:
		found = bpf_map_lookup_elem(&buckets, source);
		if (found)
			return verdict(take(&found->bucket, now), 1);
		break;
	}
	clean_up_later(source, 0);
	return verdict(take(&others, now), 0);
}

SEC("xdp")
int rate_limit(struct xdp_md *packet)
{
	struct source source;
	struct entry *entry;
	__u64 now;

	if (!source_of(packet, &source))
		return XDP_PASS;
	now = bpf_ktime_get_ns();
	entry = bpf_map_lookup_elem(&buckets, &source);
	return entry ? verdict(take(&entry->bucket, now), 1) : first_packet(&source, now);
}

#endif
