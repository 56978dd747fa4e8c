//! `cargo xtask mutate`: a control for the tests. Each mutation of `mutations.toml` makes one
//! test expect what is not so, in a copy of the workspace; the test has to fail.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use console::style;
use serde::Deserialize;

use crate::batch::Batch;
use crate::failure::{failed, usage};
use crate::job::{Filter, Ignored, Outcome, TestBinary, TestResult};
use crate::libtest;
use crate::report::{KernelReport, Verdict, align};
use crate::workspace::Workspace;

/// The list of mutations, in the workspace's root.
pub const FILE: &str = "mutations.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutation: Vec<Mutation>,
}

/// One expectation, and what is put in its place.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// A file of Rust, from the workspace's root.
    file: PathBuf,
    /// What it says, once.
    from: String,
    /// What it is made to say.
    to: String,
    /// The test that has to fail, as libtest names it.
    test: String,
}

/// Reads the list, and looks whether each mutation still fits.
pub fn load(root: &Path) -> Result<Vec<Mutation>> {
    let file = root.join(FILE);
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let list: List = toml::from_str(&text).map_err(|e| usage(format!("{FILE}: {e}")))?;
    let mut tests = HashSet::new();
    for mutation in &list.mutation {
        mutation.apply(root)?;
        if !tests.insert(&mutation.test) {
            return Err(usage(format!("{FILE}: {} is mutated twice", mutation.test)));
        }
    }
    match list.mutation.is_empty() {
        true => Err(usage(format!("{FILE} names no mutation"))),
        false => Ok(list.mutation),
    }
}

impl Mutation {
    /// The file's text with the mutation.
    fn apply(&self, root: &Path) -> Result<String> {
        let name = self.file.display();
        if self.file.extension().is_none_or(|extension| extension != "rs") {
            // What a test loads at run time is the same for all mutants.
            return Err(usage(format!("{FILE}: {name} is no file of Rust")));
        }
        let path = root.join(&self.file);
        let text = fs::read_to_string(&path).map_err(|e| usage(format!("{FILE}: {name}: {e}")))?;
        match text.matches(&self.from).count() {
            1 if self.from != self.to => Ok(text.replace(&self.from, &self.to)),
            1 => Err(usage(format!("{FILE}: {:?} is mutated to itself", self.from))),
            n => Err(usage(format!("{FILE}: {name} has {:?} {n} times, not once", self.from))),
        }
    }
}

/// The copy of a workspace in which mutants are built.
pub struct Mutants {
    workspace: Workspace,
    dir: PathBuf,
}

impl Mutants {
    /// Copies what git knows, or would, of the workspace.
    pub fn of(original: &Workspace) -> Result<Self> {
        let dir = original.target.join("mutants");
        let root = dir.join("workspace");
        if root.exists() {
            fs::remove_dir_all(&root)
                .with_context(|| format!("cannot clear {}", root.display()))?;
        }
        let files = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&original.root)
            .output()
            .context("cannot run git")?;
        if !files.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&files.stderr).trim());
        }
        let files = String::from_utf8(files.stdout).context("a file's name is not UTF-8")?;
        for file in files.split_terminator('\0') {
            let (from, to) = (original.root.join(file), root.join(file));
            // Git also lists what was removed.
            if from.is_file() {
                fs::create_dir_all(to.parent().context("a file without a directory")?)?;
                fs::copy(&from, &to).with_context(|| format!("cannot copy {file}"))?;
            }
        }
        // What cargo has built for the original serves here too, but for the workspace itself.
        Ok(Mutants { workspace: Workspace::at(&root, &original.target)?, dir })
    }

    /// Builds the tests as they are; gives one batch that runs all that will be mutated.
    pub fn originals(&self, mutations: &[Mutation]) -> Result<Batch> {
        let mut choose = vec!["--exact".to_owned()];
        choose.extend(mutations.iter().map(|mutation| mutation.test.clone()));
        let filter = Filter { choose, ignored: Ignored::Skip };
        let binaries: Vec<TestBinary> =
            self.workspace.build_tests(&[])?.into_iter().filter(|binary| !binary.alone).collect();
        let found: HashSet<String> =
            libtest::chosen(&binaries, &filter)?.into_iter().map(|test| test.name).collect();
        if let Some(unknown) = mutations.iter().find(|mutation| !found.contains(&mutation.test)) {
            return Err(usage(format!("{FILE}: there is no test {}", unknown.test)));
        }
        Ok(Batch { alone: None, binaries, filter })
    }

    /// Builds a mutant; gives a batch that runs its test, in a guest of its own.
    pub fn build(&self, index: usize, mutation: &Mutation) -> Result<Batch> {
        let path = self.workspace.root.join(&mutation.file);
        let original = fs::read_to_string(&path)?;
        fs::write(&path, mutation.apply(&self.workspace.root)?)?;
        let built = self.workspace.build_tests(&[]);
        fs::write(&path, original)?;
        let filter = Filter {
            choose: vec!["--exact".to_owned(), mutation.test.clone()],
            ignored: Ignored::Skip,
        };
        let mut binaries = Vec::new();
        for mut binary in built?.into_iter().filter(|binary| !binary.alone) {
            if libtest::chosen(std::slice::from_ref(&binary), &filter)?.is_empty() {
                continue;
            }
            // The next mutant is built in the same place.
            let own = self.dir.join(format!("{index}-{}", binary.name.replace("::", ".")));
            fs::copy(&binary.path, &own)
                .with_context(|| format!("cannot copy {}", binary.path.display()))?;
            binary.path = own;
            binaries.push(binary);
        }
        Ok(Batch { alone: Some(mutation.test.clone()), binaries, filter })
    }
}

impl Drop for Mutants {
    fn drop(&mut self) {
        // Nothing is lost with it if it stays: the next run clears it.
        _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether the tests pass as they are; without that, their failure proves nothing.
pub fn judge_originals(report: &KernelReport) -> Result<()> {
    match (report.outcome, report.skipped) {
        (Verdict::Passed, 0) => Ok(()),
        (Verdict::Passed, _) => Err(usage("a test that is to be mutated was skipped")),
        _ => Err(failed("a test fails without a mutation")),
    }
}

/// A table of what became of each mutant, and how many were not caught.
pub fn judge_mutants(mutations: &[Mutation], report: &KernelReport) -> (String, usize) {
    let mut rows = vec![["test", "expects", "in place of", ""].map(str::to_owned).to_vec()];
    let mut survivors = 0;
    for mutation in mutations {
        let name = |test: &str| test.ends_with(&format!("::{}", mutation.test));
        let of_it: Vec<_> = report.tests.iter().filter(|test| name(&test.name)).collect();
        // A test whose guest died or hung has not noticed anything.
        let noticed =
            |t: &&TestResult| t.outcome == Outcome::Failed && t.output.contains("panicked at");
        let caught = !of_it.is_empty() && of_it.iter().all(noticed);
        survivors += usize::from(!caught);
        let verdict = match caught {
            true => style("caught").green(),
            false => style("SURVIVED").red().bold(),
        };
        rows.push(vec![
            mutation.test.clone(),
            own_lines(&mutation.to, &mutation.from),
            own_lines(&mutation.from, &mutation.to),
            verdict.to_string(),
        ]);
    }
    (align(&rows), survivors)
}

/// The lines of one text that the other has not.
fn own_lines(text: &str, other: &str) -> String {
    let own = text.lines().filter(|line| !other.lines().any(|o| o == *line));
    own.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;

    fn mutation() -> Mutation {
        Mutation {
            file: "a.rs".into(),
            from: "== 1".into(),
            to: "== 2".into(),
            test: "a::counts".into(),
        }
    }

    #[test]
    fn a_mutation_has_to_fit_once() {
        let dir = tempfile::tempdir().unwrap();
        let put = |text: &str| fs::write(dir.path().join("a.rs"), text).unwrap();
        put("x == 1;");
        assert_eq!(mutation().apply(dir.path()).unwrap(), "x == 2;");
        put("x == 1; y == 1;");
        assert!(mutation().apply(dir.path()).is_err());
        put("x == 3;");
        assert!(mutation().apply(dir.path()).is_err());
        assert!(Mutation { file: "b.rs".into(), ..mutation() }.apply(dir.path()).is_err());
        put("x == 1;");
        assert!(Mutation { to: "== 1".into(), ..mutation() }.apply(dir.path()).is_err());
    }

    /// As the tests change.
    #[test]
    fn the_mutations_of_this_workspace_fit() {
        load(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
    }

    #[test]
    fn only_a_test_that_failed_has_caught_its_mutation() {
        let report = |outcome| {
            let output = "thread panicked at a.rs:1".into();
            let test =
                TestResult { outcome, output, ..TestResult::named("suite::a::counts".into()) };
            KernelReport::new("6.12".into(), Accel::Tcg, vec![test])
        };
        assert_eq!(judge_mutants(&[mutation()], &report(Outcome::Failed)).1, 0);
        assert_eq!(judge_mutants(&[mutation()], &report(Outcome::Passed)).1, 1);
        assert_eq!(judge_mutants(&[mutation()], &report(Outcome::Skipped)).1, 1);
        let mut died = report(Outcome::Failed);
        died.tests[0].output.clear();
        assert_eq!(judge_mutants(&[mutation()], &died).1, 1);
        let none = KernelReport::new("6.12".into(), Accel::Tcg, vec![]);
        assert_eq!(judge_mutants(&[mutation()], &none).1, 1);
    }
}
