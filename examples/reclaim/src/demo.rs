//! Processes that end, and what becomes of what they left.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cgroup::Cgroup;
use crate::network;
use crate::tracker::{Limits, Numbers, Tracker};

/// More than what is shown here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Shows it, until `is_over`. `program` is `reclaim`.
///
/// # Errors
///
/// If it cannot be loaded, a process fails, or it is over before its end.
pub fn run(program: &Path, is_over: &AtomicBool) -> Result<()> {
    network::join()?;
    let cgroup = Cgroup::create()?;
    let shown =
        Tracker::start(&cgroup, &Limits::DEFAULT, Path::new("/sys/fs/bpf")).and_then(|tracker| {
            let shown = show(program, &cgroup, &tracker, is_over);
            let stopped = tracker.stop(|_| Ok(()));
            shown?;
            println!("\n{}", stopped?.drained);
            Ok(())
        });
    let removed = cgroup.remove();
    shown.and(removed)
}

fn show(program: &Path, cgroup: &Cgroup, tracker: &Tracker, is_over: &AtomicBool) -> Result<()> {
    println!("Processes that connect to addresses of this machine, and end.\n");
    for addresses in ["10", "1000", "30000"] {
        visit(program, cgroup, &["--addresses", addresses, "--times", "5"])?;
        told(tracker, true, is_over)?;
    }
    println!("\nAnd 100 at once, with 20 to 119 addresses each: the last one of them is");
    visit(program, cgroup, &["--addresses", "20", "--processes", "100"])?;
    told(tracker, false, is_over)?;
    let Numbers { summaries, entries, freed_by_owner, freed_by_worker, .. } = tracker.numbers()?;
    println!(
        "\n{summaries} processes had {entries} entries: {freed_by_owner} were freed in an exit, \
         {freed_by_worker} by a worker."
    );
    Ok(())
}

fn visit(program: &Path, cgroup: &Cgroup, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("visit").args(arguments);
    cgroup.enter(&mut command)?;
    let status = command.status().context("cannot start a process")?;
    if !status.success() {
        bail!("a process failed: {status}");
    }
    Ok(())
}

/// Waits until all processes have been told of, and prints each, or the last one.
fn told(tracker: &Tracker, each: bool, is_over: &AtomicBool) -> Result<()> {
    let until = Instant::now() + DEADLINE;
    let mut last = None;
    while tracker.numbers()?.processes_left() > 0 || last.is_none() {
        if is_over.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if Instant::now() > until {
            bail!("nobody was told of a process that has ended");
        }
        tracker.ended(Duration::from_millis(20), |summary| {
            if each {
                println!("{summary}");
            }
            last = Some(summary);
            Ok(())
        })?;
    }
    tracker.ended(Duration::ZERO, |summary| {
        last = Some(summary);
        Ok(())
    })?;
    if let (false, Some(last)) = (each, last) {
        println!("{last}");
    }
    Ok(())
}
