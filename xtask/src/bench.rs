//! `cargo xtask bench`: what a package of the workspace measures, in guests of several kernels and
//! sizes, and its report of that.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::accel::Accel;
use crate::config::Matrix;
use crate::failure::{failed, usage};
use crate::interrupt::supervised;
use crate::workspace::Workspace;

/// `[package.metadata.xtask.bench]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// The series to measure on beside the newest, when no kernel is named.
    pub kernels: Vec<String>,
    /// The guests of each kernel, in which the package's binary runs.
    pub guests: Vec<BenchGuest>,
    /// The binary's arguments to report on this machine; the directory of the results follows.
    pub report: Vec<String>,
    /// Its arguments to compare runners on this machine, with `host.json` in that directory.
    pub runners: Option<Vec<String>>,
}

/// A guest of each kernel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchGuest {
    /// The directory of its results.
    pub name: String,
    /// The binary's arguments in it.
    pub args: Vec<String>,
    /// Virtual processors, if not as many as vmtest.toml says.
    pub cpus: Option<u8>,
    /// How it runs, if not as others.
    pub accel: Option<Accel>,
}

/// `run.json`, beside the guests' results.
#[derive(Debug, Serialize)]
pub struct Run {
    /// As it was called.
    pub command: String,
    /// The host.
    pub machine: String,
    /// Those that have measured, in this order.
    pub guests: Vec<Measured>,
}

/// A guest that has measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// The kernel's name.
    pub kernel: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// The guest's name.
    pub guest: String,
    /// Its virtual processors.
    pub cpus: u8,
    /// How it ran.
    pub accel: String,
    /// Its results, from the directory of `run.json`.
    pub results: PathBuf,
}

/// `host.json`: what runners can be compared with on this machine.
#[derive(Debug, Serialize)]
pub struct Host {
    /// As it was called.
    pub command: String,
    /// The host, when it began.
    pub machine: String,
    /// `KVM`, or `TCG` where KVM is not there or does not work.
    pub accel: String,
    /// The workspace.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// The default kernels that packages hold, in the order of kernels.toml.
    pub kernels: Vec<HostKernel>,
}

/// A kernel that can be booted.
#[derive(Debug, Serialize)]
pub struct HostKernel {
    /// Its series.
    pub kernel: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// Its directory in the cache: vmlinuz, initramfs, and modules.cpio, which is a part of it.
    pub dir: PathBuf,
}

impl Bench {
    /// The kernels to measure on: those named, or the default ones, the oldest first.
    pub fn kernels(&self, matrix: &Matrix, named: &[String]) -> Vec<String> {
        if !named.is_empty() {
            return named.to_vec();
        }
        let newest = &matrix.newest().series;
        let mut words: Vec<String> =
            self.kernels.iter().filter(|series| *series != newest).cloned().collect();
        words.push(newest.clone());
        words
    }

    /// Refuses what cannot be carried out.
    pub fn check(&self, manifest: &Path) -> Result<()> {
        let wrong = |what: String| {
            Err(usage(format!("{}: [package.metadata.xtask.bench]: {what}", manifest.display())))
        };
        if self.guests.is_empty() {
            return wrong("it has no guests".into());
        }
        for (index, guest) in self.guests.iter().enumerate() {
            let name = &guest.name;
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return wrong(format!("{name:?} cannot name a directory"));
            }
            if self.guests[..index].iter().any(|other| other.name == *name) {
                return wrong(format!("two guests are called {name}"));
            }
            if guest.cpus == Some(0) {
                return wrong(format!("guest {name} has no CPU"));
            }
        }
        Ok(())
    }
}

impl Run {
    /// One that begins now.
    pub fn begin() -> Result<Self> {
        Ok(Run { command: command(), machine: machine()?, guests: vec![] })
    }

    /// Writes it, and has `program` report.
    pub fn report(&mut self, program: &Path, args: &[String], dir: &Path) -> Result<()> {
        self.machine += &format!(", {} at its end", load()?);
        write(&dir.join("run.json"), self)?;
        on_this_machine(program, args, dir)
    }
}

impl Host {
    /// One on which nothing can be booted yet.
    pub fn new(accel: Accel, workspace: &Workspace) -> Result<Self> {
        Ok(Host {
            command: command(),
            machine: machine()?,
            accel: accel.to_string(),
            root: workspace.root.clone(),
            target: workspace.target.clone(),
            kernels: vec![],
        })
    }

    /// Writes it, and has `program` compare runners.
    pub fn compare(&self, program: &Path, args: &[String], dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write(&dir.join("host.json"), self)?;
        on_this_machine(program, args, dir)
    }
}

fn write(file: &Path, what: &impl Serialize) -> Result<()> {
    fs::write(file, serde_json::to_string_pretty(what)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Runs the package's program here, on the directory of the results.
fn on_this_machine(program: &Path, args: &[String], dir: &Path) -> Result<()> {
    let wrong = || format!("cannot run {} {}", program.display(), args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .arg(dir)
        .env("XTASK_RESULTS", dir)
        .stdin(Stdio::null())
        // A process group of its own, which `supervised` ends as a whole.
        .process_group(0)
        .spawn()
        .with_context(wrong)?;
    let status = supervised(child.id(), || child.wait())?.with_context(wrong)?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(format!("the package's {} failed ({status})", args.join(" ")))),
    }
}

fn command() -> String {
    let arguments = std::env::args().skip(1);
    ["cargo xtask".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// The host's processors, and how busy they are.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let mut lines = cpus.lines().filter_map(|line| line.split_once(':'));
    let name = lines.find(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim());
    let count = std::thread::available_parallelism().context("counting processors")?;
    let name = name.unwrap_or("an unknown processor");
    Ok(format!("{count} CPUs of {name}, load average {} when the run began", load()?))
}

fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn bench(text: &str) -> Bench {
        toml::from_str(&format!("kernels = [\"6.12\"]\nreport = []\n{text}")).unwrap()
    }

    #[rstest]
    #[case("guests = []", "it has no guests")]
    #[case(r#"guests = [{ name = "a/b", args = [] }]"#, "cannot name a directory")]
    #[case(
        r#"guests = [{ name = "a", args = [] }, { name = "a", args = [] }]"#,
        "two guests are called a"
    )]
    #[case(r#"guests = [{ name = "a", args = [], cpus = 0 }]"#, "guest a has no CPU")]
    fn what_cannot_be_carried_out_is_named(#[case] text: &str, #[case] says: &str) {
        let error = bench(text).check(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn a_guest_says_how_it_is_made() {
        let bench = bench(
            r#"guests = [{ name = "a", args = ["x"], cpus = 4, accel = "icount" }, { name = "b", args = [] }]"#,
        );
        bench.check(Path::new("Cargo.toml")).unwrap();
        assert_eq!((bench.guests[0].cpus, bench.guests[0].accel), (Some(4), Some(Accel::Icount)));
        assert_eq!((bench.guests[1].cpus, bench.guests[1].accel), (None, None));
    }
}
