//! What a run comes to: the table for people, JSON and JUnit for machines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use console::style;
use serde::{Deserialize, Serialize};

use crate::accel::Accel;
use crate::failure::Exit;
use crate::job::{Outcome, TestResult};
use crate::junit::junit;

/// The verdict on one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every test that can run on it passed, and the kernel reported nothing.
    Passed,
    /// A test failed, or the kernel reported a fault, died or hung.
    Failed,
    /// The tests did not get to run.
    Error,
}

/// One kernel's row.
#[derive(Debug, Serialize, Deserialize)]
pub struct KernelReport {
    /// As the user names it: a series, or a file's name.
    pub kernel: String,
    /// As `uname -r` printed it in the guest; empty if it did not come so far.
    pub release: String,
    /// What executed the guest.
    pub accel: Accel,
    /// The verdict.
    pub outcome: Verdict,
    /// Why the verdict is not `passed`.
    pub reason: String,
    /// The boots that a guest took at most: 2 if one died before its command started.
    pub boots: u32,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that this kernel is too old for, or that are marked `#[ignore]`.
    pub skipped: usize,
    /// Tests that did not get to run, as the guest died before.
    #[serde(default)]
    pub unreached: usize,
    /// Whether only some of the tests were to run.
    #[serde(default)]
    pub part: bool,
    /// The only test targets that were to run, as `kernels.toml` says; all, if there is none.
    #[serde(default)]
    pub targets: Vec<String>,
    /// From the first boot of a guest to the verdict on it, all guests together.
    pub seconds: f64,
    /// Every test that was begun or skipped.
    pub tests: Vec<TestResult>,
}

impl KernelReport {
    /// A report on tests; the counts are taken from them.
    pub fn new(kernel: String, accel: Accel, tests: Vec<TestResult>) -> Self {
        let count = |outcome| tests.iter().filter(|t| t.outcome == outcome).count();
        KernelReport {
            kernel,
            release: String::new(),
            accel,
            outcome: Verdict::Passed,
            reason: String::new(),
            boots: 1,
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
            unreached: 0,
            part: false,
            targets: vec![],
            seconds: 0.0,
            tests,
        }
    }
}

impl KernelReport {
    /// A report on a kernel that could not be tested, and why.
    pub fn error(kernel: String, accel: Accel, reason: String) -> Self {
        KernelReport { outcome: Verdict::Error, reason, ..KernelReport::new(kernel, accel, vec![]) }
    }

    /// Adds what another guest of the same kernel came to: what it shows weighs more than what is
    /// missing.
    pub fn add(&mut self, other: KernelReport) {
        if self.release.is_empty() {
            self.release = other.release;
        }
        self.outcome = match [self.outcome, other.outcome] {
            [Verdict::Failed, _] | [_, Verdict::Failed] => Verdict::Failed,
            [Verdict::Error, _] | [_, Verdict::Error] => Verdict::Error,
            [Verdict::Passed, Verdict::Passed] => Verdict::Passed,
        };
        self.reason = format!("{}\n{}", self.reason, other.reason).trim().to_owned();
        self.boots = self.boots.max(other.boots);
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.unreached += other.unreached;
        self.seconds += other.seconds;
        self.tests.extend(other.tests);
    }
}

/// The exit code of a run over these kernels: what a test shows, or that it shows nothing anywhere,
/// weighs more than a kernel that is missing.
pub fn exit(reports: &[KernelReport], never_ran: &[String]) -> Exit {
    let any = |verdict| reports.iter().any(|r| r.outcome == verdict);
    if any(Verdict::Failed) || !never_ran.is_empty() {
        Exit::Failed
    } else if any(Verdict::Error) || reports.is_empty() {
        Exit::Infrastructure
    } else {
        Exit::Passed
    }
}

/// The table, a row a kernel; a column for every fact that tests have noted.
pub fn table(reports: &[KernelReport]) -> String {
    let facts: BTreeSet<&str> = reports.iter().flat_map(facts_of).map(|(n, _)| n).collect();
    let mut rows = vec![vec!["kernel".to_owned(), "release".into(), "by".into()]];
    rows[0].extend(facts.iter().map(|f| (*f).to_owned()));
    rows[0].extend(["passed", "failed", "skipped", "seconds", "verdict"].map(str::to_owned));
    for report in reports {
        let mut row = vec![report.kernel.clone(), report.release.clone(), report.accel.to_string()];
        for fact in &facts {
            let values: BTreeSet<&str> =
                facts_of(report).filter(|(n, _)| n == fact).map(|(_, v)| v).collect();
            row.push(values.into_iter().collect::<Vec<_>>().join(", "));
        }
        row.extend([report.passed, report.failed, report.skipped].map(|n| n.to_string()));
        row.push(format!("{:.0}", report.seconds));
        let mut verdict = match report.outcome {
            Verdict::Passed => style("passed").green(),
            Verdict::Failed => style("FAILED").red().bold(),
            Verdict::Error => style("ERROR").yellow().bold(),
        }
        .to_string();
        if report.boots > 1 {
            verdict.push_str(" (second boot)");
        }
        row.push(verdict);
        rows.push(row);
    }
    align(&rows)
}

fn facts_of(report: &KernelReport) -> impl Iterator<Item = (&str, &str)> {
    report.tests.iter().flat_map(|t| &t.facts).map(|(n, v)| (n.as_str(), v.as_str()))
}

/// Pads cells to columns; those that hold numbers from the second row on go to the right.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &'_ Vec<String>, c: usize| row.get(c).cloned().unwrap_or_default();
    let mut text = String::new();
    let width =
        |c| rows.iter().map(|r| console::measure_text_width(&cell(r, c))).max().unwrap_or(0);
    let numbers = |c| {
        rows.len() > 1
            && rows[1..].iter().all(|r| !cell(r, c).is_empty() && cell(r, c).parse::<u64>().is_ok())
    };
    for row in rows {
        let mut line = String::new();
        for c in 0..columns {
            let to = if numbers(c) { console::Alignment::Right } else { console::Alignment::Left };
            line.push_str(&console::pad_str(&cell(row, c), width(c), to, None));
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What stands below the table: every kernel's reason, every failed and every skipped test.
pub fn details(reports: &[KernelReport]) -> String {
    let mut text = String::new();
    for report in reports {
        if !report.reason.is_empty() {
            text.push_str(&format!("\n{}: {}\n", report.kernel, report.reason.trim_end()));
        }
        for test in report.tests.iter().filter(|t| t.outcome == Outcome::Failed) {
            let head = format!("{}: FAILED {}: {}", report.kernel, test.name, test.reason);
            text.push_str(&format!("\n{}\n", style(head).red()));
            for line in test.output.lines() {
                text.push_str(&format!("    {line}\n"));
            }
        }
    }
    let mut skips: Vec<(String, Vec<&str>)> = Vec::new();
    for report in reports {
        for test in report.tests.iter().filter(|t| t.outcome == Outcome::Skipped) {
            let what = format!("{}: {}", test.name, test.reason);
            match skips.iter_mut().find(|(w, _)| *w == what) {
                Some((_, kernels)) => kernels.push(&report.kernel),
                None => skips.push((what, vec![&report.kernel])),
            }
        }
    }
    if !skips.is_empty() {
        text.push_str("\nskipped:\n");
    }
    for (what, kernels) in skips {
        text.push_str(&format!("  {what} [{}]\n", kernels.join(", ")));
    }
    text
}

/// The tests that skipped themselves on every kernel that was to run them: what they prove is not
/// known anywhere.
pub fn never_ran(reports: &[KernelReport]) -> Vec<String> {
    let mut skips: BTreeMap<&str, usize> = BTreeMap::new();
    for test in reports.iter().flat_map(|report| &report.tests) {
        if test.outcome == Outcome::Skipped && !test.ignored {
            *skips.entry(&test.name).or_default() += 1;
        }
    }
    let of_its_targets = |report: &KernelReport, name: &str| {
        report.targets.is_empty() || report.tests.iter().any(|test| test.name == name)
    };
    skips.retain(|name, kernels| {
        *kernels == reports.iter().filter(|report| of_its_targets(report, name)).count()
    });
    skips.into_keys().map(str::to_owned).collect()
}

/// What is said of tests that no kernel ran.
pub fn unproved(never_ran: &[String]) -> String {
    never_ran.iter().map(|test| format!("\nno kernel of the matrix ran {test}\n")).collect()
}

/// The closing line: all tests on all kernels.
pub fn total(reports: &[KernelReport]) -> String {
    let sum = |count: fn(&KernelReport) -> usize| reports.iter().map(count).sum::<usize>();
    let (passed, failed) = (sum(|r| r.passed), sum(|r| r.failed));
    format!("total: {passed} passed, {failed} failed, {} skipped", sum(|r| r.skipped))
}

/// Writes `kernel-report.json`, `.xml` (JUnit) and `.txt` (what the terminal shows) into the
/// directory. `verdicts` are those on kernels of the user's own.
pub fn write(
    reports: &[KernelReport],
    never_ran: &[String],
    verdicts: &str,
    dir: &Path,
) -> Result<()> {
    // What a failed test printed is in the JUnit file and on the terminal.
    let mut json = serde_json::to_value(reports)?;
    for test in json.as_array_mut().into_iter().flatten() {
        for test in test["tests"].as_array_mut().into_iter().flatten() {
            test.as_object_mut().map(|t| t.remove("output"));
        }
    }
    let put = |name: &str, text: String| {
        let file = dir.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    let details = details(reports) + &unproved(never_ran);
    let text = format!("{}{details}{verdicts}\n{}\n", table(reports), total(reports));
    put("kernel-report.txt", console::strip_ansi_codes(&text).into_owned())?;
    put("kernel-report.json", serde_json::to_string_pretty(&json)? + "\n")?;
    put("kernel-report.xml", junit(reports, never_ran).to_string().context("cannot write JUnit")?)
}

/// Removes the reports of an earlier run: one that ends early must not leave them for its own.
pub fn clear(dir: &Path) -> Result<()> {
    for end in ["json", "xml", "txt"] {
        let file = dir.join(format!("kernel-report.{end}"));
        match fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {}", file.display()));
            }
            _ => (),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, outcome: Outcome) -> TestResult {
        TestResult {
            outcome,
            reason: if outcome == Outcome::Passed { String::new() } else { "why".into() },
            seconds: 0.5,
            output: if outcome == Outcome::Failed { "said <this>".into() } else { String::new() },
            facts: vec![("ABI".into(), "new".into())],
            ..TestResult::named(name.into())
        }
    }

    fn reports() -> Vec<KernelReport> {
        let tests = vec![
            result("a", Outcome::Passed),
            result("b", Outcome::Failed),
            result("c", Outcome::Skipped),
        ];
        let mut bad = KernelReport::new("6.12".into(), Accel::Tcg, tests);
        bad.outcome = Verdict::Failed;
        let good = KernelReport::new("7.3".into(), Accel::Tcg, vec![result("a", Outcome::Passed)]);
        vec![bad, good]
    }

    #[test]
    fn the_exit_code_prefers_what_tests_show() {
        let mut all = reports();
        assert_eq!(exit(&all, &[]), Exit::Failed);
        all[0].outcome = Verdict::Error;
        assert_eq!(exit(&all, &[]), Exit::Infrastructure);
        all[0].outcome = Verdict::Passed;
        assert_eq!(exit(&all, &[]), Exit::Passed);
        assert_eq!(exit(&all, &["d".into()]), Exit::Failed);
        assert_eq!(exit(&[], &[]), Exit::Infrastructure);
    }

    #[test]
    fn a_kernels_guests_are_one_row() {
        let [other, mut row] = <[_; 2]>::try_from(reports()).unwrap();
        row.add(KernelReport { outcome: Verdict::Error, reason: "why".into(), ..other });
        assert_eq!((row.passed, row.failed, row.skipped, row.tests.len()), (2, 1, 1, 4));
        assert_eq!((row.outcome, row.reason.as_str()), (Verdict::Error, "why"));
        let failed = KernelReport::new("6.12".into(), Accel::Tcg, vec![]);
        row.add(KernelReport { outcome: Verdict::Failed, boots: 2, seconds: 3.0, ..failed });
        assert_eq!((row.outcome, row.boots, row.seconds), (Verdict::Failed, 2, 3.0));
        row.add(KernelReport::new("6.12".into(), Accel::Tcg, vec![]));
        assert_eq!((row.outcome, row.boots), (Verdict::Failed, 2));
    }

    #[test]
    fn the_files_hold_every_test_of_every_kernel() {
        let dir = tempfile::tempdir().unwrap();
        write(&reports(), &["d".into()], "\nmine: 3 rules\n", dir.path()).unwrap();
        let json = fs::read_to_string(dir.path().join("kernel-report.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["kernel"], "6.12");
        assert_eq!(json[0]["outcome"], "failed");
        assert_eq!(json[0]["accel"], "tcg");
        assert_eq!((&json[0]["passed"], &json[0]["skipped"]), (&1.into(), &1.into()));
        assert_eq!(json[0]["tests"][1]["reason"], "why");
        assert_eq!(json[0]["tests"][1]["output"], serde_json::Value::Null);
        let junit = fs::read_to_string(dir.path().join("kernel-report.xml")).unwrap();
        assert!(
            junit.contains(r#"failures="1""#) && junit.contains("said &lt;this&gt;"),
            "{junit}"
        );
        assert!(junit.contains("no kernel of the matrix ran it"), "{junit}");
        let text = fs::read_to_string(dir.path().join("kernel-report.txt")).unwrap();
        assert!(text.contains("\nno kernel of the matrix ran d\n"), "{text}");
    }

    #[test]
    fn a_test_that_every_kernel_skipped_never_ran() {
        let kernel = |tests: Vec<TestResult>| KernelReport::new("k".into(), Accel::Tcg, tests);
        let skip = |name: &str| result(name, Outcome::Skipped);
        let ignored = || TestResult::ignored("ignored".into());
        let all = [
            kernel(vec![skip("never"), skip("once"), ignored(), skip("died before it")]),
            kernel(vec![skip("never"), result("once", Outcome::Passed), ignored()]),
        ];
        assert_eq!(never_ran(&all), ["never"]);
        assert!(never_ran(&reports()).is_empty());
    }

    #[test]
    fn a_kernel_of_some_targets_counts_for_their_tests() {
        let kernel = |tests: Vec<TestResult>| KernelReport::new("k".into(), Accel::Tcg, tests);
        let skip = |name: &str| result(name, Outcome::Skipped);
        let mut some = kernel(vec![result("only there", Outcome::Passed), skip("neither")]);
        some.targets = vec!["hid".into()];
        let all = [kernel(vec![skip("only there"), skip("neither"), skip("not of these")]), some];
        assert_eq!(never_ran(&all), ["neither", "not of these"]);
    }

    #[test]
    fn the_table_has_a_row_a_kernel_and_a_column_a_fact() {
        let text = console::strip_ansi_codes(&table(&reports())).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("ABI") && lines[1].contains("FAILED"), "{text}");
        assert!(details(&reports()).contains("c: why [6.12]"));
    }
}
