//! The programs on a keyboard that is made for it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use evdev::KeyCode;
use hid::device::Device;
use hid::events::Events;
use hid::keyboard::{Keyboard, Settings};
use hid::keys::{CAPS_LOCK, SHIFT, usage};
use hid::simulated::{Answer, Simulated};

const PATIENCE: Duration = Duration::from_secs(10);

/// Prints what evdev sees.
pub fn show(settings: &Settings) -> Result<()> {
    let simulated = Simulated::plug()?;
    let device = simulated.device()?;
    println!("{}, a keyboard whose descriptor is wrong: Shift and a are pressed", device.name);
    shift_a(&simulated, &mut open(&device)?, 1)?;
    let keyboard = Keyboard::start(&device, settings, Path::new("/sys/fs/bpf"))?;
    let shown = show_keys(settings, &simulated, &device, &keyboard);
    let drained = keyboard.stop();
    shown?;
    println!("{}", drained?);
    Ok(())
}

fn show_keys(
    settings: &Settings,
    simulated: &Simulated,
    device: &Device,
    keyboard: &Keyboard,
) -> Result<()> {
    let mut events = open(device)?;
    println!("with the programs, which fix it:");
    shift_a(simulated, &mut events, 2)?;

    println!("\n{} is pressed, and types {:?}:", settings.key, settings.text.to_string());
    tap(simulated, settings.key.usage())?;
    let shifts = settings.text.keys.iter().filter(|(modifiers, _)| *modifiers != 0).count();
    let mut before = None;
    for _ in 0..2 * (settings.text.keys.len() + shifts) {
        let event = next(&mut events)?;
        match before {
            Some(before) => {
                let after = event.at.duration_since(before)?;
                println!("  {event:<20} {:>8.3} ms later", after.as_secs_f64() * 1000.0);
            }
            None => println!("  {event}"),
        }
        before = Some(event.at);
    }

    println!("\nCaps Lock is pressed:");
    tap(simulated, CAPS_LOCK)?;
    for _ in 0..2 {
        println!("  {}", next(&mut events)?);
    }

    println!("\nIt sleeps, wakes, and answers late, then wrongly, then right:");
    simulated.answers(&[Answer::Late, Answer::Wrong]);
    let began = Instant::now();
    simulated.sleeps_and_wakes()?;
    while simulated.requests() == 0 && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(100));
    simulated.answers_now();
    while keyboard.numbers()?.set_up == 0 && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    let now = keyboard.numbers()?;
    if now.set_up == 0 {
        bail!("it is not set up: {now:?}");
    }
    println!(
        "  it is set up after {} ms and {} requests, of which {} had a wrong answer\n",
        began.elapsed().as_millis(),
        simulated.requests(),
        now.wrong
    );
    Ok(())
}

fn open(device: &Device) -> Result<Events> {
    let began = Instant::now();
    loop {
        match device.event_node().filter(|node| node.exists()) {
            Some(node) => return Events::open(&node),
            None if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(1)),
            None => bail!("{} has no /dev/input/eventN: `modprobe evdev` brings it", device.name),
        }
    }
}

/// Presses Shift and a, of which evdev sees so many.
fn shift_a(simulated: &Simulated, events: &mut Events, seen: usize) -> Result<()> {
    let f13 = if events.has(KeyCode::KEY_F13) { "has" } else { "has no" };
    simulated.holds(SHIFT, &[usage('a')?])?;
    simulated.holds(0, &[])?;
    let keys = (0..2 * seen).map(|_| next(events).map(|event| event.to_string()));
    println!("  evdev: it {f13} F13; {}", keys.collect::<Result<Vec<_>>>()?.join(", "));
    Ok(())
}

fn tap(simulated: &Simulated, key: u8) -> Result<()> {
    simulated.holds(0, &[key])?;
    simulated.holds(0, &[])
}

fn next(events: &mut Events) -> Result<hid::events::Event> {
    events.next(PATIENCE)?.context("no event came")
}
