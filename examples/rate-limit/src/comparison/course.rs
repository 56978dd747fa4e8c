//! Entries and memory in a flood, and after it.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde::Serialize;

use super::at_work::AtWork;
use super::memory::Memory;
use super::{Cleaning, until};
use crate::flood::{Flood, Steady};
use crate::limiter::Limits;
use crate::network::Network;

/// How long spoofed packets come, and how long it is looked at what is left then.
pub const FLOOD: Duration = Duration::from_secs(4);
const SILENCE: Duration = Duration::from_secs(1);

/// Half of it: when a source comes that nobody knows yet, and when a process is killed.
pub const LATE: Duration = Duration::from_secs(2);

/// Spoofed packets: more than 256 at a time do not fit into a veth.
const MOST_AT_ONCE: u32 = 128;

const SAMPLE: Duration = Duration::from_millis(25);

/// Spoofed packets a second.
pub const SPOOFED: u32 = 500;

/// What a source may send. Both of those that are none of the flood's send half of it.
pub const RATE: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Fewer than are spoofed until a source comes that is late: there is no place for it, where nobody
/// cleans up.
pub const SOURCES: NonZeroU32 = NonZeroU32::new(750).unwrap();

/// None of those that are spoofed, or known.
const LATE_SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 128, 0, 2));
const LATE_PORT: u16 = 11;

/// What a map had at a time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Since the flood began.
    pub seconds: f64,
    /// Sources that were tracked.
    pub entries: u64,
    /// The map's memory.
    pub bytes: u64,
}

/// What has become of a source that sends half of what it may.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Fate {
    /// Packets that were sent.
    pub sent: u64,
    /// Of these, those that did not come through.
    pub lost: u64,
}

/// What was seen of a limiter.
#[derive(Debug, Clone, Serialize)]
pub struct Course {
    /// Who cleaned up.
    pub cleaning: Cleaning,
    /// Whether the process was killed, at [`LATE`].
    pub is_killed: bool,
    /// Memory of an entry.
    pub entry_bytes: u64,
    /// One after the other.
    pub samples: Vec<Sample>,
    /// Spoofed packets that were sent.
    pub spoofed: u32,
    /// Of the source that was there from the beginning.
    pub known: Fate,
    /// Of the source that came in the middle.
    pub late: Fate,
}

impl Course {
    /// The most that there was, at a sample.
    pub fn most(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(of).max().unwrap_or(0)
    }

    /// What is left at the end.
    pub fn left(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.entries)
    }
}

/// A flood. The process of the limiter, or of who cleans it up, is killed in its middle, if
/// `is_killed`.
pub fn measure(network: &Network, cleaning: Cleaning, is_killed: bool) -> Result<Course> {
    let limits = Limits { rate: RATE, sources: SOURCES, ..Limits::DEFAULT };
    let mut at_work = AtWork::start(cleaning, &limits)?;
    let course = flood(network, cleaning, is_killed, &mut at_work);
    let stopped = at_work.stop();
    // What came first is the one to tell of.
    let course = course?;
    stopped.map(|()| course)
}

fn flood(
    network: &Network,
    cleaning: Cleaning,
    is_killed: bool,
    at_work: &mut AtWork,
) -> Result<Course> {
    let AtWork { process, limiter } = at_work;
    let maps = limiter.maps();
    let memory = Memory::of(maps)?;
    let memory = if cleaning == Cleaning::Timer { memory.with_timers()? } else { memory };
    let period = Duration::from_secs(2) / RATE.get();
    let mut flood = Flood::new(network, period)?;
    let mut late: Option<Steady<'_>> = None;
    let (mut samples, mut sample_due) = (Vec::new(), Duration::ZERO);
    let began = Instant::now();
    loop {
        let now = began.elapsed();
        if now >= sample_due {
            let (entries, bytes) = memory.now()?;
            samples.push(Sample { seconds: now.as_secs_f64(), entries, bytes });
            sample_due = now + SAMPLE;
        }
        if now >= FLOOD + SILENCE {
            break;
        }
        if now < FLOOD {
            let due = (now.as_secs_f64() * f64::from(SPOOFED)) as u32;
            flood.go_on_by(due.saturating_sub(flood.spoofed).min(MOST_AT_ONCE))?;
        }
        if now >= LATE && late.is_none() {
            late = Some(Steady::new(network, LATE_SOURCE, LATE_PORT, period)?);
            if is_killed {
                let process = process.take().context("there is no process to kill")?;
                process.end_by(Signal::SIGKILL)?;
            }
        }
        if let Some(late) = late.as_mut().filter(|_| now < FLOOD) {
            late.go_on()?;
        }
        let sent = flood.sent() + late.as_ref().map_or(0, |late| late.sent);
        until("all packets are seen", || Ok(maps.seen()? >= sent))?;
    }
    let fate = |source: &mut Steady<'_>| {
        source.receive()?;
        anyhow::Ok(Fate { sent: source.sent, lost: source.sent - source.received })
    };
    let known = fate(&mut flood.known)?;
    let late = fate(&mut late.context("the flood ended before its middle")?)?;
    let entry_bytes = memory.entry_bytes();
    Ok(Course { cleaning, is_killed, entry_bytes, samples, spoofed: flood.spoofed, known, late })
}
