//! The source document's program, on the running kernel (claims S1, S2, S3, S6, S16).

use std::mem::MaybeUninit;

use bpf_wq::{Report, Simple};
use rstest::rstest;
use serial_test::serial;
use test_log::test;

use crate::support::noise::Noise;
use crate::support::{DEADLINE, eventually, needs_bpf_wq, rule};

const GROUP: &str = "The claims of the tutorial";

/// What one removed file leads to.
const ONCE: Report = Report { main_executed: 1, wq_executed: 1, value: 42, start_result: 0 };

/// Nothing has happened yet.
const NEVER: Report = Report { main_executed: 0, wq_executed: 0, value: 0, ..ONCE };

#[test]
#[serial]
fn a_removed_file_runs_the_callback() {
    let statement = "the callback of a removed file runs once, and user space reads value 42";
    rule("S2", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    let mut storage = MaybeUninit::uninit();
    let mut simple = Simple::load(&mut storage).unwrap();
    simple.attach().unwrap();
    assert_eq!(simple.report().unwrap(), NEVER);
    simple.trigger().unwrap();
    assert_eq!(simple.wait(1, DEADLINE).unwrap(), ONCE);
}

#[test]
#[serial]
fn nothing_runs_before_it_is_attached() {
    let statement =
        "a program attached to the function behind unlink(2) runs when a file is removed";
    rule("S1", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    let mut storage = MaybeUninit::uninit();
    let mut simple = Simple::load(&mut storage).unwrap();
    simple.trigger().unwrap();
    assert_eq!(simple.report().unwrap(), NEVER);
    // The same program does run once it is attached: so it would have been seen.
    simple.attach().unwrap();
    simple.trigger().unwrap();
    assert_eq!(simple.wait(1, DEADLINE).unwrap(), ONCE);
}

/// Each of them is counted, although the published program, which wrote the element
/// anew each time, lost work that was pending (hazard H5).
#[rstest]
#[case::waiting_for_each("S2-each", true, "each after the last one's callback: 200 runs")]
#[case::in_a_burst("S2-burst", false, "in a burst: 200 starts, and at most as many runs")]
#[test_log::test]
#[serial]
fn two_hundred_removed_files(
    #[case] id: &str,
    #[case] wait_for_each: bool,
    #[case] statement: &str,
) {
    const FILES: u32 = 200;
    rule(id, GROUP, &format!("200 removed files, {statement}"));
    if !needs_bpf_wq() {
        return;
    }
    let mut storage = MaybeUninit::uninit();
    let mut simple = Simple::load(&mut storage).unwrap();
    simple.attach().unwrap();
    for file in 1..=FILES {
        simple.trigger().unwrap();
        if wait_for_each {
            simple.wait(file, DEADLINE).unwrap();
        }
    }
    let report = simple.wait(1, DEADLINE).unwrap();
    assert_eq!(report.main_executed, FILES);
    assert_eq!(report.value, 42);
    assert_eq!(report.start_result, 0);
    if wait_for_each {
        assert_eq!(report.wq_executed, FILES, "a start of idle work is a run of its own");
    } else {
        assert!(report.wq_executed <= FILES, "more runs than starts: {report}");
    }
}

#[test]
#[serial]
fn another_process_changes_nothing() {
    if !needs_bpf_wq() {
        return;
    }
    let mut noise = Noise::start();
    let mut storage = MaybeUninit::uninit();
    let mut simple = Simple::load(&mut storage).unwrap();
    simple.attach().unwrap();

    noise.wait_for_a_batch();
    assert_eq!(simple.report().unwrap(), NEVER, "another process was counted");

    simple.trigger().unwrap();
    assert_eq!(simple.wait(1, DEADLINE).unwrap(), ONCE);
    noise.wait_for_a_batch();
    assert_eq!(simple.report().unwrap(), ONCE, "another process was counted");
}

#[test]
#[serial]
fn two_at_the_same_time_do_not_disturb_each_other() {
    if !needs_bpf_wq() {
        return;
    }
    let (mut storage, mut other_storage) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let mut simple = Simple::load(&mut storage).unwrap();
    let mut other = Simple::load(&mut other_storage).unwrap();
    simple.attach().unwrap();
    other.attach().unwrap();
    simple.trigger().unwrap();
    assert_eq!(simple.wait(1, DEADLINE).unwrap(), ONCE);
    assert_eq!(other.wait(1, DEADLINE).unwrap(), ONCE);

    drop(other);
    simple.trigger().unwrap();
    assert_eq!(simple.wait(2, DEADLINE).unwrap().main_executed, 2);
}

/// The callback holds its program, and the map the callback: nothing may stay behind.
#[test]
#[serial]
fn dropping_it_unloads_the_program() {
    let statement =
        "a skeleton is loaded, attached, sees a file removed, and leaves nothing behind";
    rule("S3", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    let loaded = || libbpf_rs::query::ProgInfoIter::default().any(|p| p.name == "on_unlink");
    let mut storage = MaybeUninit::uninit();
    let mut simple = Simple::load(&mut storage).unwrap();
    simple.attach().unwrap();
    simple.trigger().unwrap();
    assert_eq!(simple.wait(1, DEADLINE).unwrap(), ONCE);
    assert!(loaded(), "the program is not seen while it is loaded");
    drop(simple);
    // The kernel frees it when no CPU can be in it any more.
    eventually("the program is gone", || (!loaded()).then_some(()));
}
