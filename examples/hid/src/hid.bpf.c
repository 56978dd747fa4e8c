/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A keyboard with a key that types a text, with Escape in the place of Caps Lock, that is set up
 * again when it says that it woke, and whose descriptor is fixed.
 *
 * What the kernel calls with a report may not sleep: it changes the report, and submits. Jobs type,
 * and wait for the keyboard's answers.
 */
#include <bpf_wq/executor.bpf.h>
#include <bpf/bpf_tracing.h>
#include "descriptor.h"
#include "kernel.h"

/* Usages of the keyboard page. */
#define ESCAPE 0x29
#define CAPS_LOCK 0x39

/* The number that a report begins with, where a keyboard has several. */
#define KEYS 1
#define WOKE 2
#define SET_UP 3

/* Of the last: whether it is, and what is none of both. */
#define IS_ON 1
#define NO_ANSWER 0xff

#define LONGEST_TEXT 64

#define FIRST_RETRY_NS 20000000ULL

/* A report of the boot protocol, without its number. */
struct keys {
	__u8 modifiers, reserved, pressed[6];
};

/* A number, and the keys. */
#define LONGEST_REPORT (1 + sizeof(struct keys))

struct typed {
	__u8 modifiers, usage;
};

/* As src/keyboard.rs writes them, also while keys are pressed. */
struct settings {
	__u64 spacing_ns;
	__u32 tries;
	__u8 key;
	__u8 length;
	struct typed text[LONGEST_TEXT];
};

volatile struct settings settings SEC(".data.settings") = {.tries = 1};

/* As src/keyboard.rs reads them. */
struct counts {
	__u64 macros;	  /* presses of the macro key */
	__u64 refused;	  /* of these, those that came while too many were not done */
	__u64 typed;	  /* reports that a macro has injected */
	__u64 rewritten;  /* reports with another key in place of Caps Lock */
	__u64 fixed;	  /* ranges of the descriptor, each time that the kernel reads it */
	__u64 woke;	  /* reports that say so, and were accepted */
	__u64 set_up;	  /* answers that say that the keyboard is */
	__u64 unanswered; /* requests to which none came, or an error */
	__u64 wrong;	  /* other answers */
	__u64 given_up;	  /* after so many tries */
};

struct counts counts SEC(".data.counts") = {};

/*
 * The kernel calls programs with one report of a device at a time, also with one that was injected:
 * it holds the device's driver_input_lock. So these need no atomic operations.
 */
static struct keys held;  /* by a person */
static struct keys typed; /* by a macro */
static __u8 is_key_down;

struct typing {
	__u32 device;
	__u32 step; /* of each letter two: press and release */
};

static __always_inline int inject(__u32 device, const struct keys *keys)
{
	__u8 report[LONGEST_REPORT] = {KEYS};
	struct hid_bpf_ctx *hid = hid_bpf_allocate_context(device);
	int err;

	if (!hid)
		return -ENODEV;
	if (hid->hid->report_enum[HID_INPUT_REPORT].numbered)
		__builtin_memcpy(report + 1, keys, sizeof(*keys));
	else
		__builtin_memcpy(report, keys, sizeof(*keys));
	/* The kernel takes as much as the report has. */
	err = hid_bpf_input_report(hid, HID_INPUT_REPORT, report, sizeof(report));
	hid_bpf_release_context(hid);
	return err;
}

/*
 * Types one step, and is run again for the next. The last run does nothing: a macro that comes
 * behind keeps the distance, too.
 */
static int type_step(struct typing *typing, struct bpf_wq_run *run)
{
	__u32 letter = typing->step / 2, is_release = typing->step % 2;
	struct keys keys = {};
	int err;

	if (!is_release && letter >= settings.length)
		return 0;
	if (!is_release) {
		keys.modifiers = settings.text[letter % LONGEST_TEXT].modifiers;
		keys.pressed[0] = settings.text[letter % LONGEST_TEXT].usage;
	}
	err = inject(typing->device, &keys);
	if (err)
		return err;
	bpf_wq_add(counts.typed, 1);
	typing->step++;
	run->retry_ns = settings.spacing_ns;
	return -EAGAIN;
}

BPF_WQ_EXECUTOR(macros, struct typing, 16, 1, type_step);

struct waking {
	__u32 device;
};

/*
 * 0 if the keyboard says that it is set up, -EPROTO if it says something else. 6.12.94 returns the
 * size where there was an error (it compares an int with a size_t): the answer itself has to tell.
 */
static __always_inline int ask(struct hid_bpf_ctx *hid)
{
	__u8 report[2] = {SET_UP, IS_ON};
	int size;

	size = hid_bpf_hw_request(hid, report, sizeof(report), HID_FEATURE_REPORT,
				  HID_REQ_SET_REPORT);
	if (size < 0)
		return size;
	report[1] = NO_ANSWER;
	size = hid_bpf_hw_request(hid, report, sizeof(report), HID_FEATURE_REPORT,
				  HID_REQ_GET_REPORT);
	if (size < 0)
		return size;
	if (size != sizeof(report))
		return -EPROTO;
	if (report[1] == NO_ANSWER)
		return -EIO;
	return report[0] == SET_UP && report[1] == IS_ON ? 0 : -EPROTO;
}

/* Sleeps until the keyboard answers: the kernel's driver waits for 5 seconds at most. */
static int set_up(struct waking *waking, struct bpf_wq_run *run)
{
	struct hid_bpf_ctx *hid = hid_bpf_allocate_context(waking->device);
	int err;

	if (!hid)
		return -ENODEV;
	err = ask(hid);
	hid_bpf_release_context(hid);
	if (!err) {
		bpf_wq_add(counts.set_up, 1);
		return 0;
	}
	if (err == -EPROTO)
		bpf_wq_add(counts.wrong, 1);
	else
		bpf_wq_add(counts.unanswered, 1);
	/* Whoever drains waits for one request to a keyboard that may never answer. */
	if (run->attempt + 1 >= settings.tries || bpf_wq_is_draining(run)) {
		bpf_wq_add(counts.given_up, 1);
		return err;
	}
	run->retry_ns = FIRST_RETRY_NS << (run->attempt & 15);
	return -EAGAIN;
}

BPF_WQ_EXECUTOR(set_ups, struct waking, 16, 1, set_up);

/* One after the other: all are of one keyboard. */
static const struct bpf_wq_options in_order = {.is_ordered = 1};

static __always_inline void type_text(__u32 device)
{
	struct bpf_wq_options options = in_order;
	struct typing typing = {.device = device};
	__u64 id;

	bpf_wq_add(counts.macros, 1);
	if (macros_submit_with(&typing, &options, &id))
		bpf_wq_add(counts.refused, 1);
}

static __always_inline void set_up_again(__u32 device)
{
	struct bpf_wq_options options = in_order;
	struct waking waking = {.device = device};
	__u64 id;

	/* Those that are not done will set it up. */
	if (!set_ups_submit_with(&waking, &options, &id))
		bpf_wq_add(counts.woke, 1);
}

/* Whether the macro key is down, which nobody else sees. */
static __always_inline int rewrite(struct keys *keys)
{
	int i, is_down = 0;

	for (i = 0; i < 6; i++) {
		if (keys->pressed[i] == settings.key) {
			keys->pressed[i] = 0;
			is_down = 1;
		}
		if (keys->pressed[i] == CAPS_LOCK) {
			keys->pressed[i] = ESCAPE;
			bpf_wq_add(counts.rewritten, 1);
		}
	}
	return is_down;
}

/* What a person and a macro hold. With six keys of the former, the last gives way. */
static __always_inline void hold_both(struct keys *keys)
{
	int i;

	*keys = held;
	keys->modifiers |= typed.modifiers;
	if (!typed.pressed[0])
		return;
	for (i = 0; i < 5; i++) {
		if (!keys->pressed[i])
			break;
	}
	keys->pressed[i] = typed.pressed[0];
}

SEC("struct_ops/hid_device_event")
int BPF_PROG(on_report, struct hid_bpf_ctx *hid, enum hid_report_type type, __u64 source)
{
	__u8 *report = hid_bpf_get_data(hid, 0, LONGEST_REPORT);
	__u32 device = hid->hid->id;
	struct keys *keys;
	int is_down;

	if (!report || type != HID_INPUT_REPORT)
		return 0;
	keys = (void *)report;
	if (hid->hid->report_enum[HID_INPUT_REPORT].numbered) {
		if (report[0] == WOKE && !source)
			set_up_again(device);
		if (report[0] != KEYS)
			return 0;
		keys = (void *)(report + 1);
	}
	/* The source of what the device sends is 0. */
	if (source) {
		typed = *keys;
	} else {
		is_down = rewrite(keys);
		if (is_down && !is_key_down)
			type_text(device);
		is_key_down = is_down;
		held = *keys;
	}
	hold_both(keys);
	return 0;
}

SEC("struct_ops/hid_rdesc_fixup")
int BPF_PROG(on_descriptor, struct hid_bpf_ctx *hid)
{
	bpf_wq_add(counts.fixed, fix_descriptor(hid));
	return 0;
}

SEC(".struct_ops.link")
struct hid_bpf_ops keyboard = {
	.hid_device_event = (void *)on_report,
	.hid_rdesc_fixup = (void *)on_descriptor,
};

char LICENSE[] SEC("license") = "GPL";
