//! What the guard decides, for people and for programs.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use bytemuck::{Pod, Zeroable};
use libbpf_rs::{RingBuffer, RingBufferBuilder};
use serde::Serialize;

use crate::guard::Guard;
use crate::subject::{Action, Hook, Subject, Why, text};

/// `struct event`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Raw {
    subject: Subject,
    action: u32,
    why: u32,
    process: u32,
    command: [u8; 16],
    path: [u8; 192],
    unused: u32,
}

/// A decision, or a verdict that was learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What is to be done.
    pub hook: Hook,
    /// With which file or address; a file whose path is too long has none.
    pub what: String,
    /// The decision.
    pub action: Action,
    /// Why it is so.
    pub why: Why,
    /// The process, as the first PID namespace counts; none, if a verdict was learned.
    pub process: Option<u32>,
    /// The process's command.
    pub command: Option<String>,
}

impl Event {
    /// From the ring `events`.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let raw: Raw = bytemuck::try_pod_read_unaligned(record).ok()?;
        let what = match raw.subject.as_address() {
            Some(address) => address.to_string(),
            None => text(&raw.path),
        };
        let process = (raw.process != 0).then_some(raw.process);
        Some(Self {
            hook: raw.subject.hook(),
            what,
            action: Action::of(raw.action),
            why: Why::of(raw.why),
            process,
            command: process.map(|_| text(&raw.command)),
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_learned = self.process.is_none();
        let what = match (self.action, is_learned) {
            (Action::Allow, false) => "allowed",
            (Action::Deny, false) => "denied",
            (Action::Log, false) => "logged",
            (Action::Allow, true) => "-> allow",
            (Action::Deny, true) => "-> deny",
            (Action::Log, true) => "-> log",
        };
        write!(f, "{what:<8}  {:<7}  {:<13}  {}", self.hook, self.why, self.what)?;
        if let (Some(process), Some(command)) = (self.process, &self.command) {
            write!(f, "  by {command} ({process})")?;
        }
        Ok(())
    }
}

/// The events of a guard, of which each is for whoever reads it first.
pub struct Events {
    ring: RingBuffer<'static>,
    read: Rc<RefCell<Vec<Event>>>,
}

impl Events {
    /// From now on, and what nobody has read.
    pub fn of(guard: &Guard) -> Result<Self> {
        let read = Rc::new(RefCell::new(Vec::new()));
        let to = read.clone();
        let mut builder = RingBufferBuilder::new();
        let map = guard.map("events")?;
        builder.add(&map, move |record| {
            to.borrow_mut().extend(Event::parse(record));
            0
        })?;
        Ok(Self { ring: builder.build()?, read })
    }

    /// Those that there are, or come in this time.
    pub fn wait(&mut self, time: Duration) -> Result<Vec<Event>> {
        if let Err(error) = self.ring.poll(time) {
            // A signal, which may be why nobody waits any more.
            if error.kind() != libbpf_rs::ErrorKind::Interrupted {
                return Err(error.into());
            }
        }
        Ok(self.read.take())
    }
}
