//! What guests write, and what the runner says of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Way;
use crate::distribution::Distribution;
use crate::runners::{self, Runners};

/// From submission to the first instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Of one way, in one condition.
    pub way: Way,
    /// Whether a thread keeps each CPU busy.
    pub is_loaded: bool,
    /// Whether it is done on another CPU than the submission's.
    pub is_elsewhere: bool,
    /// In nanoseconds.
    pub ns: Distribution,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// It is counted.
    Counts,
    /// It also writes to a hash: by a helper in the kernel, by bpf(2) in user space.
    Writes,
}

/// Jobs that were done in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throughput {
    /// By which way.
    pub way: Way,
    /// The machine's.
    pub cpus: usize,
    /// A job's size.
    pub bytes: u32,
    /// What it does.
    pub job: Job,
    /// In all rounds.
    pub jobs: u64,
    /// Of each round.
    pub per_second: Distribution,
}

/// What the fast path pays a submission, in ns, or in instructions if those are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// `Bare`, `Executor` or `Epoll`.
    pub way: Way,
    /// One alone, which wakes whoever does it.
    pub single: Distribution,
    /// One of 64.
    pub burst: Distribution,
}

/// How the executor grows with jobs that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deep {
    /// Jobs that wait.
    pub pending: u64,
    /// One more submission, of a burst of 64.
    pub submit_ns: Distribution,
    /// Jobs a second, as they were done then.
    pub drained_per_second: u64,
}

/// How it grows with workers whose handlers sleep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wide {
    /// How many there are.
    pub workers: u32,
    /// What a handler was to sleep.
    pub sleep_ms: u64,
    /// What it did, on average.
    pub slept_us: u64,
    /// Jobs done.
    pub jobs: u64,
    /// In a second.
    pub per_second: u64,
}

/// How the executor grows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// With what is pending.
    pub deep: Vec<Deep>,
    /// With workers and sleep.
    pub wide: Vec<Wide>,
}

/// Memory of a job of 16 bytes that can be pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// By which way.
    pub way: Way,
    /// Including what the kernel allocates for it.
    pub bytes: u64,
}

/// What one guest has measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// See [`Latency`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<Latency>,
    /// See [`Throughput`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub throughput: Vec<Throughput>,
    /// See [`Cost`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cost: Vec<Cost>,
    /// See [`Growth`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// See [`Memory`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<Memory>,
}

/// What a guest writes into the directory of its results.
pub const FILE: &str = "measured.json";

/// What the runner writes beside those directories: how each guest was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// As it was called.
    pub command: String,
    /// The processor of the host, how many it has, and how busy they were.
    pub machine: String,
    /// In the order in which they ran.
    pub guests: Vec<Guest>,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// The kernel, as the matrix names it.
    pub kernel: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// Its name among the kernel's guests.
    pub guest: String,
    /// How many it has.
    pub cpus: u8,
    /// `KVM`, `TCG` or `icount`.
    pub accel: String,
    /// Where its results are, from the run's directory.
    pub results: PathBuf,
}

/// All of a run. It is what the page is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// How it came about.
    pub run: Run,
    /// By kernel.
    pub kernels: Vec<OfKernel>,
    /// What `--runners` has measured, if it was asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runners: Option<Runners>,
}

/// What all guests of a kernel have measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfKernel {
    /// As the matrix names it.
    pub kernel: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// By a clock.
    pub timed: Measured,
    /// By a clock that counts instructions.
    pub counted: Measured,
}

impl Results {
    /// Of a run that left its files in `dir`.
    ///
    /// # Errors
    ///
    /// If a file is not there or cannot be read, or a guest has measured nothing.
    pub fn read(dir: &Path) -> Result<Self> {
        let run: Run = json(&dir.join("run.json"))?;
        let mut kernels: BTreeMap<&str, OfKernel> = BTreeMap::new();
        for guest in &run.guests {
            let new: Measured = json(&dir.join(&guest.results).join(FILE))?;
            if new == Measured::default() {
                bail!("{}: guest {} has measured nothing", guest.kernel, guest.guest);
            }
            let of = kernels.entry(&guest.kernel).or_insert_with(|| OfKernel {
                kernel: guest.kernel.clone(),
                release: guest.release.clone(),
                timed: Measured::default(),
                counted: Measured::default(),
            });
            let measured = if guest.accel == "icount" { &mut of.counted } else { &mut of.timed };
            measured.add(new);
        }
        let mut sorted = Vec::new();
        for guest in &run.guests {
            sorted.extend(kernels.remove(guest.kernel.as_str()));
        }
        Ok(Self { run, kernels: sorted, runners: runners::read(dir)? })
    }
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.latency.extend(other.latency);
        self.throughput.extend(other.throughput);
        self.cost.extend(other.cost);
        self.growth = self.growth.take().or(other.growth);
        self.memory.extend(other.memory);
    }

    /// Writes it into a guest's results.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Reads a file of JSON.
///
/// # Errors
///
/// If it is not there, or is something else.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let name = || format!("cannot read {}", path.display());
    let text = fs::read_to_string(path).with_context(name)?;
    serde_json::from_str(&text).with_context(name)
}
