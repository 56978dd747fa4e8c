//! `rate-limit`: the limiter as a command.

use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use libbpf_rs::MapHandle;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rate_limit::comparison::{Cleaning, Machine, cost, course, report};
use rate_limit::flood::Flood;
use rate_limit::limiter::{self, Limiter, Limits};
use rate_limit::maps::Numbers;
use rate_limit::network::{LIMITED, Network};
use rate_limit::sweeper;

/// Limits the packets of each source address that come in by a network interface.
///
/// Needs Linux 6.10 and root. Exits with 0 after Ctrl-C, 1 if it cannot go on, 2 for wrong use.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Limit an interface, and show every second what comes; Ctrl-C ends both.
    ///
    /// A limiter whose process was killed stays at work. Run it again to go on with it.
    Run {
        /// The network interface, as `ip link` calls it.
        interface: String,
        #[command(flatten)]
        limits: Limits,
        /// Where it is pinned: a directory of a bpffs.
        #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
        pins: PathBuf,
        /// Print JSON, a line a second.
        #[arg(long)]
        json: bool,
    },
    /// Show the limiter under a flood of spoofed sources, in a network of its own.
    Demo,
    /// Compare the limiter with others that are cleaned up by a timer an entry, by user space, or
    /// by nobody: what a packet costs, and what is kept in a flood, in a network of its own.
    ///
    /// Prints tables; writes plots (SVG) and rate-limit.json into the current directory, or the one
    /// that XTASK_RESULTS names.
    Figures {
        /// Only one of both.
        #[arg(value_enum)]
        only: Option<Figure>,
    },
    /// Remove buckets that are full from user space, until Ctrl-C, for what `figures` compares.
    #[command(hide = true)]
    Sweep {
        /// The id of a map that nobody else cleans up.
        map: u32,
        /// How often.
        #[arg(long, value_name = "MS")]
        sweep_ms: NonZeroU32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// What a packet costs.
    Cost,
    /// Entries and memory in a flood, and after it.
    Flood,
}

static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = end_by_signal().and_then(|()| match arguments.command {
        Command::Run { interface, limits, pins, json } => run(&interface, &limits, &pins, json),
        Command::Demo => demo(),
        Command::Figures { only } => compare(only),
        Command::Sweep { map, sweep_ms } => sweep(map, sweep_ms),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rate-limit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn end_by_signal() -> Result<()> {
    ctrlc::set_handler(|| IS_OVER.store(true, Ordering::Relaxed)).context("cannot handle Ctrl-C")
}

fn run(interface: &str, limits: &Limits, pins: &Path, json: bool) -> Result<()> {
    let _claim = limiter::claim(interface)?;
    let limiter = Limiter::start(interface, limits, pins)?;
    let how = if limiter.is_new() { "limits" } else { "goes on to limit" };
    eprintln!("{how} {interface} to {} packets a second of a source", limits.rate);
    let shown = show(&limiter, json);
    let is_attached = limiter.is_attached();
    let last_sweep = limiter.stop();
    shown?;
    let last_sweep = last_sweep?;
    if !is_attached? {
        bail!("{interface} is gone, or another program has taken its place");
    }
    eprintln!("{interface} is not limited any more; {last_sweep}");
    Ok(())
}

/// Until the interface is gone, or somebody wants it to end.
fn show(limiter: &Limiter, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut before = limiter.numbers()?;
    let mut due = Instant::now();
    while !IS_OVER.load(Ordering::Relaxed) && limiter.is_attached()? {
        due += Duration::from_secs(1);
        while Instant::now() < due && !IS_OVER.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50).min(due - Instant::now().min(due)));
        }
        let now = limiter.numbers()?;
        let written = if json {
            writeln!(out, "{}", serde_json::to_string(&now)?)
        } else {
            writeln!(out, "{}", line(&before, &now))
        };
        // Whoever stops reading has seen enough.
        if written.and_then(|()| out.flush()).is_err() {
            break;
        }
        before = now;
    }
    Ok(())
}

fn line(before: &Numbers, now: &Numbers) -> String {
    format!(
        "passed {:>7}/s  dropped {:>7}/s  sources {:>6}  {:>5} kB  forgotten {:>8}",
        now.passed - before.passed,
        now.dropped - before.dropped,
        now.sources(),
        now.bytes / 1000,
        now.removed,
    )
}

fn demo() -> Result<()> {
    let limits = Limits { sources: 128.try_into()?, ..Limits::DEFAULT };
    let network = Network::join()?;
    let limiter = Limiter::start(LIMITED, &limits, Path::new("/sys/fs/bpf"))?;
    println!(
        "A veth with a limiter: {} packets a second of a source, {} sources, buckets that are full \
         are forgotten every {} ms.\nAt the other end, packets of sources that are spoofed, a new \
         one each, and of one that sends half of what it may.\n",
        limits.rate, limits.sources, limits.sweep_ms
    );
    let shown = show_flood(&network, &limits, &limiter);
    let last_sweep = limiter.stop();
    shown?;
    println!("{}", last_sweep?);
    Ok(())
}

fn show_flood(network: &Network, limits: &Limits, limiter: &Limiter) -> Result<()> {
    const SECONDS: u32 = 5;
    let mut flood = Flood::new(network, Duration::from_secs(2) / limits.rate.get())?;
    let mut before = limiter.numbers()?;
    let began = Instant::now();
    for second in 1..=SECONDS {
        while began.elapsed() < Duration::from_secs(1) * second && !IS_OVER.load(Ordering::Relaxed)
        {
            flood.go_on()?;
        }
        let now = limiter.numbers()?;
        println!("{}", line(&before, &now));
        before = now;
    }
    let silent = Instant::now();
    while limiter.numbers()?.sources() > 0 && silent.elapsed() < Duration::from_secs(10) {
        thread::yield_now();
    }
    let numbers = limiter.numbers()?;
    println!(
        "\n{} sources were spoofed; {} of the {} packets of the known one came through.\nNo packet \
         comes any more: {} sources are left, {} bytes.",
        flood.spoofed,
        flood.known.received,
        flood.known.sent,
        numbers.sources(),
        numbers.bytes
    );
    Ok(())
}

fn compare(only: Option<Figure>) -> Result<()> {
    let machine = Machine::this()?;
    let is_wanted = |figure| only.is_none_or(|only| only == figure);
    println!("Linux {}, {}\n", machine.kernel, machine.processor);
    let mut costs = Vec::new();
    if is_wanted(Figure::Cost) {
        costs = cost::measure()?;
        println!(
            "What a packet costs in XDP: as a multiple of what it costs where nobody cleans up, \
             and in ns.\n\n{}",
            report::costs(&costs)?
        );
    }
    let mut courses = Vec::new();
    if is_wanted(Figure::Flood) {
        let network = Network::join()?;
        let killed = [Cleaning::Workqueue, Cleaning::UserSpace].map(|cleaning| (cleaning, true));
        for (cleaning, is_killed) in
            Cleaning::ALL.map(|cleaning| (cleaning, false)).into_iter().chain(killed)
        {
            if IS_OVER.load(Ordering::Relaxed) {
                bail!("interrupted: nothing was written");
            }
            courses.push(course::measure(&network, cleaning, is_killed)?);
        }
        println!(
            "A flood of {:?}, of {} spoofed sources a second; {} places, and {} packets a second \
             of each source: what was kept, and what others lost.\n\n{}",
            course::FLOOD,
            course::SPOOFED,
            course::SOURCES,
            course::RATE,
            report::courses(&courses)?
        );
    }
    report::write(&figures::results(), &machine, &costs, &courses)
}

fn sweep(map: u32, sweep_ms: NonZeroU32) -> Result<()> {
    let buckets = MapHandle::from_map_id(map).with_context(|| format!("there is no map {map}"))?;
    // It goes on for nobody when who has started it is killed.
    prctl::set_pdeathsig(Signal::SIGINT)?;
    eprintln!("removes buckets every {sweep_ms} ms");
    while !IS_OVER.load(Ordering::Relaxed) {
        sweeper::sweep(&buckets)?;
        thread::sleep(Duration::from_millis(sweep_ms.get().into()));
    }
    Ok(())
}
