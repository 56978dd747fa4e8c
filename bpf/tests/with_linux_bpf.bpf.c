// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// With the project's header after the build machine's <linux/bpf.h>, which has
// struct bpf_wq if it is of 6.10 or later (Debian 13), and lacks it before (Debian 12).
#include <linux/bpf.h>

#include <bpf_wq/wq.bpf.h>

#define SET_CALLBACK(wq, callback) bpf_wq_set_callback(wq, callback, 0)
#include "arm.h"
