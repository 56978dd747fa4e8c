//! `cargo xtask test`: the workspace's tests in guests, side by side, and the verdict on each
//! kernel.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::accel::Accel;
use crate::batch::{Batch, Share};
use crate::config::GuestConfig;
use crate::console::Scanner;
use crate::failure::{Exit, Interrupted, exit_of};
use crate::interrupt;
use crate::job::{Event, NOTES_FILE, Outcome, TestResult, Work};
use crate::judge::{Over, Tally, judge};
use crate::kernels::Kernel;
use crate::report::{KernelReport, Verdict};
use crate::terminal;
use crate::ui::Ui;
use crate::vm::{Guest, News};

/// A kernel to test, and how its guests are made.
pub struct Candidate {
    /// What boots.
    pub kernel: Kernel,
    /// How much machine it gets.
    pub config: GuestConfig,
    /// Where the files of its guest go; those of a test's own guest go beside it.
    pub dir: PathBuf,
}

/// A kernel, and what runs on it.
pub type KernelWork<'a> = (&'a Candidate, &'a Share);

impl Candidate {
    /// Where the files of this guest go.
    fn dir_of(&self, batch: &Batch) -> PathBuf {
        let mut dir = self.dir.clone().into_os_string();
        if let Some(test) = &batch.alone {
            dir.push(format!("-{}", test.replace("::", ".")));
        }
        dir.into()
    }
}

/// What is the same for all kernels of a run.
pub struct Plan {
    /// KVM or TCG.
    pub accel: Accel,
    /// For a guest, from the boot to the verdict.
    pub deadline: Duration,
    /// Guests side by side.
    pub jobs: usize,
    /// Leave a person in each guest whose tests fail.
    pub shell_on_failure: bool,
}

/// Tests every kernel, and gives their reports in the same order.
pub fn run(kernels: &[KernelWork], plan: &Plan, ui: &Ui) -> Result<Vec<KernelReport>> {
    let scanner = Scanner::new()?;
    // The first batch takes longest: all kernels' first ones go first.
    let mut guests: Vec<(usize, usize, &Batch)> = Vec::new();
    for (kernel, (_, share)) in kernels.iter().enumerate() {
        guests.extend(share.batches.iter().enumerate().map(|(turn, b)| (turn, kernel, b)));
    }
    guests.sort_by_key(|(turn, kernel, _)| (*turn, *kernel));
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<KernelReport>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.min(guests.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, kernel, batch)) = guests.get(index) else {
                        break;
                    };
                    if interrupt::requested() {
                        break;
                    }
                    let report = test(kernels[*kernel].0, batch, plan, &scanner, ui);
                    done.lock().expect("no thread panics with it").push((index, report));
                }
            });
        }
    });
    if interrupt::requested() {
        return Err(Interrupted.into());
    }
    let mut done = done.into_inner().expect("no thread panics with it");
    if done.len() != guests.len() {
        bail!("only {} of {} guests have a report", done.len(), guests.len());
    }
    done.sort_by_key(|(index, _)| *index);
    let mut reports: Vec<KernelReport> = kernels
        .iter()
        .map(|(candidate, _)| KernelReport::new(candidate.kernel.name.clone(), plan.accel, vec![]))
        .collect();
    for (index, report) in done {
        let of_kernel = &mut reports[guests[index].1];
        of_kernel.add(match report {
            Ok(report) => report,
            // Wrong use is the same on every kernel; anything else is this kernel's row.
            Err(e) if exit_of(&e) != Exit::Infrastructure => return Err(e),
            Err(e) => KernelReport::error(of_kernel.kernel.clone(), plan.accel, format!("{e:#}")),
        });
    }
    for (report, (_, share)) in reports.iter_mut().zip(kernels) {
        let ignored = share.ignored.iter().cloned().map(TestResult::ignored).collect();
        report.add(KernelReport::new(report.kernel.clone(), plan.accel, ignored));
    }
    Ok(reports)
}

/// Runs one guest of a kernel.
fn test(
    candidate: &Candidate,
    batch: &Batch,
    plan: &Plan,
    scanner: &Scanner,
    ui: &Ui,
) -> Result<KernelReport> {
    let begun = Instant::now();
    let kernel = &candidate.kernel.name;
    let name = match &batch.alone {
        Some(test) => format!("{kernel} {test}"),
        None => kernel.clone(),
    };
    let line = ui.guest(&name);
    let guest = Guest {
        kernel: &candidate.kernel,
        config: &candidate.config,
        accel: plan.accel,
        deadline: plan.deadline,
        dir: candidate.dir_of(batch),
    };
    let work = Work::Tests { binaries: batch.binaries.clone(), filter: batch.filter.clone() };
    let mut tally = Tally::default();
    let ran = guest.run(&work, plan.shell_on_failure, &mut |news| match news {
        News::Again(why) => ui.say(format!("{name}: booting once more: {why}")),
        News::Line(text) => ui.say(format!("{name}: {text}")),
        News::Event(event) => {
            // What becomes of a test that has a guest to itself is known when that has ended.
            if let (Event::Test(result), None) = (event, &batch.alone) {
                if result.outcome == Outcome::Failed {
                    ui.say(format!("{name}: FAILED {}: {}", result.name, result.reason));
                }
            }
            tally.event(event);
            line.shows(tally.progress());
        }
        News::Held(console) => {
            line.shows("held for a person");
            terminal::attach(console, ui);
        }
    })?;
    let log = guest.console_log();
    let alone = batch.alone.as_deref();
    // A guest that did not come so far has noted nothing.
    let noted = fs::read_to_string(guest.dir.join("share").join(NOTES_FILE)).unwrap_or_default();
    let over = Over { kernel, accel: plan.accel, alone, end: ran.end, tally, log: &log, noted };
    let mut report = judge(over, scanner)?;
    if let Some(why) = ran.first_boot {
        report.boots = 2;
        report.reason = format!("{}\nthe first boot: {why}", report.reason).trim().to_owned();
    }
    report.seconds = begun.elapsed().as_secs_f64();
    let verdict = match report.outcome {
        Verdict::Passed => "passed",
        Verdict::Failed => "FAILED",
        Verdict::Error => "ERROR",
    };
    let counts =
        format!("{} passed, {} failed, {} skipped", report.passed, report.failed, report.skipped);
    ui.say(format!("{name}: {verdict}: {counts} in {:.0} s", report.seconds));
    Ok(report)
}
