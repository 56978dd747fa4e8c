//! Which programs may set a callback that makes a call that sleeps: the program's type decides,
//! and the rules C of `docs/compatibility.md` say what was tried.

use libbpf_rs::libbpf_sys::{
    BPF_PROG_TYPE_CGROUP_SKB, BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_LSM, BPF_PROG_TYPE_PERF_EVENT,
    BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, BPF_PROG_TYPE_SCHED_CLS,
    BPF_PROG_TYPE_SOCKET_FILTER, BPF_PROG_TYPE_TRACEPOINT, BPF_PROG_TYPE_TRACING,
    BPF_PROG_TYPE_XDP,
};

use super::history::{
    REFUSED, SLEEPS, SLEEPS_BY_NEW_HELPER, SLEEPS_IN_TRACING, SLEEPS_WITH_KEYS, Step,
};

/// Types that may not use a bpf_wq before 7.0.
pub(crate) const LATE: &[u32] = &[
    BPF_PROG_TYPE_KPROBE,
    BPF_PROG_TYPE_TRACEPOINT,
    BPF_PROG_TYPE_PERF_EVENT,
    BPF_PROG_TYPE_RAW_TRACEPOINT,
    BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
];

/// Network programs that were tried.
const NETWORK: &[u32] = &[BPF_PROG_TYPE_XDP, BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_CGROUP_SKB];

/// To which kernel functions for tracing are no more open than those for networks.
const NEITHER: &[u32] = &[BPF_PROG_TYPE_SOCKET_FILTER, BPF_PROG_TYPE_KPROBE];

/// What kernels do when a program of this type, which may not sleep itself, sets a callback that
/// makes this call: panic, if nothing else is known.
pub(crate) fn history(kind: u32, call: &str) -> &'static [Step] {
    let refused = match call {
        // For SEC("syscall") programs only.
        "bpf_crypto_ctx_create" | "bpf_ksock_connect" | "bpf_ksock_create" | "bpf_ksock_send" => {
            true
        }
        "bpf_get_dentry_xattr"
        | "bpf_get_file_xattr"
        | "bpf_remove_dentry_xattr"
        | "bpf_set_dentry_xattr" => kind != BPF_PROG_TYPE_LSM,
        "cgroup_rstat_flush" | "css_rstat_flush" => {
            NETWORK.contains(&kind) || NEITHER.contains(&kind)
        }
        "bpf_lookup_user_key" | "bpf_verify_pkcs7_signature" => NEITHER.contains(&kind),
        _ => false,
    };
    match call {
        _ if refused => REFUSED,
        _ if LATE.contains(&kind) => SLEEPS_IN_TRACING,
        _ if matches!(kind, BPF_PROG_TYPE_TRACING | BPF_PROG_TYPE_LSM) => SLEEPS,
        "bpf_copy_from_user" | "bpf_copy_from_user_task" => SLEEPS_BY_NEW_HELPER,
        "bpf_lookup_user_key" | "bpf_verify_pkcs7_signature" if NETWORK.contains(&kind) => {
            SLEEPS_WITH_KEYS
        }
        _ => SLEEPS,
    }
}
