//! What was submitted, and what has become of it, in the maps that outlive a loader; and what of
//! that has to be so.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, anyhow, ensure};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use serde::{Deserialize, Serialize};

use crate::plan::Hash;

/// As many jobs the executor of `torture.bpf.c` has room for.
const CAPACITY: u64 = 64;

/// The maps that a ledger is read from.
pub const MAPS: [&str; 7] =
    ["marks", "totals", "origins", "jobs_gate", "elems_gate", "loose_gate", "recent_gate"];

/// How the work of an object has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was drained, which waited for all that was accepted.
    Drained,
    /// It was cut off: what had not begun is lost.
    CutOff,
}

/// The numbers of `struct bpf_wq_gate`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gate {
    in_flight: u64,
    accepted: u64,
    refused: u64,
    done: u64,
    failed: u64,
    cancelled: u64,
    running: u64,
}

/// `struct told` of `torture.bpf.c`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    accepted: u64,
    refused: u64,
    runs: u64,
    failed: u64,
}

/// `struct totals`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    wrong: i64,
    gone: i64,
    cancelled: u64,
    slept: u64,
    jobs: Told,
    hashes: [Told; 3],
}

/// What happened to one job: how often it was tried, accepted, done and cancelled.
type Mark = [u16; 4];

/// All that is known of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// How many jobs were accepted from whom: a type of program, or user space.
    pub origins: BTreeMap<String, u64>,
    marks: Vec<Mark>,
    totals: Totals,
    jobs: Gate,
    hashes: [Gate; 3],
}

/// What an object has done, for the report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Jobs that the executor accepted.
    pub accepted: u64,
    /// Jobs that it refused.
    pub refused: u64,
    /// Jobs that were done.
    pub done: u64,
    /// Of these, those whose handler returned an error.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that were lost with what was cut off.
    pub lost: u64,
    /// Submissions to elements that were accepted.
    pub starts: u64,
    /// Submissions to elements that were refused.
    pub starts_refused: u64,
    /// Runs of the handlers of elements.
    pub runs: u64,
    /// Submissions to elements that were lost with these.
    pub starts_lost: u64,
    /// Handlers that have slept.
    pub slept: u64,
}

impl Done {
    /// Adds what another object has done.
    pub fn add(&mut self, other: &Done) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.done += other.done;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.lost += other.lost;
        self.starts += other.starts;
        self.starts_refused += other.starts_refused;
        self.runs += other.runs;
        self.starts_lost += other.starts_lost;
        self.slept += other.slept;
    }
}

impl Ledger {
    /// Reads it, from maps in the order of [`MAPS`].
    pub fn read(maps: &[MapHandle]) -> Result<Self> {
        let [marks, totals, origins, jobs, hashes @ ..] = maps else {
            return Err(anyhow!("{} maps are no ledger", maps.len()));
        };
        let gates = hashes.iter().map(|map| Ok(Gate::of(&words(map, 0)?)));
        let gates: Vec<Gate> = gates.collect::<Result<_>>()?;
        let totals = Totals::of(&words(totals, 0)?);
        let marks = (0..marks.max_entries()).map(|number| {
            let word = words(marks, number)?[0];
            Ok([0, 16, 32, 48].map(|shift| (word >> shift) as u16))
        });
        Ok(Ledger {
            origins: read_origins(origins)?,
            marks: marks.take(totals.1).collect::<Result<_>>()?,
            totals: totals.0,
            jobs: Gate::of(&words(jobs, 0)?),
            hashes: gates.try_into().map_err(|_| anyhow!("three hashes have gates"))?,
        })
    }

    /// What was done; or what is not as it has to be. `loses_elements`: elements were taken away.
    pub fn check(&self, how: How, loses_elements: bool) -> Result<Done> {
        let Ledger { totals, jobs, .. } = self;
        ensure!(totals.wrong == 0, "a submission or a cancelling returned {}", totals.wrong);
        // A program that still runs when the loader is gone submits to what went with it: it is told
        // EINVAL or, since 7.0, ENOENT.
        let is_there = totals.gone == 0 || how == How::CutOff;
        ensure!(is_there, "a submission returned {}, and its loader was there", totals.gone);
        let mut sums = [0_u64; 4];
        for (number, mark) in self.marks.iter().enumerate() {
            self.check_mark(*mark, how).with_context(|| format!("job {number} ({mark:?})"))?;
            for (sum, count) in sums.iter_mut().zip(mark) {
                *sum += u64::from(*count);
            }
        }
        let [tried, accepted, done, cancelled] = sums;
        ensure!(tried == accepted + totals.jobs.refused, "{tried} tried: {:?}", totals.jobs);
        let told: u64 = self.origins.values().sum();
        ensure!(told == accepted, "{accepted} accepted, of {told} by {:?}", self.origins);
        let lost = accepted - done - cancelled;
        // A job that was cancelled keeps its place until a worker or its timer comes by, and is
        // counted then: of what was cut off, none does.
        let freed = match how {
            How::Drained => cancelled,
            How::CutOff => jobs.cancelled.min(cancelled),
        };
        let in_flight = lost + cancelled - freed;
        ensure!(in_flight <= CAPACITY, "{in_flight} jobs are lost of an executor of {CAPACITY}");
        let counted = Gate {
            in_flight,
            accepted,
            refused: totals.jobs.refused,
            done,
            failed: totals.jobs.failed,
            cancelled: freed,
            running: 0,
        };
        ensure!(*jobs == counted, "the executor counts {jobs:?}, and its jobs show {counted:?}");
        let mut all = Done {
            accepted,
            refused: totals.jobs.refused,
            done,
            failed: totals.jobs.failed,
            cancelled,
            lost,
            slept: totals.slept,
            ..Done::default()
        };
        for ((hash, gate), told) in Hash::ALL.iter().zip(&self.hashes).zip(&totals.hashes) {
            let may_lose = loses_elements || how == How::CutOff;
            check_hash(gate, told, may_lose).with_context(|| hash.name())?;
            all.starts += told.accepted;
            all.starts_refused += told.refused;
            all.runs += told.runs;
            all.starts_lost += gate.in_flight;
        }
        Ok(all)
    }

    fn check_mark(&self, mark: Mark, how: How) -> Result<()> {
        let [tried, accepted, done, cancelled] = mark;
        ensure!(tried <= 1 && accepted <= tried, "accepted as often as it was not tried");
        ensure!(done + cancelled <= 1, "done or cancelled more than once");
        ensure!(done + cancelled <= accepted, "done or cancelled, and not accepted");
        if how == How::Drained {
            ensure!(
                done + cancelled == accepted,
                "accepted, drained, and neither done nor cancelled"
            );
        }
        Ok(())
    }
}

fn check_hash(gate: &Gate, told: &Told, may_lose: bool) -> Result<()> {
    let both = || format!("the gate counts {gate:?}, and who submits was told {told:?}");
    ensure!(gate.accepted == told.accepted, "accepted: {}", both());
    ensure!(gate.refused == told.refused, "refused: {}", both());
    ensure!(gate.running == 0, "a handler runs: {}", both());
    ensure!(gate.accepted == gate.done.wrapping_add(gate.in_flight), "the sum: {}", both());
    ensure!(gate.done <= gate.accepted, "more was done than accepted: {}", both());
    ensure!(told.runs <= gate.done, "more runs than submissions that are done: {}", both());
    ensure!(may_lose || gate.in_flight == 0, "submissions are lost: {}", both());
    Ok(())
}

impl Gate {
    fn of(words: &[u64]) -> Self {
        Gate {
            in_flight: words[8],
            accepted: words[9],
            refused: words[10],
            done: words[16],
            failed: words[17],
            cancelled: words[19],
            running: words[20],
        }
    }
}

impl Totals {
    /// And how many numbers were given out.
    fn of(words: &[u64]) -> (Self, usize) {
        let told = |at: usize| Told {
            accepted: words[at],
            refused: words[at + 1],
            runs: words[at + 2],
            failed: words[at + 3],
        };
        let totals = Totals {
            wrong: words[1] as i64,
            gone: words[2] as i64,
            cancelled: words[3],
            slept: words[4],
            jobs: told(5),
            hashes: [told(9), told(13), told(17)],
        };
        (totals, words[0] as usize)
    }
}

/// Each is counted in elements of its own, with its name behind the number.
fn read_origins(map: &MapHandle) -> Result<BTreeMap<String, u64>> {
    let mut origins = BTreeMap::new();
    for number in 0..map.max_entries() {
        let value = value(map, number)?;
        let (accepted, name) = value.split_first_chunk().context("a number, and a name")?;
        let accepted = u64::from_ne_bytes(*accepted);
        let name = String::from_utf8_lossy(name);
        if accepted > 0 {
            *origins.entry(name.trim_end_matches('\0').to_owned()).or_default() += accepted;
        }
    }
    Ok(origins)
}

fn value(map: &MapHandle, key: u32) -> Result<Vec<u8>> {
    let value = map.lookup(&key.to_ne_bytes(), MapFlags::ANY).context("reading a map")?;
    value.with_context(|| format!("no element {key} in {:?}", map.as_fd()))
}

fn words(map: &MapHandle, key: u32) -> Result<Vec<u64>> {
    let value = value(map, key)?;
    let words = value.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8")));
    Ok(words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three jobs, done, cancelled and refused; and two submissions to an element.
    fn good() -> Ledger {
        let told = Told { accepted: 2, refused: 1, runs: 1, failed: 0 };
        Ledger {
            origins: BTreeMap::from([("fentry".to_owned(), 1), ("submit_jobs".to_owned(), 1)]),
            marks: vec![[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 0, 0]],
            totals: Totals {
                jobs: told,
                hashes: [told, Told::default(), Told::default()],
                ..Totals::default()
            },
            jobs: Gate { accepted: 2, refused: 1, done: 1, cancelled: 1, ..Gate::default() },
            hashes: [
                Gate { accepted: 2, refused: 1, done: 2, ..Gate::default() },
                Gate::default(),
                Gate::default(),
            ],
        }
    }

    #[track_caller]
    fn fails(how: How, change: impl FnOnce(&mut Ledger), says: &str) {
        let mut ledger = good();
        change(&mut ledger);
        let error = format!("{:#}", ledger.check(how, false).unwrap_err());
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn what_adds_up_is_good() {
        let done = good().check(How::Drained, false).unwrap();
        assert_eq!((done.accepted, done.done, done.cancelled, done.refused), (2, 1, 1, 1));
        assert_eq!((done.starts, done.runs, done.lost, done.starts_lost), (2, 1, 0, 0));
    }

    #[test]
    fn a_cancelled_job_may_keep_its_place_in_what_is_cut_off() {
        let mut ledger = good();
        ledger.jobs = Gate { in_flight: 1, cancelled: 0, ..ledger.jobs };
        let done = ledger.check(How::CutOff, false).unwrap();
        assert_eq!((done.cancelled, done.lost), (1, 0));
        let keeps = |ledger: &mut Ledger| {
            ledger.jobs = Gate { in_flight: 1, cancelled: 0, ..ledger.jobs };
        };
        fails(How::Drained, keeps, "the executor counts");
        fails(How::CutOff, |l| l.jobs.cancelled = 0, "the executor counts");
    }

    #[test]
    fn who_still_submits_to_what_is_cut_off_is_told_so() {
        let mut ledger = good();
        ledger.totals.gone = -22;
        ledger.check(How::CutOff, false).unwrap();
        fails(How::Drained, |l| l.totals.gone = -22, "returned -22");
        fails(How::CutOff, |l| (l.totals.gone, l.totals.wrong) = (-22, -7), "returned -7");
    }

    #[test]
    fn what_does_not_add_up_is_named() {
        use How::Drained;
        fails(Drained, |l| l.marks[0] = [1, 1, 2, 0], "done or cancelled more than once");
        fails(Drained, |l| l.marks[1] = [1, 1, 1, 1], "done or cancelled more than once");
        fails(Drained, |l| l.marks[2] = [1, 0, 1, 0], "and not accepted");
        fails(Drained, |l| l.marks[0] = [1, 1, 0, 0], "neither done nor cancelled");
        fails(Drained, |l| l.totals.wrong = -7, "returned -7");
        fails(Drained, |l| l.totals.jobs.refused = 2, "3 tried");
        fails(Drained, |l| _ = l.origins.remove("fentry"), "2 accepted, of 1 by");
        fails(Drained, |l| l.jobs.accepted = 3, "the executor counts");
        fails(Drained, |l| l.jobs.running = 1, "the executor counts");
        fails(Drained, |l| l.jobs.failed = 1, "the executor counts");
        fails(Drained, |l| l.hashes[0].accepted = 3, "elems: accepted:");
        fails(Drained, |l| l.hashes[0].refused = 0, "refused:");
        fails(Drained, |l| l.hashes[0].running = 1, "a handler runs");
        fails(Drained, |l| l.hashes[0].done = 1, "the sum");
        fails(Drained, |l| l.totals.hashes[0].runs = 3, "more runs");
    }

    #[test]
    fn what_was_cut_off_may_lose_as_many_jobs_as_there_is_room_for() {
        let mut ledger = good();
        ledger.marks.extend([[1, 1, 0, 0]; 64]);
        ledger.origins.insert("uprobe".to_owned(), 64);
        ledger.jobs.accepted += 64;
        ledger.jobs.in_flight = 64;
        assert_eq!(ledger.check(How::CutOff, false).unwrap().lost, 64);
        assert!(ledger.check(How::Drained, false).is_err());
        ledger.marks.push([1, 1, 0, 0]);
        ledger.origins.insert("xdp".to_owned(), 1);
        let error = ledger.check(How::CutOff, false).unwrap_err();
        assert!(error.to_string().contains("65 jobs are lost"), "{error}");
    }

    #[test]
    fn elements_that_were_taken_away_may_lose_submissions() {
        let mut ledger = good();
        ledger.hashes[0].done = 1;
        ledger.hashes[0].in_flight = 1;
        let error = format!("{:#}", ledger.check(How::Drained, false).unwrap_err());
        assert!(error.contains("submissions are lost"), "{error}");
        assert_eq!(ledger.check(How::Drained, true).unwrap().starts_lost, 1);
    }
}
