//! What runners need: themselves, the job, and the kernels in the way that each wants them. All of
//! it is in the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::host::{Host, Kernel};
use super::layout;
use super::targets::Targets;

/// The release of vmtest whose library `cargo xtask` is built on.
pub const VMTEST: &str = "0.18.0";

/// The release of virtme-ng.
pub const VIRTME_NG: &str = "1.42";

/// Where all of it is.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The job's program.
    pub job: PathBuf,
    /// vmtest's.
    pub vmtest: PathBuf,
    /// Its targets: those of vmtest.toml, with the job as their command.
    pub config: PathBuf,
    /// The directory of virtme-ng's programs.
    pub virtme_ng: PathBuf,
    /// The directory of its kernels.
    kernels: PathBuf,
    /// As vmtest.toml says for the newest kernel.
    pub cpus: i64,
    /// The same.
    pub memory: String,
}

/// cargo's arguments to build the job: the features of what it needs are those of `cargo xtask test`.
pub const BUILD: &str = "test --workspace --exclude xtask --exclude xtask-init --test job --no-run";

impl Installed {
    /// Installs what is not there yet, into the target directory.
    pub fn ensure(host: &Host, kernels: &[Kernel]) -> Result<Self> {
        let dir = host.target.join("runners");
        let vmtest = dir.join(format!("vmtest-{VMTEST}"));
        if !vmtest.join("bin/vmtest").exists() {
            let version = format!("={VMTEST}");
            let mut cargo = Command::new("cargo");
            cargo.args(["install", "vmtest", "--version", &version, "--locked", "--root"]);
            done(cargo.arg(&vmtest))?;
        }
        let virtme_ng = dir.join(format!("virtme-ng-{VIRTME_NG}"));
        if !virtme_ng.join("bin/vng").exists() {
            done(Command::new("python3").args(["-m", "venv"]).arg(&virtme_ng))?;
            let mut pip = Command::new(virtme_ng.join("bin/pip"));
            done(pip.args(["install", "--quiet", &format!("virtme-ng=={VIRTME_NG}")]))?;
        }
        let job = job(&host.root)?;
        let text = fs::read_to_string(host.root.join("vmtest.toml")).context("no vmtest.toml")?;
        let newest = kernels.last().context("no kernel")?;
        let targets = Targets::of(&text, &host.root, &job)?;
        let (cpus, memory) = targets.size(&newest.kernel)?;
        // vmtest shows this directory to its guests, which may write there.
        let config = dir.join("job/vmtest.toml");
        fs::create_dir_all(dir.join("job"))
            .and_then(|()| fs::write(&config, targets.0.to_string()))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let bin = |of: PathBuf| of.join("bin");
        let installed = Self {
            job,
            vmtest: bin(vmtest).join("vmtest"),
            config,
            virtme_ng: bin(virtme_ng),
            kernels: dir.join("kernels"),
            cpus,
            memory,
        };
        for kernel in kernels {
            layout::lay_out(&installed.kernels, kernel)?;
        }
        Ok(installed)
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            job: "/w/job".into(),
            vmtest: "/v/vmtest".into(),
            config: "/v/vmtest.toml".into(),
            virtme_ng: "/v/bin".into(),
            kernels: "/v/kernels".into(),
            cpus: 2,
            memory: "2G".into(),
        }
    }

    /// What virtme-ng boots.
    pub fn kernel(&self, kernel: &Kernel) -> PathBuf {
        layout::image(&self.kernels, kernel)
    }
}

/// Builds the job, and says where it is.
fn job(root: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    let cargo = cargo.args(BUILD.split(' ')).arg("--message-format=json-render-diagnostics");
    let output = cargo.current_dir(root).stderr(Stdio::inherit()).output();
    let output = output.context("cannot run cargo")?;
    ensure!(output.status.success(), "the job cannot be built ({})", output.status);
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_job = message["target"]["name"] == "job" && message["profile"]["test"] == true;
        message["executable"].as_str().filter(|_| is_job).map(PathBuf::from)
    };
    messages.lines().find_map(of).context("cargo has built no job")
}

/// Runs a command that has to succeed.
pub fn done(command: &mut Command) -> Result<()> {
    let wrong = format!("cannot run {}", command.get_program().to_string_lossy());
    let status = command.stdin(Stdio::null()).status().context(wrong)?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
