// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Written by hand for 6.10.0 to 6.10.2 alone, as a program of that time would be.
#include <bpf_wq/bare.bpf.h>

#include <bpf/bpf_helpers.h>

struct bpf_wq {
	__u64 __opaque[2];
} __attribute__((aligned(8)));

extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym;
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq,
				    int (*callback)(void *map, int *key, struct bpf_wq *wq),
				    unsigned int flags, void *aux__ign) __ksym;
extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;

#define SET_CALLBACK(wq, callback) bpf_wq_set_callback_impl(wq, (void *)(callback), 0, (void *)0)
#include "arm.h"
