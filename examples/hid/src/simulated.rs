//! A cheap keyboard, made by `/dev/uhid`: its descriptor is wrong, and when it wakes it types
//! nothing until it is set up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use uhid::Request;

use crate::device::Device;

// As of `hid.bpf.c`.
const KEYS: u8 = 1;
const WOKE: u8 = 2;
const SET_UP: u8 = 3;

/// Reports 1, keys as of the boot protocol; 2, "I woke"; 3, whether it is set up.
const DESCRIPTOR: &[u8] = &[
    0x05, 0x01, // usage page: generic desktop
    0x09, 0x06, // usage: keyboard
    0xa1, 0x01, // collection: application
    0x85, KEYS, //
    0x05, 0x07, // usage page: keyboard
    0x29, 0xe7, // usage maximum: right meta. It has to come after
    0x19, 0xe0, // usage minimum: left control
    0x15, 0x00, 0x25, 0x01, // logical minimum 0, maximum 1
    0x75, 0x01, 0x95, 0x08, // 8 of 1 bit
    0x81, 0x02, // input: variable
    0x75, 0x08, 0x95, 0x01, // one of 8 bits
    0x81, 0x01, // input: constant
    0x19, 0x00, 0x29, 0x65, // usages 0 to 0x65
    0x15, 0x00, 0x25, 0x65, // logical minimum 0, maximum 0x65
    0x75, 0x08, 0x95, 0x06, // 6 of 8 bits
    0x81, 0x00, // input: array
    0x06, 0x00, 0xff, // usage page: vendor defined
    0x15, 0x00, 0x25, 0x01, // logical minimum 0, maximum 1
    0x75, 0x08, 0x95, 0x01, // one of 8 bits
    0x85, WOKE, //
    0x09, 0x01, // usage 1
    0x81, 0x02, // input: variable
    0x85, SET_UP, //
    0x09, 0x02, // usage 2
    0xb1, 0x02, // feature: variable
    0xc0, // end of the collection
];

/// The only one of a keyboard whose reports have no numbers, which is in order and needs no set-up.
const PLAIN: &[u8] = &[
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, // a keyboard
    0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, // modifiers
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x75, 0x08, 0x95, 0x01, 0x81, 0x01, //
    0x19, 0x00, 0x29, 0x65, 0x15, 0x00, 0x25, 0x65, // keys
    0x75, 0x08, 0x95, 0x06, 0x81, 0x00, 0xc0, //
];

/// How a keyboard answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// At once, and does what it says.
    Right,
    /// The same, but not before [`Simulated::answers_now`].
    Late,
    /// To be set up: that it did, and it did not. Whether it is: with half of the answer.
    Wrong,
}

#[derive(Debug)]
struct Firmware {
    is_set_up: bool,
    answers: VecDeque<Answer>,
    requests: usize,
    is_late: bool,
}

/// The keyboard. Dropping this unplugs it.
#[derive(Debug)]
pub struct Simulated {
    uhid: Arc<uhid::Device>,
    firmware: Arc<Mutex<Firmware>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    is_numbered: bool,
}

impl Simulated {
    /// Plugs in the cheap one, which is set up until it sleeps.
    ///
    /// # Errors
    ///
    /// If the kernel does not take it.
    pub fn plug() -> Result<Self> {
        Self::with(DESCRIPTOR, true)
    }

    /// Plugs in one that is in order, and whose reports have no numbers.
    ///
    /// # Errors
    ///
    /// If the kernel does not take it.
    pub fn plug_plain() -> Result<Self> {
        Self::with(PLAIN, false)
    }

    fn with(descriptor: &[u8], is_numbered: bool) -> Result<Self> {
        let uhid = Arc::new(uhid::Device::plug(descriptor, &report(is_numbered, 0, &[]))?);
        let firmware =
            Firmware { is_set_up: true, answers: VecDeque::new(), requests: 0, is_late: false };
        let firmware = Arc::new(Mutex::new(firmware));
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (uhid, firmware, is_over) = (uhid.clone(), firmware.clone(), is_over.clone());
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    if let Ok(Some(request)) = uhid.request(Duration::from_millis(20)) {
                        answer(&uhid, &firmware, &is_over, &request);
                    }
                }
            }
        });
        Ok(Self { uhid, firmware, is_over, thread: Some(thread), is_numbered })
    }

    /// The device that the kernel takes it for.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub fn device(&self) -> Result<Device> {
        Device::find(self.uhid.name())
    }

    /// These keys, and no others, are held down. A keyboard that is not set up says nothing.
    ///
    /// # Errors
    ///
    /// If it was unplugged.
    pub fn holds(&self, modifiers: u8, keys: &[u8]) -> Result<()> {
        if !self.is_set_up() {
            return Ok(());
        }
        self.uhid.send(&report(self.is_numbered, modifiers, keys))
    }

    /// It sleeps, which it is not set up after, and wakes.
    ///
    /// # Errors
    ///
    /// If it was unplugged.
    pub fn sleeps_and_wakes(&self) -> Result<()> {
        lock(&self.firmware).is_set_up = false;
        self.uhid.send(&[WOKE, 1])
    }

    /// Whether it types.
    pub fn is_set_up(&self) -> bool {
        lock(&self.firmware).is_set_up
    }

    /// How it answers the next requests; later ones are answered right.
    pub fn answers(&self, answers: &[Answer]) {
        lock(&self.firmware).answers = answers.iter().copied().collect();
    }

    /// What it is late with, it answers now.
    pub fn answers_now(&self) {
        lock(&self.firmware).is_late = false;
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        lock(&self.firmware).requests
    }

    /// Unplugs it.
    ///
    /// # Errors
    ///
    /// If it was unplugged.
    pub fn unplug(&self) -> Result<()> {
        self.uhid.unplug()
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn report(is_numbered: bool, modifiers: u8, keys: &[u8]) -> Vec<u8> {
    let mut report = if is_numbered { vec![KEYS] } else { Vec::new() };
    let length = report.len() + 8;
    report.extend([modifiers, 0]);
    report.extend(keys);
    report.resize(length, 0);
    report
}

fn lock(firmware: &Mutex<Firmware>) -> MutexGuard<'_, Firmware> {
    firmware.lock().expect("nobody panics with it")
}

fn answer(
    uhid: &uhid::Device,
    firmware: &Mutex<Firmware>,
    is_over: &AtomicBool,
    request: &Request,
) {
    let answer = {
        let mut firmware = lock(firmware);
        firmware.requests += 1;
        let answer = firmware.answers.pop_front().unwrap_or(Answer::Right);
        firmware.is_late = answer == Answer::Late;
        answer
    };
    while lock(firmware).is_late && !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
    }
    let is_set_up = {
        let mut firmware = lock(firmware);
        match request.data.as_deref() {
            Some([SET_UP, value]) if answer != Answer::Wrong => firmware.is_set_up = *value != 0,
            _ => {}
        }
        firmware.is_set_up
    };
    let data = [SET_UP, u8::from(is_set_up)];
    let length = if answer == Answer::Wrong { 1 } else { 2 };
    // Whoever unplugged it wants no answer.
    let _answered = uhid.answer(request, &data[..length]);
}
