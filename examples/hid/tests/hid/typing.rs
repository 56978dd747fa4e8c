//! Macros, rewritten keys, and a descriptor that is fixed.

use std::time::Duration;

use bpf_wq_tests::fact;
use evdev::KeyCode;
use hid::events::Event;
use hid::keys::{CAPS_LOCK, FunctionKey, SHIFT, usage};
use hid::simulated::Simulated;
use serial_test::serial;

use crate::{
    HELLO, SPACING, can_run, events, expect, numbers, plug, settings, slow, start, stop, tap, wait,
};

fn distances(events: &[Event]) -> Vec<Duration> {
    let distance = |pair: &[Event]| pair[1].at.duration_since(pair[0].at).expect("in order");
    events.windows(2).map(distance).collect()
}

#[test]
#[serial]
fn f1_types_hello_and_never_faster_than_it_may() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 1));
    assert!(keyboard.is_new());
    let mut events = events(&device);
    tap(&simulated, &keyboard);
    let typed = expect(&mut events, HELLO);
    let mut distances = distances(&typed);
    // With a time that doubles from step to step, as retries have it else, all of these would be as
    // long. This machine may be slow, but not each time.
    assert!(distances[4..].iter().any(|distance| *distance < 16 * SPACING), "{distances:?}");
    distances.sort();
    let ms = |distance: Duration| distance.as_secs_f64() * 1000.0;
    let (least, median, most) = (distances[0], distances[4], distances[8]);
    assert!(least >= SPACING, "{distances:?}");
    fact(
        "HID macro: 10 ms between keys",
        &format!("{:.2} to {:.2} ms, median {:.2}", ms(least), ms(most), ms(median)),
    );
    let now = wait("the macro ends", &keyboard, |now| now.in_flight == 0);
    assert_eq!((now.macros, now.typed, now.failed), (1, 10, 0), "{now:?}");
    stop(&device, keyboard);
}

#[test]
#[serial]
fn macros_of_two_presses_come_one_after_the_other() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &slow("hello"));
    let mut events = events(&device);
    tap(&simulated, &keyboard);
    tap(&simulated, &keyboard);
    let now = numbers(&keyboard);
    assert!(now.typed < 10, "the second was to be pressed while the first is typed: {now:?}");
    let slowly = distances(&expect(&mut events, "h -h"));
    assert!(slowly[0] >= Duration::from_secs(2), "{slowly:?}");
    drop(start(&device, &settings("hello", 1)));
    let distances = distances(&expect(&mut events, &format!("e -e l -l l -l o -o {HELLO}")));
    assert!(distances.iter().all(|distance| *distance >= SPACING), "{distances:?}");
    stop(&device, keyboard);
}

/// A report says of all keys whether they are down: one of the macro's alone would release what a
/// person holds.
#[test]
#[serial]
fn a_key_that_is_held_meanwhile_stays_so() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hi", 1));
    let mut events = events(&device);
    let a = usage('a').expect("a key");
    simulated.holds(0, &[a]).expect("it is there");
    expect(&mut events, "a");
    simulated.holds(0, &[a, FunctionKey::F1.usage()]).expect("it is there");
    expect(&mut events, "h -h i -i");
    wait("the macro ends", &keyboard, |now| now.in_flight == 0);
    simulated.holds(SHIFT, &[]).expect("it is there");
    // Of one report, modifiers come first.
    expect(&mut events, "leftshift -a");
    stop(&device, keyboard);
}

#[test]
#[serial]
fn caps_lock_is_escape() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let mut before = events(&device);
    simulated.holds(0, &[CAPS_LOCK]).expect("it is there");
    simulated.holds(0, &[]).expect("it is there");
    expect(&mut before, "capslock -capslock");
    let keyboard = start(&device, &settings("hello", 1));
    let mut events = events(&device);
    simulated.holds(0, &[CAPS_LOCK]).expect("it is there");
    simulated.holds(0, &[]).expect("it is there");
    expect(&mut events, "esc -esc");
    assert_eq!(numbers(&keyboard).rewritten, 1);
    stop(&device, keyboard);
}

#[test]
#[serial]
fn a_wrong_descriptor_is_fixed() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let presses = |expected: &str| {
        let mut events = events(&device);
        simulated.holds(SHIFT, &[usage('a').expect("a key")]).expect("it is there");
        simulated.holds(0, &[]).expect("it is there");
        expect(&mut events, expected);
        assert!(events.has(KeyCode::KEY_A) && events.has(KeyCode::KEY_LEFTSHIFT));
        // A keyboard whose keys end at 0x65 has none at 0x68.
        events.has(KeyCode::KEY_F13)
    };
    assert!(presses("a -a"), "its modifiers are taken for usages 0 to 0xe7");
    let keyboard = start(&device, &settings("hello", 1));
    assert!(!presses("leftshift a -leftshift -a"), "{:?}", numbers(&keyboard));
    assert_eq!(numbers(&keyboard).fixed, 1);
    stop(&device, keyboard);
    assert!(presses("a -a"), "it is as it was");
}

#[test]
#[serial]
fn a_keyboard_without_numbers_and_faults_types_too() {
    if !can_run() {
        return;
    }
    let simulated = Simulated::plug_plain().expect("a keyboard");
    let device = simulated.device().expect("it is there");
    let keyboard = start(&device, &settings("Hi", 1));
    let mut events = events(&device);
    tap(&simulated, &keyboard);
    expect(&mut events, "leftshift h -leftshift -h i -i");
    assert_eq!(numbers(&keyboard).fixed, 0);
    stop(&device, keyboard);
}
