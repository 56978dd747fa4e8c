//! A keyboard that vanishes, a process that is killed, and bad input.

use std::fs;
use std::path::Path;

use bpf_wq_tests::{Running, eventually};
use hid::keyboard::Keyboard;
use hid::simulated::Answer;
use nix::sys::signal::Signal;
use serial_test::serial;

use crate::{
    PINS, assert_nothing_is_left, can_run, directory, events, expect, next, numbers, plug,
    settings, slow, start, stop, tap, wait, wake,
};

/// The command, for one keyboard.
fn run(arguments: &[&str]) -> Running {
    Running::start(env!("CARGO_BIN_EXE_hid"), &[&["run"], arguments].concat())
}

#[test]
#[serial]
fn a_keyboard_that_vanishes_ends_what_is_in_flight() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &slow("hello"));
    let mut events = events(&device);
    tap(&simulated, &keyboard);
    tap(&simulated, &keyboard);
    next(&mut events);
    simulated.unplug().expect("it is there");
    assert!(!keyboard.is_there());
    let now = wait("the macros end", &keyboard, |now| now.in_flight == 0);
    assert_eq!((now.macros, now.failed), (2, 2), "{now:?}");
    assert!(now.typed < 20, "{now:?}");
    stop(&device, keyboard);
}

#[test]
#[serial]
fn a_keyboard_that_vanishes_ends_a_request() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 16));
    simulated.answers(&[Answer::Late]);
    simulated.sleeps_and_wakes().expect("it is there");
    eventually("the request is in flight", || (simulated.requests() == 1).then_some(()));
    simulated.unplug().expect("it is there");
    let now = wait("it ends", &keyboard, |now| now.in_flight == 0);
    // It was tried again, until there was no keyboard: which is so some time after it answers none.
    assert_eq!((now.failed, now.given_up), (1, 0), "{now:?}");
    assert!(now.unanswered >= 1, "{now:?}");
    stop(&device, keyboard);
}

#[test]
#[serial]
fn a_keyboard_that_vanishes_ends_the_command() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let mut running = run(&[&device.name]);
    assert!(running.says().starts_with("works on"));
    simulated.unplug().expect("it is there");
    assert_eq!(running.ends(), Some(1));
    let said = running.says();
    assert_eq!(said, format!("hid: {} is gone; all work is done", device.name));
    assert_nothing_is_left(&device);
}

#[test]
#[serial]
fn killed_while_it_types_it_stays_at_work_and_the_next_one_goes_on() {
    if !can_run() {
        return;
    }
    let (simulated, device) = plug();
    let mut first = run(&[&device.name, "--spacing-ms", "50"]);
    assert_eq!(first.says(), format!("works on {}: F1 types \"hello\"", device.name));
    let mut events = events(&device);
    let keyboard = start(&device, &slow("hey"));
    assert!(!keyboard.is_new());
    for _ in 0..3 {
        tap(&simulated, &keyboard);
    }
    simulated.answers(&[Answer::Late]);
    wake(&simulated, &keyboard);
    eventually("the request is in flight", || (simulated.requests() == 1).then_some(()));
    let now = numbers(&keyboard);
    assert_eq!(now.in_flight, 4, "three macros and a set-up: {now:?}");
    first.signal(Signal::SIGKILL);
    assert_eq!(first.ends(), None);
    simulated.answers_now();
    drop(start(&device, &settings("hey", 5)));
    expect(&mut events, &["h -h e -e y -y"; 3].join(" "));
    wait("it is set up", &keyboard, |now| now.in_flight == 0 && now.set_up == 1);
    drop(keyboard);

    let mut second = run(&[&device.name, "--text", "hi"]);
    assert_eq!(second.says(), format!("goes on to work on {}: F1 types \"hi\"", device.name));
    let keyboard = start(&device, &settings("hi", 1));
    let before = numbers(&keyboard).typed;
    tap(&simulated, &keyboard);
    expect(&mut events, "h");
    second.signal(Signal::SIGINT);
    assert_eq!(second.ends(), Some(0));
    assert_eq!(second.says(), format!("{} is as it was; all work is done", device.name));
    // What was begun is typed. Who has not read it by now cannot any more: evdev's device is gone.
    assert_eq!(numbers(&keyboard).typed, before + 4);
    drop(keyboard);
    assert_nothing_is_left(&device);
}

#[test]
#[serial]
fn one_process_works_on_a_keyboard() {
    if !can_run() {
        return;
    }
    let (_simulated, device) = plug();
    let mut first = run(&[&device.name]);
    assert!(first.says().starts_with("works on"));
    let mut second = run(&[&device.name, "--text", "hi"]);
    let said = second.says();
    assert_eq!(said, format!("hid: another process has {}: end it first", device.name));
    assert_eq!(second.ends(), Some(1));
    first.signal(Signal::SIGINT);
    assert_eq!(first.ends(), Some(0));
    assert_nothing_is_left(&device);
}

#[test]
#[serial]
fn that_there_are_no_devices_is_said() {
    if !can_run() {
        return;
    }
    let mut running = Running::start(env!("CARGO_BIN_EXE_hid"), &["list"]);
    assert_eq!(running.says(), "there are no HID devices");
    assert_eq!(running.ends(), Some(0));
}

#[test]
#[serial]
fn a_directory_that_is_another_ones_is_left_alone() {
    if !can_run() {
        return;
    }
    // As that of a keyboard which is gone, but for what is in it.
    let other = Path::new(PINS).join("hid-ffff");
    fs::create_dir_all(other.join("mine")).expect("a directory");
    let (_simulated, device) = plug();
    stop(&device, start(&device, &settings("hello", 1)));
    fs::remove_dir(other.join("mine")).expect("it was left alone");
    fs::remove_dir(other).expect("it is empty");
}

#[test]
#[serial]
fn what_a_killed_process_left_of_a_keyboard_that_is_gone_is_removed() {
    if !can_run() {
        return;
    }
    let (simulated, gone) = plug();
    drop(start(&gone, &settings("hello", 1)));
    drop(simulated);
    assert!(directory(&gone).exists());
    let (_simulated, device) = plug();
    let keyboard = start(&device, &settings("hello", 1));
    assert!(!directory(&gone).exists());
    stop(&device, keyboard);
}

#[test]
#[serial]
fn bad_input_is_told_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    for nowhere in ["0003:0000:0000.FFFF", "/dev/hidraw999", "keyboard", ".."] {
        let mut running = run(&[nowhere]);
        let said = running.says();
        assert!(said.contains(&format!("there is no HID device {nowhere}")), "{said}");
        assert_eq!(running.ends(), Some(1));
    }
    let (_simulated, device) = plug();
    let name = device.name.as_str();
    for wrong in
        [&["--key", "F13"][..], &["--text", "é"], &["--spacing-ms", "0"], &["--tries", "0"]]
    {
        assert_eq!(run(&[&[name], wrong].concat()).ends(), Some(2), "{wrong:?}");
    }
    let plain = tempfile::tempdir().expect("a directory");
    let mut running = run(&[name, "--pins", plain.path().to_str().expect("UTF-8")]);
    let said = running.says();
    assert!(said.contains("mount -t bpf"), "{said}");
    assert_eq!(running.ends(), Some(1));
    assert_eq!(fs::read_dir(plain.path()).expect("it is there").count(), 0);

    // A device with reports of its own, which are no keys.
    let descriptor = [0x06, 0x00, 0xff, 0x09, 0x01, 0xa1, 0x01, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75];
    let descriptor = [&descriptor[..], &[0x08, 0x95, 0x03, 0x09, 0x01, 0x81, 0x02, 0xc0]].concat();
    let other = uhid::Device::plug(&descriptor, &[0; 3]).expect("a device");
    let mut running = run(&[other.name()]);
    let said = running.says();
    assert!(said.contains("is no keyboard"), "{said}");
    assert_eq!(running.ends(), Some(1));
    assert_nothing_is_left(&device);

    // A device has one program that fixes its descriptor: here, of another directory.
    let taken = Path::new(PINS).join("other");
    fs::create_dir(&taken).expect("a directory");
    let keyboard = Keyboard::start(&device, &settings("hello", 1), &taken).expect("it starts");
    let mut running = run(&[name]);
    let said = running.says();
    assert!(
        said.contains("cannot work on") && said.contains("another program fixes its descriptor"),
        "{said}"
    );
    assert_eq!(running.ends(), Some(1));
    assert!(!directory(&device).exists());
    stop(&device, keyboard);
    fs::remove_dir(&taken).expect("it is empty");
}
