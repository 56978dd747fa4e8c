//! What init, set_callback and start want: rules 1 to 6.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use libbpf_rs::{MapCore as _, MapHandle};
use nix::errno::Errno::{EBUSY, EINVAL, EPERM};
use rstest::rstest;
use serial_test::serial;

use crate::support::called::{Called, Code, OK, call, seen};
use crate::support::{eventually, needs_bpf_wq, rule};

const GROUP: &str = "Arming";

const NOT_INITIALISED: Code = Err(EINVAL);

#[test_log::test]
#[serial]
fn in_order() {
    rule("1-order", GROUP, "init, set_callback and start, in this order, return 0, and it runs");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("arming", &["in_order"]);
    assert_eq!(called.call("in_order"), [OK, OK, OK]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
    called.settle();
    assert_eq!(called.seen().runs, 1);
}

#[test_log::test]
#[serial]
fn before_init() {
    rule("1", GROUP, "set_callback or start before init: -EINVAL");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("arming", &["before_init"]);
    assert_eq!(called.call("before_init"), [NOT_INITIALISED, NOT_INITIALISED]);
    called.settle();
    assert_eq!(called.seen().entered, 0);
}

#[test_log::test]
#[serial]
fn flags() {
    rule("2", GROUP, "init, set_callback or start with flags other than 0: -EINVAL");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("arming", &["with_flags"]);
    let each = [Err(EINVAL), Err(EINVAL), OK];
    assert_eq!(called.call::<9>("with_flags").as_slice(), [each, each, each].concat());
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
}

#[test_log::test]
#[serial]
fn init_again() {
    rule("3", GROUP, "init of a bpf_wq that is initialised: -EBUSY, and it runs as before");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("arming", &["init_again"]);
    assert_eq!(called.call("init_again"), [OK, Err(EBUSY), OK, OK, Err(EBUSY)]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
    // Also after it has run.
    assert_eq!(
        called.call("init_again"),
        [Err(EBUSY), Err(EBUSY), OK, OK, Err(EBUSY)],
        "once it has run"
    );
    eventually("it runs again", || (called.seen().runs == 2).then_some(()));
}

#[test_log::test]
#[serial]
fn before_set_callback() {
    rule("4", GROUP, "start before set_callback: -EINVAL");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("arming", &["before_set_callback"]);
    assert_eq!(called.call("before_set_callback"), [OK, Err(EINVAL)]);
    called.settle();
    assert_eq!(called.seen().entered, 0);
}

/// A program keeps its maps, but that is no use of theirs by a user.
#[rstest]
#[case::used_by_a_program("5", "in_order", "a map that only a program still holds")]
#[case::in_an_outer_map("6-outer", "through_outer", "a map that only an outer map still holds")]
#[test_log::test]
#[serial]
fn without_a_user_reference(#[case] id: &str, #[case] program: &str, #[case] which: &str) {
    let statement = "init -EPERM, set_callback and start -EINVAL";
    rule(id, GROUP, &format!("{which}, and no descriptor or pin: {statement}"));
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("arming", &[program]);
    let state = called.map("seen");
    let fd = called.program(program);
    drop(called);
    assert_eq!(
        call(fd.as_fd(), program),
        [Err(EPERM), NOT_INITIALISED, NOT_INITIALISED],
        "every descriptor of the map is closed"
    );
    assert_eq!(seen(&state).entered, 0);
}

/// What the test above goes without.
#[test_log::test]
#[serial]
fn through_an_outer_map() {
    rule("6-inner", GROUP, "an inner map with an open descriptor works through its outer map");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("arming", &["through_outer"]);
    assert_eq!(called.call("through_outer"), [OK, OK, OK]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
}

#[test_log::test]
#[serial]
fn pinned() {
    rule("6", GROUP, "a pin counts as a user; removing it stops the workqueue for good");
    if !needs_bpf_wq() {
        return;
    }
    let programs = ["over_and_over", "start", "in_order"];
    let called = Called::load("arming", &programs);
    let state = called.map("seen");
    let [over_and_over, start, in_order] = programs.map(|name| called.program(name));
    let pin = Pin::of(called.map("array"));
    drop(called);

    assert_eq!(call(over_and_over.as_fd(), "over_and_over"), [OK, OK, OK]);
    eventually("it runs on and on", || (seen(&state).runs > 100).then_some(()));

    drop(pin);
    // The kernel drops the reference of a removed file some time later.
    eventually("start is refused", || {
        let [code] = call(start.as_fd(), "start");
        (code == NOT_INITIALISED).then_some(())
    });
    assert_eq!(call(in_order.as_fd(), "in_order"), [Err(EPERM), NOT_INITIALISED, NOT_INITIALISED]);
    let other = Called::load("arming", &[]);
    other.settle();
    let runs = seen(&state).runs;
    for _ in 0..20 {
        other.settle();
    }
    assert_eq!(seen(&state).runs, runs, "it runs on without a user reference");
}

/// A pinned map; dropping this removes the pin.
struct Pin(PathBuf);

impl Pin {
    fn of(mut map: MapHandle) -> Self {
        let name = format!("bpf-wq-{}-{}", std::process::id(), map.name().to_string_lossy());
        let path = PathBuf::from("/sys/fs/bpf").join(name);
        map.pin(&path).expect("the map is pinned");
        Self(path)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("the pin is removed");
    }
}
