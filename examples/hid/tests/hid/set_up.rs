//! A keyboard that woke, and answers on time, late, wrongly or never.

use std::time::{Duration, Instant};

use bpf_wq_tests::eventually;
use hid::simulated::Answer;
use serial_test::serial;

use crate::{
    HELLO, can_run, events, expect, next, numbers, plug, settings, start, stop, tap, wait, wake,
};

/// Two requests: to be set up, and whether it is.
#[test]
#[serial]
fn a_keyboard_that_woke_is_set_up() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 1));
    let mut events = events(&device);
    simulated.sleeps_and_wakes().expect("it is there");
    assert!(numbers(&keyboard).woke == 1, "{:?}", numbers(&keyboard));
    let now = wait("it is set up", &keyboard, |now| now.set_up == 1);
    assert!(simulated.is_set_up());
    assert_eq!((simulated.requests(), now.unanswered, now.wrong), (2, 0, 0), "{now:?}");
    tap(&simulated, &keyboard);
    expect(&mut events, HELLO);
    stop(&device, keyboard);
}

#[test]
#[serial]
fn a_late_answer_is_waited_for_and_holds_up_nothing() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 5));
    let mut events = events(&device);
    tap(&simulated, &keyboard);
    next(&mut events);
    simulated.answers(&[Answer::Late]);
    let began = Instant::now();
    wake(&simulated, &keyboard);
    expect(&mut events, "-h e -e l -l l -l o -o");
    assert_eq!(numbers(&keyboard).set_up, 0, "the macro has not waited for the answer");
    eventually("the request is in flight", || (simulated.requests() == 1).then_some(()));
    simulated.answers_now();
    let now = wait("it is set up", &keyboard, |now| now.set_up == 1);
    assert_eq!((now.wrong, now.given_up), (0, 0), "{now:?}");
    // uhid gives it 5 seconds, and this machine may have stood still for so long.
    assert!(now.unanswered == 0 || began.elapsed() >= Duration::from_secs(5), "{now:?}");
    stop(&device, keyboard);
}

#[test]
#[serial]
fn after_wrong_answers_it_is_tried_again() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 3));
    // Says that it did, and did not; then that it did, and half an answer; then as it should.
    simulated.answers(&[Answer::Wrong, Answer::Right, Answer::Right, Answer::Wrong]);
    simulated.sleeps_and_wakes().expect("it is there");
    let now = wait("it is set up", &keyboard, |now| now.set_up == 1);
    assert_eq!((now.wrong, now.unanswered, simulated.requests()), (2, 0, 6), "{now:?}");
    stop(&device, keyboard);
}

#[test]
#[serial]
fn what_answers_only_wrongly_is_given_up() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 3));
    simulated.answers(&[Answer::Wrong; 6]);
    simulated.sleeps_and_wakes().expect("it is there");
    let now = wait("it is given up", &keyboard, |now| now.failed == 1 && now.in_flight == 0);
    assert_eq!((now.wrong, now.given_up, now.set_up), (3, 1, 0), "{now:?}");
    assert_eq!((now.in_flight, simulated.requests()), (0, 6), "{now:?}");
    // And is set up when it wakes the next time.
    simulated.sleeps_and_wakes().expect("it is there");
    wait("it is set up", &keyboard, |now| now.set_up == 1);
    stop(&device, keyboard);
}

#[test]
#[serial]
fn what_never_answers_is_given_up() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 1));
    simulated.answers(&[Answer::Late]);
    simulated.sleeps_and_wakes().expect("it is there");
    let now = wait("it is given up", &keyboard, |now| now.failed == 1);
    assert_eq!((now.unanswered, now.given_up, now.set_up), (1, 1, 0), "{now:?}");
    // An answer that comes now is nobody's, and the next request has its own.
    eventually("the request was seen", || (simulated.requests() == 1).then_some(()));
    simulated.answers_now();
    simulated.sleeps_and_wakes().expect("it is there");
    let now = wait("it is set up", &keyboard, |now| now.set_up == 1);
    assert_eq!((now.unanswered, now.wrong), (1, 0), "{now:?}");
    stop(&device, keyboard);
}
