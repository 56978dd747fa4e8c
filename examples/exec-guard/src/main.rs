//! `exec-guard`: the guard as a command.

mod demo;

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bpf_wq::Drained;
use clap::{Parser, Subcommand};
use exec_guard::agent::Agent;
use exec_guard::events::Events;
use exec_guard::guard::{Guard, Numbers};
use exec_guard::policy::Policy;

/// Decides what the processes of a cgroup may execute, open and connect to, and asks who may know.
///
/// Needs Linux 6.11 with BPF LSM, and root. Exits with 0 after Ctrl-C, 1 if it cannot go on, 2 for
/// wrong use.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Guard a cgroup, and show what is decided and learned; Ctrl-C ends both.
    ///
    /// A guard whose process was killed stays at work, by what is known and by default. Run it
    /// again to go on with it.
    Run {
        /// The policy, in TOML.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// The cgroup (v2) whose processes are guarded: no other one is.
        #[arg(long, value_name = "CGROUP", default_value = "/sys/fs/cgroup/exec-guard")]
        scope: PathBuf,
        /// Where it is pinned: a directory of a bpffs.
        #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
        pins: PathBuf,
        /// Print JSON, a line a decision.
        #[arg(long)]
        json: bool,
    },
    /// Show the guard at work, with a DNS server (rbldnsd) and a database of its own.
    Demo,
    /// To try it: enter a cgroup, connect to each address, by UDP, and say what came of it.
    ///
    /// It stays until its standard input ends.
    Connect {
        /// The cgroup.
        cgroup: PathBuf,
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
}

/// Somebody wants it to end.
static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { policy, scope, pins, json } => {
            end_by_signal().and_then(|()| run(&policy, &scope, &pins, json))
        }
        Command::Demo => end_by_signal().and_then(|()| demo::run()),
        Command::Connect { cgroup, addresses } => connect(&cgroup, &addresses),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exec-guard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn end_by_signal() -> Result<()> {
    ctrlc::set_handler(|| IS_OVER.store(true, Ordering::Relaxed)).context("cannot handle Ctrl-C")
}

fn run(policy: &Path, scope: &Path, pins: &Path, json: bool) -> Result<()> {
    let policy = Policy::read(policy)?;
    let guard = Guard::start(&policy, scope, pins)?;
    let shown = guard_by(&guard, &policy, json);
    let is_there = guard.scope().is_there();
    let numbers = guard.numbers();
    let drained = guard.stop()?;
    shown?;
    let numbers = numbers?;
    eprintln!("{numbers}");
    if !is_there {
        bail!("the cgroup {} is gone", scope.display());
    }
    eprintln!("{} is not guarded any more; {}", scope.display(), how_it_ended(&numbers, &drained));
    Ok(())
}

fn how_it_ended(numbers: &Numbers, drained: &Drained) -> String {
    match numbers.forgotten {
        0 => drained.to_string(),
        forgotten => format!("{drained}; {forgotten} questions without an answer are forgotten"),
    }
}

/// Until the cgroup is gone, or somebody wants it to end; it is drained then.
fn guard_by(guard: &Guard, policy: &Policy, json: bool) -> Result<()> {
    let mut agent = Agent::start(guard, policy)?;
    let shown = show(guard, &mut agent, json);
    let drained = agent.drain(guard);
    shown.and(drained)
}

fn show(guard: &Guard, agent: &mut Agent, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut events = Events::of(guard)?;
    let how = if guard.is_new() { "guards" } else { "goes on to guard" };
    eprintln!("{how} {}", guard.scope().path().display());
    while !IS_OVER.load(Ordering::Relaxed) && guard.scope().is_there() {
        agent.check()?;
        let mut is_read = true;
        for event in events.wait(Duration::from_millis(50))? {
            let written = if json {
                writeln!(out, "{}", serde_json::to_string(&event)?)
            } else {
                writeln!(out, "{event}")
            };
            is_read &= written.is_ok();
        }
        // Whoever stops reading has seen enough.
        if out.flush().is_err() || !is_read {
            break;
        }
    }
    Ok(())
}

fn connect(cgroup: &Path, addresses: &[IpAddr]) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("cannot write {}", procs.display()))?;
    let mut out = io::stdout().lock();
    for address in addresses {
        let any: IpAddr = if address.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        match socket.connect((*address, 9)) {
            Ok(()) => writeln!(out, "{address}: connected")?,
            Err(error) => writeln!(out, "{address}: {}", error.kind())?,
        }
        out.flush()?;
    }
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
