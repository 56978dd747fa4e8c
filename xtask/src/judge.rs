//! The verdict on one guest, from what it told, how it ended, and what its kernel said.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::accel::Accel;
use crate::console::{self, Scanner};
use crate::expected::{self, Announced};
use crate::failure::usage;
use crate::job::{Event, Outcome, TestResult};
use crate::notes::Notes;
use crate::report::{KernelReport, Verdict};
use crate::vm::End;

/// How much of the console is shown when the kernel did not report what it should.
const LAST_LINES: usize = 40;

/// What is known of a guest's tests while it runs, and when it has ended.
#[derive(Default)]
pub struct Tally {
    release: String,
    chosen: Option<usize>,
    none_runs: bool,
    running: Option<(String, Instant)>,
    tests: Vec<TestResult>,
}

impl Tally {
    /// Takes what the guest tells.
    pub fn event(&mut self, event: &Event) {
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
            Event::Ended { .. } => (),
        }
    }

    /// How far the guest is, for a person.
    pub fn progress(&self) -> String {
        let running = self.running.as_ref().map_or("", |(test, _)| test.as_str());
        format!("{}/{} {running}", self.tests.len(), self.chosen.unwrap_or(0))
    }
}

/// A guest that has ended.
pub struct Over<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// What executed it.
    pub accel: Accel,
    /// The test that had the guest to itself, if one had.
    pub alone: Option<&'a str>,
    /// How it ended.
    pub end: End,
    /// What it told.
    pub tally: Tally,
    /// Its console.
    pub log: &'a Path,
    /// What its last test has noted.
    pub noted: String,
}

/// The verdict on a guest.
pub fn judge(over: Over, scanner: &Scanner) -> Result<KernelReport> {
    // A log that cannot be read is a failure below.
    let text = console::read(over.log).unwrap_or_default();
    let Some(test) = over.alone else {
        let mut report = judge_tests(over, scanner)?;
        if let Some(test) = expected::announced_by(&text) {
            report.outcome = Verdict::Failed;
            let reason = format!(
                "{test} announced a report of the kernel: only tests of alone targets may \
                 expect a report\n{}",
                report.reason
            );
            report.reason = reason.trim().to_owned();
        }
        return Ok(report);
    };
    match Announced::find(&text, test) {
        Ok(None) => {
            let mut report = judge_tests(over, scanner)?;
            if !report.reason.is_empty() {
                report.reason = format!("in the guest of {test}: {}", report.reason);
            }
            Ok(report)
        }
        Ok(Some(announced)) => {
            let why = why_failed(&announced, &over, scanner);
            let mut result = announced_result(test, over.log, &over.tally, why);
            result.rule = announced.expected.rule;
            let noted = Notes::parse(&over.noted).ok().and_then(|notes| notes.rule);
            if let (Some(rule), Some(noted)) = (&mut result.rule, noted) {
                rule.program = noted.program;
            }
            result.answer = announced.expected.answer;
            Ok(report_on(over, result))
        }
        Err(e) => {
            let result = announced_result(test, over.log, &over.tally, Some(format!("{e:#}")));
            Ok(report_on(over, result))
        }
    }
}

/// Why a test has failed whose kernel was to report something, if it has.
fn why_failed(announced: &Announced, over: &Over, scanner: &Scanner) -> Option<String> {
    if let Some(quoted) = scanner.first_report(&announced.before) {
        return Some(format!("the kernel reported a fault before the announced one:\n{quoted}"));
    }
    if let Some(words) = announced.missing() {
        let end = match &over.end {
            End::Marker { .. } => "the guest lived",
            End::NoMarker(why) | End::NoBoot { why, .. } => why,
        };
        return Some(format!("the kernel did not report {words:?}: {end}"));
    }
    let result = over.tally.tests.first()?;
    match result.outcome {
        Outcome::Passed => None,
        Outcome::Failed => Some(format!("the kernel reported it; {}", result.reason)),
        Outcome::Skipped => Some("it announced a report of the kernel, and skipped itself".into()),
    }
}

/// The result of a test that announced a report, on a guest that may have died of it.
fn announced_result(test: &str, log: &Path, tally: &Tally, why: Option<String>) -> TestResult {
    let mut result = tally.tests.first().cloned().unwrap_or_else(|| TestResult {
        seconds: tally.running.as_ref().map_or(0.0, |(_, begun)| begun.elapsed().as_secs_f64()),
        ..TestResult::named(test.to_owned())
    });
    result.outcome = if why.is_none() { Outcome::Passed } else { Outcome::Failed };
    if why.is_some() {
        let last = console::last_lines(log, LAST_LINES);
        result.output.push_str(&format!("the console ({}) ends with:\n{last}\n", log.display()));
    }
    result.reason = why.unwrap_or_default();
    result
}

fn report_on(over: Over, result: TestResult) -> KernelReport {
    let mut report = KernelReport::new(over.kernel.to_owned(), over.accel, vec![result]);
    report.release = over.tally.release;
    if report.failed > 0 {
        report.outcome = Verdict::Failed;
    }
    report
}

/// The verdict on a guest whose kernel was to report nothing.
fn judge_tests(over: Over, scanner: &Scanner) -> Result<KernelReport> {
    let Over { kernel, accel, end, mut tally, log, noted, .. } = over;
    if tally.none_runs {
        return Err(usage(
            "no test was chosen, or only tests marked #[ignore]: a run of none proves nothing",
        ));
    }
    let is_done = matches!(end, End::Marker { .. });
    let mut reasons = Vec::new();
    let mut unreached = 0;
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
                    rule: Notes::parse(&noted).ok().and_then(|notes| notes.rule),
                    ..TestResult::named(test)
                });
            }
            unreached = tally.chosen.unwrap_or(0).saturating_sub(tally.tests.len());
            if unreached > 0 {
                reason.push_str(&format!("; {unreached} tests did not get to run"));
            }
            reasons.push(reason);
        }
        End::NoBoot { why, .. } => {
            outcome = Verdict::Error;
            reasons.push(why);
        }
    }
    match scanner.scan(log, is_done) {
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
    let mut report = KernelReport::new(kernel.to_owned(), accel, tally.tests);
    report.release = tally.release;
    report.unreached = unreached;
    if report.failed > 0 {
        outcome = Verdict::Failed;
    }
    report.outcome = outcome;
    report.reason = reasons.join("\n");
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TEST: &str = "danger::a";
    const BEGUN: &str = "[ 0.0] Linux version 6.12\n[ 9.0] xtask: begin danger::a\n";
    const EXPECTS: &str = "[ 9.1] xtask: expects {\"rule\":{\"id\":\"H1\",\"group\":\"g\",\
        \"statement\":\"s\",\"file\":\"f\"},\"report\":[\"Oops\",\"Kernel panic\"],\
        \"answer\":\"dies: Oops\"}\n";
    const DEATH: &str = "[ 9.2] Oops: int3: 0000 [#1]\n[ 9.3] Kernel panic - not syncing\n";
    const END: &str = "[ 9.9] xtask: end\n";

    fn died(why: &str) -> End {
        End::NoMarker(why.into())
    }

    fn lived(success: bool) -> End {
        End::Marker { success, how: String::new() }
    }

    /// The verdict on a guest with this console; `sent` is what its test came to, if it ended.
    fn verdict(alone: Option<&str>, log: &[&str], end: End, sent: Option<Outcome>) -> KernelReport {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log.concat()).unwrap();
        let mut tally = Tally::default();
        tally.event(&Event::Started { release: "6.12.1".into() });
        tally.event(&Event::Chosen { tests: 1, ignored: 0 });
        tally.event(&Event::Begin { test: TEST.into() });
        if let Some(outcome) = sent {
            let reason = if outcome == Outcome::Passed { "" } else { "its own reason" }.into();
            let result = TestResult { outcome, reason, ..TestResult::named(TEST.into()) };
            tally.event(&Event::Test(Box::new(result)));
        }
        let accel = Accel::Tcg;
        let noted = r#"{"rule":{"id":"9","group":"g","statement":"s","file":"f"}}"#.into();
        let over = Over { kernel: "6.12", accel, alone, end, tally, log: file.path(), noted };
        judge(over, &Scanner::new().unwrap()).unwrap()
    }

    #[track_caller]
    fn fails(report: KernelReport, why: &str) {
        let test = &report.tests[0];
        assert_eq!((test.outcome, report.outcome), (Outcome::Failed, Verdict::Failed));
        assert!(test.reason.contains(why), "{}", test.reason);
    }

    fn announced(log: &[&str], end: End, sent: Option<Outcome>) -> KernelReport {
        verdict(Some(TEST), log, end, sent)
    }

    #[test]
    fn a_guest_that_dies_as_announced_passes() {
        let report = announced(&[BEGUN, EXPECTS, DEATH], died("the guest is gone"), None);
        assert_eq!((report.outcome, report.reason.as_str()), (Verdict::Passed, ""));
        assert_eq!(report.tests[0].rule.as_ref().map(|rule| rule.id.as_str()), Some("H1"));
        assert_eq!(report.tests[0].answer, "dies: Oops");
        assert_eq!(report.tests[0].outcome, Outcome::Passed);
        assert_eq!(report.release, "6.12.1");
    }

    #[test]
    fn a_guest_that_lives_through_the_report_passes_with_its_test() {
        let log = [BEGUN, EXPECTS, DEATH, END];
        let passed = announced(&log, lived(true), Some(Outcome::Passed));
        assert_eq!((passed.outcome, passed.passed), (Verdict::Passed, 1));
        fails(announced(&log, lived(false), Some(Outcome::Failed)), "its own reason");
        fails(announced(&log, lived(true), Some(Outcome::Skipped)), "skipped itself");
    }

    #[test]
    fn a_report_that_does_not_come_fails_and_says_how_the_guest_ended() {
        let sent = Some(Outcome::Passed);
        let report = announced(&[BEGUN, EXPECTS, END], lived(true), sent);
        assert!(report.tests[0].output.contains("xtask: end"), "{}", report.tests[0].output);
        fails(report, "the kernel did not report \"Oops\": the guest lived");
        let half = [BEGUN, EXPECTS, "[ 9.2] Oops: int3\n"];
        let why = "the deadline of 900 s passed";
        let lacks = format!("the kernel did not report \"Kernel panic\": {why}");
        fails(announced(&half, died(why), None), &lacks);
        let late = announced(&[BEGUN, EXPECTS, DEATH], died(why), None);
        assert_eq!(late.outcome, Verdict::Passed);
    }

    #[test]
    fn a_report_before_the_announcement_fails() {
        let log = [BEGUN, DEATH, EXPECTS, DEATH];
        fails(announced(&log, died("gone"), None), "before the announced one:\nduring danger::a");
    }

    #[test]
    fn a_guest_whose_test_announced_nothing_is_judged_as_any_other() {
        let report = announced(&[BEGUN, DEATH], died("gone"), None);
        assert!(report.reason.contains("in the guest of danger::a: "), "{}", report.reason);
        assert!(report.reason.contains("the kernel reported a fault:"), "{}", report.reason);
        fails(report, "the guest ended while it ran");
        let skipped = announced(&[BEGUN, END], lived(true), Some(Outcome::Skipped));
        assert_eq!((skipped.outcome, skipped.skipped), (Verdict::Passed, 1));
        let warned = [BEGUN, "[ 9.2] WARNING: at x.c:1\n", END];
        let warned = announced(&warned, lived(true), Some(Outcome::Passed));
        assert_eq!((warned.outcome, warned.passed), (Verdict::Failed, 1));
        let why = "QEMU is gone".into();
        let end = End::NoBoot { why, repeatable: false };
        assert_eq!(announced(&["[ 0.0] Linux version 6.12\n"], end, None).outcome, Verdict::Error);
    }

    /// As a kernel with KASAN, lockdep, debug objects and kmemleak prints them.
    #[rstest]
    #[case::kasan("BUG: KASAN: slab-use-after-free in bpf_wq_work+0x1a/0x2f0")]
    #[case::kasan_text("BUG: KASAN: vmalloc-out-of-bounds in bpf_prog_1b+0x8/0x10")]
    #[case::kasan_null("KASAN: null-ptr-deref in range [0x0000000000000000-0x0000000000000007]")]
    #[case::lock_order("WARNING: possible circular locking dependency detected")]
    #[case::lock_twice("WARNING: possible recursive locking detected")]
    #[case::lock_irq("WARNING: inconsistent lock state")]
    #[case::lock_irq_order("WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected")]
    #[case::lock_context("[ BUG: Invalid wait context ]")]
    #[case::lock_freed("WARNING: held lock freed!")]
    #[case::lock_balance("WARNING: bad unlock balance detected!")]
    #[case::lock_key("INFO: trying to register non-static key.")]
    #[case::lockdep_full("BUG: MAX_LOCKDEP_ENTRIES too low!")]
    #[case::rcu("WARNING: suspicious RCU usage")]
    #[case::sleep("BUG: sleeping function called from invalid context at mm/memory.c:1")]
    #[case::atomic("BUG: scheduling while atomic: kworker/1:2/42/0x00000002")]
    #[case::odebug_free(
        "ODEBUG: free active (active state 0) object: ffff8881 object type: work_struct hint: x"
    )]
    #[case::odebug_init("ODEBUG: init active (active state 0) object: ffff8881 object type: x")]
    #[case::kmemleak("kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)")]
    #[case::list("list_del corruption. prev->next should be ffff8881, but was ffff8882")]
    #[case::hung("INFO: task kworker/0:1:10 blocked for more than 120 seconds.")]
    fn a_report_fails_a_guest_whose_tests_pass(#[case] line: &str) {
        let log = [BEGUN, &format!("[ 9.2] {line}\n"), END];
        let report = verdict(None, &log, lived(true), Some(Outcome::Passed));
        assert_eq!((report.outcome, report.passed), (Verdict::Failed, 1));
        assert!(report.reason.contains(line), "{}", report.reason);
    }

    #[test]
    fn an_announcement_beside_other_tests_fails() {
        let report = verdict(None, &[BEGUN, EXPECTS, END], lived(true), Some(Outcome::Passed));
        assert_eq!((report.outcome, report.passed), (Verdict::Failed, 1));
        let why = "danger::a announced a report of the kernel: only tests of alone targets";
        assert!(report.reason.starts_with(why), "{}", report.reason);
    }
}
