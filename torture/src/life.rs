//! The process of one loader: it does what its plan says, and tells whoever has started it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use bpf_wq::{Armed, Counters, Drained, Pinned};
use bpf_wq_tests::{loopback, program_types};
use libbpf_rs::{Link, MapCore as _, MapFlags};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::object::{self, OBJECT, OPS, Parts, Settings, TortureSkel};
use crate::plan::{End, Hash, Life, Op};

/// For work that is not lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// For what may be lost with an element: it is never done then.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// How long a pin of another build, or one that is stale, is drained.
pub const TO_CLEAR: Duration = Duration::from_secs(5);

/// The exit code of a loader that something was refused to, and that was short of memory.
pub const SHORT_OF_MEMORY: i32 = 4;

/// A value of the hashes: `struct elem`.
const ELEM: [u8; 40] = [0; 40];

/// What it is given, besides its plan.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The directory of its cgroup.
    pub cgroup: PathBuf,
    /// The directory of its pins.
    pub pins: PathBuf,
    /// What it writes into its object.
    pub settings: Settings,
    /// Whether a start may come at the same time as the delete of its element.
    pub may_race: bool,
}

/// What it tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// Its object is there, and it waits for a line.
    Loaded {
        /// The ids of the ledger's maps.
        ledger: Vec<u32>,
        /// The ids of programs.
        programs: Vec<u32>,
        /// Whether it has loaded them itself.
        is_new: bool,
        /// Whether what it has replaced was drained, but for elements.
        was_drained: bool,
    },
    /// A thread begins an operation of its plan.
    Does(usize, usize),
    /// An operation has failed, in want of memory.
    Refused(String),
    /// It has drained, and unloaded, what it had.
    Drained,
    /// It has dropped what it had, and waits for a line.
    Dropped,
}

/// Lives, to the end of the plan, which may be that of the process.
pub fn live(life: &Life, surroundings: &Surroundings) -> Result<()> {
    enter(surroundings)?;
    if let End::KillEarly(when) = life.end {
        thread::spawn(move || {
            thread::sleep(when);
            die();
        });
    }
    let mut storage = MaybeUninit::uninit();
    let open = object::open(&mut storage, life, surroundings.settings)?;
    if life.is_pinned {
        let object = if life.is_other_build { object::other_build() } else { OBJECT.to_vec() };
        let cgroup = &surroundings.cgroup;
        let taken_over =
            bpf_wq::take_over(&surroundings.pins, TO_CLEAR, open, &object, |loaded| {
                let mut armed = loaded.arm()?;
                for kind in &life.types {
                    let mut none = false;
                    let attached = armed.attach_with(kind, |skel| {
                        let link = object::attach(skel, kind, cgroup).map_err(to_libbpf)?;
                        none = link.is_none();
                        link.ok_or_else(|| libbpf_rs::Error::from_raw_os_error(libc::EOPNOTSUPP))
                    });
                    if !none {
                        attached?;
                    }
                }
                Ok(armed)
            })?;
        let jobs_left = |drained: &Drained| drained.left.iter().any(|(name, _)| name == "jobs");
        let was_drained = !taken_over.cleared.iter().any(|cleared| jobs_left(&cleared.drained));
        pinned(life, surroundings, taken_over.pinned, taken_over.is_new, was_drained)
    } else {
        let armed = bpf_wq::load(open, OBJECT)?.arm()?;
        loaded(life, surroundings, armed)
    }
}

/// The words of an error of ours, as one of libbpf's.
fn to_libbpf(error: anyhow::Error) -> libbpf_rs::Error {
    match error.downcast::<libbpf_rs::Error>() {
        Ok(error) => error,
        Err(error) => io::Error::other(format!("{error:#}")).into(),
    }
}

/// Enters its cgroup, and a network of its own.
fn enter(surroundings: &Surroundings) -> Result<()> {
    let procs = surroundings.cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| procs.display().to_string())?;
    loopback::enter();
    Ok(())
}

fn loaded<'obj>(
    life: &Life,
    surroundings: &Surroundings,
    mut armed: Armed<'obj, TortureSkel<'obj>>,
) -> Result<()> {
    let parts = Parts::of_armed(&armed, life)?;
    tell_and_wait(&parts, true, true)?;
    let mut links: BTreeMap<String, Link> = BTreeMap::new();
    hands(life, surroundings, &parts, |op| {
        match op {
            Op::Attach(kind) if !links.contains_key(kind) => {
                let link = object::attach(armed.skel_mut(), kind, &surroundings.cgroup)?;
                links.extend(link.map(|link| (kind.clone(), link)));
            }
            Op::Detach(kind) => drop(links.remove(kind)),
            Op::Cause(kind, times) => {
                let program = parts.program(&object::program_name(kind))?;
                cause(kind, *times, program, links.get(kind))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    match life.end {
        End::Stop => {
            release(surroundings)?;
            drop(links);
            drop(parts);
            let drained = armed.drain(patience(life));
            ensure!(life.loses_elements() || drained.is_complete(), "{drained}");
            jobs_are_done(|| armed.counters())?;
            drop(armed);
            say(&Said::Drained)
        }
        End::Drop => {
            drop((parts, links, armed));
            say(&Said::Dropped)?;
            wait()
        }
        End::Exit => process::exit(0),
        End::Kill | End::KillEarly(_) => wait_for_death(),
    }
}

fn pinned(
    life: &Life,
    surroundings: &Surroundings,
    pinned: Pinned,
    is_new: bool,
    was_drained: bool,
) -> Result<()> {
    let parts = Parts::of_pinned(&pinned)?;
    tell_and_wait(&parts, is_new, was_drained)?;
    let links = pinned.path().join("links");
    hands(life, surroundings, &parts, |op| {
        let Op::Cause(kind, times) = op else { return Ok(()) };
        // What is pinned may have programs of other types.
        let Ok(program) = pinned.program(&object::program_name(kind)) else { return Ok(()) };
        // It has the name that another process has given it.
        if kind == OPS && !is_new {
            return Ok(());
        }
        let link = links.join(kind);
        let link = link.exists().then(|| Link::open(&link)).transpose()?;
        cause(kind, *times, std::os::fd::AsFd::as_fd(&program), link.as_ref())
    })?;
    match life.end {
        End::Stop => {
            release(surroundings)?;
            drop(parts);
            // Another loader may have deleted elements.
            let _lost = pinned.drain(IMPATIENCE)?;
            jobs_are_done(|| pinned.counters())?;
            let _lost = pinned.stop(Duration::ZERO)?;
            say(&Said::Drained)
        }
        End::Exit | End::Drop => process::exit(0),
        End::Kill | End::KillEarly(_) => wait_for_death(),
    }
}

/// Waits until nothing of the executor is in flight, after a drain that may have waited in vain for
/// elements.
fn jobs_are_done(counters: impl Fn() -> Vec<(String, Counters)>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let all = counters();
        let jobs = all.iter().find(|(name, _)| name == "jobs").context("it has an executor")?.1;
        if jobs.in_flight == 0 {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "not drained within {PATIENCE:?}: {jobs}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn patience(life: &Life) -> Duration {
    if life.loses_elements() { IMPATIENCE } else { PATIENCE }
}

/// Does what each thread of the plan has to do, all at once. `of_programs` does it for the first.
fn hands(
    life: &Life,
    surroundings: &Surroundings,
    parts: &Parts,
    mut of_programs: impl FnMut(&Op) -> Result<()>,
) -> Result<()> {
    let [programs, elements, starts] = &life.hands;
    let is_short = life.limit.is_some();
    let of_elements = |op: &Op| element(op, surroundings, parts);
    let may_race = surroundings.may_race;
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            each(1, elements, is_short, of_elements)?;
            if may_race { Ok(()) } else { each(2, starts, is_short, of_elements) }
        });
        let start = move || each(2, starts, is_short, of_elements);
        let third = may_race.then(|| scope.spawn(start));
        let own = each(0, programs, is_short, &mut of_programs);
        let panicked = |_| anyhow!("a thread has panicked");
        other.join().map_err(panicked)??;
        third.map_or(Ok(Ok(())), thread::ScopedJoinHandle::join).map_err(panicked)??;
        own
    })
}

fn each(
    hand: usize,
    ops: &[Op],
    is_short: bool,
    mut act: impl FnMut(&Op) -> Result<()>,
) -> Result<()> {
    for (number, op) in ops.iter().enumerate() {
        say(&Said::Does(hand, number))?;
        match act(op).with_context(|| format!("{op:?}")) {
            Err(error) if is_short => say(&Said::Refused(format!("{error:#}")))?,
            other => other?,
        }
    }
    Ok(())
}

fn cause(
    kind: &str,
    times: u32,
    program: std::os::fd::BorrowedFd<'_>,
    link: Option<&Link>,
) -> Result<()> {
    if !program_types::needs_no_link(kind) && link.is_none() {
        return Ok(());
    }
    for _ in 0..times {
        match kind {
            OPS => connect()?,
            _ => program_types::cause(kind, program, link)?,
        }
        if kind == "xdp" {
            send_a_frame()?;
        }
    }
    Ok(())
}

/// Has a connection, which calls the struct_ops of this process.
fn connect() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    setsockopt(&socket, TcpCongestion, &object::congestion_name().into())?;
    socket.write_all(b"torture")?;
    Ok(())
}

fn send_a_frame() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(b"torture", socket.local_addr()?)?;
    Ok(())
}

/// What the two threads do that have no programs.
fn element(op: &Op, surroundings: &Surroundings, parts: &Parts) -> Result<()> {
    // What is pinned may lack a hash.
    if op.hash().is_some_and(|hash| !parts.has(hash)) {
        return Ok(());
    }
    match *op {
        Op::Submit(times) => parts.call("submit_jobs", 0, times),
        Op::Cancel(times) => parts.call("cancel_jobs", 0, times),
        Op::Start(hash, key, times) => parts.call(&format!("submit_{}", hash.name()), key, times),
        Op::Add(hash, key, count) => {
            for key in keys(key, count) {
                full_is_no_error(put(parts, hash, key, MapFlags::ANY))?;
            }
            parts.call(&format!("bpf_wq_arm_{}", hash.name()), 0, 0)
        }
        Op::Update(hash, key, count) => {
            for key in keys(key, count) {
                gone_is_no_error(put(parts, hash, key, MapFlags::EXIST))?;
            }
            Ok(())
        }
        Op::Delete(hash, key, count) => {
            let map = parts.map(hash.name())?;
            for key in keys(key, count) {
                gone_is_no_error(map.delete(&key))?;
            }
            Ok(())
        }
        Op::Squeeze => {
            let file = surroundings.cgroup.join("memory.current");
            let current = fs::read_to_string(&file).context("memory.current")?;
            limit(&surroundings.cgroup, current.trim())
        }
        Op::Release => release(surroundings),
        Op::Die => {
            die();
            Ok(())
        }
        Op::Attach(_) | Op::Detach(_) | Op::Cause(..) => Err(anyhow!("of the first thread")),
    }
}

fn keys(first: u32, count: u32) -> impl Iterator<Item = [u8; 4]> {
    (first..first + count).map(u32::to_ne_bytes)
}

fn put(parts: &Parts, hash: Hash, key: [u8; 4], flags: MapFlags) -> libbpf_rs::Result<()> {
    parts.map(hash.name()).expect("each has its map").update(&key, &ELEM, flags)
}

fn full_is_no_error(result: libbpf_rs::Result<()>) -> Result<()> {
    ignoring(libc::E2BIG, result)
}

fn gone_is_no_error(result: libbpf_rs::Result<()>) -> Result<()> {
    ignoring(libc::ENOENT, result)
}

fn ignoring(errno: i32, result: libbpf_rs::Result<()>) -> Result<()> {
    match result {
        Err(error) if format!("{error:#}").contains(&format!("(os error {errno})")) => Ok(()),
        other => Ok(other?),
    }
}

fn release(surroundings: &Surroundings) -> Result<()> {
    limit(&surroundings.cgroup, "max")
}

/// Forbids a cgroup more memory than this.
pub fn limit(cgroup: &Path, bytes: &str) -> Result<()> {
    let file = cgroup.join("memory.max");
    fs::write(&file, bytes).with_context(|| file.display().to_string())
}

fn tell_and_wait(parts: &Parts, is_new: bool, was_drained: bool) -> Result<()> {
    let (ledger, programs) = (parts.ledger_ids()?, parts.program_ids()?);
    say(&Said::Loaded { ledger, programs, is_new, was_drained })?;
    wait()
}

fn say(said: &Said) -> Result<()> {
    let line = serde_json::to_string(said)? + "\n";
    io::stdout().lock().write_all(line.as_bytes()).context("nobody listens")
}

/// Until whoever has started this says so, or is gone.
fn wait() -> Result<()> {
    io::stdin().read_line(&mut String::new()).context("nobody speaks").map(drop)
}

fn die() {
    // To a process of our own id nothing is refused.
    let _ = kill(Pid::this(), Signal::SIGKILL);
}

fn wait_for_death() -> ! {
    loop {
        thread::park();
    }
}
