//! The types of programs in `bpf/tests/program_types.h`, by their names there.

use super::needs_config;

/// An Ethernet frame with nothing in it, and the smallest that all test runs take.
pub const FRAME: [u8; 64] = [0; 64];

/// Those that may use no workqueue before 7.0 (19bd300e22c2), by how their names begin.
const TRACING: &[&str] = &["kprobe", "uprobe", "tracepoint", "raw_tp", "perf_event"];

/// What a kernel has to be built with to run programs of some types, by how their names begin.
const OPTIONS: [(&str, &[&str]); 6] = [
    ("CONFIG_BPF_LSM", &["lsm"]),
    ("CONFIG_CGROUP_BPF", &["cgroup_", "lsm_cgroup", "sockops"]),
    ("CONFIG_LWTUNNEL_BPF", &["lwt_in", "lwt_out", "lwt_xmit"]),
    ("CONFIG_IPV6_SEG6_BPF", &["lwt_seg6local"]),
    ("CONFIG_NETFILTER_BPF_LINK", &["netfilter"]),
    ("CONFIG_BPF_EVENTS", TRACING),
];

fn is_of(name: &str, types: &[&str]) -> bool {
    types.iter().any(|kind| name.starts_with(kind))
}

/// Whether it may use no workqueue before 7.0.
pub fn is_tracing(name: &str) -> bool {
    is_of(name, TRACING)
}

/// Whether the kernel is built for all of these types; if not, the test is recorded as skipped.
#[must_use]
pub fn needs_their_config(names: &[&str]) -> bool {
    OPTIONS
        .iter()
        .filter(|(_, types)| names.iter().any(|name| is_of(name, types)))
        .all(|(option, _)| needs_config(option, "programs of this type run only with it"))
}
