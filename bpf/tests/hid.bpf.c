// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A HID-BPF program whose workqueue injects a report. The kernel has to have CONFIG_HID_BPF.
#include "rules.h"

#include <bpf/bpf_tracing.h>

#define ENODEV 19

enum hid_report_type {
	HID_INPUT_REPORT = 0,
};

struct hid_device {
	unsigned int id;
} __attribute__((preserve_access_index));

struct hid_bpf_ctx {
	struct hid_device *hid;
} __attribute__((preserve_access_index));

/* Since 6.11: ebc0d8093e8c. */
struct hid_bpf_ops {
	int hid_id;
	int (*hid_device_event)(struct hid_bpf_ctx *ctx, enum hid_report_type type, __u64 source);
};

extern __u8 *hid_bpf_get_data(struct hid_bpf_ctx *ctx, unsigned int offset,
			      const __u64 size) __ksym __weak;
extern struct hid_bpf_ctx *hid_bpf_allocate_context(unsigned int hid_id) __ksym __weak;
extern void hid_bpf_release_context(struct hid_bpf_ctx *ctx) __ksym __weak;
extern int hid_bpf_input_report(struct hid_bpf_ctx *ctx, enum hid_report_type type, __u8 *buf,
				const __u64 buf__sz) __ksym __weak;

/* The first byte of a report is its number. */
#define FROM_DEVICE 1
#define INJECTED 2
#define SIZE 4

/* Sleeps until the report that it was started by has been dealt with. */
static int on_work(void *map, int *key, void *value)
{
	__u8 report[SIZE] = {INJECTED, 20, 30, 40};
	struct elem *elem = value;
	struct hid_bpf_ctx *ctx;
	struct seen *s = enter();

	if (!s)
		return 0;
	s->err[1] = -ENODEV;
	ctx = hid_bpf_allocate_context(elem->data);
	if (ctx) {
		s->err[1] = hid_bpf_input_report(ctx, HID_INPUT_REPORT, report, SIZE);
		hid_bpf_release_context(ctx);
	}
	leave(s);
	return 0;
}

/* The element's data is the device's number. */
SEC("syscall")
int arm(int *err)
{
	struct elem *elem = element(&array, 0);

	if (!elem)
		return 0;
	err[0] = bpf_wq_init(&elem->work, &array, 0);
	err[1] = bpf_wq_set_callback(&elem->work, on_work, 0);
	return 0;
}

/* Changes the report itself, and leaves the rest to the workqueue. */
SEC("struct_ops/hid_device_event")
int BPF_PROG(on_event, struct hid_bpf_ctx *hid, enum hid_report_type type, __u64 source)
{
	__u8 *data = hid_bpf_get_data(hid, 0, SIZE);
	struct elem *elem = element(&array, 0);
	__u32 zero = 0;
	struct seen *s = bpf_map_lookup_elem(&seen, &zero);

	if (!data || !elem || !s)
		return 0;
	if (data[0] != FROM_DEVICE)
		return 0;
	data[1] += 5;
	s->key = hid->hid->id;
	s->err[0] = bpf_wq_start(&elem->work, 0);
	return 0;
}

SEC(".struct_ops.link")
struct hid_bpf_ops one_more = {
	.hid_device_event = (void *)on_event,
};
