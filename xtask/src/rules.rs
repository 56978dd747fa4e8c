//! The rules that tests prove, as a run's report holds them: by group, and what each kernel does.

use std::collections::BTreeMap;

use crate::job::{Outcome, Rule, TestResult};
use crate::report::KernelReport;

/// What a kernel does about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What the rule says.
    Yes,
    /// Something else, which the test asserts.
    No,
    /// The kernel reports a fault, and may die.
    Dies,
    /// The rule is about other versions.
    NotFor,
    /// The test could not be tried.
    NotRun,
    /// The test failed.
    Failed,
}

impl Kind {
    /// As documents print it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Yes => "yes",
            Kind::No => "no",
            Kind::Dies => "dies",
            Kind::NotFor => "n/a",
            Kind::NotRun => "not run",
            Kind::Failed => "FAILED",
        }
    }
}

/// An answer, and how: an errno, a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In one word.
    pub kind: Kind,
    /// The rest; may be empty.
    pub how: String,
}

/// One rule, with an answer a kernel in the reports' order.
pub struct Row {
    /// What the test says.
    pub rule: Rule,
    /// Those of a kernel without any test of the rule are empty; several tests may differ.
    pub answers: Vec<Vec<Answer>>,
}

/// Rules under one heading.
pub struct Group {
    /// The heading.
    pub name: String,
    /// In the order of their numbers.
    pub rows: Vec<Row>,
}

/// The rules of a run, those with the lowest numbers first.
pub fn groups(reports: &[KernelReport]) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
    for (column, report) in reports.iter().enumerate() {
        for test in &report.tests {
            let Some(rule) = &test.rule else { continue };
            let rows = groups.entry(&rule.group).or_default();
            let known = rows.iter().position(|row| row.rule.id == rule.id).unwrap_or_else(|| {
                rows.push(Row { rule: rule.clone(), answers: vec![Vec::new(); reports.len()] });
                rows.len() - 1
            });
            // One that skipped itself has loaded none.
            let row = &mut rows[known];
            if row.rule.program.is_none() {
                row.rule.program.clone_from(&rule.program);
            }
            let answers = &mut row.answers[column];
            let answer = answer(test);
            if !answers.contains(&answer) {
                answers.push(answer);
            }
        }
    }
    let mut groups: Vec<Group> =
        groups.into_iter().map(|(name, rows)| Group { name: name.to_owned(), rows }).collect();
    for group in &mut groups {
        group.rows.sort_by_key(|row| number(&row.rule.id));
    }
    groups.sort_by_key(|group| number(&group.rows[0].rule.id));
    groups
}

/// What a kernel does about a rule, by the test that tried it.
pub fn answer(test: &TestResult) -> Answer {
    let is = |kind, how: &str| Answer { kind, how: how.to_owned() };
    match test.outcome {
        Outcome::Failed => is(Kind::Failed, ""),
        Outcome::Skipped if test.missing.is_some() => is(Kind::NotRun, &test.reason),
        Outcome::Skipped if test.reason.starts_with("is for ") => is(Kind::NotFor, &test.reason),
        Outcome::Skipped => is(Kind::No, &test.reason),
        Outcome::Passed => {
            let (word, how) = test.answer.split_once(": ").unwrap_or((&test.answer, ""));
            match word {
                "no" => is(Kind::No, how),
                "dies" => is(Kind::Dies, how),
                _ => is(Kind::Yes, how),
            }
        }
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

/// Reports of two kernels for the tests of what is made from them.
#[cfg(test)]
pub fn sample() -> Vec<KernelReport> {
    use crate::accel::Accel;

    let test = |id: &str, outcome, answer: &str| {
        let rule = Rule {
            id: id.into(),
            group: "Running".into(),
            statement: "a | <b>".into(),
            file: "tests/suite/running.rs".into(),
            program: Some("bpf/tests/running.bpf.c".into()),
        };
        TestResult {
            outcome,
            answer: answer.into(),
            reason: "needs Linux 7.0: why".into(),
            rule: Some(rule),
            ..TestResult::named(id.into())
        }
    };
    let old = vec![
        test("10", Outcome::Passed, "no: -EBUSY"),
        test("9", Outcome::Skipped, ""),
        test("H1", Outcome::Passed, "dies: Oops"),
    ];
    let new = vec![
        test("10", Outcome::Passed, ""),
        test("9", Outcome::Passed, ""),
        TestResult {
            missing: Some("CONFIG_FUSE_FS".into()),
            reason: "needs CONFIG_FUSE_FS: it asks".into(),
            ..test("H1", Outcome::Skipped, "")
        },
    ];
    vec![
        KernelReport::new("6.12".into(), Accel::Tcg, old),
        KernelReport::new("7.3".into(), Accel::Tcg, new),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_in_the_order_of_their_numbers_with_an_answer_a_kernel() {
        let groups = groups(&sample());
        assert_eq!(groups.len(), 1);
        let rows = &groups[0].rows;
        let ids: Vec<&str> = rows.iter().map(|row| row.rule.id.as_str()).collect();
        assert_eq!(ids, ["9", "10", "H1"]);
        let kinds = |row: &Row| row.answers.iter().map(|a| a[0].kind).collect::<Vec<_>>();
        assert_eq!(kinds(&rows[0]), [Kind::No, Kind::Yes]);
        assert_eq!(kinds(&rows[1]), [Kind::No, Kind::Yes]);
        assert_eq!(kinds(&rows[2]), [Kind::Dies, Kind::NotRun]);
        assert_eq!(rows[1].answers[0][0].how, "-EBUSY");
    }

    #[test]
    fn a_failed_test_is_no_answer() {
        let mut failed = sample().remove(0).tests.remove(0);
        failed.outcome = Outcome::Failed;
        assert_eq!(answer(&failed).kind, Kind::Failed);
        failed.outcome = Outcome::Skipped;
        failed.reason = "is for kernels before Linux 7.0: why".into();
        assert_eq!(answer(&failed).kind, Kind::NotFor);
    }
}
