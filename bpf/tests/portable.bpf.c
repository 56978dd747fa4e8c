// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// With the project's header alone.
#include <bpf_wq/wq.bpf.h>

#define SET_CALLBACK(wq, callback) bpf_wq_set_callback(wq, callback, 0)
#include "arm.h"
