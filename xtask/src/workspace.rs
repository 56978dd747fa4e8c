//! The Cargo workspace that the runner works for: where it is, what it builds for the guests, and
//! the few words that it says about itself in `[workspace.metadata.xtask]`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, MetadataCommand, Target};
use serde::Deserialize;

use crate::failure::{failed, usage};
use crate::job::TestBinary;

/// The workspace of the current directory.
pub struct Workspace {
    /// Where `kernels.toml` and `vmtest.toml` are.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// What the workspace says to the runner.
    pub settings: Settings,
}

/// `[workspace.metadata.xtask]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Packages whose tests run on the host: the runner itself.
    pub host: Vec<String>,
    /// The example that `demo` runs when none is named.
    pub demo: Option<String>,
}

impl Workspace {
    /// Finds the workspace by `cargo metadata`.
    pub fn find() -> Result<Self> {
        let metadata =
            MetadataCommand::new().no_deps().exec().context("cannot read the workspace")?;
        let settings = match metadata.workspace_metadata.get("xtask") {
            None => Settings::default(),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|e| usage(format!("Cargo.toml: [workspace.metadata.xtask]: {e}")))?,
        };
        Ok(Workspace {
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
            settings,
        })
    }

    /// Builds the tests that run in guests: those of all packages but the host's.
    pub fn build_tests(&self) -> Result<Vec<TestBinary>> {
        let mut cargo = self.cargo("test");
        cargo.args(["--no-run", "--workspace"]);
        for package in &self.settings.host {
            cargo.args(["--exclude", package]);
        }
        let mut binaries = Vec::new();
        for (target, manifest, executable) in executables(&mut cargo, true)? {
            let dir = manifest.parent().context("a manifest without a directory")?.to_owned();
            let package = dir.file_name().map(|n| n.to_string_lossy().into_owned());
            let package = match dir == self.root {
                true => None,
                false => package,
            };
            let name = match package {
                None => target.name,
                Some(package) => format!("{package}::{}", target.name),
            };
            binaries.push(TestBinary { name, path: executable, dir });
        }
        binaries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(binaries)
    }

    /// Builds an example, which is to be the only one of its name.
    pub fn build_example(&self, name: &str) -> Result<PathBuf> {
        let mut cargo = self.cargo("build");
        cargo.args(["--workspace", "--example", name]);
        let built = executables(&mut cargo, false)?;
        let mut examples = built.into_iter().filter(|(t, _, _)| t.name == name);
        match (examples.next(), examples.next()) {
            (Some((_, _, executable)), None) => Ok(executable),
            _ => Err(usage(format!("the workspace has no example, or several, named {name}"))),
        }
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
            let status = run.status().context("cannot run cargo")?;
            if !status.success() {
                return Err(failed(format!("tests on the host failed ({status})")));
            }
        }
        Ok(())
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg(command).current_dir(&self.root);
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
    for message in Message::parse_stream(output) {
        if let Message::CompilerArtifact(artifact) =
            message.context("cannot read cargo's output")?
        {
            if artifact.profile.test == tests {
                if let Some(executable) = artifact.executable {
                    let manifest = artifact.manifest_path.into();
                    built.push((artifact.target, manifest, executable.into()));
                }
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        return Err(failed(format!("the build failed ({status})")));
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
