//! What tests tell the runner, and what they ask of the running kernel: for those of bpf-wq, and of
//! the applications in `examples/`.

pub mod alone;
pub mod cgroup;
mod config;
pub mod fuse;
pub mod loopback;
pub mod program_types;
mod running;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::panic::Location;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

pub use config::{is_set, needs_config, of_running_kernel};
pub use running::Running;

/// More than anything here takes, also in an emulated machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Major and minor version of the running kernel.
pub fn version() -> (u32, u32) {
    let (major, minor, _) = stable_version();
    (major, minor)
}

/// Major and minor version, and the number of the stable release: 0 where none is named.
fn stable_version() -> (u32, u32, u32) {
    // Not from the library, which reads all of the kernel's BTF first: tests ask often.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor)), stable) => {
            (major, minor, stable.and_then(Result::ok).unwrap_or(0))
        }
        _ => panic!("{release} is no kernel version"),
    }
}

/// Whether the running kernel is `first` or newer; if not, the test is recorded as
/// skipped, and has to return.
#[must_use]
pub fn needs(first: (u32, u32), reason: &str) -> bool {
    if version() >= first {
        return true;
    }
    let needs = format!("{}.{}", first.0, first.1);
    event(&json!({"skip": {"needs": needs, "reason": reason}}));
    false
}

/// Whether the running kernel has a fix; if not, the test is recorded as skipped, and has to
/// return. The fix came to `series`, and to these releases of the stable series before it.
#[must_use]
pub fn needs_fix(series: (u32, u32), stable: &[(u32, u32, u32)], reason: &str) -> bool {
    let (major, minor, release) = stable_version();
    stable.iter().any(|(a, b, first)| (*a, *b) == (major, minor) && release >= *first)
        || needs(series, reason)
}

/// Whether the kernel has workqueues for BPF.
#[must_use]
pub fn needs_bpf_wq() -> bool {
    needs((6, 10), "bpf_wq was added in 6.10 (eb48f6cd41a0)")
}

/// States the rule that the test proves, as the compatibility table lists it. Comes first in a
/// test, so that a skipped or failed one is listed too.
#[track_caller]
pub fn rule(id: &str, group: &str, statement: &str) {
    let file = Location::caller().file();
    event(&json!({"rule": stated(id, group, statement, file)}));
}

/// A rule as the runner reads it.
pub fn stated(id: &str, group: &str, statement: &str, file: &str) -> serde_json::Value {
    json!({"id": id, "group": group, "statement": statement, "file": file})
}

/// Records what this kernel does where it differs from the rule's statement, such as
/// `no: -EOPNOTSUPP`. Without it, a test that passes is a yes.
pub fn answer(answer: &str) {
    event(&json!({"answer": answer}));
}

/// Whether the running kernel is older than `first`; if not, the test is recorded as
/// skipped, and has to return.
#[must_use]
pub fn is_before(first: (u32, u32), reason: &str) -> bool {
    if version() < first {
        return true;
    }
    let before = format!("{}.{}", first.0, first.1);
    event(&json!({"skip": {"before": before, "reason": reason}}));
    false
}

/// Records something about this kernel for the final table.
pub fn fact(name: &str, value: &str) {
    event(&json!({"fact": {"name": name, "value": value}}));
}

/// Tells the runner; without one, whoever looks at the terminal.
pub fn event(event: &serde_json::Value) {
    let line = format!("{event}\n");
    let written = match std::env::var_os("XTASK_EVENTS") {
        Some(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes())),
        // Not eprintln!, which libtest would capture.
        None => io::stderr().write_all(line.as_bytes()),
    };
    written.unwrap_or_else(|error| panic!("cannot record {event}: {error}"));
}

/// Looks again and again until `look` finds something.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
