//! `torture`: what a kernel and the library have to survive, by a seed.

mod actor;
mod disturb;
mod ledger;
mod leftover;
mod life;
mod object;
mod plan;
mod report;
mod run;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::life::{SHORT_OF_MEMORY, Surroundings};
use crate::object::Settings;
use crate::plan::Life;

/// Tortures the kernel with BPF objects that have workqueues, and counts what becomes of the work.
///
/// Needs Linux 6.10, root, and a machine that may die: it takes a CPU away, and drops caches. Exits
/// with 0 if all is as it has to be, 1 if something is not, 2 for wrong use.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Torture the kernel.
    ///
    /// Several loaders at a time load an object with programs of random types, attach and detach
    /// them, let them run, submit and cancel jobs, add, update, delete and evict elements with
    /// workqueues, pin and take over, drain, exit, and are killed, some of them short of memory;
    /// handlers sleep, fail, run again and start themselves again; a CPU goes and comes back.
    ///
    /// Prints what was done, and writes torture.json into the current directory, or the one that
    /// XTASK_RESULTS names.
    Run {
        /// For how long.
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u64,
        /// What all operations follow from [default: a new one].
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
        /// How many loaders at a time.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
        actors: u32,
    },
    /// Print what the loaders of an actor do with a seed, and do nothing.
    Plan {
        /// The seed.
        #[arg(long, value_name = "S")]
        seed: u64,
        /// The actor.
        #[arg(long, value_name = "N")]
        actor: u32,
        /// How many of its loaders.
        #[arg(long, value_name = "N", default_value_t = 1)]
        lives: u32,
    },
    /// Write the page about the runs whose results are in a directory.
    Page {
        /// Such as target/results/torture.
        directory: PathBuf,
    },
    /// One loader, as `run` starts it.
    #[command(hide = true)]
    Live(Live),
}

#[derive(clap::Args)]
struct Live {
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    actor: u32,
    #[arg(long)]
    life: u32,
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    #[arg(long)]
    cgroup: PathBuf,
    #[arg(long)]
    pins: PathBuf,
    /// PID:ADDRESS
    #[arg(long)]
    page: String,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { seconds, seed, actors } => run(seconds, seed, actors),
        Command::Plan { seed, actor, lives } => {
            plan(seed, actor, lives);
            Ok(ExitCode::SUCCESS)
        }
        Command::Page { directory } => report::page(&directory).map(|page| {
            print!("{page}");
            ExitCode::SUCCESS
        }),
        Command::Live(live) => live.live(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("torture: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(seconds: u64, seed: Option<u64>, actors: u32) -> Result<ExitCode> {
    ctrlc::set_handler(|| run::IS_OVER.store(true, Ordering::SeqCst))
        .context("cannot handle Ctrl-C")?;
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("seed {seed}");
    let report = run::run(seed, Duration::from_secs(seconds), actors)?;
    let results = env::var_os("XTASK_RESULTS").map_or_else(|| ".".into(), PathBuf::from);
    report.write(&results)?;
    println!("{report}");
    if report.failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for failure in &report.failures {
        eprintln!("FAILED: {failure}");
    }
    eprintln!("seed {seed}: again by `{}`", report.replay());
    Ok(ExitCode::FAILURE)
}

fn plan(seed: u64, actor: u32, lives: u32) {
    let (types, _) = run::types();
    for number in 0..lives {
        println!("{number}: {:#?}", Life::plan(seed, actor, number, &types));
    }
}

impl Live {
    fn live(self) -> Result<ExitCode> {
        let (holder, address) = self.page.split_once(':').context("--page PID:ADDRESS")?;
        let life = Life::plan(self.seed, self.actor, self.life, &self.types);
        // Before 7.0 (1bfbc267ec91) a start may queue memory that a delete at the same time frees.
        let may_race = bpf_wq_tests::version() >= (7, 0);
        let surroundings = Surroundings {
            cgroup: self.cgroup,
            pins: self.pins,
            settings: Settings {
                seed: self.seed ^ u64::from(self.actor) << 32 ^ u64::from(self.life),
                holder: holder.parse()?,
                address: address.parse()?,
                rearms: may_race,
            },
            may_race,
        };
        let lived = life::live(&life, &surroundings);
        match lived {
            Err(error) if life.limit.is_some() => {
                eprintln!("short of memory: {error:#}");
                Ok(ExitCode::from(SHORT_OF_MEMORY as u8))
            }
            other => other.map(|()| ExitCode::SUCCESS),
        }
    }
}
