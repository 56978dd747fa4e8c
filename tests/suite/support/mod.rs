//! What several topics need.

pub mod bpffs;
pub mod btf;
pub mod called;
pub mod cgroup;
pub mod config;
pub mod creating;
pub mod fuse;
pub mod lifecycle;
pub mod loader;
pub mod loading;
pub mod loopback;
pub mod noise;
pub mod pin;
pub mod process;
pub mod restricted;
pub mod running;
pub mod teardown;

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::panic::Location;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

pub use config::needs_config;

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

/// Records that the test loads an object of `bpf/tests/`; the first is the one that its rule points
/// to.
pub fn loads(object: &str) {
    event(&json!({"program": format!("bpf/tests/{object}.bpf.c")}));
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

/// Unwraps an error, and prints what should have been one.
#[track_caller]
pub fn refusal<T: Debug>(result: bpf_wq::Result<T>) -> bpf_wq::Error {
    let error = result.expect_err("this should have been refused");
    println!("refused, as it should be: {error}");
    error
}

/// The number of instructions of a loaded program as the kernel runs it, before they
/// become machine code.
pub fn translated_instructions(program: &libbpf_rs::ProgramMut<'_>) -> usize {
    use libbpf_rs::libbpf_sys::{bpf_insn, bpf_obj_get_info_by_fd, bpf_prog_info};
    use std::os::fd::AsFd as _;

    let mut info = bpf_prog_info::default();
    let mut size = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the descriptor is open, and the kernel writes at most `size` bytes.
    let result = unsafe {
        bpf_obj_get_info_by_fd(program.as_fd().as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    };
    assert_eq!(result, 0, "bpf_obj_get_info_by_fd");
    assert_ne!(info.xlated_prog_len, 0, "the kernel hides its instructions");
    info.xlated_prog_len as usize / size_of::<bpf_insn>()
}
