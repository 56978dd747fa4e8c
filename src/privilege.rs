//! The capabilities of the calling thread.

use std::fs;

/// What loading a tracing program needs; CAP_SYS_ADMIN stands for both.
const NEEDED: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];
const CAP_SYS_ADMIN: u32 = 21;

/// The needed capabilities that this thread lacks, joined by "and"; `None` if it has
/// all, or if that cannot be found out.
pub(crate) fn missing() -> Option<String> {
    // Of the thread, not of the process: capabilities are a thread's own.
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    missing_in(effective(&status)?)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_in(effective: u64) -> Option<String> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    if has(CAP_SYS_ADMIN) {
        return None;
    }
    let missing: Vec<_> =
        NEEDED.iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| *name).collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001fffeffffff\n";
        assert_eq!(effective(status), Some(0x1ff_feff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing_in(0).as_deref(), Some("CAP_BPF and CAP_PERFMON"));
        assert_eq!(missing_in(1 << 39).as_deref(), Some("CAP_PERFMON"));
        assert_eq!(missing_in(1 << 39 | 1 << 38), None);
        assert_eq!(missing_in(1 << 21), None);
    }
}
