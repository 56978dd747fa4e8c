//! What a run says about a kernel that is not of the matrix: one's own.

use std::collections::BTreeMap;

use crate::job::Outcome;
use crate::report::{KernelReport, Verdict};
use crate::rules::{Kind, Row, groups};

/// The rules of a report by what the kernel does about them. `newest` is the newest kernel that
/// the tests know: what they expect of later ones is what it does.
pub fn text(report: &KernelReport, newest: &str) -> String {
    if report.outcome == Verdict::Error {
        return String::new();
    }
    let groups = groups(std::slice::from_ref(report));
    let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.rows).collect();
    let of = |kinds: &[Kind]| -> Vec<&Row> {
        let is = |row: &&&Row| kinds.contains(&worst(row));
        rows.iter().filter(is).copied().collect()
    };
    let (holds, otherwise) = (of(&[Kind::Yes]), of(&[Kind::No, Kind::Dies]));
    let differs = of(&[Kind::Failed]);
    let (untried, others) = (of(&[Kind::NotRun]), of(&[Kind::NotFor]));

    let mut text = format!("\n{} (Linux {}):\n", report.kernel, report.release);
    text += &format!("  {} of {} rules hold\n", holds.len(), rows.len());
    if !otherwise.is_empty() {
        text += &format!("  {} are otherwise, as known of this version:\n", otherwise.len());
        for row in otherwise {
            text += &line(row);
            for answer in row.answers[0].iter().filter(|answer| !answer.how.is_empty()) {
                text += &format!("{:22}{}: {}\n", "", answer.kind.word(), answer.how);
            }
        }
    }
    if report.unreached > 0 {
        text += &format!("  {} tests did not get to run: the guest died\n", report.unreached);
    }
    if !others.is_empty() {
        text += &format!("  {} are about other versions\n", others.len());
    }
    if !differs.is_empty() {
        let n = differs.len();
        text += &format!("  {n} DIFFER from what is known, which ends with Linux {newest}:\n");
        differs.iter().for_each(|row| text += &line(row));
    }
    if !untried.is_empty() {
        text += &format!("  {} cannot be tried:\n", untried.len());
        for (option, rows) in by_option(report, &untried) {
            text += &format!("    without {option}:\n");
            rows.iter().for_each(|row| text += &line(row));
        }
    }
    text
}

fn line(row: &Row) -> String {
    format!("      {:<16} {}\n", row.rule.id, row.rule.statement)
}

/// Of the tests of one rule, the answer that counts.
fn worst(row: &Row) -> Kind {
    let order = [Kind::Failed, Kind::Dies, Kind::No, Kind::Yes, Kind::NotRun, Kind::NotFor];
    let has = |kind: &Kind| row.answers[0].iter().any(|answer| answer.kind == *kind);
    order.into_iter().find(has).unwrap_or(Kind::NotRun)
}

fn by_option<'a>(report: &'a KernelReport, rows: &[&'a Row]) -> BTreeMap<&'a str, Vec<&'a Row>> {
    let mut options: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let option = report.tests.iter().find_map(|test| {
            let is_of_it = test.rule.as_ref().is_some_and(|rule| rule.id == row.rule.id);
            (is_of_it && test.outcome == Outcome::Skipped).then_some(test.missing.as_deref()?)
        });
        options.entry(option.unwrap_or("what its test needs")).or_default().push(row);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::sample;

    #[test]
    fn rules_that_hold_differ_or_cannot_be_tried_are_told_apart() {
        let mut report = sample().pop().unwrap();
        report.release = "7.4.0-rc1".into();
        report.tests[0].outcome = Outcome::Failed;
        let text = text(&report, "7.3.4");
        assert!(text.contains("7.3 (Linux 7.4.0-rc1):\n  1 of 3 rules hold\n"), "{text}");
        assert!(text.contains("1 DIFFER from what is known, which ends with Linux 7.3.4:\n"));
        assert!(text.contains("\n      10               a | <b>\n"), "{text}");
        let untried = "1 cannot be tried:\n    without CONFIG_FUSE_FS:\n      H1 ";
        assert!(text.contains(untried), "{text}");
    }
}
