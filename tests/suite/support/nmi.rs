//! Interrupts that cannot be masked.

use std::fs;

use super::needs_config;

/// Whether this kernel lets us send one.
pub fn needs_nmi() -> bool {
    needs_config("CONFIG_MAGIC_SYSRQ", "the other CPU gets an NMI by sysrq")
}

/// Asks the other CPU, by NMI, where it is.
#[track_caller]
pub fn send() {
    fs::write("/proc/sysrq-trigger", "l").expect("backtraces of all CPUs");
}
