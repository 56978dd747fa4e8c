//! `reclaim`: the tracker as a command.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{ArgGroup, Parser, Subcommand};
use reclaim::cgroup::Cgroup;
use reclaim::summary::Summary;
use reclaim::tracker::{Limits, Numbers, Stopped, Tracker};
use reclaim::visit::Visit;
use reclaim::{demo, measure};

/// Says of each process, when it ends, what it connected to and how often.
///
/// Needs Linux 6.10, root, and cgroups of version 2. Exits with 0 after Ctrl-C or when COMMAND has
/// succeeded, 1 if it cannot go on or COMMAND failed, 2 for wrong use.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print a line for each process that ends; Ctrl-C ends it.
    ///
    /// It counts connect(2), and sends of UDP that name an address. A tracker whose process was
    /// killed stays at work. Run it again with --cgroup to go on with it.
    #[command(group = ArgGroup::new("processes of").args(["cgroup", "command"]).required(true))]
    Run {
        /// The processes of this cgroup and those below: a directory, such as /sys/fs/cgroup.
        #[arg(long, value_name = "DIR")]
        cgroup: Option<PathBuf>,
        #[command(flatten)]
        limits: Limits,
        /// Where it is pinned: a directory of a bpffs.
        #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
        pins: PathBuf,
        /// Print JSON, a line a process.
        #[arg(long)]
        json: bool,
        /// Run this, and end when it and its children have; in a cgroup of their own.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Connect to many addresses of this machine, over its interface lo.
    Visit(Visit),
    /// Show processes that end, and what becomes of what they left.
    Demo,
    /// Measure exits by the entries that the process leaves, freed in the exit and in a worker.
    ///
    /// Writes reclaim-exit.json and reclaim-exit.svg, under the runner to its results.
    Figures {
        /// Exits for each number of entries and each way.
        #[arg(long, value_name = "N", default_value_t = 11)]
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
    },
}

static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        // SAFETY: no thread was started: what handles signals would be one.
        Action::Visit(visit) => unsafe { visit.run() },
        command => end_by_signal().and_then(|()| act(command)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reclaim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(command: Action) -> Result<()> {
    match command {
        Action::Run { cgroup: Some(cgroup), limits, pins, json, .. } => {
            run_cgroup(&cgroup, &limits, &pins, json)
        }
        Action::Run { limits, pins, json, command, .. } => {
            run_command(&command, &limits, &pins, json)
        }
        Action::Visit(_) => unreachable!("it runs without what handles signals"),
        Action::Demo => demo::run(&own_program()?, &IS_OVER),
        Action::Figures { rounds } => {
            measure::figures(&own_program()?, &figures::results(), rounds.into(), &IS_OVER)
        }
    }
}

fn end_by_signal() -> Result<()> {
    ctrlc::set_handler(|| IS_OVER.store(true, Ordering::Relaxed)).context("cannot handle Ctrl-C")
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find this program")
}

fn run_cgroup(path: &Path, limits: &Limits, pins: &Path, json: bool) -> Result<()> {
    let cgroup = Cgroup::open(path)?;
    let tracker = Tracker::start(&cgroup, limits, pins)?;
    let how = if tracker.is_new() { "looks" } else { "goes on to look" };
    eprintln!("{how} at the processes of {}", path.display());
    let mut tell = teller(json);
    let shown = (|| {
        while !IS_OVER.load(Ordering::Relaxed) && cgroup.exists() {
            tracker.ended(Duration::from_millis(50), &mut tell)?;
        }
        Ok(())
    })();
    end(tracker, shown, &mut tell)?;
    if !cgroup.exists() {
        bail!("the cgroup {} is gone", path.display());
    }
    Ok(())
}

fn run_command(words: &[OsString], limits: &Limits, pins: &Path, json: bool) -> Result<()> {
    let cgroup = Cgroup::create()?;
    let ended = run_in(&cgroup, words, limits, pins, json);
    if cgroup.is_populated()? {
        eprintln!("it still has processes: remove {} after them", cgroup.path().display());
    } else {
        cgroup.remove()?;
    }
    match ended? {
        Some(status) if !status.success() => {
            bail!("{} ended with {status}", words[0].to_string_lossy())
        }
        _ => Ok(()),
    }
}

/// How the command ended, if it did.
fn run_in(
    cgroup: &Cgroup,
    words: &[OsString],
    limits: &Limits,
    pins: &Path,
    json: bool,
) -> Result<Option<ExitStatus>> {
    let tracker = Tracker::start(cgroup, limits, pins)?;
    eprintln!("looks at the processes of {}", cgroup.path().display());
    let mut tell = teller(json);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let started = cgroup.enter(&mut command).and_then(|()| {
        command.spawn().with_context(|| format!("cannot run {}", words[0].to_string_lossy()))
    });
    let shown = started.and_then(|mut child| show_command(&tracker, cgroup, &mut child, &mut tell));
    end(tracker, shown, &mut tell)
}

fn show_command(
    tracker: &Tracker,
    cgroup: &Cgroup,
    child: &mut Child,
    tell: &mut impl FnMut(Summary) -> Result<()>,
) -> Result<Option<ExitStatus>> {
    let mut status = None;
    while !IS_OVER.load(Ordering::Relaxed) && (status.is_none() || cgroup.is_populated()?) {
        tracker.ended(Duration::from_millis(50), &mut *tell)?;
        status = child.try_wait()?;
    }
    Ok(status)
}

/// Stops it, whatever was shown.
fn end<T>(
    tracker: Tracker,
    shown: Result<T>,
    tell: &mut impl FnMut(Summary) -> Result<()>,
) -> Result<T> {
    let stopped = tracker.stop(tell);
    let shown = shown?;
    let Stopped { drained, numbers } = stopped?;
    eprintln!("{}; {drained}", line(&numbers));
    Ok(shown)
}

fn line(numbers: &Numbers) -> String {
    let mut line = format!("processes that ended: {}", numbers.summaries);
    if numbers.processes_left() > 0 {
        line += &format!(", that did not and are forgotten: {}", numbers.processes_left());
    }
    if numbers.missed > 0 {
        line += &format!(", connects of others, for which there was no place: {}", numbers.missed);
    }
    line
}

/// Prints a line at once: what is told is told of no more.
fn teller(json: bool) -> impl FnMut(Summary) -> Result<()> {
    let mut out = io::stdout();
    move |summary| {
        let line = if json { serde_json::to_string(&summary)? } else { summary.to_string() };
        writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot print")
    }
}
