//! What the host asks of a guest, and what the guest answers: one line an event, on the command's
//! output.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The file, in the share between host and guest, that says what the guest is to do.
pub const JOB_FILE: &str = "job.json";

/// The file, in the same place, that the kernel's configuration is in, if the host knows it.
pub const CONFIG_FILE: &str = "config";

/// The file, in the same place, that holds what the test that runs has noted.
pub const NOTES_FILE: &str = "notes";

/// The directory, in the same place, that holds what a program leaves for the host.
pub const RESULTS_DIR: &str = "results";

/// Where vmtest mounts the share in the guest.
pub const GUEST_SHARE: &str = "/mnt/vmtest";

/// What a guest is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// Marks the runner's own lines among those of the tests: a test cannot know it by accident.
    pub marker: String,
    /// The work itself.
    pub work: Work,
    /// Leave the guest up after a failure, for a person.
    pub hold_on_failure: bool,
}

/// The work of a [`Job`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Run the tests of these binaries, each in a process of its own.
    Tests {
        /// Test binaries built on the host.
        binaries: Vec<TestBinary>,
        /// Arguments of libtest that choose tests.
        filter: Filter,
    },
    /// Run a program and let its output through.
    Run {
        /// The program, a path on the host.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
    /// Do nothing, for a person at the console.
    Hold,
}

/// A test binary and where it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestBinary {
    /// `package::target`, as reports name it.
    pub name: String,
    /// The executable, a path on the host.
    pub path: PathBuf,
    /// The package's directory: the tests' working directory, as under `cargo test`.
    pub dir: PathBuf,
    /// Its name as a test target, if it is one: the library's own tests are none.
    pub target: Option<String>,
    /// Each of its tests gets a guest of its own.
    pub alone: bool,
}

/// Which tests to run, in libtest's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Arguments that choose: names, `--skip NAME`, `--exact`.
    pub choose: Vec<String>,
    /// Also, or only, the tests marked `#[ignore]`.
    pub ignored: Ignored,
}

/// What to do with tests marked `#[ignore]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ignored {
    /// Count them as skipped.
    #[default]
    Skip,
    /// Run them with the others (`--include-ignored`).
    Include,
    /// Run only them (`--ignored`).
    Only,
}

/// What a guest tells the host while it works.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// The command runs; the kernel's release.
    Started {
        /// As `uname -r` prints it.
        release: String,
    },
    /// This many tests were chosen.
    Chosen {
        /// Tests to run or to count as skipped.
        tests: usize,
        /// Those of them that are marked `#[ignore]` and will not run.
        ignored: usize,
    },
    /// A test begins.
    Begin {
        /// The test's name.
        test: String,
    },
    /// A test has ended.
    Test(Box<TestResult>),
    /// All is done: the verdict's marker.
    Ended {
        /// Whether the work succeeded.
        success: bool,
        /// How it ended where it is not told by the tests: an exit status, an error.
        how: String,
        /// Whether the guest stays up for a person; else the host ends it.
        is_held: bool,
    },
}

/// One test's result on one kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestResult {
    /// `package::target::module::test`.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it failed or was skipped; empty when it passed.
    pub reason: String,
    /// Wall-clock time in the guest, in seconds.
    pub seconds: f64,
    /// What a failed test wrote to its output. Not part of the report, which is to be small.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub output: String,
    /// The option (`CONFIG_…`) that the kernel lacks, if it was skipped for one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missing: Option<String>,
    /// It was not run for its `#[ignore]`, whatever the kernel.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub ignored: bool,
    /// What it found out about the kernel, by name.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub facts: Vec<(String, String)>,
    /// The rule that it proves, if it is one of those that documents list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<Rule>,
    /// What this kernel does about it, if it is not what the rule says.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub answer: String,
}

/// A statement that a test proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its number or name, by which documents refer to it.
    pub id: String,
    /// What it is about, for a heading.
    pub group: String,
    /// One line.
    pub statement: String,
    /// Where the test is, from the workspace's root.
    pub file: String,
    /// The program that it runs, from the workspace's root.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub program: Option<String>,
}

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It ran and succeeded.
    Passed,
    /// It ran and did not succeed, or its kernel died under it.
    Failed,
    /// It said that this kernel is too old or too new for it or lacks an option, or is marked
    /// `#[ignore]`.
    Skipped,
}

impl TestResult {
    /// Of a test of which nothing more is known yet: it has not passed.
    pub fn named(name: String) -> Self {
        TestResult {
            name,
            outcome: Outcome::Failed,
            reason: String::new(),
            seconds: 0.0,
            output: String::new(),
            missing: None,
            ignored: false,
            facts: vec![],
            rule: None,
            answer: String::new(),
        }
    }

    /// Of a test that is marked `#[ignore]` and was not asked for.
    pub fn ignored(name: String) -> Self {
        let reason = "marked #[ignore]: run it with -- --ignored".into();
        TestResult { outcome: Outcome::Skipped, reason, ignored: true, ..TestResult::named(name) }
    }
}

/// Formats an event as the line that [`parse`] reads.
pub fn line(marker: &str, event: &Event) -> Result<String> {
    let json = serde_json::to_string(event).context("cannot encode an event")?;
    Ok(format!("{marker} {json}"))
}

/// Reads a line of the command's output: what stands before the marker, and the event behind it.
///
/// A program that ends without a newline leaves its last words before the marker.
pub fn parse(marker: &str, line: &str) -> Option<(String, Result<Event>)> {
    let (before, json) = line.split_once(marker)?;
    let event = serde_json::from_str(json.trim())
        .with_context(|| format!("the guest sent an event that cannot be read: {json}"));
    Some((before.to_owned(), event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_behind_a_line_that_was_not_ended() {
        let sent = line("::m", &Event::Begin { test: "t".into() }).unwrap();
        let (before, event) = parse("::m", &format!("no newline{sent}")).unwrap();
        assert_eq!(before, "no newline");
        assert!(matches!(event.unwrap(), Event::Begin { .. }));
        assert!(parse("::m", "no marker {\"Begin\":{\"test\":\"t\"}}").is_none());
    }

    #[test]
    fn a_garbled_event_is_an_error_and_not_a_line_of_output() {
        let (_, event) = parse("::m", "::m {\"Ended\":").unwrap();
        assert!(event.is_err());
    }
}
