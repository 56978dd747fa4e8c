//! An executor is stopped while both CPUs submit.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
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

/// Submits jobs, each of a number of its own, until the executor is drained. Returns how many were
/// accepted.
fn submit_until_refused(jobs: &Executor<Job>, numbers: impl Iterator<Item = u64>) -> u64 {
    let mut accepted = 0;
    for number in numbers {
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
    panic!("it was not drained before {accepted} jobs were accepted");
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
    let (stopped, accepted) = thread::scope(|scope| {
        let submitters = [(first, 0..most / 2), (second, most / 2..most)];
        let submitters = submitters.map(|(cpu, numbers)| {
            let jobs = &jobs;
            scope.spawn(move || on_cpu(cpu, || submit_until_refused(jobs, numbers)))
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
    let accepted: u64 = accepted.iter().sum();
    let left = if is_held { vec![("jobs".to_owned(), CAPACITY)] } else { Vec::new() };
    assert_eq!(stopped.left, left);
    let left = if is_held { CAPACITY } else { 0 };
    let counters = jobs.counters();
    assert_eq!((counters.accepted, counters.done), (accepted, accepted - left), "{counters}");
    let done = runs(&ran);
    assert_eq!(done.iter().sum::<u64>(), counters.done);
    assert_eq!(done.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&0, &1]), "done twice");

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
