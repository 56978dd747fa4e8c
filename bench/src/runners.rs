//! How long runners take from the command to the verdict of one small job, `tests/job.rs`: on the
//! newest kernel, and on all that packages hold and that have bpf_wq.
//!
//! All runners take turns. Each is first asked about a job that fails, which also warms its caches;
//! that time is not compared.

mod host;
mod install;
mod layout;
mod line;
mod targets;
mod verdict;

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use self::host::{Host, Kernel};
use self::install::Installed;
use crate::distribution::Distribution;
use crate::machine::load_average;
use crate::results::json;

/// The environment variable with the value that the job expects.
pub const EXPECTED: &str = "BENCH_JOB_EXPECTS";

/// What the job finds.
const RIGHT: u32 = 42;

/// What is measured, in the directory of results.
pub const FILE: &str = "runners.json";

/// How often each runner is timed on one kernel.
const ROUNDS: u32 = 3;

/// What a runner has for each kernel.
const LIMIT: Duration = Duration::from_secs(300);

/// What boots a kernel, and says whether a test passed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runner {
    /// This project's.
    Xtask,
    /// By its own command line.
    Vmtest,
    /// `vng`.
    VirtmeNg,
}

impl Runner {
    /// In the order of a round.
    pub const ALL: [Self; 3] = [Self::Xtask, Self::Vmtest, Self::VirtmeNg];
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xtask => f.pad("cargo xtask test"),
            Self::Vmtest => f.pad(&format!("vmtest {}", install::VMTEST)),
            Self::VirtmeNg => f.pad(&format!("virtme-ng {}", install::VIRTME_NG)),
        }
    }
}

/// What a runner is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// The newest kernel, with a job that fails.
    Failing,
    /// The newest kernel.
    One,
    /// All kernels.
    Matrix,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failing => "a job that fails",
            Self::One => "one kernel",
            Self::Matrix => "all kernels",
        })
    }
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// By its exit status; and the job has run everywhere.
    Passed,
    /// The same.
    Failed,
    /// It did not end in time, or the job did not run.
    None,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::None => "none",
        })
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Whose.
    pub runner: Runner,
    /// To what.
    pub asked: Asked,
    /// From the command to its end.
    pub ms: u64,
    /// What it is.
    pub verdict: Verdict,
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runners {
    /// As it was called.
    pub command: String,
    /// The host, and how busy it was.
    pub machine: String,
    /// `KVM` or `TCG`.
    pub accel: String,
    /// The kernels, the newest last.
    pub kernels: Vec<String>,
    /// In the order in which it was measured.
    pub timed: Vec<Timed>,
}

impl Runners {
    /// The times of a runner's right answers, and the number of others.
    pub fn of(&self, runner: Runner, asked: Asked) -> (Option<Distribution>, usize) {
        let right = if asked == Asked::Failing { Verdict::Failed } else { Verdict::Passed };
        let of = self.timed.iter().filter(|timed| (timed.runner, timed.asked) == (runner, asked));
        let (good, bad): (Vec<&Timed>, Vec<&Timed>) = of.partition(|timed| timed.verdict == right);
        (Distribution::of(good.iter().map(|timed| timed.ms).collect()), bad.len())
    }

    /// What a runner says of a job that fails, if it was asked.
    pub fn of_failing(&self, runner: Runner) -> Option<Verdict> {
        let asked = |timed: &&Timed| (timed.runner, timed.asked) == (runner, Asked::Failing);
        self.timed.iter().find(asked).map(|timed| timed.verdict)
    }
}

/// Measures what the runner's `host.json` in `dir` allows, and writes it there.
///
/// # Errors
///
/// If a runner cannot be installed or started. A wrong verdict, or none, is a result.
pub fn measure(dir: &Path) -> Result<Runners> {
    let host = Host::read(dir)?;
    let kernels = host.kernels();
    let Some(newest) = kernels.last() else { bail!("no kernel of this matrix has bpf_wq") };
    let installed = Installed::ensure(&host, &kernels)?;
    let mut bench = Bench { host: &host, installed, logs: dir.join("runners"), timed: vec![] };
    fs::create_dir_all(&bench.logs)
        .with_context(|| format!("cannot make {}", bench.logs.display()))?;

    let one = std::slice::from_ref(newest);
    bench.round(Asked::Failing, one, RIGHT - 1)?;
    for _ in 0..ROUNDS {
        bench.round(Asked::One, one, RIGHT)?;
    }
    bench.round(Asked::Matrix, &kernels, RIGHT)?;
    let runners = Runners {
        command: host.command.clone(),
        machine: format!("{}, {} at its end", host.machine, load_average()?),
        accel: host.accel.clone(),
        kernels: kernels.iter().map(|kernel| kernel.kernel.clone()).collect(),
        timed: bench.timed,
    };
    let path = dir.join(FILE);
    fs::write(&path, serde_json::to_string_pretty(&runners)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(runners)
}

/// What is there of a run, if its runners were compared.
///
/// # Errors
///
/// If it cannot be read.
pub fn read(dir: &Path) -> Result<Option<Runners>> {
    let path = dir.join(FILE);
    path.exists().then(|| json(&path)).transpose()
}

struct Bench<'a> {
    host: &'a Host,
    installed: Installed,
    logs: PathBuf,
    timed: Vec<Timed>,
}

impl Bench<'_> {
    /// Asks each runner once.
    fn round(&mut self, asked: Asked, kernels: &[Kernel], expected: u32) -> Result<()> {
        for runner in Runner::ALL {
            let line = line::of(runner, self.host, &self.installed, kernels, expected);
            let log = self.logs.join(format!("{}.log", self.timed.len()));
            let limit = LIMIT * u32::try_from(kernels.len())?;
            let begun = Instant::now();
            let (code, said) = run(&line, self.host, expected, limit)?;
            let ms = u64::try_from(begun.elapsed().as_millis())?;
            fs::write(&log, &said).with_context(|| format!("cannot write {}", log.display()))?;
            let verdict = verdict::read(runner, kernels.len(), code, &said);
            println!("{runner}: {asked}: {verdict} after {ms} ms: {}", log.display());
            self.timed.push(Timed { runner, asked, ms, verdict });
        }
        Ok(())
    }
}

/// Runs a line of shell. Gives its exit status, unless a signal ended it, and what it wrote: through
/// a pipe, for virtme-ng opens a file anew for each guest, and writes over what is there.
///
/// Whatever ends the line, or this process, bubblewrap's PID namespace ends with it, and so does
/// all that was started there, and its /tmp.
fn run(line: &str, host: &Host, expected: u32, limit: Duration) -> Result<(Option<i32>, String)> {
    let line = format!("exec 2>&1; {line}");
    let mut command = Command::new("bwrap");
    command.args(["--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/"]);
    if host.is_emulated() {
        // Without /dev/kvm: vmtest takes it where it is there, also where guests hang under it.
        command.args(["--dev", "/dev"]);
    }
    // `cargo run` has set these for this process; they would make cargo build anew what reads them.
    for (name, _) in env::vars_os() {
        let is_of_a_package = ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .into_iter()
            .any(|of| name.to_string_lossy().starts_with(of));
        if is_of_a_package {
            command.env_remove(name);
        }
    }
    let output = command
        .args(["--proc", "/proc", "--tmpfs", "/tmp", "--"])
        .args(["timeout", "--kill-after=10", &limit.as_secs().to_string(), "sh", "-c", &line])
        .env(EXPECTED, expected.to_string())
        .current_dir(&host.root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run bwrap, of the package bubblewrap")?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(runner: Runner, ms: u64, verdict: Verdict) -> Timed {
        Timed { runner, asked: Asked::One, ms, verdict }
    }

    #[test]
    fn only_right_answers_have_a_time() {
        let runners = Runners {
            command: String::new(),
            machine: String::new(),
            accel: "TCG".into(),
            kernels: vec![],
            timed: vec![
                timed(Runner::Xtask, 10, Verdict::Passed),
                timed(Runner::Vmtest, 20, Verdict::Passed),
                timed(Runner::Xtask, 1, Verdict::None),
                timed(Runner::Xtask, 30, Verdict::Passed),
                timed(Runner::Xtask, 2, Verdict::Failed),
            ],
        };
        let (times, others) = runners.of(Runner::Xtask, Asked::One);
        let times = times.expect("there are some");
        assert_eq!((times.samples, times.min, times.max, others), (2, 10, 30, 2));
        assert_eq!(runners.of(Runner::Xtask, Asked::Matrix), (None, 0));
    }
}
