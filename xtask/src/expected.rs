//! The report of its kernel that a test of an `alone` target announces before it provokes it. The
//! announcement is in the kernel's own log, so that it stands before the report and outlives the
//! guest.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::console::{BEGIN, message};
use crate::job::Rule;

/// What stands before the announcement, in the kernel's log.
const EXPECTS: &str = "xtask: expects ";

/// What a test announces.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The rule that the report proves.
    pub rule: Option<Rule>,
    /// What the kernel says, in this order.
    pub report: Vec<String>,
    /// What this kernel does about the rule.
    #[serde(default)]
    pub answer: String,
}

/// An announcement, and what the kernel's log holds before and behind it.
#[derive(Debug)]
pub struct Announced<'a> {
    /// The announcement.
    pub expected: Expected,
    /// The lines before.
    pub before: Vec<&'a str>,
    behind: Vec<&'a str>,
}

impl<'a> Announced<'a> {
    /// Finds what `test` has announced in the log of its guest, if it has announced anything.
    pub fn find(log: &'a str, test: &str) -> Result<Option<Self>> {
        let lines: Vec<&str> = log.lines().collect();
        let Some(begin) = lines.iter().position(|l| message(l).strip_prefix(BEGIN) == Some(test))
        else {
            return Ok(None);
        };
        let announces = |line: &&str| message(line).starts_with(EXPECTS);
        let Some(at) = lines[begin..].iter().position(announces).map(|at| begin + at) else {
            return Ok(None);
        };
        let (before, behind) = (lines[..at].to_vec(), lines[at + 1..].to_vec());
        if behind.iter().any(announces) {
            bail!("it announced two reports of the kernel");
        }
        let json = message(lines[at]).strip_prefix(EXPECTS).unwrap_or_default();
        let expected: Expected = serde_json::from_str(json)
            .with_context(|| format!("its announcement cannot be read: {json}"))?;
        if expected.report.is_empty() || expected.report.iter().any(String::is_empty) {
            bail!("its announcement holds for a kernel that reports nothing: {json}");
        }
        Ok(Some(Announced { expected, before, behind }))
    }

    /// The first of the announced words that the kernel did not say, or did not say in their
    /// order.
    pub fn missing(&self) -> Option<&str> {
        let mut lines = self.behind.iter().map(|line| message(line));
        let mut rest = "";
        self.expected.report.iter().map(String::as_str).find(|words| {
            loop {
                if let Some(at) = rest.find(words) {
                    rest = &rest[at + words.len()..];
                    return false;
                }
                match lines.next() {
                    Some(line) => rest = line,
                    None => return true,
                }
            }
        })
    }
}

/// The test that announced a report, in the log of a guest that it shares with others.
pub fn announced_by(log: &str) -> Option<&str> {
    let mut test = "a test";
    for line in log.lines().map(message) {
        if let Some(begun) = line.strip_prefix(BEGIN) {
            test = begun;
        } else if line.starts_with(EXPECTS) {
            return Some(test);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: &str = "[    1.0] Linux version 6.12\n[    9.0] xtask: begin danger::a\n";

    fn log(report: &str, behind: &str) -> String {
        format!("{BEGUN}root:/# [    9.1] xtask: expects {{\"report\":{report}}}\r\n{behind}")
    }

    /// What the kernel did not say of `report`.
    fn missing(report: &str, behind: &str) -> Option<String> {
        let log = log(report, behind);
        let announced = Announced::find(&log, "danger::a").unwrap().unwrap();
        announced.missing().map(str::to_owned)
    }

    const DEATH: &str = "[    9.2] Oops: int3: 0000 [#1]\r\n[    9.2] RIP: 0010:bpf_wq_work+0x1\r\n\
                         [    9.3] Kernel panic - not syncing\r\n";

    #[test]
    fn a_report_is_found_in_its_order() {
        assert_eq!(missing(r#"["Oops: int3","bpf_wq_work","Kernel panic"]"#, DEATH), None);
        assert_eq!(missing(r#"["Oops","int3","[#1]"]"#, DEATH), None);
        let swapped = missing(r#"["Kernel panic","Oops: int3"]"#, DEATH);
        assert_eq!(swapped.as_deref(), Some("Oops: int3"));
        let once = missing(r#"["Oops","Oops"]"#, DEATH);
        assert_eq!(once.as_deref(), Some("Oops"));
        assert_eq!(missing(r#"["Oops"]"#, "").as_deref(), Some("Oops"));
    }

    #[test]
    fn the_announcement_itself_and_what_stands_before_it_are_no_report() {
        assert_eq!(missing(r#"["xtask"]"#, DEATH).as_deref(), Some("xtask"));
        assert_eq!(missing(r#"["Linux version"]"#, DEATH).as_deref(), Some("Linux version"));
    }

    #[test]
    fn an_announcement_belongs_to_a_test_that_was_begun() {
        assert!(Announced::find(&log(r#"["x"]"#, ""), "danger::b").unwrap().is_none());
        assert!(Announced::find(BEGUN, "danger::a").unwrap().is_none());
        assert_eq!(announced_by(&log(r#"["x"]"#, "")), Some("danger::a"));
        assert_eq!(announced_by(BEGUN), None);
    }

    #[test]
    fn an_announcement_that_cannot_fail_or_be_read_is_an_error() {
        let error = |log: &str| Announced::find(log, "danger::a").unwrap_err().to_string();
        assert!(error(&log("[]", "")).contains("reports nothing"));
        assert!(error(&log(r#"[""]"#, "")).contains("reports nothing"));
        assert!(error(&log(r#"["cut"#, "")).contains("cannot be read"));
        let twice = "[    9.2] xtask: expects {\"report\":[\"x\"]}\n";
        assert!(error(&log(r#"["x"]"#, twice)).contains("two reports"));
    }
}
