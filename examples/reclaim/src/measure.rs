//! What an exit costs, by the entries that the process leaves: freed in the exit, and in a worker.

use std::io::{BufRead as _, BufReader};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use figures::{Axis, Scale};
use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::network;
use crate::tracker::{Compared, Freed, Numbers};

/// More than any process here needs to end.
const DEADLINE: Duration = Duration::from_secs(60);

/// One exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Nanoseconds in the program for exits.
    pub program_ns: u64,
    /// Nanoseconds from when the process was told to end to when its parent knew that it has.
    pub process_ns: u64,
    /// Entries that were freed in it.
    pub freed_by_owner: u64,
    /// Entries that a worker has freed afterwards.
    pub freed_by_worker: u64,
}

/// A cgroup, and how entries are freed in it.
pub struct Place<'obj> {
    cgroup: Cgroup,
    compared: Compared<'obj>,
}

impl<'obj> Place<'obj> {
    /// A new one.
    ///
    /// # Errors
    ///
    /// If there can be no cgroup, or it cannot be looked at.
    pub fn new(
        storage: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
        freed: Freed,
    ) -> Result<Self> {
        let cgroup = Cgroup::create()?;
        match Compared::start(storage, &cgroup, freed) {
            Ok(compared) => Ok(Self { cgroup, compared }),
            Err(error) => {
                cgroup.remove()?;
                Err(error)
            }
        }
    }

    /// Has a process connect to so many addresses, and measures its exit. `program` is `reclaim`.
    ///
    /// # Errors
    ///
    /// If the process fails, or was not told of.
    pub fn exit(&self, program: &Path, entries: u32) -> Result<Exit> {
        loop {
            if let Some(exit) = self.exit_once(program, entries)? {
                return Ok(exit);
            }
        }
    }

    /// None if the kernel did not call the program for exits: it was running for another process.
    fn exit_once(&self, program: &Path, entries: u32) -> Result<Option<Exit>> {
        let before = self.compared.numbers()?;
        let mut command = Command::new(program);
        command.args(["visit", "--wait", "--addresses", &entries.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        self.cgroup.enter(&mut command)?;
        let mut child = command.spawn().context("cannot start a process")?;
        let out = child.stdout.take().expect("piped");
        let ready = BufReader::new(out).lines().next().transpose()?;
        let began = Instant::now();
        drop(child.stdin.take());
        let status = child.wait()?;
        let process_ns = began.elapsed().as_nanos() as u64;
        if !status.success() || ready.is_none() {
            bail!("the process failed: {status}");
        }
        let after = self.told_of(&before)?;
        if after.exits == before.exits {
            return Ok(None);
        }
        Ok(Some(Exit {
            program_ns: after.exit_ns - before.exit_ns,
            process_ns,
            freed_by_owner: after.freed_by_owner - before.freed_by_owner,
            freed_by_worker: after.freed_by_worker - before.freed_by_worker,
        }))
    }

    /// Waits until one more process was told of.
    fn told_of(&self, before: &Numbers) -> Result<Numbers> {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            self.compared.ended(Duration::from_millis(10), |_| Ok(()))?;
            let now = self.compared.numbers()?;
            if now.summaries > before.summaries && now.exits + now.found_later == now.summaries {
                return Ok(now);
            }
        }
        bail!("nobody was told of a process that has ended")
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// If there is a process in it.
    pub fn remove(self) -> Result<()> {
        drop(self.compared);
        self.cgroup.remove()
    }
}

/// The medians for so many entries, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Row {
    entries: u32,
    inline_program_us: f64,
    deferred_program_us: f64,
    inline_process_us: f64,
    deferred_process_us: f64,
}

const ENTRIES: [u32; 6] = [1, 10, 100, 1000, 10_000, 100_000];

/// Measures, and writes `reclaim-exit.json` and `.svg` into a directory.
///
/// # Errors
///
/// If a process fails, something cannot be written, or it is over before its end.
pub fn figures(program: &Path, results: &Path, rounds: usize, is_over: &AtomicBool) -> Result<()> {
    network::join()?;
    let mut storage = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let inline = Place::new(&mut storage.0, Freed::Inline)?;
    let rows = Place::new(&mut storage.1, Freed::Deferred).and_then(|deferred| {
        let rows = measure(program, (&inline, &deferred), rounds, is_over);
        let removed = deferred.remove();
        rows.and_then(|rows| removed.map(|()| rows))
    });
    let removed = inline.remove();
    let rows = rows?;
    removed?;
    write(results, &rows)
}

fn measure(
    program: &Path,
    (inline, deferred): (&Place<'_>, &Place<'_>),
    rounds: usize,
    is_over: &AtomicBool,
) -> Result<Vec<Row>> {
    println!("Medians of {rounds} exits each, in microseconds.\n");
    println!("         |    program for exits    |     until it was reaped");
    println!(" entries |     inline    deferred  |     inline    deferred");
    let mut rows = Vec::new();
    for entries in ENTRIES {
        let mut exits = (Vec::new(), Vec::new());
        // One after the other, so that whatever else the machine does meets both.
        for _ in 0..rounds {
            if is_over.load(Ordering::Relaxed) {
                bail!("interrupted: nothing was written");
            }
            exits.0.push(inline.exit(program, entries)?);
            exits.1.push(deferred.exit(program, entries)?);
        }
        let row = Row {
            entries,
            inline_program_us: median_us(&exits.0, |exit| exit.program_ns),
            deferred_program_us: median_us(&exits.1, |exit| exit.program_ns),
            inline_process_us: median_us(&exits.0, |exit| exit.process_ns),
            deferred_process_us: median_us(&exits.1, |exit| exit.process_ns),
        };
        println!(
            "{entries:>8} | {:>10.0}  {:>10.0}  | {:>10.0}  {:>10.0}",
            row.inline_program_us,
            row.deferred_program_us,
            row.inline_process_us,
            row.deferred_process_us
        );
        rows.push(row);
    }
    Ok(rows)
}

fn write(results: &Path, rows: &[Row]) -> Result<()> {
    let json = results.join("reclaim-exit.json");
    std::fs::write(&json, serde_json::to_string_pretty(rows)? + "\n")
        .with_context(|| format!("cannot write {}", json.display()))?;
    let line = |of: fn(&Row) -> f64| -> Vec<(f64, f64)> {
        rows.iter().map(|row| (f64::from(row.entries), of(row))).collect()
    };
    let lines = [
        ("inline: the program for exits", line(|row| row.inline_program_us)),
        ("deferred: the program for exits", line(|row| row.deferred_program_us)),
        ("inline: until the parent knows", line(|row| row.inline_process_us)),
        ("deferred: until the parent knows", line(|row| row.deferred_process_us)),
    ];
    figures::plot(
        &results.join("reclaim-exit.svg"),
        "What an exit takes, by the entries of the process",
        Axis { name: "entries", scale: Scale::Log },
        Axis { name: "microseconds", scale: Scale::Log },
        &lines,
    )
}

/// The median of one of an exit's numbers.
pub fn median(exits: &[Exit], of: impl Fn(&Exit) -> u64) -> u64 {
    let mut numbers: Vec<u64> = exits.iter().map(of).collect();
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

fn median_us(exits: &[Exit], of: impl Fn(&Exit) -> u64) -> f64 {
    median(exits, of) as f64 / 1000.0
}
