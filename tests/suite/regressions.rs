//! Bugs of bpf_wq that were fixed, and have to stay so. Others are among the rules: the verifier
//! on sleeping timers (469d638d1520, V18) and on maps without a record (5f8d41172931, 30).

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libbpf_rs::MapCore as _;
use nix::errno::Errno::{self, EINVAL, ENOENT, ENOMEM};
use rstest::rstest;
use serial_test::serial;

use crate::support::called::{
    Called, OK, call, cpus, get, on_cpu, program_exists, program_info, put, word,
};
use crate::support::cgroup::Cgroup;
use crate::support::{
    End, answer, eventually, needs_bpf_wq, needs_config, needs_fix, rule, version,
};

const GROUP: &str = "Bugs that were fixed";

/// `struct elem` of `bpf/tests/rules.h`.
const ELEM: [u8; 24] = [0; 24];

/// Fixed by 81502d7f20bf. The bug came with 1bfbc267ec91, in the same version: no release had it.
#[rstest]
#[case::deleted("R-leak-deleted", "set_hash", "hash", "its element is deleted")]
#[case::updated("R-leak-updated", "set_array", "array", "its element is updated")]
#[test_log::test]
#[serial]
fn set_and_never_started(
    #[case] id: &str,
    #[case] set: &str,
    #[case] map: &str,
    #[case] what: &str,
) {
    rule(
        id,
        GROUP,
        &format!("a callback set and never started lets go of its program when {what}"),
    );
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("regressions", &[set]);
    let elems = called.map(map);
    put(&elems, 0, &ELEM);
    let program = called.program(set);
    let id = program_info(program.as_fd()).id;
    assert_eq!(call(program.as_fd(), set), [OK, OK]);
    drop(program);
    drop(called);

    // The kernel lets go of a program some time after its last descriptor is closed.
    let other = Called::load("regressions", &[]);
    other.settle();
    assert!(program_exists(id), "the callback does not hold its program");
    if map == "array" {
        put(&elems, 0, &ELEM);
    } else {
        elems.delete(&0_u32.to_ne_bytes()).expect("it is deleted");
    }
    eventually("the program is gone", || (!program_exists(id)).then_some(()));
}

/// `enum call` of `bpf/tests/regressions.bpf.c`.
const CALLS: [&str; 7] = [
    "update",
    "init",
    "set_callback",
    "start",
    "delete",
    "another's set_callback",
    "another's start",
];

/// ERRNOS of the same.
const ERRNOS: usize = 256;

/// How often each call returned what.
fn counted(called: &Called) -> [BTreeMap<i32, u64>; CALLS.len()] {
    let codes = called.map("codes");
    std::array::from_fn(|call| {
        let count = |errno: usize| word(&get(&codes, (call * ERRNOS + errno) as u32), 0);
        (0..ERRNOS).map(|errno| (errno as i32, count(errno))).filter(|(_, n)| *n != 0).collect()
    })
}

/// Fixed by 1bfbc267ec91, between 6.19 and 7.0: start could queue memory that a delete on
/// another CPU had freed. Without KASAN that shows only if the memory is used for something else
/// meanwhile; what is asserted here is all else. The runner looks for reports of the kernel.
#[rstest]
#[case::hash("R-race", "hash")]
#[case::no_prealloc("R-race-no-prealloc", "no_prealloc")]
#[test_log::test]
#[serial]
fn start_against_delete(#[case] id: &str, #[case] map: &str) {
    const BATCHES: u64 = 10;
    const ROUNDS: u64 = 1000;
    let codes = "0 or -EINVAL, since 7.0 also -ENOENT";
    rule(id, GROUP, &format!("{map}: start and set_callback may race with a delete: {codes}"));
    if !needs_bpf_wq() {
        return;
    }
    let names = [format!("rounds_{map}"), format!("disturbs_{map}")];
    let called = Called::load("regressions", &names.each_ref().map(String::as_str));
    let [first, second, ..] = cpus()[..] else { panic!("one CPU is too few") };
    let [rounds, disturbs] = names.each_ref().map(|name| called.program(name));
    let ids = [&rounds, &disturbs].map(|program| program_info(program.as_fd()).id);
    let mut batches = 0;
    let (disturbed, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            on_cpu(second, || {
                while !ended.load(Ordering::Relaxed) {
                    assert_eq!(call(disturbs.as_fd(), &names[1]), [OK]);
                    disturbed.store(true, Ordering::Relaxed);
                }
            });
        });
        let _end = End(&ended);
        eventually("the other one runs", || disturbed.load(Ordering::Relaxed).then_some(()));
        on_cpu(first, || {
            // On a busy host the other one may not run beside the first batches.
            eventually("the other one's calls are in time", || {
                for _ in 0..BATCHES {
                    assert_eq!(call(rounds.as_fd(), &names[0]), [OK]);
                }
                batches += BATCHES;
                let [.., set_callback, start] = counted(&called);
                (set_callback.contains_key(&0) && start.contains_key(&0)).then_some(())
            });
        });
    });
    let counted = counted(&called);
    for (call, codes) in CALLS.iter().zip(&counted) {
        println!("{call}: {codes:?}");
    }
    let [own @ .., set_callback, start] = &counted;
    for (call, codes) in CALLS.iter().zip(own) {
        assert_eq!(*codes, BTreeMap::from([(0, batches * ROUNDS)]), "{call}");
    }
    for (what, codes) in [("set_callback", set_callback), ("start", start)] {
        for code in codes.keys() {
            assert!(allowed().contains(&Errno::from_raw(*code)) || *code == 0, "{what}: {code}");
        }
    }

    called.settle();
    let seen = called.seen();
    let started = batches * ROUNDS + start[&0];
    println!("{} of {started} starts led to a run of their own", seen.runs);
    assert_eq!(seen.entered, seen.runs, "a callback did not end");
    assert!(seen.runs <= started, "more runs than starts");
    called.settle();
    assert_eq!(called.seen().entered, seen.entered, "what was deleted still runs");

    // Nothing holds the programs: each callback that was set was dropped.
    drop((called, rounds, disturbs));
    eventually("the programs are gone", || {
        (!ids.map(program_exists).contains(&true)).then_some(())
    });
    if version() < (7, 0) {
        let freed = "before 1bfbc267ec91 start may use freed memory, which only KASAN shows";
        answer(&format!("no: the codes are these, but {freed}"));
    }
}

/// What a start or a set_callback that comes too late may return.
fn allowed() -> &'static [Errno] {
    if version() >= (7, 0) { &[EINVAL, ENOENT] } else { &[EINVAL] }
}

/// At its limit, a cgroup's memory controller wakes up whoever watches the cgroup, and takes the
/// lock that the scheduler holds here. 6d78b4473cdb (CVE-2025-39886) lets bpf_wq say that it may
/// not wait, and fcc0669c5aa6 lets the controller heed it. 6.12.107 and 6.16.12 have the first
/// alone, and their CPU hangs: the deed is not done before the second.
#[test_log::test]
#[serial]
fn init_under_the_scheduler_at_the_limit() {
    const MANY: u64 = 20000;
    /// As in rule 7: before, no limit refuses the memory.
    const LIMITED: (u32, u32) = (6, 18);
    let statement = "init in tp_btf/sched_switch, with the map's cgroup at its limit: no deadlock";
    rule("R-memcg", GROUP, statement);
    // 6.17.13 has it, some release before may, too.
    let reason = "without fcc0669c5aa6 the CPU hangs: seen on 6.12.107, 6.16.12";
    if !needs_bpf_wq()
        || !needs_fix((6, 18), &[(6, 17, 13)], reason)
        || !needs_config("CONFIG_MEMCG", "the limit is the memory controller's")
    {
        return;
    }
    let cgroup = Cgroup::new();
    let mut called = cgroup.within(|| Called::load("regressions", &["in_sched_switch"]));
    let link = called
        .object_mut()
        .progs_mut()
        .find(|program| program.name() == "in_sched_switch")
        .map(|program| program.attach_trace().expect("the tracepoint"));
    assert!(link.is_some());
    cgroup.write("memory.max", &cgroup.current().to_string());
    put(&called.map("who"), 0, &u64::from(std::process::id()).to_ne_bytes());
    // Each look is a switch. To count takes as long as many of them: that comes afterwards.
    eventually("all are tried", || (called.seen().data >= MANY).then_some(()));
    drop(link);
    let init = eventually("all are counted", || {
        let [_, init, ..] = counted(&called);
        (init.values().sum::<u64>() >= MANY).then_some(init)
    });

    println!("init: {init:?}, and the limit was hit {} times", cgroup.hits());
    assert_eq!(init.values().sum::<u64>(), MANY);
    if version() >= LIMITED {
        // 6.18 to 7.1 do not count these in memory.events.
        assert_eq!(init.keys().copied().collect::<Vec<_>>(), [0, ENOMEM as i32]);
    } else {
        answer("yes: but the limit is ignored");
        assert_eq!(init, BTreeMap::from([(0, MANY)]));
        assert_ne!(cgroup.hits(), 0, "the limit was not hit");
    }
}
