//! What the ways of cleaning up cost, and what they keep, side by side.

mod at_work;
pub mod cost;
pub mod course;
mod memory;
pub mod report;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

/// Who removes buckets that are full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cleaning {
    /// A workqueue, as the limiter has it.
    Workqueue,
    /// A loop in a process.
    UserSpace,
    /// A timer of each bucket.
    Timer,
    /// Nobody.
    Nobody,
}

impl Cleaning {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Workqueue, Self::UserSpace, Self::Timer, Self::Nobody];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Workqueue => "workqueue",
            Self::UserSpace => "user space",
            Self::Timer => "timer an entry",
            Self::Nobody => "nobody",
        }
    }
}

/// What the numbers were measured on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// As `uname -r` prints it.
    pub kernel: String,
    /// As the processor calls itself; an emulated one says so.
    pub processor: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let mut lines = cpus.lines().filter_map(|line| line.split_once(':'));
        let name = lines.find(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim());
        Ok(Self { kernel, processor: name.context("a processor's name")?.to_owned() })
    }
}

/// Looks again and again until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(20);
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > DEADLINE {
            bail!("{what}: not within {DEADLINE:?}");
        }
        std::thread::yield_now();
    }
    Ok(())
}
