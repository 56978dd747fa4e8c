//! `cargo xtask test`: the workspace's tests in guests, side by side, and the verdict on each
//! kernel.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::accel::Accel;
use crate::config::GuestConfig;
use crate::console::Scanner;
use crate::failure::{Exit, Interrupted, exit_of, usage};
use crate::interrupt;
use crate::job::{Event, Filter, Outcome, TestBinary, TestResult, Work};
use crate::kernels::Kernel;
use crate::report::{KernelReport, Verdict};
use crate::terminal;
use crate::ui::Ui;
use crate::vm::{End, Guest, News};

/// A kernel to test, and how its guest is made.
pub struct Candidate {
    /// What boots.
    pub kernel: Kernel,
    /// How much machine it gets.
    pub config: GuestConfig,
    /// Where its files go.
    pub dir: PathBuf,
}

/// What is the same for all guests of a run.
pub struct Plan {
    /// The test binaries.
    pub binaries: Vec<TestBinary>,
    /// Which of their tests.
    pub filter: Filter,
    /// KVM or TCG.
    pub accel: Accel,
    /// For a guest, from the boot to the verdict.
    pub deadline: Duration,
    /// Guests side by side.
    pub jobs: usize,
    /// Leave a person in each guest whose tests fail.
    pub shell_on_failure: bool,
}

/// Tests every candidate, and gives their reports in the candidates' order.
pub fn run(candidates: &[Candidate], plan: &Plan, ui: &Ui) -> Result<Vec<KernelReport>> {
    let scanner = Scanner::new()?;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<KernelReport>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.min(candidates.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(candidate) = candidates.get(index) else {
                        break;
                    };
                    if interrupt::requested() {
                        break;
                    }
                    let report = test(candidate, plan, &scanner, ui);
                    done.lock().expect("no thread panics with it").push((index, report));
                }
            });
        }
    });
    if interrupt::requested() {
        return Err(Interrupted.into());
    }
    let mut done = done.into_inner().expect("no thread panics with it");
    done.sort_by_key(|(index, _)| *index);
    let mut reports = Vec::new();
    for ((_, report), candidate) in done.into_iter().zip(candidates) {
        reports.push(match report {
            Ok(report) => report,
            // Wrong use is the same on every kernel; anything else is this kernel's row.
            Err(e) if exit_of(&e) != Exit::Infrastructure => return Err(e),
            Err(e) => {
                let name = candidate.kernel.name.clone();
                KernelReport::error(name, plan.accel, format!("{e:#}"))
            }
        });
    }
    if reports.len() != candidates.len() {
        bail!("only {} of {} kernels have a report", reports.len(), candidates.len());
    }
    Ok(reports)
}

/// Tests one kernel.
fn test(candidate: &Candidate, plan: &Plan, scanner: &Scanner, ui: &Ui) -> Result<KernelReport> {
    let begun = Instant::now();
    let name = &candidate.kernel.name;
    let line = ui.guest(name);
    let guest = Guest {
        kernel: &candidate.kernel,
        config: &candidate.config,
        accel: plan.accel,
        deadline: plan.deadline,
        dir: candidate.dir.clone(),
    };
    let work = Work::Tests { binaries: plan.binaries.clone(), filter: plan.filter.clone() };
    let mut tally = Tally::default();
    let ran = guest.run(&work, plan.shell_on_failure, &mut |news| match news {
        News::Again(why) => ui.say(format!("{name}: booting once more: {why}")),
        News::Line(text) => ui.say(format!("{name}: {text}")),
        News::Event(event) => {
            if let Event::Test(result) = event {
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
    let is_done = matches!(ran.end, End::Marker { .. });
    let on_console = scanner.scan(&guest.console_log(), is_done);
    let mut report = judge(name, plan.accel, ran.end, tally, on_console)?;
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

/// What is known of a guest's tests while it runs, and when it has ended.
#[derive(Default)]
struct Tally {
    release: String,
    chosen: Option<usize>,
    none_runs: bool,
    running: Option<(String, Instant)>,
    tests: Vec<TestResult>,
}

impl Tally {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { release } => self.release.clone_from(release),
            Event::Chosen { tests, ignored } => {
                self.chosen = Some(*tests);
                self.none_runs = tests == ignored;
            }
            Event::Begin { test } => self.running = Some((test.clone(), Instant::now())),
            Event::Test(result) => {
                self.running = None;
                self.tests.push(result.as_ref().clone());
            }
            Event::Ended { .. } | Event::Held => (),
        }
    }

    fn progress(&self) -> String {
        let running = self.running.as_ref().map_or("", |(test, _)| test.as_str());
        format!("{}/{} {running}", self.tests.len(), self.chosen.unwrap_or(0))
    }
}

/// The verdict on one guest.
fn judge(
    name: &str,
    accel: Accel,
    end: End,
    mut tally: Tally,
    on_console: Result<Option<String>>,
) -> Result<KernelReport> {
    if tally.none_runs {
        return Err(usage(
            "no test was chosen, or only tests marked #[ignore]: a run of none proves nothing",
        ));
    }
    let mut reasons = Vec::new();
    let mut outcome = Verdict::Passed;
    match end {
        End::Marker { success: true, .. } if tally.chosen == Some(tally.tests.len()) => (),
        End::Marker { success: true, .. } => {
            outcome = Verdict::Failed;
            reasons.push("the guest reported success before all its tests had ended".into());
        }
        End::Marker { success: false, how } => {
            outcome = Verdict::Failed;
            if tally.tests.iter().all(|t| t.outcome != Outcome::Failed) {
                // It is not the tests that failed, but the runner in the guest.
                reasons.push(how);
            }
        }
        End::NoMarker(why) => {
            outcome = Verdict::Failed;
            let mut reason = format!("the guest ended without a verdict: {why}");
            if let Some((test, begun)) = tally.running.take() {
                reason.push_str(&format!("; {test} was running"));
                tally.tests.push(TestResult {
                    reason: "the guest ended while it ran".into(),
                    seconds: begun.elapsed().as_secs_f64(),
                    ..TestResult::named(test)
                });
            }
            reasons.push(reason);
        }
        End::NoBoot { why, .. } => {
            outcome = Verdict::Error;
            reasons.push(why);
        }
    }
    match on_console {
        Ok(None) => (),
        // The kernel died before anything was tested: no verdict on the tests, but the reason.
        Ok(Some(quoted)) if outcome == Verdict::Error => reasons.push(quoted),
        Ok(Some(quoted)) => {
            outcome = Verdict::Failed;
            reasons.push(format!("the kernel reported a fault:\n{quoted}"));
        }
        Err(_) if outcome == Verdict::Error => (),
        Err(e) => {
            outcome = Verdict::Failed;
            reasons.push(format!("{e:#}"));
        }
    }
    let mut report = KernelReport::new(name.to_owned(), accel, tally.tests);
    report.release = tally.release;
    if report.failed > 0 {
        outcome = Verdict::Failed;
    }
    report.outcome = outcome;
    report.reason = reasons.join("\n");
    Ok(report)
}
