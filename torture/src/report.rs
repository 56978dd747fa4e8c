//! What a run came to: for a person, as JSON, and as the page made from that.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::actor::Counts;

/// The file that a run writes.
const FILE: &str = "torture.json";

/// The file that the runner writes beside it: what became of the guest.
const VERDICT: &str = "verdict.json";

/// The kernel's memory that it cannot take back, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Before.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// By how much it may have grown.
    pub bound: u64,
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What all of it follows from.
    pub seed: u64,
    /// The kernel.
    pub release: String,
    /// How many loaders there were at a time.
    pub actors: u32,
    /// How many CPUs there were.
    pub cpus: usize,
    /// How long the actors were at work.
    pub seconds: u64,
    /// Types of programs that this kernel does not run, and why.
    pub left_out: BTreeMap<String, String>,
    /// What was done.
    pub counts: Counts,
    /// How often a CPU went and came back.
    pub hotplugs: u64,
    /// How often the page was there for those who waited for it.
    pub pages: u64,
    /// The kernel's memory.
    pub memory: Memory,
    /// Whether the kernel has looked for memory that is lost, and found none.
    pub kmemleak: bool,
    /// Whether lockdep was watching to the end.
    pub lockdep: bool,
    /// What was not as it has to be.
    pub failures: Vec<String>,
}

/// What the runner says of a guest.
#[derive(Debug, Deserialize)]
struct Verdict {
    kernel: String,
    accelerator: String,
    passed: bool,
}

impl Report {
    /// Of a run that begins.
    pub fn new(seed: u64, actors: u32, left_out: BTreeMap<String, String>) -> Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("a release")?;
        let cpus = std::thread::available_parallelism().context("counting processors")?.get();
        let release = release.trim().to_owned();
        Ok(Self { seed, release, actors, cpus, left_out, ..Self::default() })
    }

    /// How to have the same again.
    pub fn replay(&self) -> String {
        let Report { release, seed, seconds, .. } = self;
        format!("cargo xtask torture -k {release} --seed {seed} --time {}s", (*seconds).max(1))
    }

    /// Writes it into a directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let file = directory.join(FILE);
        let json = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&file, json).with_context(|| file.display().to_string())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { counts, memory, .. } = self;
        let work = &counts.work;
        writeln!(f, "Linux {}, seed {}, {} s", self.release, self.seed, self.seconds)?;
        writeln!(f, "loaders   {}: {}", counts.lives, list(&counts.ends))?;
        writeln!(f, "types     {}", list(&counts.types))?;
        for (name, why) in &self.left_out {
            writeln!(f, "left out  {name}: {why}")?;
        }
        writeln!(f, "submitted {}", list(&counts.submitted))?;
        let silent: Vec<&str> = counts
            .types
            .keys()
            .filter(|name| !counts.submitted.contains_key(*name))
            .map(String::as_str)
            .collect();
        if !silent.is_empty() {
            writeln!(f, "too short to say anything of {}", silent.join(", "))?;
        }
        writeln!(f, "operations {}", list(&counts.operations))?;
        writeln!(
            f,
            "jobs      accepted {}, refused {}, done {} (failed {}), cancelled {}, lost with their \
             object {}",
            work.accepted, work.refused, work.done, work.failed, work.cancelled, work.lost
        )?;
        writeln!(
            f,
            "elements  {} submissions in {} runs, refused {}, lost with their element {}",
            work.starts, work.runs, work.starts_refused, work.starts_lost
        )?;
        writeln!(
            f,
            "beside    {} handlers slept, the page came {} times, a CPU went {} times",
            work.slept, self.pages, self.hotplugs
        )?;
        writeln!(
            f,
            "memory    {} KiB before, {} KiB after, at most {} KiB more",
            memory.before >> 10,
            memory.after >> 10,
            memory.bound >> 10
        )?;
        write!(f, "checks    {}", self.checks())
    }
}

impl Report {
    fn checks(&self) -> String {
        let with = |is: bool, what: &str| if is { format!(", {what}") } else { String::new() };
        format!(
            "accounts, objects, pins, processes, memory{}{}",
            with(self.kmemleak, "kmemleak"),
            with(self.lockdep, "lockdep")
        )
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    let each = counts.iter().map(|(name, count)| format!("{name} {count}"));
    each.collect::<Vec<_>>().join(", ")
}

/// What the page says before it comes to the runs.
const HEAD: &str = include_str!("page.md");

/// The page about the runs whose results are in the directories of `directory`.
pub fn page(directory: &Path) -> Result<String> {
    let mut runs = Vec::new();
    let entries = fs::read_dir(directory)
        .with_context(|| format!("{}: `cargo xtask torture` makes it", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            let read = |file: &str| {
                let path = path.join(file);
                fs::read_to_string(&path).with_context(|| path.display().to_string())
            };
            let verdict: Verdict = serde_json::from_str(&read(VERDICT)?).context(VERDICT)?;
            // A guest that died has left none.
            let report = path.join(FILE).exists().then(|| read(FILE)).transpose()?;
            let report: Option<Report> =
                report.map(|json| serde_json::from_str(&json).context(FILE)).transpose()?;
            runs.push((verdict, report));
        }
    }
    ensure!(!runs.is_empty(), "{} holds no run", directory.display());
    runs.sort_by(|(a, _), (b, _)| a.kernel.cmp(&b.kernel));
    Ok(written(&runs))
}

fn written(runs: &[(Verdict, Option<Report>)]) -> String {
    let mut page = format!("{HEAD}## What was run\n\n");
    let reports = || runs.iter().filter_map(|(verdict, report)| Some((verdict, report.as_ref()?)));
    let longest = reports()
        .filter(|(verdict, _)| verdict.passed)
        .max_by_key(|(verdict, report)| (report.seconds, std::cmp::Reverse(&verdict.kernel)));
    if let Some((verdict, report)) = longest {
        let _ = writeln!(
            page,
            "The longest run that passed: {} s on {} (Linux {}), seed {}, with {} loaders at a time \
             on {} processors.\n",
            report.seconds, verdict.kernel, report.release, report.seed, report.actors, report.cpus
        );
    }
    page.push_str("| kernel | accelerator | verdict | seconds | seed | loaders | killed | jobs done | starts | slept | CPU went | memory, KiB | also |\n");
    page.push_str("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n");
    for (verdict, report) in runs {
        let outcome = if verdict.passed { "passed" } else { "failed" };
        let Verdict { kernel, accelerator, .. } = verdict;
        let Some(report) = report else {
            let _ =
                writeln!(page, "| {kernel} | {accelerator} | {outcome} | the guest died |||||||||");
            continue;
        };
        let Report { counts, memory, .. } = report;
        let killed: u64 =
            counts.ends.iter().filter(|(n, _)| n.starts_with("killed")).map(|(_, n)| n).sum();
        let grown = (memory.after as i64 - memory.before as i64) >> 10;
        let also = match (report.kmemleak, report.lockdep) {
            (true, true) => "kmemleak, lockdep",
            (true, false) => "kmemleak",
            (false, true) => "lockdep",
            (false, false) => "",
        };
        let _ = writeln!(
            page,
            "| {kernel} | {accelerator} | {outcome} | {} | {} | {} | {killed} | {} | {} | {} | {} | {grown:+} | {also} |",
            report.seconds,
            report.seed,
            counts.lives,
            counts.work.done,
            counts.work.starts,
            counts.work.slept,
            report.hotplugs,
        );
    }
    for (verdict, report) in reports() {
        let _ = writeln!(page, "\n### {}\n\n```text\n{report}\n```", verdict.kernel);
        for failure in &report.failures {
            let _ = writeln!(page, "\nFailed: {failure}");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run_is_one_that_passed() {
        let dir = std::env::temp_dir().join(format!("torture-{}", std::process::id()));
        for (kernel, seconds, passed) in
            [("7.3", 600, true), ("7.3-debug", 900, false), ("6.12", 60, true)]
        {
            let at = dir.join(kernel);
            fs::create_dir_all(&at).unwrap();
            let verdict =
                format!(r#"{{"kernel":"{kernel}","accelerator":"TCG","passed":{passed}}}"#);
            fs::write(at.join(VERDICT), verdict).unwrap();
            let report = Report { seconds, seed: 7, release: "x".into(), ..Report::default() };
            report.write(&at).unwrap();
        }
        let page = page(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(page.contains("that passed: 600 s on 7.3 (Linux x), seed 7"), "{page}");
        assert!(page.contains("| 7.3-debug | TCG | failed | 900 | 7 |"), "{page}");
    }
}
