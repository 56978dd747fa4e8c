//! init, set_callback and start where the kernel itself was interrupted: rules 8 and 9.

use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use libbpf_rs::{Link, ProgramMut};
use nix::errno::Errno::EOPNOTSUPP;
use serial_test::serial;

use crate::support::called::{Called, OK, code, refusal};
use crate::support::nmi::{self, needs_nmi};
use crate::support::{answer, eventually, needs, needs_bpf_wq, rule, version};

const GROUP: &str = "In interrupts";

/// Between 6.19 and 7.0 (1bfbc267ec91): what cannot be done in NMI is put off, by irq_work.
const ANYWHERE: (u32, u32) = (7, 0);

/// Since 7.0: 19bd300e22c2.
const TRACING_PROGRAMS: (u32, u32) = (7, 0);

fn attached(called: &mut Called, program: &str, attach: impl Fn(&ProgramMut<'_>) -> Link) -> Link {
    let found = called.object_mut().progs_mut().find(|found| found.name() == program);
    attach(&found.expect("the program"))
}

#[track_caller]
fn runs(called: &Called) {
    eventually("the program runs", || (called.seen().others == 1).then_some(()));
    assert_eq!(called.seen().err.map(code), [OK; 3]);
    eventually("the callback runs", || (called.seen().runs == 1).then_some(()));
    called.settle();
}

#[test_log::test]
#[serial]
fn in_hardirq() {
    rule("9", GROUP, "in hardirq (tp_btf/hrtimer_expire_entry): each call returns 0, and it runs");
    if !needs_bpf_wq() {
        return;
    }
    let mut called = Called::load("contexts", &["in_hardirq"]);
    let link = attached(&mut called, "in_hardirq", |p| p.attach_trace().expect("attached"));
    runs(&called);
    drop(link);
}

#[test_log::test]
#[serial]
fn in_nmi() {
    rule("8", GROUP, "in NMI (tp_btf/nmi_handler): each call returns 0, and it runs");
    if !needs_bpf_wq() || !needs_nmi() {
        return;
    }
    let mut called = Called::load("contexts", &["in_nmi"]);
    let link = attached(&mut called, "in_nmi", |p| p.attach_trace().expect("attached"));
    nmi::send();
    if version() >= ANYWHERE {
        runs(&called);
    } else {
        answer("no: -EOPNOTSUPP");
        eventually("the program runs", || (called.seen().others == 1).then_some(()));
        assert_eq!(called.seen().err.map(code), [Err(EOPNOTSUPP); 3]);
        called.settle();
        assert_eq!(called.seen().entered, 0);
    }
    drop(link);
}

#[test_log::test]
#[serial]
fn under_the_scheduler() {
    let statement = "start in tp_btf/sched_switch, under the lock of the CPU's queue: returns 0, \
                     and it runs";
    rule("9-sched", GROUP, statement);
    let reason = "the start waits for the lock that its CPU holds: it hangs";
    if !needs_bpf_wq() || !needs(ANYWHERE, reason) {
        return;
    }
    let mut called = Called::load("contexts", &["arm_ahead", "under_the_scheduler"]);
    assert_eq!(called.call("arm_ahead"), [OK; 2]);
    let link =
        attached(&mut called, "under_the_scheduler", |p| p.attach_trace().expect("attached"));
    eventually("it has run often", || (called.seen().runs > 100).then_some(()));
    drop(link);
    called.settle();
    assert_eq!(called.seen().err.map(code)[2], OK);
}

#[test_log::test]
#[serial]
fn in_perf_event() {
    rule("9-perf", GROUP, "in a perf_event program, on the CPU's clock: returns 0, and it runs");
    if !needs_bpf_wq() {
        return;
    }
    if version() < TRACING_PROGRAMS {
        answer("no: perf_event programs may not use bpf_wq");
        let log = refusal("contexts", "in_perf_event");
        assert!(log.contains("tracing progs cannot use bpf_wq yet"), "{log}");
        return;
    }
    let mut called = Called::load("contexts", &["in_perf_event"]);
    let link = attached(&mut called, "in_perf_event", |p| {
        // The link closes the event.
        p.attach_perf_event(cpu_clock().into_raw_fd()).expect("attached")
    });
    runs(&called);
    drop(link);
}

/// The first version of `struct perf_event_attr`.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_freq: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// An event that overflows 1000 times a second, whatever CPU 0 does.
fn cpu_clock() -> OwnedFd {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const FREQ: u64 = 1 << 10;
    let attr = PerfEventAttr {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<PerfEventAttr>() as u32,
        // PERF_COUNT_SW_CPU_CLOCK
        config: 0,
        sample_freq: 1000,
        flags: FREQ,
        ..Default::default()
    };
    // SAFETY: the kernel reads `attr`, whose size it is told.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, 0, -1, 0) };
    assert!(fd >= 0, "perf_event_open: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
