//! The runner inside the guest: runs the job's tests one by one, each in a process of its own, and
//! reports every event at once, so that what is known survives the guest's death.

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::console::{BEGIN, END};
use crate::job::{
    self, CONFIG_FILE, Event, Filter, JOB_FILE, Job, NOTES_FILE, Outcome, RESULTS_DIR, TestBinary,
    TestResult, Work,
};
use crate::kconfig::{self, Running};
use crate::libtest::{self, Test};
use crate::notes::{Notes, Skip};

/// How long the host has to read the end of the console: it does within a tenth of a second, unless
/// it cannot write the log.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Runs the job that lies in `share`. The exit code is for vmtest; the verdict is the last event.
pub fn run(share: &Path) -> Result<i32> {
    let job = fs::read(share.join(JOB_FILE)).context("cannot read the job")?;
    let job: Job = serde_json::from_slice(&job).context("cannot read the job")?;
    let host = Host { marker: &job.marker, share };
    host.tell(&Event::Started { release: kconfig::release()? })?;
    let kernel = mount_others().and_then(|()| Running::find(&share.join(CONFIG_FILE)));
    let ended = match kernel.and_then(|kernel| work(&job, &kernel, &host)) {
        Ok(ended) => ended,
        Err(e) => (false, format!("{e:#}")),
    };
    let (success, how) = ended;
    let is_held = matches!(job.work, Work::Hold) || (job.hold_on_failure && !success);
    if !is_held {
        wait_for_what_is_freed_later();
        nix::unistd::sync();
    }
    log_to_kernel(END)?;
    host.tell(&Event::Ended { success, how, is_held })?;
    if is_held {
        loop {
            nix::unistd::pause();
        }
    }
    // The host ends the guest as soon as it has the end of the kernel's log. vmtest, which asks the
    // guest ever more seldom whether the command has ended, would need up to three seconds more.
    std::thread::sleep(END_LIMIT);
    Ok(i32::from(!success))
}

/// Workers free what the last test has left, programs above all, some grace periods after it has
/// ended. What the kernel reports of that is to be in the log.
fn wait_for_what_is_freed_later() {
    for _ in 0..3 {
        // 6.1 does not have it, nor a kernel for one CPU.
        let _none = fs::write("/sys/module/rcutree/parameters/do_rcu_barrier", "1");
        for _ in 0..20 {
            // SAFETY: membarrier(2), here MEMBARRIER_CMD_GLOBAL, takes numbers only. A kernel without
            // it returns an error.
            unsafe { nix::libc::syscall(nix::libc::SYS_membarrier, 1, 0, 0) };
        }
    }
}

/// Writes a line to the kernel's log. Without its newline the kernel would hold it back, for more
/// of it to come.
fn log_to_kernel(line: &str) -> Result<()> {
    fs::write("/dev/kmsg", format!("<6>{line}\n")).context("cannot write to the kernel's log")
}

struct Host<'a> {
    marker: &'a str,
    share: &'a Path,
}

impl Host<'_> {
    fn tell(&self, event: &Event) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", job::line(self.marker, event)?)?;
        out.flush().context("cannot reach the host")
    }
}

/// What vmtest's init does not mount: bpffs, which a kernel without BPF has no directory for, and
/// tracefs where a kernel has it at its own place only (CONFIG_TRACEFS_AUTOMOUNT_DEPRECATED).
fn mount_others() -> Result<()> {
    mount_at("/sys/fs/bpf", "bpf")?;
    match Path::new("/sys/kernel/debug/tracing").exists() {
        true => Ok(()),
        false => mount_at("/sys/kernel/tracing", "tracefs"),
    }
}

fn mount_at(place: &str, kind: &str) -> Result<()> {
    if !Path::new(place).is_dir() {
        return Ok(());
    }
    mount(None::<&str>, place, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount {place}"))
}

fn work(job: &Job, kernel: &Running, host: &Host) -> Result<(bool, String)> {
    match &job.work {
        Work::Hold => Ok((true, String::new())),
        Work::Run { program, args } => {
            let mut command = Command::new(program);
            if let Some(config) = &kernel.config_file {
                command.env("XTASK_CONFIG", config);
            }
            let status = command
                .args(args)
                .env("XTASK_RESULTS", host.share.join(RESULTS_DIR))
                .status()
                .with_context(|| format!("cannot run {}", program.display()))?;
            Ok((status.success(), how_it_ended(status)))
        }
        Work::Tests { binaries, filter } => tests(binaries, filter, kernel, host),
    }
}

fn tests(
    binaries: &[TestBinary],
    filter: &Filter,
    kernel: &Running,
    host: &Host,
) -> Result<(bool, String)> {
    let chosen = libtest::chosen(binaries, filter)?;
    let ignored = chosen.iter().filter(|test| test.is_ignored).count();
    host.tell(&Event::Chosen { tests: chosen.len(), ignored })?;
    let mut failed = 0;
    for test in chosen {
        let name = test.full_name();
        let result = if test.is_ignored {
            TestResult::ignored(name)
        } else {
            host.tell(&Event::Begin { test: name.clone() })?;
            log_to_kernel(&format!("{BEGIN}{name}"))?;
            one(&test, name, kernel, &host.share.join(NOTES_FILE))?
        };
        failed += usize::from(result.outcome == Outcome::Failed);
        host.tell(&Event::Test(Box::new(result)))?;
    }
    Ok((failed == 0, format!("{failed} failed")))
}

/// Runs one test. Its notes are in the share: the host reads them there if the guest dies.
fn one(test: &Test, name: String, kernel: &Running, notes: &Path) -> Result<TestResult> {
    let binary = test.binary;
    fs::write(notes, "").context("cannot make the test's event file")?;
    let mut output = tempfile::tempfile().context("cannot make the test's output file")?;
    let begun = Instant::now();
    let mut command = Command::new(&binary.path);
    if let Some(config) = &kernel.config_file {
        command.env("XTASK_CONFIG", config);
    }
    if binary.alone {
        command.env("XTASK_ALONE", "1");
    }
    let status = command
        .args(["--exact", &test.name, "--nocapture", "--include-ignored"])
        .env("XTASK_EVENTS", notes)
        .env("CARGO_MANIFEST_DIR", &binary.dir)
        .current_dir(&binary.dir)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .status()
        .with_context(|| format!("cannot run {}", binary.path.display()))?;
    let seconds = begun.elapsed().as_secs_f64();

    let mut said = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let noted = fs::read_to_string(notes).context("cannot read the test's events")?;

    let mut result = TestResult { seconds, ..TestResult::named(name) };
    (result.outcome, result.reason) = match Notes::parse(&noted) {
        Ok(notes) => {
            let judged = judge(status, &said, notes.skip.as_ref(), kernel);
            if judged.0 == Outcome::Skipped {
                result.missing = notes.skip.and_then(|skip| skip.config);
            }
            (result.facts, result.rule, result.answer) = (notes.facts, notes.rule, notes.answer);
            judged
        }
        Err(e) => (Outcome::Failed, format!("{e:#}")),
    };
    if result.outcome == Outcome::Failed {
        result.output = said;
    }
    Ok(result)
}

/// A test's outcome, and the reason for it, from its process's status, what it wrote, and the skip
/// that it noted.
fn judge(
    status: ExitStatus,
    said: &str,
    skip: Option<&Skip>,
    kernel: &Running,
) -> (Outcome, String) {
    if !status.success() {
        return (Outcome::Failed, how_it_ended(status));
    }
    // A process that exits with 0 before libtest has counted has proved nothing.
    if !said.contains("test result: ok. 1 passed;") {
        let reason = "it exited with 0, but libtest did not say that the test passed";
        return (Outcome::Failed, reason.into());
    }
    let Some(skip) = skip else {
        return (Outcome::Passed, String::new());
    };
    match skip.check(kernel) {
        Ok(reason) => (Outcome::Skipped, reason),
        Err(e) => (Outcome::Failed, format!("{e:#}")),
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => format!("{status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "test result: ok. 1 passed; 0 failed;";

    fn outcome(status: i32, said: &str, skip: Option<&Skip>) -> (Outcome, String) {
        let kernel = Running { release: "6.12.1-x".into(), config: None, config_file: None };
        judge(ExitStatus::from_raw(status), said, skip, &kernel)
    }

    #[test]
    fn a_skip_that_does_not_hold_is_a_failure() {
        let needs = |version: &str| Skip {
            needs: Some(version.into()),
            reason: "why".into(),
            ..Skip::default()
        };
        let skipped = (Outcome::Skipped, "needs Linux 7.0: why".into());
        assert_eq!(outcome(0, PASSED, Some(&needs("7.0"))), skipped);
        assert_eq!(outcome(0, PASSED, Some(&needs("6.12"))).0, Outcome::Failed);
        assert_eq!(outcome(256, PASSED, Some(&needs("7.0"))).0, Outcome::Failed);
    }

    #[test]
    fn a_signal_and_a_silent_exit_are_failures() {
        assert_eq!(outcome(11, PASSED, None), (Outcome::Failed, "killed by SIGSEGV".into()));
        assert_eq!(outcome(0, "", None).0, Outcome::Failed);
        assert_eq!(outcome(0, PASSED, None).0, Outcome::Passed);
    }
}
