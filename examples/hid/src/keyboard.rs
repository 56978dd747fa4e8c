//! The programs at work on one keyboard.

use std::ffi::OsStr;
use std::fs;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bpf_wq::{Drained, Pinned, clear_pins};
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use serde::Serialize;

use crate::device::Device;
use crate::keys::{FunctionKey, LONGEST_TEXT, Text};
use crate::skel::HidSkelBuilder;

/// What the skeleton was made from.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hid.bpf.o"));

/// For what is being typed, for a request that is in flight, and for another process that starts or
/// stops the same.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a keyboard is to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The text that is typed
    #[arg(long, default_value = "hello")]
    pub text: Text,
    /// The key that it is typed at
    #[arg(long, default_value_t = FunctionKey::F1)]
    pub key: FunctionKey,
    /// The time between a press and a release, and the next press
    #[arg(long, value_name = "MS", default_value = "10")]
    pub spacing_ms: NonZeroU32,
    /// How often a keyboard that woke is told to set itself up, if it does not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub tries: u32,
}

impl Settings {
    /// `struct settings` of `hid.bpf.c`.
    fn to_bytes(&self) -> Vec<u8> {
        let spacing_ns = u64::from(self.spacing_ms.get()) * 1_000_000;
        let mut bytes = spacing_ns.to_ne_bytes().to_vec();
        bytes.extend(self.tries.to_ne_bytes());
        bytes.push(self.key.usage());
        bytes.push(u8::try_from(self.text.keys.len()).expect("a short text"));
        bytes.extend(self.text.keys.iter().flat_map(|(modifiers, usage)| [modifiers, usage]));
        // It ends with two bytes that are nothing.
        bytes.resize(8 + 4 + 2 + 2 * LONGEST_TEXT + 2, 0);
        bytes
    }
}

/// What has become of a keyboard's reports since the programs were loaded, by whichever process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Numbers {
    /// Presses of the macro's key.
    pub macros: u64,
    /// Of these, those at which nothing was typed, as too many were not done.
    pub refused: u64,
    /// Presses and releases that were typed.
    pub typed: u64,
    /// Reports in which Escape took the place of Caps Lock.
    pub rewritten: u64,
    /// Ranges of the report descriptor that were fixed, each time that the kernel read it.
    pub fixed: u64,
    /// How often the keyboard said that it woke, and was to be set up for that.
    pub woke: u64,
    /// How often it said, when it was asked, that it is set up.
    pub set_up: u64,
    /// Requests without an answer.
    pub unanswered: u64,
    /// Requests with an answer that is wrong.
    pub wrong: u64,
    /// How often that happened as many times in a row as it was to be tried.
    pub given_up: u64,
    /// Macros and set-ups that are not done.
    pub in_flight: u64,
    /// Those that failed: that were given up, or whose keyboard was gone.
    pub failed: u64,
}

/// The programs at work on a keyboard. They stay so when this is dropped, and when the process ends.
#[derive(Debug)]
pub struct Keyboard {
    device: Device,
    pinned: Pinned,
    is_new: bool,
    counts: MapHandle,
}

impl Keyboard {
    /// Attaches the programs to a keyboard, or goes on with those that are there. Their pins are in
    /// `hid-NUMBER` in `pins`, a directory of a bpffs.
    ///
    /// # Errors
    ///
    /// If it is no keyboard, has a program that fixes its descriptor, or the kernel has no HID-BPF.
    pub fn start(device: &Device, settings: &Settings, pins: &Path) -> Result<Self> {
        device.must_be_keyboard()?;
        clear_gone(pins);
        let directory = pins.join(format!("hid-{:04x}", device.id));
        let mut storage = MaybeUninit::uninit();
        let mut open = HidSkelBuilder::default().open(&mut storage)?;
        open.struct_ops.keyboard_mut().hid_id = device.id.try_into()?;
        let taken_over = bpf_wq::take_over(&directory, DEADLINE, open, OBJECT, |loaded| {
            let mut armed = loaded.arm()?;
            set(&armed.skel().maps.data_settings, settings);
            armed.attach()?;
            Ok(armed)
        });
        let taken_over = taken_over.with_context(|| {
            // It stays if there is something in it.
            let _removed = fs::remove_dir(&directory);
            format!(
                "cannot work on {} (if another program fixes its descriptor, end that first: \
                 `bpftool struct_ops list` has them)",
                device.name
            )
        })?;
        let pinned = taken_over.pinned;
        if !taken_over.is_new {
            set(&pinned.map(".data.settings")?, settings);
        }
        let counts = pinned.map(".data.counts")?;
        Ok(Self { device: device.clone(), pinned, is_new: taken_over.is_new, counts })
    }

    /// Whether the programs were attached by this process; else they were at work already.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the keyboard is still there.
    pub fn is_there(&self) -> bool {
        self.device.is_there()
    }

    /// What the programs have done.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn numbers(&self) -> Result<Numbers> {
        let value = self.counts.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        let value = value.context("an element of counts")?;
        let words: Vec<_> = value.chunks_exact(8).map(|word| word.try_into().expect("8")).collect();
        let words =
            <[[u8; 8]; 10]>::try_from(words).map_err(|_| anyhow!("another struct counts"))?;
        let [macros, refused, typed, rewritten, fixed, woke, set_up, unanswered, wrong, given_up] =
            words.map(u64::from_ne_bytes);
        let counters = self.pinned.counters();
        let sum = |of: fn(&bpf_wq::Counters) -> u64| counters.iter().map(|(_, c)| of(c)).sum();
        Ok(Numbers {
            macros,
            refused,
            typed,
            rewritten,
            fixed,
            woke,
            set_up,
            unanswered,
            wrong,
            given_up,
            in_flight: sum(|c| c.in_flight),
            failed: sum(|c| c.failed),
        })
    }

    /// Has what was begun come to its end, and then detaches the programs and removes them.
    ///
    /// # Errors
    ///
    /// If a pin cannot be removed.
    pub fn stop(self) -> Result<Drained> {
        let directory =
            self.pinned.path().parent().context("a pin without a directory")?.to_owned();
        // Before the programs are detached: with them the kernel takes the keyboard away from
        // whoever reads it, to read its descriptor again. What is left is told by the drain below.
        if let Ok(macros) = self.pinned.executor::<[u32; 2]>("macros") {
            let _left = macros.drain(DEADLINE);
        }
        let drained = self.pinned.stop(DEADLINE)?;
        fs::remove_dir(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
        Ok(drained)
    }
}

fn set(map: &impl MapCore, settings: &Settings) {
    map.update(&0u32.to_ne_bytes(), &settings.to_bytes(), MapFlags::ANY)
        .expect("an element of .data");
}

/// Removes what a process that was killed has left of keyboards that are gone: no other keyboard
/// will have their numbers. What cannot be removed is no reason not to start: it is another one's, or
/// a process that ends removes it just now.
fn clear_gone(pins: &Path) {
    // Whether there are pins at all is for take_over() to say.
    let (Ok(there), Ok(entries)) = (Device::all(), fs::read_dir(pins)) else { return };
    for directory in entries.flatten().map(|entry| entry.path()) {
        let name = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let id = name.strip_prefix("hid-").and_then(|id| u32::from_str_radix(id, 16).ok());
        if id.is_some_and(|id| there.iter().all(|device| device.id != id)) {
            let _lost = clear_pins(&directory, None, DEADLINE);
            let _removed = fs::remove_dir(&directory);
        }
    }
}
