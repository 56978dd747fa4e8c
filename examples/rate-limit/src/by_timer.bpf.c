/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The limiter whose buckets have a timer each, which removes them when they are full again. */
#include "limit.h"

struct entry {
	struct bucket bucket;
	struct bpf_timer timer;
};

#include "tracked.h"

#define CLOCK_MONOTONIC 1

static __always_inline long forget(const struct source *source)
{
	long err = bpf_map_delete_elem(&buckets, source);

	if (!err)
		bpf_wq_add(tracked.removed, 1);
	return err;
}

/* Runs in a timer's interrupt. */
static int forget_if_full(void *map, struct source *source, struct entry *entry)
{
	__u64 now = bpf_ktime_get_ns(), full_at = bpf_wq_read(entry->bucket.full_at);

	if (full_at > now)
		bpf_timer_start(&entry->timer, full_at - now, 0);
	else if (forget(source))
		/* Such as -EBUSY: the lock of the map was not to be had. */
		bpf_timer_start(&entry->timer, limits.token_ns, 0);
	return 0;
}

static __always_inline void clean_up_later(const struct source *source, int is_tracked)
{
	struct entry *entry = is_tracked ? bpf_map_lookup_elem(&buckets, source) : 0;

	if (!entry)
		return;
	if (bpf_timer_init(&entry->timer, &buckets, CLOCK_MONOTONIC) ||
	    bpf_timer_set_callback(&entry->timer, forget_if_full) ||
	    bpf_timer_start(&entry->timer, limits.token_ns, 0))
		forget(source);
}

char LICENSE[] SEC("license") = "GPL";
