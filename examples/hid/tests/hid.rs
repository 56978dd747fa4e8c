//! The programs on keyboards that `/dev/uhid` makes, and what evdev shows of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf_wq_tests::{DEADLINE, Running, eventually, fact, needs, needs_bpf_wq, needs_config};
use evdev::KeyCode;
use hid::device::Device;
use hid::events::{Event, Events};
use hid::keyboard::{Keyboard, Numbers, Settings};
use hid::keys::{CAPS_LOCK, FunctionKey, SHIFT, usage};
use hid::simulated::{Answer, Simulated};
use nix::sys::signal::Signal;
use serial_test::serial;

const PINS: &str = "/sys/fs/bpf";

const SPACING: Duration = Duration::from_millis(10);

fn can_run() -> bool {
    needs_bpf_wq()
        && needs((6, 11), "HID-BPF is struct_ops since 6.11 (ebc0d8093e8c)")
        && needs_config("CONFIG_HID_BPF", "without it HID devices have no BPF programs")
        && needs_config("CONFIG_UHID", "the keyboards are some that the test makes")
        && needs_config("CONFIG_INPUT_EVDEV", "it shows what was typed")
}

fn settings(text: &str, tries: u32) -> Settings {
    Settings {
        text: text.parse().expect("a text"),
        key: FunctionKey::F1,
        spacing_ms: 10.try_into().expect("not 0"),
        tries,
    }
}

/// So slow that more can be done while it types, also in an emulated machine.
fn slow(text: &str) -> Settings {
    Settings { spacing_ms: 50.try_into().expect("not 0"), ..settings(text, 1) }
}

fn plug() -> (Simulated, Device) {
    let simulated = Simulated::plug().expect("a keyboard");
    let device = simulated.device().expect("it is there");
    (simulated, device)
}

fn start(device: &Device, settings: &Settings) -> Keyboard {
    Keyboard::start(device, settings, Path::new(PINS)).expect("it starts")
}

fn numbers(keyboard: &Keyboard) -> Numbers {
    keyboard.numbers().expect("the map can be read")
}

/// Of a keyboard's pins.
fn directory(device: &Device) -> PathBuf {
    Path::new(PINS).join(format!("hid-{:04x}", device.id))
}

#[track_caller]
fn stop(device: &Device, keyboard: Keyboard) {
    let drained = keyboard.stop().expect("it stops");
    assert!(drained.is_complete(), "{drained}");
    assert_nothing_is_left(device);
}

#[track_caller]
fn assert_nothing_is_left(device: &Device) {
    assert!(!directory(device).exists(), "{} is left", directory(device).display());
    let loaded = || libbpf_rs::query::ProgInfoIter::default().any(|p| p.name == "on_report");
    eventually("the program is gone", || (!loaded()).then_some(()));
}

#[track_caller]
fn events(device: &Device) -> Events {
    let node =
        eventually("evdev has the keyboard", || device.event_node().filter(|node| node.exists()));
    Events::open(&node).expect("it can be read")
}

#[track_caller]
fn next(events: &mut Events) -> Event {
    let event = events.next(DEADLINE).expect("the keyboard is there");
    event.unwrap_or_else(|| panic!("no event within {DEADLINE:?}"))
}

/// `a` for a press, and `-a` for a release.
fn shown(events: &[Event]) -> String {
    let key = |event: &Event| {
        let name = format!("{:?}", event.key).replace("KEY_", "").to_lowercase();
        if event.is_press { name } else { format!("-{name}") }
    };
    events.iter().map(key).collect::<Vec<_>>().join(" ")
}

/// Reads as many events as are expected, and fails if they are others.
#[track_caller]
fn expect(events: &mut Events, expected: &str) -> Vec<Event> {
    let count = expected.split(' ').count();
    let found: Vec<_> = (0..count).map(|_| next(events)).collect();
    assert_eq!(shown(&found), expected);
    found
}

const HELLO: &str = "h -h e -e l -l l -l o -o";

fn distances(events: &[Event]) -> Vec<Duration> {
    let distance = |pair: &[Event]| pair[1].at.duration_since(pair[0].at).expect("in order");
    events.windows(2).map(distance).collect()
}

/// While a report is dealt with, such as one that was injected, the kernel drops the device's own.
#[track_caller]
fn tap(simulated: &Simulated, keyboard: &Keyboard) {
    let before = numbers(keyboard).macros;
    eventually("the press is seen", || {
        simulated.holds(0, &[]).expect("it is there");
        simulated.holds(0, &[FunctionKey::F1.usage()]).expect("it is there");
        (numbers(keyboard).macros > before).then_some(())
    });
    simulated.holds(0, &[]).expect("it is there");
}

/// The same for a report that it woke.
#[track_caller]
fn wake(simulated: &Simulated, keyboard: &Keyboard) {
    let before = numbers(keyboard).woke;
    eventually("it is heard", || {
        simulated.sleeps_and_wakes().expect("it is there");
        (numbers(keyboard).woke > before).then_some(())
    });
}

fn wait(what: &str, keyboard: &Keyboard, mut is_so: impl FnMut(&Numbers) -> bool) -> Numbers {
    eventually(what, || Some(numbers(keyboard)).filter(&mut is_so))
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
    distances.sort();
    let ms = |distance: Duration| distance.as_secs_f64() * 1000.0;
    let (least, median, most) = (distances[0], distances[4], distances[8]);
    assert!(least >= SPACING && most < DEADLINE, "{distances:?}");
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
    let typed = expect(&mut events, &format!("{HELLO} {HELLO}"));
    let distances = distances(&typed);
    assert!(distances.iter().all(|distance| *distance >= 5 * SPACING), "{distances:?}");
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
    let keyboard = start(&device, &settings("hello", 1));
    let mut events = events(&device);
    tap(&simulated, &keyboard);
    next(&mut events);
    simulated.answers(&[Answer::Late]);
    wake(&simulated, &keyboard);
    expect(&mut events, "-h e -e l -l l -l o -o");
    assert_eq!(numbers(&keyboard).set_up, 0, "the macro has not waited for the answer");
    // Within the 5 seconds that uhid gives it.
    simulated.answers_now();
    let now = wait("it is set up", &keyboard, |now| now.set_up == 1);
    assert_eq!((now.unanswered, now.wrong, now.given_up), (0, 0, 0), "{now:?}");
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
    let now = wait("it is given up", &keyboard, |now| now.failed == 1);
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
    simulated.answers_now();
    simulated.sleeps_and_wakes().expect("it is there");
    let now = wait("it is set up", &keyboard, |now| now.set_up == 1);
    assert_eq!((now.unanswered, now.wrong), (1, 0), "{now:?}");
    stop(&device, keyboard);
}

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
    let keyboard = start(&device, &settings("hello", 5));
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
    let keyboard = start(&device, &settings("hello", 5));
    simulated.answers(&[Answer::Late]);
    simulated.sleeps_and_wakes().expect("it is there");
    eventually("the request is in flight", || (simulated.requests() == 1).then_some(()));
    simulated.unplug().expect("it is there");
    let now = wait("it ends", &keyboard, |now| now.in_flight == 0);
    // It was tried again, and there was no keyboard.
    assert_eq!((now.failed, now.unanswered, now.given_up), (1, 1, 0), "{now:?}");
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
    let keyboard = start(&device, &slow("hello"));
    assert!(!keyboard.is_new());
    for _ in 0..3 {
        tap(&simulated, &keyboard);
    }
    simulated.answers(&[Answer::Late]);
    wake(&simulated, &keyboard);
    let now = numbers(&keyboard);
    assert_eq!(now.in_flight, 4, "three macros and a set-up: {now:?}");
    first.signal(Signal::SIGKILL);
    assert_eq!(first.ends(), None);
    simulated.answers_now();
    expect(&mut events, &[HELLO; 3].join(" "));
    wait("it is set up", &keyboard, |now| now.in_flight == 0 && now.set_up == 1);
    drop(keyboard);

    let mut second = run(&[&device.name, "--text", "hi"]);
    assert_eq!(second.says(), format!("goes on to work on {}: F1 types \"hi\"", device.name));
    let keyboard = start(&device, &settings("hi", 1));
    tap(&simulated, &keyboard);
    expect(&mut events, "h");
    second.signal(Signal::SIGINT);
    // What was begun is typed.
    expect(&mut events, "-h i -i");
    assert_eq!(second.ends(), Some(0));
    assert_eq!(second.says(), format!("{} is as it was; all work is done", device.name));
    drop(keyboard);
    assert_nothing_is_left(&device);
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
    assert!(said.contains("cannot work on") && said.contains("one such program"), "{said}");
    assert_eq!(running.ends(), Some(1));
    assert!(!directory(&device).exists());
    stop(&device, keyboard);
    fs::remove_dir(&taken).expect("it is empty");
}
