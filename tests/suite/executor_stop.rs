//! An executor is stopped while both CPUs submit.

use std::iter;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use bpf_wq::{Error, Executor, Refusal};
use libbpf_rs::MapHandle;
use rstest::rstest;
use serial_test::serial;

use crate::support::called::{cpus, on_cpu};
use crate::support::loader::Ids;
use crate::support::pin::{CAPACITY, FIRST_ATTACHED, Job, hold, load, runs};
use crate::support::{DEADLINE, eventually, loads, needs_bpf_wq, rule};

/// Submits jobs of these numbers, again and again however late that comes, until the executor is
/// drained. Returns how many were accepted.
fn submit_until_refused(jobs: &Executor<Job>, numbers: Range<u64>) -> u64 {
    let mut accepted = 0;
    for number in numbers.cycle() {
        let told = eventually("there is room", || match jobs.submit(&[number]) {
            Ok(_) => Some(Ok(())),
            Err(Error::Refused { refusal: Refusal::Full, .. }) => None,
            Err(error) => Some(Err(error)),
        });
        match told {
            Ok(()) => accepted += 1,
            Err(Error::Refused { refusal: Refusal::Draining, .. }) => return accepted,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("there are numbers");
}

/// How often each number was accepted, of so many that [`submit_until_refused`] had accepted.
fn times_accepted(numbers: Range<u64>, accepted: u64) -> impl Iterator<Item = u64> {
    let count = numbers.end - numbers.start;
    (0..count).map(move |nth| accepted / count + u64::from(nth < accepted % count))
}

#[rstest]
#[case::in_time("X-stop-load", false, "all that was accepted is done")]
#[case::too_late("X-stop-load-left", true, "what was accepted is done, or told to be left")]
#[test_log::test]
#[serial]
fn stops_under_load(#[case] id: &str, #[case] is_held: bool, #[case] outcome: &str) {
    let statement = format!(
        "an executor is stopped while both CPUs submit: {outcome}, nothing runs after, and all is unloaded"
    );
    rule(id, "The executor", &statement);
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let before = Ids::now();
    let mut storage = MaybeUninit::uninit();
    let armed = load(&mut storage);
    let ids = Ids::now().without(&before);
    let jobs = Executor::<Job>::of(&armed, "jobs").expect("it has an executor");
    let ran = MapHandle::try_from(&armed.skel().maps.runs).expect("a descriptor");
    let held = MapHandle::try_from(&armed.skel().maps.hold).expect("a descriptor");
    let [first, second, ..] = cpus()[..] else { panic!("one CPU is too few") };
    let most = FIRST_ATTACHED as u64;
    let numbers = [0..most / 2, most / 2..most];
    let (stopped, accepted) = thread::scope(|scope| {
        let submitters = [(first, &numbers[0]), (second, &numbers[1])];
        let submitters = submitters.map(|(cpu, numbers)| {
            let jobs = &jobs;
            scope.spawn(move || on_cpu(cpu, || submit_until_refused(jobs, numbers.clone())))
        });
        eventually("there is load", || (jobs.counters().done > 500).then_some(()));
        if is_held {
            hold(&held, true);
            eventually("it is full", || (jobs.counters().in_flight == CAPACITY).then_some(()));
        }
        let deadline = if is_held { Duration::from_millis(200) } else { DEADLINE };
        let stopped = armed.stop(deadline);
        let accepted = submitters.map(|submitter| submitter.join().expect("it ends"));
        (stopped, accepted)
    });
    eventually("the programs are detached", || ids.left().links.is_empty().then_some(()));
    assert!(accepted.iter().all(|accepted| *accepted > 0), "{accepted:?}");
    // A job that ran when they were held may have ended, and none have come in its place in time.
    let left = match &stopped.left[..] {
        [(name, left @ 1..=CAPACITY)] if is_held && name == "jobs" => *left,
        [] if !is_held => 0,
        _ => panic!("{stopped}"),
    };
    let (all, counters) = (accepted.iter().sum::<u64>(), jobs.counters());
    assert_eq!((counters.accepted, counters.done), (all, all - left), "{counters}");
    let done = runs(&ran);
    assert_eq!(done.iter().sum::<u64>(), counters.done);
    let times = numbers.into_iter().zip(accepted);
    let times = times.flat_map(|(numbers, accepted)| times_accepted(numbers, accepted));
    for (number, (done, accepted)) in done.iter().zip(times.chain(iter::repeat(0))).enumerate() {
        assert!(*done <= accepted, "job {number}: accepted {accepted} times, done {done} times");
    }

    // The executor is the last that has what its jobs need.
    drop((jobs, held));
    let is_gone = || {
        let left = ids.left();
        (left.programs.is_empty() && left.maps.len() == 1).then_some(())
    };
    eventually("all but the map of runs goes away", is_gone);
    assert_eq!(runs(&ran), done, "a job ran after the end");
    drop(ran);
    eventually("nothing is left", || ids.left().is_empty().then_some(()));
}
