//! What programs of user space get of a keyboard: evdev's events.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use evdev::{Device, EventType, KeyCode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A key that was pressed or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Which key.
    pub key: KeyCode,
    /// Whether it was pressed.
    pub is_press: bool,
    /// When, by the kernel's clock.
    pub at: SystemTime,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:?} {}", self.key, if self.is_press { "down" } else { "up" }))
    }
}

/// The events of a keyboard, from the time on that this was made.
#[derive(Debug)]
pub struct Events {
    device: Device,
    read: VecDeque<Event>,
}

impl Events {
    /// Reads `/dev/input/eventN`.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open(node: &Path) -> Result<Self> {
        let device = Device::open(node).with_context(|| node.display().to_string())?;
        device.set_nonblocking(true)?;
        Ok(Self { device, read: VecDeque::new() })
    }

    /// Whether the keyboard has a key, as the kernel understands its descriptor.
    pub fn has(&self, key: KeyCode) -> bool {
        self.device.supported_keys().is_some_and(|keys| keys.contains(key))
    }

    /// The next event, within a time limit.
    ///
    /// # Errors
    ///
    /// If the keyboard is gone, or another driver has taken it.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Event>> {
        let until = Instant::now() + limit;
        loop {
            if let Some(event) = self.read.pop_front() {
                return Ok(Some(event));
            }
            let left = until.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, left)? == 0 {
                return Ok(None);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let events = match self.device.fetch_events() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            events => events.context("the keyboard is gone")?,
        };
        // 2 is a key that is held: the kernel repeats it.
        let keys = events.filter(|event| event.event_type() == EventType::KEY && event.value() < 2);
        self.read.extend(keys.map(|event| Event {
            key: KeyCode(event.code()),
            is_press: event.value() == 1,
            at: event.timestamp(),
        }));
        Ok(())
    }
}
