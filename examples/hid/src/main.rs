//! `hid`: the keyboard's programs as a command.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use hid::device::Device;
use hid::keyboard::{Keyboard, Numbers, Settings};

mod demo;

/// Makes a keyboard type a text at a key, and Escape at Caps Lock; sets it up when it wakes, and
/// fixes its descriptor.
///
/// Needs Linux 6.11 with CONFIG_HID_BPF, and root. Exits with 0 after Ctrl-C, 1 if it cannot go on,
/// 2 for wrong use.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work on a keyboard, and show every second what it does; Ctrl-C ends both.
    ///
    /// The programs of a process that was killed stay at work. Run it again to go on with them.
    Run {
        /// The keyboard: its name or number as `hid list` shows them, or /dev/hidrawN.
        device: String,
        #[command(flatten)]
        settings: Settings,
        /// Where the programs are pinned: a directory of a bpffs.
        #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
        pins: PathBuf,
        /// Print JSON, a line a second.
        #[arg(long)]
        json: bool,
    },
    /// List the HID devices that are there.
    List,
    /// Show it on a keyboard that is made for it.
    Demo {
        #[command(flatten)]
        settings: Settings,
    },
}

static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = end_by_signal().and_then(|()| match arguments.command {
        Command::Run { device, settings, pins, json } => run(&device, &settings, &pins, json),
        Command::List => list(),
        Command::Demo { settings } => demo::show(&settings),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hid: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn end_by_signal() -> Result<()> {
    ctrlc::set_handler(|| IS_OVER.store(true, Ordering::Relaxed)).context("cannot handle Ctrl-C")
}

fn list() -> Result<()> {
    let devices = Device::all()?;
    if devices.is_empty() {
        eprintln!("there are no HID devices");
    }
    for device in devices {
        println!("{}  {}", device.name, device.label());
    }
    Ok(())
}

fn run(device: &str, settings: &Settings, pins: &Path, json: bool) -> Result<()> {
    let device = Device::find(device)?;
    let _claim = device.claim()?;
    let keyboard = Keyboard::start(&device, settings, pins)?;
    let how = if keyboard.is_new() { "works" } else { "goes on to work" };
    eprintln!("{how} on {}: {} types {:?}", device.name, settings.key, settings.text.to_string());
    let shown = show(&keyboard, json);
    let is_there = keyboard.is_there();
    let drained = keyboard.stop();
    shown?;
    let drained = drained?;
    if !is_there {
        bail!("{} is gone; {drained}", device.name);
    }
    eprintln!("{} is as it was; {drained}", device.name);
    Ok(())
}

/// Until the keyboard is gone, or somebody wants it to end.
fn show(keyboard: &Keyboard, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut due = Instant::now();
    let goes_on = || !IS_OVER.load(Ordering::Relaxed) && keyboard.is_there();
    while goes_on() {
        due += Duration::from_secs(1);
        while Instant::now() < due && goes_on() {
            thread::sleep(Duration::from_millis(50).min(due - Instant::now().min(due)));
        }
        let now = keyboard.numbers()?;
        let written = if json {
            writeln!(out, "{}", serde_json::to_string(&now)?)
        } else {
            writeln!(out, "{}", line(&now))
        };
        // Whoever stops reading has seen enough.
        if written.and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}

fn line(now: &Numbers) -> String {
    format!(
        "macros {:>4}  typed {:>5}  rewritten {:>4}  woke {:>3}  set up {:>3}  given up {:>3}  in flight {:>2}",
        now.macros, now.typed, now.rewritten, now.woke, now.set_up, now.given_up, now.in_flight,
    )
}
