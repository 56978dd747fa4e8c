//! `bench`: measures in a guest, and shows on the host what guests have measured.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use bench::results::{Measured, Results};
use bench::{cost, growth, latency, memory, page, report, runners, throughput};
use clap::{Parser, Subcommand, ValueEnum};

/// Measures ways to have work done later: bpf_wq, and others.
///
/// `cargo xtask bench` runs it in guests. Exits with 0 if all was measured, whether aims are met or
/// not; 1 if something could not be, or was not done as often as it was submitted; 2 for wrong use.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure on the running kernel, as root, and write measured.json
    ///
    /// Into the current directory, or the one that XTASK_RESULTS names. Needs Linux 6.12.
    Measure {
        /// What [default: all]
        #[arg(value_enum)]
        what: Vec<What>,
        /// Little of each: to see that it works
        #[arg(long)]
        quick: bool,
    },
    /// Measure how long runners of tests take to a verdict, on this machine, and write runners.json
    ///
    /// `cargo xtask bench --runners` calls it, and says there in host.json what can be booted.
    Runners {
        /// The runner's directory of results
        results: PathBuf,
    },
    /// Print what guests have measured, ratios first
    Report {
        /// The runner's directory of results
        #[arg(default_value = "target/results/bench")]
        results: PathBuf,
    },
    /// Write docs/performance.md, its plots, and performance.json, which it is made from
    Page {
        /// The runner's directory of results
        #[arg(default_value = "target/results/bench")]
        results: PathBuf,
        /// Where it goes
        #[arg(long, value_name = "DIR", default_value = "docs")]
        docs: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// From submission to the first instruction
    Latency,
    /// Jobs a second
    Throughput,
    /// What a submission pays
    Cost,
    /// With pending jobs, workers and sleep
    Growth,
    /// Of a pending job
    Memory,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Measure { what, quick } => measure(&what, quick),
        Command::Report { results } => {
            Results::read(&results).map(|results| print!("{}", report::text(&results)))
        }
        Command::Runners { results } => {
            runners::measure(&results).map(|runners| print!("{}", report::of_runners(&runners)))
        }
        Command::Page { results, docs } => write_page(&results, &docs),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(what: &[What], quick: bool) -> Result<()> {
    let is_wanted = |one| what.is_empty() || what.contains(&one);
    let mut measured = Measured::default();
    if is_wanted(What::Latency) {
        let plan = if quick { latency::Plan::QUICK } else { latency::Plan::FULL };
        measured.latency = latency::measure(plan)?;
    }
    if is_wanted(What::Throughput) {
        let plan = if quick { throughput::Plan::QUICK } else { throughput::Plan::FULL };
        measured.throughput = throughput::measure(plan)?;
    }
    if is_wanted(What::Cost) {
        measured.cost = cost::measure(if quick { cost::QUICK } else { cost::FULL })?;
    }
    if is_wanted(What::Growth) {
        let plan = if quick { growth::Plan::QUICK } else { growth::Plan::FULL };
        measured.growth = Some(growth::measure(&plan)?);
    }
    if is_wanted(What::Memory) {
        measured.memory = memory::measure()?;
    }
    measured.write(&figures::results())
}

fn write_page(results: &Path, docs: &Path) -> Result<()> {
    let results = Results::read(results)?;
    page::write(&results, docs)
}
