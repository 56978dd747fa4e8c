//! A limiter that is attached, and the process that it needs.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use libbpf_rs::MapCore as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Cleaning;
use crate::limiter::{Limiter, Limits};
use crate::maps::Maps;
use crate::network::LIMITED;
use crate::others::Other;

const PINS: &str = "/sys/fs/bpf";

/// It ends when this is dropped, but for a workqueue's whose process was killed: that one has to be
/// stopped.
pub struct AtWork {
    /// Ends first: of a workqueue's limiter, it is what takes it away.
    pub process: Option<Process>,
    pub limiter: AnyLimiter,
}

/// Its maps are those of `limit.h`, whoever cleans up.
pub enum AnyLimiter {
    Pinned(Limiter),
    Other(Other),
}

impl AtWork {
    pub fn start(cleaning: Cleaning, limits: &Limits) -> Result<Self> {
        let sweep_ms = limits.sweep_ms.to_string();
        if cleaning == Cleaning::Workqueue {
            let (rate, burst) = (limits.rate.to_string(), limits.burst.to_string());
            let sources = limits.sources.to_string();
            let options = ["--rate", &rate, "--burst", &burst, "--sources", &sources];
            let run = [&["run", LIMITED, "--sweep-ms", &sweep_ms][..], &options].concat();
            let process = Some(Process::start(&run)?);
            let limiter = Limiter::start(LIMITED, limits, Path::new(PINS))?;
            ensure!(!limiter.is_new(), "the process limits nothing");
            return Ok(Self { process, limiter: AnyLimiter::Pinned(limiter) });
        }
        let mut other = match cleaning {
            Cleaning::Timer => Other::by_timer(limits)?,
            _ => Other::uncleaned(limits)?,
        };
        other.attach(LIMITED)?;
        let map = other.maps().buckets.info()?.info.id.to_string();
        let sweep = ["sweep", &map, "--sweep-ms", &sweep_ms];
        let is_by_process = cleaning == Cleaning::UserSpace;
        let process = is_by_process.then(|| Process::start(&sweep)).transpose()?;
        Ok(Self { process, limiter: AnyLimiter::Other(other) })
    }

    pub fn stop(self) -> Result<()> {
        match (self.process, self.limiter) {
            (Some(process), _) => process.end_by(Signal::SIGINT),
            (None, AnyLimiter::Pinned(limiter)) => limiter.stop().map(drop),
            (None, AnyLimiter::Other(_)) => Ok(()),
        }
    }
}

impl AnyLimiter {
    pub fn maps(&self) -> &Maps {
        match self {
            Self::Pinned(limiter) => limiter.maps(),
            Self::Other(other) => other.maps(),
        }
    }
}

/// This program, with other arguments. It is interrupted when this is dropped.
pub struct Process {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Process {
    /// It says a line when it is at work.
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run this program again")?;
        let stderr = BufReader::new(child.stderr.take().context("piped")?);
        let mut process = Self { child, stderr, said: String::new() };
        process.stderr.read_line(&mut process.said)?;
        process.lives()?;
        Ok(process)
    }

    /// Ends it.
    pub fn end_by(mut self, signal: Signal) -> Result<()> {
        self.lives()?;
        self.send(signal)?;
        let status = self.child.wait()?;
        ensure!(signal == Signal::SIGKILL || status.success(), "{status}: {}", self.said());
        Ok(())
    }

    fn lives(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("a process has ended by itself, {status}: {}", self.said());
        }
        Ok(())
    }

    /// All that it has said before it ended.
    fn said(&mut self) -> &str {
        let _what_is_there = self.stderr.read_to_string(&mut self.said);
        self.said.trim()
    }

    fn send(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its number is another's after it was waited for.
        if let Ok(None) = self.child.try_wait() {
            let _sent = self.send(Signal::SIGINT);
            let _status = self.child.wait();
        }
    }
}
