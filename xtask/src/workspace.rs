//! The Cargo workspace that the runner works for: where it is, what it builds for the guests, and
//! the few words that it says about itself in `[workspace.metadata.xtask]`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, MetadataCommand, Target};
use serde::Deserialize;

use crate::bench::Bench;
use crate::failure::{failed, usage};
use crate::interrupt::supervised;
use crate::job::TestBinary;

/// The workspace of the current directory.
pub struct Workspace {
    /// Where `kernels.toml` and `vmtest.toml` are.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// What the workspace says to the runner.
    pub settings: Settings,
    demos: Vec<Demo>,
    /// The packages that measure, by name.
    benches: Vec<(String, Bench)>,
    /// The test targets of the packages whose tests run in guests.
    tests: Vec<String>,
}

/// What a person can be shown in a guest: an example, or the binary of a package of the same name.
#[derive(Debug, Clone)]
pub struct Demo {
    name: String,
    kind: &'static str,
    /// What it is run with.
    pub args: Vec<String>,
}

/// `[package.metadata.xtask]`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PackageSettings {
    /// With these arguments the package's binary is a demo.
    demo: Option<Vec<String>>,
    /// The package's binary measures.
    bench: Option<Bench>,
}

/// `[workspace.metadata.xtask]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Packages whose tests run on the host: the runner itself.
    pub host: Vec<String>,
    /// Test targets that do harm: each of their tests runs in a guest of its own, and may expect
    /// the kernel to report a fault.
    pub alone: Vec<String>,
    /// What `demo` runs when nothing is named.
    pub demo: Option<String>,
    /// What `torture` runs: a package that is a demo, too, and takes `--seconds` and `--seed`.
    pub torture: Option<String>,
    /// What the tests are about, for the title of the document made from their rules.
    pub subject: Option<String>,
}

impl Workspace {
    /// Finds the workspace by `cargo metadata`.
    pub fn find() -> Result<Self> {
        Self::read(MetadataCommand::new().no_deps())
    }

    /// The workspace in `root`, to be built in `target`.
    pub fn at(root: &Path, target: &Path) -> Result<Self> {
        let workspace = Self::read(MetadataCommand::new().no_deps().current_dir(root))?;
        Ok(Workspace { target: target.to_owned(), ..workspace })
    }

    fn read(command: &mut MetadataCommand) -> Result<Self> {
        let metadata = command.exec().context("cannot read the workspace")?;
        let settings = match metadata.workspace_metadata.get("xtask") {
            None => Settings::default(),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|e| usage(format!("Cargo.toml: [workspace.metadata.xtask]: {e}")))?,
        };
        let guests = metadata.packages.iter().filter(|p| !settings.host.contains(&p.name));
        let tests: Vec<String> = guests
            .flat_map(|package| &package.targets)
            .filter(|target| target.is_test())
            .map(|target| target.name.clone())
            .collect();
        let mut demos = Vec::new();
        let mut benches = Vec::new();
        for package in &metadata.packages {
            let examples = package.targets.iter().filter(|target| target.is_example());
            demos.extend(examples.map(|example| Demo {
                name: example.name.clone(),
                kind: "--example",
                args: vec![],
            }));
            if let Some(value) = package.metadata.get("xtask") {
                let settings: PackageSettings =
                    serde_json::from_value(value.clone()).map_err(|e| {
                        usage(format!("{}: [package.metadata.xtask]: {e}", package.manifest_path))
                    })?;
                let name = package.name.to_string();
                if let Some(bench) = settings.bench {
                    bench.check(package.manifest_path.as_std_path())?;
                    benches.push((name.clone(), bench));
                }
                if let Some(args) = settings.demo {
                    demos.push(Demo { name, kind: "--bin", args });
                }
            }
        }
        let workspace = Workspace {
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
            settings,
            demos,
            benches,
            tests,
        };
        workspace
            .check_tests(&workspace.settings.alone)
            .context("Cargo.toml: [workspace.metadata.xtask]: alone")?;
        Ok(workspace)
    }

    /// Builds the tests that run in guests: those of all packages but the host's, or only the test
    /// targets of these names.
    pub fn build_tests(&self, only: &[String]) -> Result<Vec<TestBinary>> {
        let mut cargo = self.cargo("test");
        only.iter().for_each(|name| _ = cargo.args(["--test", name]));
        cargo.args(["--no-run", "--workspace"]);
        for package in &self.settings.host {
            cargo.args(["--exclude", package]);
        }
        let mut binaries = Vec::new();
        for (target, manifest, executable) in executables(&mut cargo, true)? {
            let dir = manifest.parent().context("a manifest without a directory")?.to_owned();
            let test = target.is_test().then(|| target.name.clone());
            let alone = test.as_ref().is_some_and(|name| self.settings.alone.contains(name));
            let name = match dir.file_name() {
                Some(package) if dir != self.root => {
                    format!("{}::{}", package.to_string_lossy(), target.name)
                }
                _ => target.name,
            };
            binaries.push(TestBinary { name, path: executable, dir, target: test, alone });
        }
        binaries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(binaries)
    }

    /// Fails unless all of these are test targets whose tests run in guests.
    pub fn check_tests(&self, names: &[String]) -> Result<()> {
        match names.iter().find(|name| !self.tests.contains(name)) {
            None => Ok(()),
            Some(name) => Err(usage(format!(
                "no test target {name} runs in guests: there are {}",
                self.tests.join(", ")
            ))),
        }
    }

    /// The demo of this name, if there is one and no other.
    pub fn demo(&self, name: &str) -> Result<&Demo> {
        let mut named = self.demos.iter().filter(|demo| demo.name == name);
        match (named.next(), named.next()) {
            (Some(demo), None) => Ok(demo),
            _ => {
                let names: Vec<&str> = self.demos.iter().map(|demo| demo.name.as_str()).collect();
                Err(usage(format!(
                    "the workspace has no demo {name}, or several: there are {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// Builds what a demo runs.
    pub fn build_demo(&self, demo: &Demo) -> Result<PathBuf> {
        self.build_program(demo.kind, &demo.name)
    }

    /// The one package that measures.
    pub fn bench(&self) -> Result<(&str, &Bench)> {
        match &self.benches[..] {
            [(name, bench)] => Ok((name, bench)),
            [] => Err(usage("no package of the workspace has [package.metadata.xtask.bench]")),
            several => Err(usage(format!(
                "several packages have [package.metadata.xtask.bench]: {}",
                several.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// Builds the binary of a package that measures.
    pub fn build_bench(&self, name: &str) -> Result<PathBuf> {
        self.build_program("--bin", name)
    }

    fn build_program(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let mut cargo = self.cargo("build");
        cargo.args(["--workspace", kind, name]);
        let built = executables(&mut cargo, false)?;
        let program = built.into_iter().find(|(target, _, _)| target.name == name);
        Ok(program.context("cargo has built no executable")?.2)
    }

    /// Runs what is tested on the host: the doc tests, and the tests of the host's packages.
    pub fn test_host(&self) -> Result<()> {
        let mut runs = Vec::new();
        let mut doc = self.cargo("test");
        doc.args(["--doc", "--workspace"]);
        self.settings.host.iter().for_each(|package| _ = doc.args(["--exclude", package]));
        runs.push(doc);
        if !self.settings.host.is_empty() {
            let mut host = self.cargo("test");
            self.settings.host.iter().for_each(|package| _ = host.args(["--package", package]));
            runs.push(host);
        }
        for mut run in runs {
            let mut child = run.spawn().context("cannot run cargo")?;
            let status =
                supervised(child.id(), || child.wait())?.context("cannot wait for cargo")?;
            if !status.success() {
                return Err(failed(format!("tests on the host failed ({status})")));
            }
        }
        Ok(())
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // A process group of its own, which `supervised` ends as a whole.
        cargo.arg(command).current_dir(&self.root).stdin(Stdio::null()).process_group(0);
        cargo.arg("--target-dir").arg(&self.target);
        cargo
    }
}

type Executable = (Target, PathBuf, PathBuf);

/// Runs cargo, and gives the executables that it built, tests or others.
fn executables(cargo: &mut Command, tests: bool) -> Result<Vec<Executable>> {
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot run cargo")?;
    let output = std::io::BufReader::new(child.stdout.take().context("cargo's output")?);
    let mut built = Vec::new();
    supervised(child.id(), || -> Result<()> {
        for message in Message::parse_stream(output) {
            let message = message.context("cannot read cargo's output")?;
            let Message::CompilerArtifact(artifact) = message else { continue };
            if artifact.profile.test == tests {
                if let Some(executable) = artifact.executable {
                    let manifest = artifact.manifest_path.into();
                    built.push((artifact.target, manifest, executable.into()));
                }
            }
        }
        Ok(())
    })??;
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("the build failed ({status})");
    }
    Ok(built)
}

/// Splits the arguments behind `--` into libtest's words that the runner understands.
pub fn filter(args: &[String]) -> Result<crate::job::Filter> {
    use crate::job::Ignored;
    let mut filter = crate::job::Filter::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--ignored" => filter.ignored = Ignored::Only,
            "--include-ignored" => filter.ignored = Ignored::Include,
            "--exact" => filter.choose.push(arg.clone()),
            "--skip" => {
                let name = args.next().ok_or_else(|| usage("--skip needs a test's name"))?;
                filter.choose.extend([arg.clone(), name.clone()]);
            }
            option if option.starts_with('-') => {
                return Err(usage(format!(
                    "{option} is not understood behind --: names, --exact, --skip NAME, \
                     --ignored and --include-ignored are (each test runs in a process of its own)"
                )));
            }
            name => filter.choose.push(name.to_owned()),
        }
    }
    Ok(filter)
}

/// The directory for a guest's files under the target directory, by the kernel's name.
pub fn guest_dir(target: &Path, kernel: &str) -> Result<PathBuf> {
    if kernel.is_empty() || kernel.contains('/') || kernel.starts_with('.') {
        bail!("{kernel} cannot name a directory");
    }
    Ok(target.join("guests").join(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Ignored;

    #[test]
    fn libtests_words_are_understood_and_others_refused() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let known = filter(&words("a b --skip c --ignored --exact")).unwrap();
        assert_eq!(known.choose, ["a", "b", "--skip", "c", "--exact"]);
        assert_eq!(known.ignored, Ignored::Only);
        assert!(filter(&words("--test-threads=1")).is_err());
        assert!(filter(&words("--skip")).is_err());
    }
}
