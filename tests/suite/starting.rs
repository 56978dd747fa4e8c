//! Starting, and how the callback runs: rules 10 to 13 and 20 to 24.

use std::fs;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys::{BPF_STATS_RUN_TIME, bpf_enable_stats};
use rstest::rstest;
use serial_test::serial;

use crate::support::called::{
    Called, OK, call, cpus, get, program_exists, program_info, put, seen, word,
};
use crate::support::{answer, eventually, needs_bpf_wq, rule, version};

const GROUP: &str = "Starting and running";

/// `struct elem` of `bpf/tests/rules.h`.
fn elem(data: u64) -> Vec<u8> {
    [data.to_ne_bytes(), [0; 8], [0; 8]].concat()
}

#[test_log::test]
#[serial]
fn three_starts_are_one_run() {
    rule("10", GROUP, "three starts before it runs: each returns 0, and it runs once");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &["three_starts"]);
    assert_eq!(called.call("three_starts"), [OK; 5]);
    eventually("it runs", || (called.seen().runs >= 1).then_some(()));
    called.settle();
    assert_eq!(called.seen().runs, 1);
}

#[test_log::test]
#[serial]
fn start_while_it_runs() {
    rule(
        "11",
        GROUP,
        "starts while it runs return 0; it runs once more, and never twice at a time",
    );
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &["start_and_wait", "start_twice"]);
    let started = called.while_waiting(
        None,
        "start_and_wait",
        |seen| seen.entered == 1,
        || {
            assert_eq!(called.call("start_twice"), [OK, OK]);
            assert_eq!((called.seen().entered, called.seen().runs), (1, 0));
        },
    );
    assert_eq!(started, [OK, OK, OK]);
    eventually("it runs again", || (called.seen().runs >= 2).then_some(()));
    called.settle();
    assert_eq!(called.seen().runs, 2);
    assert_eq!(called.seen().most, 1, "it ran twice at a time");
}

#[test_log::test]
#[serial]
fn restarts_itself() {
    rule("12", GROUP, "a callback may start its own workqueue (here 1000 times)");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &["restarts_itself"]);
    assert_eq!(called.call("restarts_itself"), [OK, OK, OK]);
    eventually("it runs 1000 times", || (called.seen().runs >= 1000).then_some(()));
    called.settle();
    let seen = called.seen();
    assert_eq!((seen.runs, seen.most), (1000, 1));
    assert_eq!(seen.err[0], 0, "so many starts failed");
}

#[test_log::test]
#[serial]
fn a_later_callback_counts() {
    rule("13", GROUP, "set_callback after start, before the run: the new callback runs, once");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &["change_callback"]);
    assert_eq!(called.call("change_callback"), [OK; 4]);
    eventually("the new callback runs", || (called.seen().others >= 1).then_some(()));
    called.settle();
    assert_eq!((called.seen().entered, called.seen().others), (0, 1));
}

#[test_log::test]
#[serial]
fn holds_its_program() {
    rule("20", GROUP, "a set callback keeps its program, which nobody else holds, until cancelled");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &["forever"]);
    let (state, array) = (called.map("seen"), called.map("array"));
    let program = called.program("forever");
    let id = program_info(program.as_fd()).id;
    assert_eq!(call(program.as_fd(), "forever"), [OK, OK, OK]);
    drop(program);
    drop(called);

    let runs = seen(&state).runs;
    eventually("it runs on", || (seen(&state).runs > runs + 1000).then_some(()));
    assert!(program_exists(id));
    put(&array, 0, &elem(0));
    eventually("the program is gone", || (!program_exists(id)).then_some(()));
    // The program may be gone while its last run is still in flight.
    let others = Called::load("starting", &[]);
    others.settle();
    let runs = seen(&state).runs;
    others.settle();
    assert_eq!(seen(&state).runs, runs);
}

#[rstest]
#[case::array("21-array", "look_array", "array", 5, "the index")]
#[case::hash("21-hash", "look_hash", "hash", 4711, "the hash key")]
#[test_log::test]
#[serial]
fn arguments(
    #[case] id: &str,
    #[case] program: &str,
    #[case] map: &str,
    #[case] key: u32,
    #[case] what: &str,
) {
    rule(id, GROUP, &format!("{map}: the callback gets the map, {what} and the value"));
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &[program]);
    put(&called.map(map), key, &elem(42));
    assert_eq!(called.call(program), [OK, OK, OK]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
    let seen = called.seen();
    assert_eq!((seen.key, seen.data), (key.into(), 42));
    assert_eq!(seen.err[0], 99, "the key finds another value in the map");
    assert_eq!(word(&get(&called.map(map), key), 0), 99);
}

#[test_log::test]
#[serial]
fn where_it_runs() {
    rule("22", GROUP, "it runs in the workqueue `events`, on the CPU that called start");
    if !needs_bpf_wq() {
        return;
    }
    for cpu in cpus() {
        let called = Called::load("starting", &["start_and_wait"]);
        let started = called.while_waiting(
            Some(cpu),
            "start_and_wait",
            |seen| seen.entered == 1,
            || {
                let seen = called.seen();
                assert_eq!(seen.cpu, cpu as u64);
                let name = fs::read_to_string(format!("/proc/{}/comm", seen.pid)).unwrap();
                let number = name
                    .strip_prefix(&format!("kworker/{cpu}:"))
                    .and_then(|rest| rest.strip_suffix("+events\n"));
                assert!(number.is_some_and(|n| n.parse::<u32>().is_ok()), "{name}");
            },
        );
        assert_eq!(started, [OK, OK, OK]);
    }
}

#[test_log::test]
#[serial]
fn how_it_is_protected() {
    let held = "rcu_read_lock_trace and migrate_disable, not under rcu_read_lock";
    rule("23", GROUP, &format!("the callback runs under {held}"));
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &["look_at_task"]);
    assert_eq!(called.call("look_at_task"), [OK, OK, OK]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
    // trc_reader_nesting, migration_disabled, rcu_read_lock_nesting
    assert_eq!(called.seen().err, [1, 1, 0]);
}

#[test_log::test]
#[serial]
fn statistics() {
    rule("23-stats", GROUP, "bpf_stats counts runs of the program, and none of its callback");
    if !needs_bpf_wq() {
        return;
    }
    // SAFETY: takes a number, and returns a descriptor or a negative errno.
    let fd = unsafe { bpf_enable_stats(BPF_STATS_RUN_TIME) };
    assert!(fd >= 0, "bpf_enable_stats: {fd}");
    // SAFETY: the descriptor is new, and nobody else's.
    let _on = unsafe { OwnedFd::from_raw_fd(fd) };

    let called = Called::load("starting", &["restarts_itself"]);
    let program = called.program("restarts_itself");
    assert_eq!(program_info(program.as_fd()).run_cnt, 0);
    assert_eq!(call(program.as_fd(), "restarts_itself"), [OK, OK, OK]);
    eventually("it runs 1000 times", || (called.seen().runs >= 1000).then_some(()));
    assert_eq!(program_info(program.as_fd()).run_cnt, 1);
}

/// How many works of one workqueue a CPU runs at a time, from these versions on. It changed
/// between 6.12 and 6.16.
const MAX_ACTIVE: [((u32, u32), u64); 2] = [((6, 10), 256), ((6, 16), 1024)];

#[test_log::test]
#[serial]
fn shares_the_system_workqueue() {
    rule(
        "24",
        GROUP,
        "the kernel's own `events`, of which a CPU runs at most 1024 works at a time",
    );
    if !needs_bpf_wq() {
        return;
    }
    let mut called = Called::load("starting", &["start_marked", "on_queue"]);
    let link = called
        .object_mut()
        .progs_mut()
        .find(|program| program.name() == "on_queue")
        .map(|program| program.attach_trace().expect("the tracepoint"));
    assert!(link.is_some());
    assert_eq!(called.call("start_marked"), [OK, OK, OK]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
    let queued = get(&called.map("queued"), 0);
    assert_eq!(word(&queued, 0), 1, "so much work was queued");
    let name = queued[16..].split(|byte| *byte == 0).next();
    assert_eq!(name, Some(b"events".as_slice()));
    let expected = MAX_ACTIVE.iter().rfind(|(first, _)| version() >= *first).unwrap().1;
    assert_eq!(word(&queued, 1), expected);
    if expected != 1024 {
        answer(&format!("yes: at most {expected} at a time"));
    }
}

#[test_log::test]
#[serial]
fn elements_do_not_wait_for_each_other() {
    rule("24-order", GROUP, "work of an element may run while work started before it still does");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("starting", &["start_and_wait", "start_other_element"]);
    let started = called.while_waiting(
        None,
        "start_and_wait",
        |seen| seen.entered == 1,
        || {
            assert_eq!(called.call("start_other_element"), [OK, OK, OK]);
            eventually("the later one runs", || (called.seen().others == 1).then_some(()));
            assert_eq!(called.seen().runs, 0, "the earlier one has ended");
        },
    );
    assert_eq!(started, [OK, OK, OK]);
    eventually("the earlier one runs", || (called.seen().runs == 1).then_some(()));
}
