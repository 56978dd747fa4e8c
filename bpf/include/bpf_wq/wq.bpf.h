/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * BPF workqueues for programs that are compiled once and loaded on every
 * kernel since 6.10.
 *
 *	#include <bpf_wq/wq.bpf.h>
 *
 *	int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags);
 *	int bpf_wq_set_callback(struct bpf_wq *wq,
 *				int (*callback)(void *map, int *key, void *value),
 *				unsigned int flags);
 *	int bpf_wq_start(struct bpf_wq *wq, unsigned int flags);
 *
 * These are the kernel's own names. `flags` must be 0. Include vmlinux.h (of
 * 6.10 or later) or <linux/bpf.h> before this file, or neither.
 */
#ifndef BPF_WQ_WQ_BPF_H
#define BPF_WQ_WQ_BPF_H

/*
 * vmlinux.h has struct bpf_wq since 6.10, and so has <linux/bpf.h>. That the latter
 * is not older shows in BPF_JCOND, which came one version before, in 6.9.
 */
#if defined(__VMLINUX_H__)
#define BPF_WQ_HAS_STRUCT
#elif defined(__LINUX_BPF_H__)
#ifdef BPF_JCOND
#define BPF_WQ_HAS_STRUCT
#endif
#else
#include "bare.bpf.h"
#endif

#ifndef BPF_WQ_HAS_STRUCT
struct bpf_wq {
	__u64 __opaque[2];
} __attribute__((aligned(8)));
#endif
#undef BPF_WQ_HAS_STRUCT

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Since 6.10: eb48f6cd41a0, 8e83da9732d9. */
extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym __weak;
extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym __weak;

/*
 * The three prototypes that bpf_wq_set_callback has had. libbpf compares each
 * with the kernel's BTF, by structure: the structs must be defined here, and a
 * weak one that differs counts as absent. It strips the ___suffix before it
 * looks for the name.
 */

/* 6.10.0 to 6.10.2: 81f1d7a583fa. The callback's third parameter is the wq. */
extern int bpf_wq_set_callback_impl___v6_10(struct bpf_wq *wq,
					    int (*callback)(void *map, int *key, struct bpf_wq *wq),
					    unsigned int flags, void *aux__ign) __ksym __weak;

/* 6.10.3 to 6.19: f56f4d541eab. It is the element's value. */
extern int bpf_wq_set_callback_impl___v6_11(struct bpf_wq *wq,
					    int (*callback)(void *map, int *key, void *value),
					    unsigned int flags, void *aux__ign) __ksym __weak;

/* Since 7.0: b97931a25a4b. The verifier supplies the last argument. */
extern int bpf_wq_set_callback___v7_0(struct bpf_wq *wq,
				      int (*callback)(void *map, int *key, void *value),
				      unsigned int flags) __ksym __weak;

/*
 * Which prototype this kernel has could be asked with bpf_ksym_exists(), but the
 * verifier keeps that load of an address: two instructions a question. A CO-RE
 * question is one instruction that sets a register, and on every kernel since
 * 6.11 the answer that decides is 0: the value that `flags` has to be. So the
 * same instruction is the argument, the branches not taken are removed, and
 * nothing is left. The facts asked for:
 *
 * - struct bpf_work, the kernel's side of a struct bpf_wq, had `delete_work` up
 *   to 6.19. 7.0 took it away (1bfbc267ec91), with the new prototype but by
 *   another commit: a kernel that took over this one alone would refuse the
 *   program, by the kfunc's name. None has: not 6.12.107 and not 6.18.44, which
 *   are months younger than 7.0.
 * - struct sk_buff had `mono_delivery_time` up to 6.10. 6.11 renamed it
 *   (4d25ca2d6801). Where it is found, libbpf's word on the prototypes decides: on
 *   6.10, a call costs three instructions more than one written for it alone.
 */
struct bpf_wq_composite {
	int unused;
};

struct bpf_work___bpf_wq {
	struct bpf_wq_composite delete_work;
} __attribute__((preserve_access_index));

struct sk_buff___bpf_wq {
	__u8 mono_delivery_time : 1;
} __attribute__((preserve_access_index));

/* A register without sign extension: w0 to w9 from -mcpu=v3 on, else r0 to r9. */
#ifdef __BPF_FEATURE_ALU32
typedef int bpf_wq_answer;
#else
typedef long bpf_wq_answer;
#endif

/*
 * Hides from the compiler what the value can be, and keeps it in a register.
 * Compare such an answer with < 1: of one that equals 0 the compiler would make a
 * constant, and load that into the argument. No instruction.
 */
#define BPF_WQ_KEEP(answer) asm("" : "+r"(answer))

/*
 * A jump that the compiler believes may fall through. So it leaves the branches
 * in this order, and once the verifier has removed those not taken, the jump is
 * one to the next instruction, which it removes too.
 */
#define BPF_WQ_JUMP(label) asm goto("goto %l[" #label "]" : : : : label)

/*
 * The argument that the verifier overwrites before the call and does not check:
 * whatever the register holds. No instruction.
 */
static __always_inline void *bpf_wq_ignored(void)
{
	void *value;

	asm volatile("" : "=r"(value));
	return value;
}

static __always_inline int
bpf_wq_set_callback_portable(struct bpf_wq *wq, int (*callback)(void *map, int *key, void *value),
			     unsigned int flags)
{
	bpf_wq_answer before_7_0, before_6_11;
	int err;

	before_7_0 = bpf_core_field_exists(struct bpf_work___bpf_wq, delete_work);
	BPF_WQ_KEEP(before_7_0);
	if (before_7_0 < 1) {
		err = bpf_wq_set_callback___v7_0(wq, callback, before_7_0 | flags);
		BPF_WQ_JUMP(done);
	}
	before_6_11 = bpf_core_field_exists(struct sk_buff___bpf_wq, mono_delivery_time);
	BPF_WQ_KEEP(before_6_11);
	if (before_6_11 < 1) {
		err = bpf_wq_set_callback_impl___v6_11(wq, callback, before_6_11 | flags,
						       bpf_wq_ignored());
		BPF_WQ_JUMP(done);
	}
	if (bpf_ksym_exists(bpf_wq_set_callback_impl___v6_11))
		err = bpf_wq_set_callback_impl___v6_11(wq, callback, flags, bpf_wq_ignored());
	else
		err = bpf_wq_set_callback_impl___v6_10(wq, (void *)callback, flags,
						       bpf_wq_ignored());
done:
	return err;
}

/* A macro, because vmlinux.h of 7.0 declares a function of this name. */
#undef bpf_wq_set_callback
#define bpf_wq_set_callback(wq, callback, flags) bpf_wq_set_callback_portable(wq, callback, flags)

#endif
