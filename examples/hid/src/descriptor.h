/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A report descriptor that names the last usage of a range before the first one. Linux takes the
 * first usage that was named by then, which is 0, and the keys of the range for others.
 * drivers/hid/hid-cypress.c has the same fix for the devices of one maker.
 */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

#include "kernel.h"

/* HID_MAX_DESCRIPTOR_SIZE. */
#define LONGEST_DESCRIPTOR 4096

/* Items of one byte. */
#define USAGE_MINIMUM 0x19
#define USAGE_MAXIMUM 0x29

/* Of an item whose length its second byte says. No device is known to have one. */
#define LONG_ITEM 0xfe

struct walk {
	__u8 *bytes;
	__u32 size;
	__u32 at;
	__u32 before; /* where the item before this one begins */
	__u32 fixed;
};

static long fix_item(__u64 i, struct walk *walk)
{
	__u32 at = walk->at, before = walk->before, length;
	__u8 *bytes = walk->bytes, item, last;

	if (at >= walk->size || at >= LONGEST_DESCRIPTOR - 1 || before >= LONGEST_DESCRIPTOR - 1)
		return 1;
	item = bytes[at];
	if (item == LONG_ITEM)
		return 1;
	last = bytes[before + 1];
	if (item == USAGE_MINIMUM && bytes[before] == USAGE_MAXIMUM && at != before &&
	    bytes[at + 1] <= last) {
		bytes[before] = USAGE_MINIMUM;
		bytes[before + 1] = bytes[at + 1];
		bytes[at] = USAGE_MAXIMUM;
		bytes[at + 1] = last;
		walk->fixed++;
	}
	length = item & 3;
	walk->before = at;
	walk->at = at + 1 + (length == 3 ? 4 : length);
	return 0;
}

/* How many ranges it had to fix. */
static __always_inline __u32 fix_descriptor(struct hid_bpf_ctx *hid)
{
	struct walk walk = {.bytes = hid_bpf_get_data(hid, 0, LONGEST_DESCRIPTOR)};

	if (!walk.bytes)
		return 0;
	walk.size = hid->size;
	bpf_loop(LONGEST_DESCRIPTOR, fix_item, &walk, 0);
	return walk.fixed;
}

#endif
