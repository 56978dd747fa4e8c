//! What a test binary holds, in libtest's own words.

use std::collections::HashSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::job::{Filter, Ignored, TestBinary};

/// A test that a filter has chosen.
pub struct Test<'a> {
    /// Where it is.
    pub binary: &'a TestBinary,
    /// Its name in the binary.
    pub name: String,
    /// Whether it is marked `#[ignore]`, and was not asked for.
    pub is_ignored: bool,
}

impl Test<'_> {
    /// As reports name it.
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.binary.name, self.name)
    }
}

/// The tests that a filter chooses, in the order of the binaries.
pub fn chosen<'a>(binaries: &'a [TestBinary], filter: &Filter) -> Result<Vec<Test<'a>>> {
    let mut chosen = Vec::new();
    for binary in binaries {
        let ignored: HashSet<String> = match filter.ignored {
            Ignored::Skip => list(binary, filter, &["--ignored"])?.into_iter().collect(),
            Ignored::Include | Ignored::Only => HashSet::new(),
        };
        let only: &[&str] = if filter.ignored == Ignored::Only { &["--ignored"] } else { &[] };
        for name in list(binary, filter, only)? {
            let is_ignored = ignored.contains(&name);
            chosen.push(Test { binary, name, is_ignored });
        }
    }
    Ok(chosen)
}

/// The tests of a binary, as libtest's terse list names them.
fn list(binary: &TestBinary, filter: &Filter, more: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(&binary.path)
        .args(&filter.choose)
        .args(["--list", "--format", "terse"])
        .args(more)
        .current_dir(&binary.dir)
        .output()
        .with_context(|| format!("cannot run {}", binary.path.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{} cannot list its tests: {}", binary.name, said.trim());
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut tests = Vec::new();
    for line in listed.lines() {
        match line.strip_suffix(": test") {
            Some(test) => tests.push(test.to_owned()),
            None if line.ends_with(": benchmark") => (),
            None => bail!("{} does not list its tests as libtest does: {line}", binary.name),
        }
    }
    Ok(tests)
}
