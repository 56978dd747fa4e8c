//! One of those who torture: loader after loader, each in a process of its own, and after each of
//! them the accounts of what it left.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bpf_wq::{Build, PinState};
use bpf_wq_tests::cgroup::Cgroup;
use libbpf_rs::{MapCore as _, MapHandle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::ledger::{Done, How, Ledger};
use crate::leftover::{PATIENCE, wait_until_programs_are_gone};
use crate::life::{SHORT_OF_MEMORY, Said, TO_CLEAR, limit};
use crate::object::{OBJECT, other_build};
use crate::plan::{End, Life, Op};

/// What all actors share.
pub struct Common {
    /// What all follows from.
    pub seed: u64,
    /// The types of programs that this kernel runs.
    pub types: Vec<String>,
    /// The process that has the page that handlers wait for, and where it has that.
    pub page: (i32, u64),
    /// Where each actor has a directory of pins.
    pub bpffs: PathBuf,
    /// When no more lives begin.
    pub until: Instant,
    /// Somebody has failed.
    pub is_over: AtomicBool,
    /// The processes that live, and since when.
    pub living: Mutex<BTreeMap<u32, Instant>>,
    /// What was done until now.
    pub counts: Mutex<Counts>,
}

/// What was done, by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Processes that have loaded, or tried to.
    pub lives: u64,
    /// How they ended.
    pub ends: BTreeMap<String, u64>,
    /// The types of their programs.
    pub types: BTreeMap<String, u64>,
    /// Operations that let the programs of a type run, of loaders that had all that these need.
    pub let_run: BTreeMap<String, u64>,
    /// Jobs that were accepted from the programs of a type.
    pub submitted: BTreeMap<String, u64>,
    /// Their operations.
    pub operations: BTreeMap<String, u64>,
    /// What became of the work.
    pub work: Done,
}

impl Counts {
    fn count(of: &mut BTreeMap<String, u64>, name: &str) {
        *of.entry(name.to_owned()).or_default() += 1;
    }

    fn end(&mut self, name: &str) {
        Self::count(&mut self.ends, name);
    }
}

/// An object whose accounts are not closed.
struct Held {
    maps: Vec<MapHandle>,
    /// The id of the first one.
    id: u32,
    programs: Vec<u32>,
    loses_elements: bool,
}

/// What was heard of a life.
#[derive(Default)]
struct Heard {
    /// The object that it has loaded or taken over.
    object: Option<u32>,
    /// Whether what it replaced was drained.
    was_drained: bool,
    /// Whether it has drained its own.
    has_drained: bool,
    /// The last operation of each thread.
    does: [Option<usize>; 3],
    refused: Option<String>,
}

/// One actor.
pub struct Actor<'a> {
    common: &'a Common,
    number: u32,
    cgroup: Cgroup,
    pins: PathBuf,
    held: Vec<Held>,
}

impl<'a> Actor<'a> {
    /// Makes it, with a cgroup and a directory of pins of its own.
    pub fn new(common: &'a Common, number: u32) -> Result<Self> {
        let name = format!("torture-{number}");
        let pins = common.bpffs.join(&name);
        fs::create_dir(&pins).with_context(|| pins.display().to_string())?;
        Ok(Self { common, number, cgroup: Cgroup::named(&name), pins, held: Vec::new() })
    }

    /// Lives until the time is over, or somebody has failed; then removes what is pinned.
    pub fn run(mut self) -> Result<()> {
        let lived = self.lives();
        // Also what a life has left that failed: else it would be found once more.
        let ended = self.end();
        lived.and(ended)
    }

    fn lives(&mut self) -> Result<()> {
        for number in 0.. {
            let is_over = self.common.is_over.load(Ordering::SeqCst);
            // One lives in any case: it may be late before it begins.
            if is_over || (number > 0 && Instant::now() >= self.common.until) {
                break;
            }
            let life = Life::plan(self.common.seed, self.number, number, &self.common.types);
            let mut heard = Heard::default();
            let lived = self.live(number, &life, &mut heard);
            lived.with_context(|| self.describe(number, &life, &heard))?;
        }
        Ok(())
    }

    /// Where something was not as it has to be.
    fn describe(&self, number: u32, life: &Life, heard: &Heard) -> String {
        let hands = life.hands.iter().zip(heard.does).map(|(ops, at)| match at {
            Some(at) => format!("{at}: {:?}", ops[at]),
            None => "nothing".to_owned(),
        });
        let hands = hands.collect::<Vec<_>>().join("; ");
        let Life { types, is_pinned, is_other_build, limit, end, .. } = life;
        format!(
            "actor {}, life {number} (types {}, pinned {is_pinned}, other build {is_other_build}, \
             limit {limit:?}, end {end:?}; last operations {hands})",
            self.number,
            types.join(" ")
        )
    }

    fn live(&mut self, number: u32, life: &Life, heard: &mut Heard) -> Result<()> {
        let bytes = life.limit.map_or("max".to_owned(), |bytes| bytes.to_string());
        limit(&self.cgroup.path(), &bytes)?;
        let mut child = self.start(number)?;
        let id = child.id();
        self.living().insert(id, Instant::now());
        let listened = self.listen(&mut child, life, heard);
        if listened.is_err() {
            let _ = child.kill();
        }
        // Whoever waits for a line gets none more.
        drop(child.stdin.take());
        let status = child.wait().context("waiting for a life")?;
        self.living().remove(&id);
        listened?;
        limit(&self.cgroup.path(), "max")?;
        let end = check_end(life, status, heard)?;
        self.count(life, end, heard);
        self.close(heard)
    }

    fn living(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Instant>> {
        self.common.living.lock().expect("nobody panics with it")
    }

    fn start(&self, number: u32) -> Result<Child> {
        let (holder, address) = self.common.page;
        Command::new(env::current_exe().context("this program")?)
            .arg("live")
            .args(["--seed", &self.common.seed.to_string()])
            .args(["--actor", &self.number.to_string(), "--life", &number.to_string()])
            .args(["--types", &self.common.types.join(",")])
            .arg("--cgroup")
            .arg(self.cgroup.path())
            .arg("--pins")
            .arg(&self.pins)
            .args(["--page", &format!("{holder}:{address}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a life")
    }

    /// Hears what a life says, to its last word.
    fn listen(&mut self, child: &mut Child, life: &Life, heard: &mut Heard) -> Result<()> {
        let mut speaks = child.stdin.take().context("piped")?;
        let mut go = || {
            // It may be dead.
            let _ = speaks.write_all(b"\n");
        };
        let said = BufReader::new(child.stdout.take().context("piped")?);
        for line in said.lines() {
            let line = line.context("hearing a life")?;
            let said = serde_json::from_str(&line).with_context(|| format!("it said {line}"))?;
            match said {
                Said::Loaded { ledger, programs, is_new: _, was_drained } => {
                    heard.was_drained = was_drained;
                    heard.object = self.hold(&ledger, programs, life)?;
                    go();
                }
                Said::Does(hand, at) => {
                    heard.does[hand] = Some(at);
                    let op = &life.hands[hand][at];
                    let mut counts = self.counts();
                    Counts::count(&mut counts.operations, op.name());
                    // What is pinned may have programs of other types.
                    if let (Op::Cause(kind, _), false, None) = (op, life.is_pinned, life.limit) {
                        Counts::count(&mut counts.let_run, kind);
                    }
                }
                Said::Refused(what) => heard.refused = Some(what),
                Said::Drained => heard.has_drained = true,
                Said::Dropped => {
                    // While it lives: nothing but its own descriptors would keep them.
                    let held = self.held.iter().find(|held| Some(held.id) == heard.object);
                    held.map_or(Ok(()), |held| wait_until_programs_are_gone(&held.programs))?;
                    go();
                }
            }
        }
        Ok(())
    }

    /// Keeps the maps that tell what becomes of an object. Its id; none if it is gone already.
    fn hold(&mut self, ledger: &[u32], programs: Vec<u32>, life: &Life) -> Result<Option<u32>> {
        let id = *ledger.first().context("a ledger has maps")?;
        if let Some(held) = self.held.iter_mut().find(|held| held.id == id) {
            held.loses_elements |= life.loses_elements();
            return Ok(Some(id));
        }
        let maps: Result<Vec<_>, _> = ledger.iter().map(|id| MapHandle::from_map_id(*id)).collect();
        match maps {
            Ok(maps) => {
                let loses_elements = life.loses_elements();
                self.held.push(Held { maps, id, programs, loses_elements });
                Ok(Some(id))
            }
            // It was killed when it had said so.
            Err(_) if matches!(life.end, End::KillEarly(_)) || life.limit.is_some() => Ok(None),
            Err(error) => Err(error).context("the maps of a life"),
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.common.counts.lock().expect("nobody panics with it")
    }

    fn count(&self, life: &Life, end: &str, heard: &Heard) {
        let mut counts = self.counts();
        counts.lives += 1;
        counts.end(end);
        for name in &life.types {
            Counts::count(&mut counts.types, name);
        }
        if life.is_pinned {
            counts.end("of these, pinned");
        }
        if heard.refused.is_some() {
            counts.end("of these, refused something for want of memory");
        }
    }

    /// Closes the accounts of what is not pinned: it has to go away, and to add up.
    fn close(&mut self, heard: &Heard) -> Result<()> {
        let pinned = self.pinned()?;
        let (stay, gone) = self.held.drain(..).partition(|held| pinned.contains(&held.id));
        self.held = stay;
        let gone: Vec<Held> = gone;
        for held in gone {
            let is_drained =
                if heard.object == Some(held.id) { heard.has_drained } else { heard.was_drained };
            let how = if is_drained { How::Drained } else { How::CutOff };
            self.settle(&held, how)?;
        }
        Ok(())
    }

    fn settle(&self, held: &Held, how: How) -> Result<()> {
        wait_until_programs_are_gone(&held.programs)?;
        // A program without an id may still run, and a handler sleep: they write until they end.
        let begun = Instant::now();
        let (ledger, done) = loop {
            let ledger = Ledger::read(&held.maps)?;
            match ledger.check(how, held.loses_elements) {
                Ok(done) => break (ledger, done),
                Err(wrong) if begun.elapsed() > PATIENCE => return Err(wrong),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut counts = self.counts();
        counts.work.add(&done);
        for (name, accepted) in &ledger.origins {
            *counts.submitted.entry(name.clone()).or_default() += accepted;
        }
        Ok(())
    }

    /// The ids of the objects that are pinned, after what is not whole was removed.
    fn pinned(&self) -> Result<Vec<u32>> {
        let whole = |pin: &bpf_wq::Pin| pin.state == PinState::Whole;
        let pins = bpf_wq::pins(&self.pins)?;
        if !pins.iter().all(whole) {
            let build = pins.iter().find(|pin| whole(pin)).and_then(|pin| pin.build);
            bpf_wq::clear_pins(&self.pins, build, TO_CLEAR)?;
        }
        let pins = bpf_wq::pins(&self.pins)?;
        ensure!(pins.len() <= 1 && pins.iter().all(whole), "{pins:?}");
        let known = [Build::of(OBJECT), Build::of(&other_build())];
        ensure!(pins.iter().all(|pin| pin.build.is_some_and(|b| known.contains(&b))), "{pins:?}");
        pins.iter().map(|pin| id_of_map(&pin.path.join("maps/marks"))).collect()
    }

    fn end(&mut self) -> Result<()> {
        let cleared = bpf_wq::clear_pins(&self.pins, None, TO_CLEAR)?;
        let is_lost = cleared.iter().flat_map(|cleared| &cleared.drained.left);
        let was_drained = !is_lost.into_iter().any(|(name, _)| name == "jobs");
        self.close(&Heard { was_drained, ..Heard::default() })
            .with_context(|| format!("actor {}, at its end", self.number))?;
        fs::remove_dir(&self.pins).with_context(|| self.pins.display().to_string())
    }
}

fn id_of_map(path: &Path) -> Result<u32> {
    let map = MapHandle::from_pinned_path(path).with_context(|| path.display().to_string())?;
    Ok(map.info().context("a map's id")?.info.id)
}

/// How a process has ended, if it has as it was to.
fn check_end(life: &Life, status: ExitStatus, heard: &Heard) -> Result<&'static str> {
    let is_short = life.limit.is_some();
    match (status.code(), status.signal()) {
        (Some(0), None) if !life.end.is_kill() => {
            let is_stop = life.end == End::Stop;
            ensure!(heard.has_drained == is_stop, "it drained: {}", heard.has_drained);
            Ok(life.end.name())
        }
        (None, Some(libc::SIGKILL)) if life.end.is_kill() => Ok(life.end.name()),
        (None, Some(libc::SIGKILL)) if is_short => Ok("killed for want of memory"),
        (Some(SHORT_OF_MEMORY), None) if is_short => Ok("refused for want of memory"),
        _ => bail!("it ended with {status}"),
    }
}

/// Kills the lives that take longer than this, which fail then; says so of the first.
pub fn end_the_endless(common: &Common, longest: Duration) -> Option<String> {
    let living = common.living.lock().expect("nobody panics with it");
    let (id, since) = living.iter().find(|(_, since)| since.elapsed() > longest)?;
    let stacks = stacks(*id);
    let pid = i32::try_from(*id).expect("a process's number");
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    Some(format!("process {id} has lived for {:?}:\n{stacks}", since.elapsed()))
}

/// Where the threads of a process wait in the kernel.
fn stacks(process: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let stack = |task: fs::DirEntry| {
        let of = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        format!("{}{}", of("comm"), of("stack"))
    };
    tasks.map(stack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(end: End, limit: Option<u64>) -> Life {
        let hands = [vec![], vec![], vec![Op::Release]];
        let hashes = vec![];
        Life { types: vec![], hashes, is_pinned: false, is_other_build: false, limit, hands, end }
    }

    #[test]
    fn a_life_has_to_end_as_planned() {
        let end = |end, limit, status, has_drained| {
            let heard = Heard { has_drained, ..Heard::default() };
            check_end(&life(end, limit), ExitStatus::from_raw(status), &heard).ok()
        };
        let (killed, refused, failed) = (9, SHORT_OF_MEMORY << 8, 1 << 8);
        assert_eq!(end(End::Stop, None, 0, true), Some("stopped"));
        assert_eq!(end(End::Stop, None, 0, false), None);
        assert_eq!(end(End::Exit, None, 0, true), None);
        assert_eq!(end(End::Kill, None, killed, false), Some("killed"));
        assert_eq!(end(End::Kill, None, 0, false), None);
        assert_eq!(end(End::Stop, None, killed, false), None);
        assert_eq!(end(End::Stop, Some(1), killed, false), Some("killed for want of memory"));
        assert_eq!(end(End::Exit, Some(1), refused, false), Some("refused for want of memory"));
        assert_eq!(end(End::Exit, None, refused, false), None);
        assert_eq!(end(End::Exit, Some(1), failed, false), None);
    }
}
