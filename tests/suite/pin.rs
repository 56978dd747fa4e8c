//! Pins: the work goes on when the loader is gone, and a later loader takes over or replaces.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use bpf_wq::{Build, Error, Pinned, Refusal, TakenOver};
use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::SkelBuilder as _;
use serial_test::serial;

use crate::support::bpffs::BpfFs;
use crate::support::called::{get, word};
use crate::support::pin::{
    CAPACITY, FIRST_ATTACHED, Ids, OBJECT, PinSkelBuilder, counters, executor, hold, other_object,
    runs, start, stop, take_new, take_over,
};
use crate::support::process::{Process, role, say, wait_for_death};
use crate::support::{DEADLINE, eventually, loads, needs_bpf_wq, refusal, rule};

const GROUP: &str = "Pins";

/// `BPF_WQ_CLOSED`.
const CLOSED: u64 = 2;

/// So many jobs of the loader that is killed are done before.
const DONE: u64 = 300;

/// Takes over, says whether it has loaded when some jobs are done and the next are held, and submits
/// until it is killed.
fn submit_for_ever(at: &Path) -> ! {
    let TakenOver { pinned, is_new, .. } = take_over(at, OBJECT, DEADLINE).expect("it takes over");
    let executor = executor(&pinned);
    let mut number = 0;
    loop {
        if number == DONE {
            // Here, as the test may come late. One that runs could end after it was seen as queued.
            assert_eq!(executor.wait_idle(DEADLINE), 0, "{}", executor.counters());
            hold(&pinned.map("hold").expect("a map"), true);
            say(if is_new { "loaded" } else { "took over" });
        }
        match executor.submit(&[number]) {
            Ok(_) => number += 1,
            Err(Error::Refused { refusal: Refusal::Full, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test_log::test]
#[serial]
fn work_goes_on_after_its_loader() {
    if let Some(at) = role() {
        submit_for_ever(Path::new(&at));
    }
    let statement = "a pinned object's loader is killed with jobs queued: its programs stay at \
                     work, a later loader takes over, and each accepted job is done once";
    rule("P-killed", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let mut loader =
        Process::start("pin::work_goes_on_after_its_loader", at.to_str().expect("UTF-8"));
    assert_eq!(loader.says(), "loaded");
    let pinned = Pinned::open(&at, Build::of(OBJECT)).expect("it is pinned");
    eventually("it is full", || (counters(&pinned).in_flight == CAPACITY).then_some(()));
    loader.kill();
    let before = Ids::of(&pinned);
    // Now nobody has any of it open.
    drop(pinned);

    let TakenOver { pinned, is_new, cleared } =
        take_over(&at, OBJECT, DEADLINE).expect("it takes over");
    assert!(!is_new && cleared.is_empty(), "{cleared:?}");
    assert_eq!(Ids::of(&pinned), before, "the same maps and programs");
    assert_eq!(counters(&pinned).in_flight, CAPACITY);
    let ticks = || word(&get(&pinned.map("ticks").expect("a map"), 0), 0);
    let now = ticks();
    eventually("the perf event's program runs still", || (ticks() > now + 1).then_some(()));
    hold(&pinned.map("hold").expect("a map"), false);
    let executor = executor(&pinned);
    assert_eq!(executor.wait_idle(DEADLINE), 0, "{}", executor.counters());

    let attached = pinned.program("attached").expect("a program");
    for _ in 0..10 {
        call(&attached);
    }
    assert_eq!(executor.wait_idle(DEADLINE), 0, "{}", executor.counters());
    let counters = executor.counters();
    assert_eq!((counters.accepted, counters.failed), (counters.done, 0), "{counters}");
    let runs = runs(&pinned.map("runs").expect("a map"));
    assert_eq!(counters.accepted, DONE + CAPACITY + 10, "{counters}");
    let submitted = usize::try_from(DONE + CAPACITY).expect("few");
    for (number, runs) in runs.iter().enumerate() {
        let expected =
            number < submitted || (FIRST_ATTACHED..FIRST_ATTACHED + 10).contains(&number);
        assert_eq!(*runs, u64::from(expected), "job {number} of {submitted}");
    }
    drop((executor, attached));
    stop(pinned);
}

/// Calls what the program is attached to.
fn call(program: &OwnedFd) {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        ..Default::default()
    };
    // SAFETY: the descriptor is open, and there is no data.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut opts) };
    assert_eq!(result, 0, "the test run");
}

#[test_log::test]
#[serial]
fn another_build_drains_and_replaces() {
    let statement = "a loader of another build drains the pinned one and replaces it; what is not \
                     done at its deadline is reported";
    rule("P-replaced", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let (at, other) = (bpffs.application(), other_object());
    let first = take_new(&at, OBJECT);
    let (ids, ran) = (Ids::of(&first), first.map("runs").expect("a map"));
    let (held, gate) = (first.map("hold").expect("a map"), first.map("jobs_gate").expect("a map"));
    hold(&held, true);
    for number in 0..20 {
        executor(&first).submit(&[number]).expect("it is accepted");
    }
    drop(first);

    // One that the kernel does not load changes nothing.
    let mut storage = MaybeUninit::uninit();
    let mut open = PinSkelBuilder::default().open(&mut storage).expect("it opens");
    open.maps.runs.set_max_entries(0).expect("it is not loaded yet");
    let error = refusal(bpf_wq::take_over(&at, DEADLINE, open, &other, start));
    assert!(matches!(error, Error::Bpf { .. }), "{error:?}");
    drop(Pinned::open(&at, Build::of(OBJECT)).expect("it is at work still"));

    let replaced = thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the gate is closed", || (word(&get(&gate, 0), 0) == CLOSED).then_some(()));
            hold(&held, false);
        });
        take_over(&at, &other, DEADLINE).expect("it replaces")
    });
    assert!(replaced.is_new);
    let [cleared] = &replaced.cleared[..] else { panic!("{replaced:?}") };
    assert_eq!(cleared.name, format!("build-{}", Build::of(OBJECT)));
    assert!(cleared.drained.is_complete(), "{}", cleared.drained);
    assert_eq!(runs(&ran)[..21], [[1; 20].as_slice(), &[0]].concat());
    drop((ran, held, gate));
    ids.wait_until_gone();
    let second = replaced.pinned;
    assert_eq!(second.build(), Build::of(&other));

    hold(&second.map("hold").expect("a map"), true);
    let late = executor(&second);
    for number in 0..5 {
        late.submit(&[number]).expect("it is accepted");
    }
    let ids = Ids::of(&second);
    drop(second);
    let replaced = take_over(&at, OBJECT, Duration::from_millis(500)).expect("it replaces");
    let [cleared] = &replaced.cleared[..] else { panic!("{replaced:?}") };
    assert_eq!(cleared.drained.left, [("jobs".to_owned(), 5)]);
    let error = refusal(late.submit(&[5]));
    assert!(matches!(error, Error::Refused { refusal: Refusal::Draining, .. }), "{error:?}");
    drop(late);
    ids.wait_until_gone();
    let pins = bpf_wq::pins(&at).expect("there are pins");
    assert_eq!(pins.iter().map(|pin| &*pin.path).collect::<Vec<_>>(), [replaced.pinned.path()]);
    stop(replaced.pinned);
}

#[test_log::test]
#[serial]
fn lost_work_is_told_before_an_error() {
    let statement = "when a loader of another build has replaced the pinned one and then fails, its \
                     error also tells which work was lost";
    rule("P-lost", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let (at, other) = (bpffs.application(), other_object());
    let first = take_new(&at, OBJECT);
    hold(&first.map("hold").expect("a map"), true);
    for number in 0..5 {
        executor(&first).submit(&[number]).expect("it is accepted");
    }
    drop(first);
    let mut storage = MaybeUninit::uninit();
    let open = PinSkelBuilder::default().open(&mut storage).expect("it opens");
    let deadline = Duration::from_millis(200);
    let error = refusal(bpf_wq::take_over(&at, deadline, open, &other, |loaded| {
        drop(loaded);
        Err(Error::NothingToArm { object: "pin".to_owned() })
    }));
    let Error::WorkLost { cleared, source } = &error else { panic!("{error:?}") };
    assert_eq!(cleared[0].drained.left, [("jobs".to_owned(), 5)]);
    assert!(matches!(**source, Error::NothingToArm { .. }), "{source:?}");
    assert!(error.to_string().ends_with("not done: 5 of jobs"), "{error}");
}

/// Says whether it has loaded, and holds nothing then.
fn take_over_once(at: &Path) -> ! {
    let taken_over = take_over(at, OBJECT, DEADLINE).expect("it takes over");
    say(if taken_over.is_new { "loaded" } else { "took over" });
    wait_for_death();
}

#[test_log::test]
#[serial]
fn of_two_loaders_one_loads() {
    if let Some(at) = role() {
        take_over_once(Path::new(&at));
    }
    rule("P-two", GROUP, "of two loaders at once, one loads and pins, and the other takes over");
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let start = || Process::start("pin::of_two_loaders_one_loads", at.to_str().expect("UTF-8"));
    let mut loaders = [start(), start()];
    let mut said = loaders.each_mut().map(Process::says);
    said.sort();
    assert_eq!(said, ["loaded", "took over"]);
    loaders.into_iter().for_each(Process::kill);
    stop(Pinned::open(&at, Build::of(OBJECT)).expect("it is pinned"));
}
