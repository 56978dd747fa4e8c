/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A bounded first-in first-out queue of numbers, for any number of CPUs and any context, also an
 * NMI that interrupts another operation: nobody waits for anybody.
 *
 * A cell is one word, so what is stored and that it is stored become visible together, and who is
 * interrupted between a cell and the ring's position leaves nothing half done: the next one moves
 * the position on. A cell for position p of a ring of n cells says, in its upper half,
 *
 *	2p		free, waits for what is put at position p,
 *	2p + 1		holds it, in the lower half,
 *	2(p + n)	it was taken: the cell waits for its next round.
 *
 * An operation fails only where another one succeeds, so it is tried again until it is through.
 */
#ifndef BPF_WQ_RING_BPF_H
#define BPF_WQ_RING_BPF_H

#include <bpf_wq/gate.bpf.h>

struct bpf_wq_ring {
	__u64 head; /* the next to be taken */
	__u64 for_takers[7];
	__u64 tail; /* the next to be put */
	__u64 for_putters[7];
};

struct bpf_wq_ring_operation {
	struct bpf_wq_ring *ring;
	void *cells;	   /* an array of __u64 */
	__u64 size;	   /* how many: a power of two */
	__u64 number;	   /* what is put, or was taken */
	__u64 is_complete; /* otherwise there was nothing to take */
};

static __always_inline __u64 bpf_wq_cell(__u64 position, __u64 number)
{
	return position << 33 | number;
}

#define BPF_WQ_CELL_HOLDS (1ULL << 32)

/* How far a cell is ahead of a position, in halves: see above. */
static __always_inline __s32 bpf_wq_cell_ahead(__u64 cell, __u64 position)
{
	return (__s32)((__u32)(cell >> 32) - (__u32)(position << 1));
}

static long bpf_wq_ring_try_take(__u64 i, struct bpf_wq_ring_operation *take)
{
	__u64 head = bpf_wq_read(take->ring->head);
	__u32 index = head & (take->size - 1);
	__u64 *cell = bpf_map_lookup_elem(take->cells, &index);
	__u64 seen;
	__s32 ahead;

	if (!cell)
		return 1;
	seen = bpf_wq_read(*cell);
	ahead = bpf_wq_cell_ahead(seen, head);
	if (ahead == 1) {
		__u64 next = bpf_wq_cell(head + take->size, 0);

		if (__sync_val_compare_and_swap(cell, seen, next) != seen)
			return 0;
		__sync_val_compare_and_swap(&take->ring->head, head, head + 1);
		take->number = (__u32)seen;
		take->is_complete = 1;
		return 1;
	}
	if (ahead <= 0)
		return bpf_wq_read(take->ring->head) == head;
	__sync_val_compare_and_swap(&take->ring->head, head, head + 1);
	return 0;
}

static long bpf_wq_ring_try_put(__u64 i, struct bpf_wq_ring_operation *put)
{
	__u64 tail = bpf_wq_read(put->ring->tail);
	__u32 index = tail & (put->size - 1);
	__u64 *cell = bpf_map_lookup_elem(put->cells, &index);
	__u64 seen;
	__s32 ahead;

	if (!cell)
		return 1;
	seen = bpf_wq_read(*cell);
	ahead = bpf_wq_cell_ahead(seen, tail);
	if (ahead < 0)
		return 0;
	if (ahead == 0) {
		__u64 next = bpf_wq_cell(tail, put->number) | BPF_WQ_CELL_HOLDS;

		if (__sync_val_compare_and_swap(cell, seen, next) != seen)
			return 0;
		put->is_complete = 1;
	}
	__sync_val_compare_and_swap(&put->ring->tail, tail, tail + 1);
	return ahead == 0;
}

/* Takes the oldest number. 0, or -ENOENT if there is none. */
static __always_inline int bpf_wq_ring_take(struct bpf_wq_ring *ring, void *cells, __u32 size,
					    __u32 *number)
{
	struct bpf_wq_ring_operation take = {.ring = ring, .cells = cells, .size = size};

	bpf_loop(BPF_WQ_TRIES, bpf_wq_ring_try_take, &take, 0);
	*number = take.number;
	return take.is_complete ? 0 : -ENOENT;
}

/* Puts a number. There has to be room: a ring is as long as there are numbers for it. */
static __always_inline void bpf_wq_ring_put(struct bpf_wq_ring *ring, void *cells, __u32 size,
					    __u32 number)
{
	struct bpf_wq_ring_operation put = {
		.ring = ring, .cells = cells, .size = size, .number = number};

	bpf_loop(BPF_WQ_TRIES, bpf_wq_ring_try_put, &put, 0);
}

static __always_inline int bpf_wq_ring_is_empty(struct bpf_wq_ring *ring)
{
	__u64 head = bpf_wq_read(ring->head);

	/* A taker may be ahead of a putter that has filled the cell, and not moved the tail yet. */
	return (__s64)(bpf_wq_read(ring->tail) - head) <= 0;
}

#endif
