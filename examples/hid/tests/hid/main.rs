//! The programs on keyboards that `/dev/uhid` makes, and what evdev shows of them.

mod ends;
mod set_up;
mod typing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf_wq_tests::{DEADLINE, eventually, needs, needs_bpf_wq, needs_config};
use evdev::AutoRepeat;
use hid::device::Device;
use hid::events::{Event, Events};
use hid::keyboard::{Keyboard, Numbers, Settings};
use hid::keys::FunctionKey;
use hid::simulated::Simulated;

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

/// So slow that more can be done while it types, also in an emulated machine that stands still for
/// seconds. What is set later counts from the next key on.
fn slow(text: &str) -> Settings {
    Settings { spacing_ms: 2000.try_into().expect("not 0"), ..settings(text, 5) }
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

/// Of what nobody has read evdev keeps 64 records, three a key, and drops all if there are more.
#[track_caller]
fn events(device: &Device) -> Events {
    let node =
        eventually("evdev has the keyboard", || device.event_node().filter(|node| node.exists()));
    // A key that is held for long would have them filled with its repeats.
    let mut repeating = evdev::Device::open(&node).expect("it can be read");
    let never = AutoRepeat { delay: 0, period: 0 };
    repeating.update_auto_repeat(&never).expect("a keyboard repeats");
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

fn wait(what: &str, keyboard: &Keyboard, is_so: impl Fn(&Numbers) -> bool) -> Numbers {
    eventually(what, || is_so(&numbers(keyboard)).then_some(()));
    // They are read one after the other: some from before it was so.
    numbers(keyboard)
}
