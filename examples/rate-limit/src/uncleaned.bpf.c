/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The limiter whose buckets nothing in the kernel removes: user space does, or nobody. */
#include "limit.h"

struct entry {
	struct bucket bucket;
};

#include "tracked.h"

static __always_inline void clean_up_later(const struct source *source, int is_tracked)
{
}

char LICENSE[] SEC("license") = "GPL";
