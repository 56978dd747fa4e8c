/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What HID-BPF has since 6.11, and what of a device is read. */
#ifndef KERNEL_H
#define KERNEL_H

#include <bpf_wq/wq.bpf.h>

enum hid_report_type {
	HID_INPUT_REPORT = 0,
	HID_OUTPUT_REPORT = 1,
	HID_FEATURE_REPORT = 2,
	HID_REPORT_TYPES,
};

enum hid_class_request {
	HID_REQ_GET_REPORT = 1,
	HID_REQ_SET_REPORT = 9,
};

struct hid_report_enum {
	unsigned int numbered;
} __attribute__((preserve_access_index));

struct hid_device {
	unsigned int id;
	struct hid_report_enum report_enum[HID_REPORT_TYPES];
} __attribute__((preserve_access_index));

struct hid_bpf_ctx {
	struct hid_device *hid;
	int size;
} __attribute__((preserve_access_index));

/* A struct_ops since 6.11: ebc0d8093e8c. */
struct hid_bpf_ops {
	int hid_id;
	int (*hid_device_event)(struct hid_bpf_ctx *ctx, enum hid_report_type type, __u64 source);
	int (*hid_rdesc_fixup)(struct hid_bpf_ctx *ctx);
};

extern __u8 *hid_bpf_get_data(struct hid_bpf_ctx *ctx, unsigned int offset,
			      const __u64 size) __ksym;
extern struct hid_bpf_ctx *hid_bpf_allocate_context(unsigned int hid_id) __ksym;
extern void hid_bpf_release_context(struct hid_bpf_ctx *ctx) __ksym;
extern int hid_bpf_input_report(struct hid_bpf_ctx *ctx, enum hid_report_type type, __u8 *buf,
				const __u64 buf__sz) __ksym;
extern int hid_bpf_hw_request(struct hid_bpf_ctx *ctx, __u8 *buf, __u64 buf__sz,
			      enum hid_report_type rtype, enum hid_class_request reqtype) __ksym;

/* As of <errno.h>. */
#ifndef EIO
#define EIO 5
#endif
#ifndef ENODEV
#define ENODEV 19
#endif
#ifndef EPROTO
#define EPROTO 71
#endif

#endif
