//! A whole run: what there was before, all actors at once, and what is left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bpf_wq_tests::fuse::Page;
use bpf_wq_tests::program_types::{CAUSED, is_tracing, options_of};
use bpf_wq_tests::{is_set, of_running_kernel, version};

use crate::actor::{Actor, Common, Counts, end_the_endless};
use crate::disturb::{cpu_that_can_go, hotplug, turn_the_page};
use crate::leftover::{
    self, Objects, kernel_memory, lockdep_watches, no_leaks, no_pins, no_processes, wait_for_memory,
};
use crate::object::OPS;
use crate::report::{Memory, Report};

/// Where everybody's pins are.
const BPFFS: &str = "/sys/fs/bpf";

/// How often it says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// A life that takes longer does not end at all. On a kernel with KASAN and the like, emulated, one
/// that waits for others may well load for minutes.
const LONGEST_LIFE: Duration = Duration::from_secs(1200);

/// So many operations that let programs of a type run have some of them submit: no two lives have as
/// many, and in a single one all may be refused. Programs are attached two thirds of the time, and each
/// operation lets them run several times.
const ENOUGH: u64 = 400;

/// The number of the actor that lives before anything is measured.
const FIRST: u32 = 1000;

/// The types of programs that submit: those that the tests know, and one that is no program alone.
pub const TYPES: [&str; CAUSED.len() + 1] = {
    let mut types = [OPS; CAUSED.len() + 1];
    let mut at = 0;
    while at < CAUSED.len() {
        types[at] = CAUSED[at];
        at += 1;
    }
    types
};

/// Set by Ctrl-C.
pub static IS_OVER: AtomicBool = AtomicBool::new(false);

/// The types that this kernel runs, and why it does not run the others.
pub fn types() -> (Vec<String>, BTreeMap<String, String>) {
    let config = of_running_kernel();
    let mut types = Vec::new();
    let mut left_out = BTreeMap::new();
    for name in TYPES {
        let lacks = |option: &&str| config.as_ref().is_some_and(|config| !is_set(config, option));
        let why = match options_of(name).find(lacks) {
            _ if is_tracing(name) && version() < (7, 0) => "since Linux 7.0".to_owned(),
            Some(option) => format!("without {option}"),
            None => {
                types.push(name.to_owned());
                continue;
            }
        };
        left_out.insert(name.to_owned(), why);
    }
    (types, left_out)
}

/// Runs so many actors for so long. The report says what has failed, if anything has.
pub fn run(seed: u64, time: Duration, actors: u32) -> Result<Report> {
    let (types, left_out) = types();
    let page = Page::new(b"torture");
    let common = |until| Common {
        seed,
        types: types.clone(),
        page: (page.pid(), page.address()),
        bpffs: PathBuf::from(BPFFS),
        until,
        is_over: AtomicBool::new(false),
        living: Mutex::default(),
        counts: Mutex::default(),
    };
    no_pins(BPFFS.as_ref()).context("before it begins")?;
    let cpu = cpu_that_can_go();
    let mut report = Report::new(seed, actors, left_out)?;

    let objects = Objects::now()?;
    // What the first object of all needs stays: it is no part of what is measured.
    let first = common(Instant::now() + Duration::from_secs(1));
    let mut failures = torture(&first, FIRST..FIRST + 1, &page, None).failures;
    leftover::forget_leaks()?;
    let before = kernel_memory()?;

    let begun = Instant::now();
    let common = common(begun + time);
    if failures.is_empty() {
        let tortured = torture(&common, 0..actors, &page, cpu);
        failures.extend(tortured.failures);
        report.hotplugs = tortured.hotplugs;
        report.pages = tortured.pages;
    }
    report.seconds = begun.elapsed().as_secs();
    report.counts = common.counts.into_inner().map_err(|_| anyhow!("somebody has panicked"))?;
    drop(page);
    let mut note = |what: Result<()>| failures.extend(what.err().map(|error| format!("{error:#}")));
    note(objects.wait_until_gone());
    note(no_pins(BPFFS.as_ref()));
    note(no_processes());
    let bound = leftover::bound()?;
    note(wait_for_memory(before, bound));
    report.memory = Memory { before, after: kernel_memory()?, bound };
    note(no_leaks().map(|looked| report.kmemleak = looked));
    note(lockdep_watches().map(|watched| report.lockdep = watched));
    failures.extend(silent(&types, &report.counts));
    report.failures = failures;
    Ok(report)
}

/// What says of types that they ran often enough, and have submitted nothing.
fn silent(types: &[String], counts: &Counts) -> Option<String> {
    let of = |counts: &BTreeMap<String, u64>, name: &String| counts.get(name).copied().unwrap_or(0);
    let is_silent =
        |name: &&String| of(&counts.let_run, name) >= ENOUGH && of(&counts.submitted, name) == 0;
    let silent: Vec<&str> = types.iter().filter(is_silent).map(String::as_str).collect();
    let names = silent.join(", ");
    (!silent.is_empty()).then(|| {
        format!("let run {ENOUGH} times or oftener, and none has submitted a job: {names}")
    })
}

struct Tortured {
    failures: Vec<String>,
    hotplugs: u64,
    pages: u64,
}

/// Runs these actors, with all that goes on beside them, until their time is over.
fn torture(
    common: &Common,
    actors: std::ops::Range<u32>,
    page: &Page,
    cpu: Option<u32>,
) -> Tortured {
    let disturb = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let fail = |what: String| {
        println!("FAILED: {what}");
        common.is_over.store(true, Ordering::SeqCst);
        failures.lock().expect("nobody panics with it").push(what);
    };
    let (hotplugs, pages) = thread::scope(|scope| {
        let beside = |run: &dyn Fn(&AtomicBool) -> Result<u64>| {
            run(&disturb).unwrap_or_else(|error| {
                fail(format!("{error:#}"));
                0
            })
        };
        let pages =
            scope.spawn(move || beside(&|is_over| turn_the_page(page, common.seed, is_over)));
        let hotplugs = scope.spawn(move || {
            cpu.map_or(0, |cpu| beside(&|is_over| hotplug(cpu, common.seed ^ 1, is_over)))
        });
        let running: Vec<_> = actors
            .map(|number| scope.spawn(move || Actor::new(common, number).and_then(Actor::run)))
            .collect();
        let mut said = Instant::now();
        while running.iter().any(|actor| !actor.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if let Some(endless) = end_the_endless(common, LONGEST_LIFE) {
                fail(endless);
            }
            if IS_OVER.load(Ordering::SeqCst) {
                common.is_over.store(true, Ordering::SeqCst);
            }
            if said.elapsed() > PROGRESS {
                said = Instant::now();
                println!("{}", progress(common));
            }
        }
        for actor in running {
            match actor.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => fail(format!("{error:#}")),
                Err(panic) => fail(said_in_panic(&*panic)),
            }
        }
        disturb.store(true, Ordering::SeqCst);
        (hotplugs.join().unwrap_or(0), pages.join().unwrap_or(0))
    });
    Tortured { failures: failures.into_inner().unwrap_or_default(), hotplugs, pages }
}

fn progress(common: &Common) -> String {
    let Counts { lives, work, ends, .. } = &*common.counts.lock().expect("nobody panics with it");
    let left = match common.until.checked_duration_since(Instant::now()) {
        Some(left) => format!("{} s left", left.as_secs()),
        None => "the last loaders are at work".to_owned(),
    };
    let killed: u64 =
        ends.iter().filter(|(name, _)| name.starts_with("killed")).map(|(_, n)| n).sum();
    format!(
        "{left}: {lives} loaders ({killed} killed), {} jobs done, {} starts",
        work.done, work.starts
    )
}

fn said_in_panic(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", words.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_submits_is_named() {
        let types = ["fentry", "uprobe", "xdp"].map(str::to_owned);
        let of = |pairs: &[(&str, u64)]| {
            pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let counts = |let_run, submitted| Counts {
            let_run: of(let_run),
            submitted: of(submitted),
            ..Counts::default()
        };
        let all = [("fentry", 2 * ENOUGH), ("uprobe", ENOUGH), ("xdp", ENOUGH - 1)];
        let failure = silent(&types, &counts(&all, &[("fentry", 1)])).unwrap();
        assert!(failure.ends_with(": uprobe"), "{failure}");
        assert_eq!(silent(&types, &counts(&all, &[("fentry", 1), ("uprobe", 1)])), None);
    }
}
