//! The rules by kernels, as documents made from a run's report: one to read beside the code, and
//! one to look at.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Matrix;
use crate::failure::{failed, usage};
use crate::page;
use crate::report::{KernelReport, Verdict, never_ran};
use crate::rules::{Answer, Group, groups};

/// The documents of a workspace.
pub struct Documents {
    /// Where they are.
    pub dir: PathBuf,
    /// What the tests are about.
    pub subject: String,
}

impl Documents {
    /// Writes them from the reports of all kernels of the matrix, or compares them with what is
    /// there.
    pub fn make(&self, reports: &[PathBuf], matrix: &Matrix, only_check: bool) -> Result<()> {
        let reports = read(reports, matrix)?;
        if let Some(report) = reports.iter().find(|report| report.part) {
            let kernel = &report.kernel;
            return Err(usage(format!("on {kernel} only some of the tests ran: run all of them")));
        }
        if let Some(report) = reports.iter().find(|report| report.outcome != Verdict::Passed) {
            let kernel = &report.kernel;
            return Err(failed(format!(
                "{kernel} did not pass: the document is made of those that do"
            )));
        }
        if let Some(never) = never_ran(&reports).first() {
            return Err(failed(format!("no kernel of the matrix ran {never}")));
        }
        // A kernel that runs some targets only answers to few rules.
        let reports: Vec<KernelReport> =
            reports.into_iter().filter(|report| report.targets.is_empty()).collect();
        let groups = groups(&reports);
        if groups.is_empty() {
            return Err(usage("no test of the report states a rule"));
        }
        let kernels: Vec<&str> = reports.iter().map(|report| report.kernel.as_str()).collect();
        let made = [
            ("compatibility.md", markdown(&self.subject, &kernels, &groups)?),
            ("compatibility.html", page::html(&self.subject, &kernels, &groups)?),
        ];
        for (name, text) in made {
            let document = self.dir.join(name);
            match only_check {
                true => compare(&document, &text)?,
                false => {
                    fs::create_dir_all(&self.dir)
                        .with_context(|| format!("cannot make {}", self.dir.display()))?;
                    fs::write(&document, text)
                        .with_context(|| format!("cannot write {}", document.display()))?;
                }
            }
        }
        Ok(())
    }
}

/// The reports, in the order of the matrix.
fn read(files: &[PathBuf], matrix: &Matrix) -> Result<Vec<KernelReport>> {
    let mut all: Vec<KernelReport> = Vec::new();
    for file in files {
        let json = fs::read_to_string(file).with_context(|| {
            format!("cannot read {}: `cargo xtask test` on all kernels writes it", file.display())
        })?;
        let some: Vec<KernelReport> = serde_json::from_str(&json)
            .with_context(|| format!("cannot read {}", file.display()))?;
        all.extend(some);
    }
    let mut sorted = Vec::new();
    let by_default = matrix.kernel.iter().filter(|kernel| kernel.default);
    for series in by_default.map(|kernel| &kernel.series) {
        let found = all.iter().position(|report| report.kernel == *series);
        let found = found.ok_or_else(|| {
            usage(format!("the report lacks {series}: run `cargo xtask test` on all kernels"))
        })?;
        sorted.push(all.remove(found));
    }
    match all.first() {
        Some(report) => Err(usage(format!("{} has two reports, or is unknown", report.kernel))),
        None => Ok(sorted),
    }
}

fn compare(document: &Path, made: &str) -> Result<()> {
    let name = document.display();
    let committed = fs::read_to_string(document).with_context(|| format!("cannot read {name}"))?;
    match committed.lines().zip(made.lines()).find(|(old, new)| old != new) {
        None if committed.lines().count() == made.lines().count() => Ok(()),
        None => Err(failed(format!(
            "{name} has other rules than the run: write it anew by `cargo xtask compatibility`"
        ))),
        Some((old, new)) => Err(failed(format!(
            "{name} is not what the run shows (`cargo xtask compatibility` writes it anew):\n  it \
             says {old}\n  the run {new}"
        ))),
    }
}

const HEAD: &str = "\
# What {{subject}} does, kernel by kernel

May I do this on that kernel? Each row is a rule, proved on every kernel of the matrix by the test
and the program that it links to. A number points to a note below.

* **yes**: it is as the row says, which may be that something is refused.
* **no**: it is not, and the note says what happens instead.
* **dies**: the kernel reports a fault; the note says which.
* **n/a**: the rule is about other versions. **not run**: the kernel lacks what the test needs.

[The same to look at](compatibility.html). Both are made by `cargo xtask compatibility` from the
report of `cargo xtask test`: edit the tests, not this file.
";

fn markdown(subject: &str, kernels: &[&str], groups: &[Group]) -> Result<String> {
    let mut notes: Vec<String> = Vec::new();
    let mut text = HEAD.replace("{{subject}}", subject);
    for group in groups {
        write!(text, "\n## {}\n\n| rule | | {} |\n", group.name, kernels.join(" | "))?;
        writeln!(text, "|---|---|{}", "---|".repeat(kernels.len()))?;
        for row in &group.rows {
            let rule = &row.rule;
            let statement = rule.statement.replace('|', "\\|");
            write!(text, "| {} | {statement} ([test](../{})", rule.id, rule.file)?;
            if let Some(program) = &rule.program {
                write!(text, ", [program](../{program})")?;
            }
            text.push_str(") |");
            for answers in &row.answers {
                write!(text, " {} |", cell(answers, &mut notes))?;
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

/// The words, and the numbers of the notes that say the rest.
fn cell(answers: &[Answer], notes: &mut Vec<String>) -> String {
    let mut cells = Vec::new();
    for Answer { kind, how } in answers {
        if how.is_empty() {
            cells.push(kind.word().to_owned());
            continue;
        }
        let number = notes.iter().position(|note| note == how).unwrap_or_else(|| {
            notes.push(how.clone());
            notes.len() - 1
        });
        cells.push(format!("{} [{}](#notes)", kind.word(), number + 1));
    }
    match cells.is_empty() {
        true => "not run".into(),
        false => cells.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pinned;
    use crate::rules::sample;

    fn matrix() -> Matrix {
        let kernel = |series: &str| Pinned {
            series: series.into(),
            version: format!("{series}.1"),
            release: format!("{series}.1-amd64"),
            package: vec![],
            build: None,
            tests: vec![],
            default: true,
        };
        let kernel = ["6.12", "7.3"].map(kernel).to_vec();
        Matrix { root: PathBuf::new(), modules: vec![], test_modules: vec![], kernel }
    }

    fn at(dir: &Path) -> Documents {
        Documents { dir: dir.to_owned(), subject: "bpf".into() }
    }

    #[test]
    fn a_rule_is_a_row_and_a_kernel_a_column() {
        let text = markdown("bpf", &["6.12", "7.3"], &groups(&sample())).unwrap();
        assert!(text.contains("| rule | | 6.12 | 7.3 |\n|---|---|---|---|\n"), "{text}");
        let links = "([test](../tests/suite/running.rs), [program](../bpf/tests/running.bpf.c))";
        let nine = format!("| 9 | a \\| <b> {links} | no [1](#notes) | yes |");
        let ten = format!("| 10 | a \\| <b> {links} | no [2](#notes) | yes |");
        let dies = format!("| H1 | a \\| <b> {links} | dies [3](#notes) | not run [4](#notes) |");
        assert!(text.contains(&format!("{nine}\n{ten}\n{dies}\n")), "{text}");
        assert!(text.contains("1. needs Linux 7.0: why\n2. -EBUSY\n3. Oops\n"), "{text}");
    }

    /// Writes the sample's reports into files of one kernel each, the newer one first.
    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for report in sample().into_iter().rev() {
            let file = dir.join(format!("{}.json", report.kernel));
            fs::write(&file, serde_json::to_string(&[report]).unwrap()).unwrap();
            files.push(file);
        }
        files
    }

    #[test]
    fn a_document_that_differs_from_the_run_fails() {
        let dir = tempfile::tempdir().unwrap();
        let (files, docs) = (files(dir.path()), dir.path().join("docs"));
        at(&docs).make(&files, &matrix(), false).unwrap();
        at(&docs).make(&files, &matrix(), true).unwrap();
        for name in ["compatibility.md", "compatibility.html"] {
            let document = docs.join(name);
            let text = fs::read_to_string(&document).unwrap();
            fs::write(&document, text.replace("-EBUSY", "-EINVAL")).unwrap();
            assert!(at(&docs).make(&files, &matrix(), true).is_err(), "{name}");
            fs::write(&document, format!("{text}one more\n")).unwrap();
            assert!(at(&docs).make(&files, &matrix(), true).is_err(), "{name}");
            fs::write(&document, text).unwrap();
        }
    }

    #[test]
    fn a_kernel_of_some_targets_has_no_column() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        at(dir.path()).make(&files, &matrix(), false).unwrap();
        let text = |name| fs::read_to_string(dir.path().join(name)).unwrap();
        let without = ["compatibility.md", "compatibility.html"].map(text);

        let mut matrix = matrix();
        let built = Pinned { series: "7.3-hid".into(), ..matrix.kernel[1].clone() };
        matrix.kernel.push(built);
        let error = at(dir.path()).make(&files, &matrix, false).unwrap_err();
        assert!(error.to_string().contains("lacks 7.3-hid"), "{error}");
        let mut report = sample().remove(1);
        report.kernel = "7.3-hid".into();
        report.targets = vec!["hid".into()];
        let file = dir.path().join("7.3-hid.json");
        fs::write(&file, serde_json::to_string(&[report]).unwrap()).unwrap();
        let files = [files, vec![file]].concat();
        at(dir.path()).make(&files, &matrix, false).unwrap();
        assert!(
            ["compatibility.md", "compatibility.html"].map(text) == without,
            "7.3-hid is in them"
        );
    }

    #[test]
    fn a_report_without_rules_or_without_a_kernel_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path());
        let docs = dir.path().join("docs");
        let bare: Vec<_> = sample()
            .into_iter()
            .map(|report| KernelReport::new(report.kernel, report.accel, vec![]))
            .collect();
        let file = dir.path().join("bare.json");
        fs::write(&file, serde_json::to_string(&bare).unwrap()).unwrap();
        let error = at(&docs).make(&[file], &matrix(), false).unwrap_err();
        assert!(error.to_string().contains("states a rule"), "{error}");
        let mut failed = sample();
        failed[0].outcome = Verdict::Failed;
        let file = dir.path().join("failed.json");
        fs::write(&file, serde_json::to_string(&failed).unwrap()).unwrap();
        let error = at(&docs).make(&[file], &matrix(), false).unwrap_err();
        assert!(error.to_string().contains("6.12 did not pass"), "{error}");
        let mut part = sample();
        part[1].part = true;
        let file = dir.path().join("part.json");
        fs::write(&file, serde_json::to_string(&part).unwrap()).unwrap();
        let error = at(&docs).make(&[file], &matrix(), false).unwrap_err();
        assert!(error.to_string().contains("only some of the tests"), "{error}");
        let twice = [files.clone(), files.clone()].concat();
        assert!(at(&docs).make(&twice, &matrix(), false).is_err());
        files.pop();
        let error = at(&docs).make(&files, &matrix(), false).unwrap_err();
        assert!(error.to_string().contains("lacks 6.12"), "{error}");
        assert!(!docs.exists());
    }
}
