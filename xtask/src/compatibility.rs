//! The rules that tests prove, by kernel: a document made from the report of a run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::failure::{failed, usage};
use crate::job::{Outcome, TestResult};
use crate::report::KernelReport;

/// Writes the document from `report`, or compares it with what is there.
pub fn make(report: &Path, document: &Path, only_check: bool) -> Result<()> {
    let json = fs::read_to_string(report).with_context(|| {
        format!("cannot read {}: `cargo xtask test` on all kernels writes it", report.display())
    })?;
    let reports: Vec<KernelReport> =
        serde_json::from_str(&json).with_context(|| format!("cannot read {}", report.display()))?;
    let text = markdown(&reports)?;
    let name = document.display();
    if !only_check {
        if let Some(dir) = document.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        return fs::write(document, text).with_context(|| format!("cannot write {name}"));
    }
    let committed = fs::read_to_string(document).with_context(|| format!("cannot read {name}"))?;
    match committed.lines().zip(text.lines()).find(|(old, new)| old != new) {
        None if committed.lines().count() == text.lines().count() => Ok(()),
        None => Err(failed(format!("{name} has other rules than the run: write it anew"))),
        Some((old, new)) => Err(failed(format!(
            "{name} is not what the run shows:\n  it says {old}\n  the run {new}"
        ))),
    }
}

/// A rule's row: what each kernel does, in the reports' order.
struct Row {
    id: String,
    statement: String,
    file: String,
    cells: Vec<Vec<String>>,
}

fn markdown(reports: &[KernelReport]) -> Result<String> {
    let groups = rows(reports);
    if groups.is_empty() {
        return Err(usage("no test of the report states a rule"));
    }
    let mut notes: Vec<String> = Vec::new();
    let mut text = String::from(HEAD);
    for (group, rows) in &groups {
        write!(text, "\n## {group}\n\n| rule | |")?;
        reports.iter().try_for_each(|r| write!(text, " {} |", r.kernel))?;
        write!(text, "\n|---|---|")?;
        reports.iter().try_for_each(|_| write!(text, "---|"))?;
        text.push('\n');
        for row in rows {
            let statement = row.statement.replace('|', "\\|");
            write!(text, "| {} | {statement} [test]({}) |", row.id, row.file)?;
            for cell in &row.cells {
                write!(text, " {} |", short(cell, &mut notes))?;
            }
            text.push('\n');
        }
    }
    text.push_str("\n## Notes\n\n");
    for (index, note) in notes.iter().enumerate() {
        writeln!(text, "{}. {note}", index + 1)?;
    }
    Ok(text)
}

const HEAD: &str = "\
# What bpf_wq does, kernel by kernel

May I do this on 6.12? Each row is a rule, proved by the test behind it on every kernel of the
matrix; a number points to a note below. Made by `cargo xtask compatibility` from the report of
`cargo xtask test`; edit the tests, not this file.
";

/// The first word of what a kernel does, and the number of the note that says the rest.
fn short(answers: &[String], notes: &mut Vec<String>) -> String {
    let mut cells = Vec::new();
    for answer in answers {
        let (word, rest) = answer.split_once(": ").unwrap_or((answer, ""));
        if rest.is_empty() {
            cells.push(word.to_owned());
            continue;
        }
        let rest = rest.to_owned();
        let number = notes.iter().position(|note| *note == rest).unwrap_or_else(|| {
            notes.push(rest);
            notes.len() - 1
        });
        cells.push(format!("{word} [{}](#notes)", number + 1));
    }
    match cells.is_empty() {
        true => "not run".into(),
        false => cells.join(", "),
    }
}

/// The rules by group, each group's in the order of their numbers.
fn rows(reports: &[KernelReport]) -> BTreeMap<String, Vec<Row>> {
    let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for (column, report) in reports.iter().enumerate() {
        for test in &report.tests {
            let Some(rule) = &test.rule else { continue };
            let rows = groups.entry(rule.group.clone()).or_default();
            let known = rows.iter().position(|row| row.id == rule.id).unwrap_or_else(|| {
                rows.push(Row {
                    id: rule.id.clone(),
                    statement: rule.statement.clone(),
                    file: format!("../{}", rule.file),
                    cells: vec![Vec::new(); reports.len()],
                });
                rows.len() - 1
            });
            let cell = &mut rows[known].cells[column];
            let answer = answer(test);
            if !cell.contains(&answer) {
                cell.push(answer);
            }
        }
    }
    for rows in groups.values_mut() {
        rows.sort_by_key(|row| number(&row.id));
    }
    groups
}

/// What a kernel does about a rule, by the test that tried it.
fn answer(test: &TestResult) -> String {
    match test.outcome {
        Outcome::Passed if test.answer.is_empty() => "yes".into(),
        Outcome::Passed => test.answer.clone(),
        Outcome::Skipped => format!("no: {}", test.reason),
        Outcome::Failed => "FAILED".into(),
    }
}

/// `10` after `9`, and `10b` after `10`.
fn number(id: &str) -> (String, u32, String) {
    let digits = |c: char| c.is_ascii_digit();
    let prefix: String = id.chars().take_while(|c| !digits(*c)).collect();
    let rest = &id[prefix.len()..];
    let count = rest.chars().take_while(|c| digits(*c)).count();
    (prefix, rest[..count].parse().unwrap_or(0), rest[count..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;
    use crate::job::Rule;

    fn test(id: &str, outcome: Outcome, answer: &str) -> TestResult {
        let rule = Rule {
            id: id.into(),
            group: "Running".into(),
            statement: "a | b".into(),
            file: "tests/suite/running.rs".into(),
        };
        TestResult {
            outcome,
            answer: answer.into(),
            reason: "needs Linux 7.0: why".into(),
            rule: Some(rule),
            ..TestResult::named("t".into())
        }
    }

    fn reports() -> Vec<KernelReport> {
        let old = vec![test("10", Outcome::Passed, "no: -EBUSY"), test("9", Outcome::Skipped, "")];
        let new = vec![test("10", Outcome::Passed, ""), test("9", Outcome::Passed, "")];
        vec![
            KernelReport::new("6.12".into(), Accel::Tcg, old),
            KernelReport::new("7.3".into(), Accel::Tcg, new),
        ]
    }

    #[test]
    fn a_rule_is_a_row_and_a_kernel_a_column() {
        let text = markdown(&reports()).unwrap();
        assert!(text.contains("| rule | | 6.12 | 7.3 |"), "{text}");
        let nine = "| 9 | a \\| b [test](../tests/suite/running.rs) | no [1](#notes) | yes |";
        let ten = "| 10 | a \\| b [test](../tests/suite/running.rs) | no [2](#notes) | yes |";
        assert!(text.contains(&format!("{nine}\n{ten}\n")), "{text}");
        assert!(text.contains("1. needs Linux 7.0: why\n2. -EBUSY\n"), "{text}");
    }

    #[test]
    fn a_document_that_differs_from_the_run_fails() {
        let dir = tempfile::tempdir().unwrap();
        let (json, document) = (dir.path().join("r.json"), dir.path().join("d.md"));
        fs::write(&json, serde_json::to_string(&reports()).unwrap()).unwrap();
        make(&json, &document, false).unwrap();
        make(&json, &document, true).unwrap();
        let text = fs::read_to_string(&document).unwrap();
        fs::write(&document, text.replace("-EBUSY", "-EINVAL")).unwrap();
        assert!(make(&json, &document, true).is_err());
        fs::write(&document, text + "one more\n").unwrap();
        assert!(make(&json, &document, true).is_err());
    }

    #[test]
    fn a_report_without_rules_is_refused() {
        let bare = KernelReport::new("6.12".into(), Accel::Tcg, vec![]);
        assert!(markdown(&[bare]).is_err());
    }
}
