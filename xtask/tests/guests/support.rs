//! A workspace for the runner, and what came of its run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The kernel that most of the tests boot.
pub const KERNEL: &str = "6.12";

/// A workspace of its own, with the real matrix.
pub struct Fixture {
    /// Where it is.
    pub dir: TempDir,
}

/// What came of a runner.
pub struct Run {
    /// Its exit code, unless a signal killed it.
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub said: String,
}

impl Fixture {
    /// Copies it.
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture");
        copy(&from, dir.path());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in ["kernels.toml", "vmtest.toml"] {
            fs::copy(root.join(file), dir.path().join(file)).unwrap();
        }
        copy(&root.join("kernels"), &dir.path().join("kernels"));
        Fixture { dir }
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Adds to the kernel arguments of every target.
    pub fn with_kernel_args(self, more: &str) -> Self {
        self.edit("vmtest.toml", |text| text.replace(" no5lvl", &format!(" no5lvl {more}")));
        self
    }

    /// Changes a file of it.
    pub fn edit(&self, name: &str, change: impl Fn(&str) -> String) {
        let before = fs::read_to_string(self.path(name)).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "the change to {name} changes nothing");
        fs::write(self.path(name), after).unwrap();
    }

    /// The runner with these arguments, to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("CARGO_TARGET_DIR", self.path("target"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the runner to its end.
    pub fn xtask(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Runs with these lines on standard input.
    pub fn xtask_with_input(&self, args: &[&str], input: &str) -> Run {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Run::of(child.wait_with_output().unwrap())
    }

    /// Runs one of the fixture's tests on one kernel.
    pub fn test(&self, name: &str, options: &[&str]) -> Run {
        let mut args = vec!["test", "-k", KERNEL];
        args.extend(options);
        args.extend(["--", name]);
        self.xtask(&args)
    }

    /// What came of a test on the first kernel: its outcome, and the whole of its result.
    pub fn outcome(&self, name: &str) -> (String, Value) {
        let report = &self.report()[0];
        let tests = report["tests"].as_array().unwrap();
        let test = tests.iter().find(|t| t["name"] == name);
        let test = test.unwrap_or_else(|| panic!("{name} is not in {report}")).clone();
        (test["outcome"].as_str().unwrap().to_owned(), test)
    }

    /// The report on all kernels.
    pub fn report(&self) -> Value {
        let json = fs::read_to_string(self.path("target/kernel-report.json")).unwrap();
        serde_json::from_str(&json).unwrap()
    }
}

impl Run {
    /// Takes what a runner said.
    pub fn of(output: Output) -> Self {
        let said = [output.stdout, output.stderr].concat();
        Run { code: output.status.code(), said: String::from_utf8_lossy(&said).into_owned() }
    }

    /// Asserts the exit code, and that these words were said.
    #[track_caller]
    pub fn ends(&self, code: i32, saying: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        for words in saying {
            assert!(self.said.contains(words), "{words:?} is missing from:\n{}", self.said);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}
