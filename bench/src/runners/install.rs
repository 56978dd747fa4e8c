//! What runners need: themselves, the job, and the kernels in the way that each wants them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use cpio::NewcReader;
use serde_json::Value;
use toml::Table;

use super::host::{Host, Kernel};

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
            installed.lay_out(kernel)?;
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
        self.kernels.join(&kernel.kernel).join("boot").join(format!("vmlinuz-{}", kernel.release))
    }

    /// As the kernel's packages would, but with no modules but those of the initramfs: virtme-ng
    /// makes one of its own of them.
    fn lay_out(&self, kernel: &Kernel) -> Result<()> {
        let root = self.kernels.join(&kernel.kernel);
        let wrong = || format!("cannot lay out {}", root.display());
        if root.exists() {
            fs::remove_dir_all(&root).with_context(wrong)?;
        }
        let modules = root.join("lib/modules").join(&kernel.release);
        fs::create_dir_all(&modules).with_context(wrong)?;
        fs::create_dir_all(root.join("boot")).with_context(wrong)?;
        fs::copy(kernel.dir.join("vmlinuz"), self.kernel(kernel)).with_context(wrong)?;
        let archive = fs::read(kernel.dir.join("modules.cpio")).with_context(wrong)?;
        unpack(&archive, &modules).with_context(wrong)?;
        let mut depmod = Command::new("depmod");
        // It warns that there is no list of what the kernel has built in.
        done(depmod.arg("-b").arg(&root).arg(&kernel.release).stderr(Stdio::null()))
    }
}

/// Puts the modules of an archive into a directory.
fn unpack(mut archive: &[u8], dir: &Path) -> Result<()> {
    loop {
        let mut file = NewcReader::new(archive)?;
        if file.entry().is_trailer() {
            return Ok(());
        }
        let name = Path::new(file.entry().name()).to_owned();
        if name.extension().is_some_and(|extension| extension == "ko") {
            let to = dir.join(name.file_name().context("a module without a name")?);
            std::io::copy(&mut file, &mut fs::File::create(to)?)?;
        }
        archive = file.finish()?;
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

/// vmtest.toml.
struct Targets(Table);

impl Targets {
    /// That of the workspace, whose files are named from `root`, with the job as the command.
    fn of(text: &str, root: &Path, job: &Path) -> Result<Self> {
        let mut config: Table = text.parse().context("vmtest.toml")?;
        let command = format!("'{}'; exit $?", job.display());
        let Some(targets) = config.get_mut("target").and_then(|targets| targets.as_array_mut())
        else {
            bail!("vmtest.toml has no target");
        };
        for target in targets.iter_mut().filter_map(|target| target.as_table_mut()) {
            let kernel = target.get("kernel").and_then(|kernel| kernel.as_str());
            let kernel = root.join(kernel.context("vmtest.toml: a target has no kernel")?);
            target.insert("kernel".into(), kernel.display().to_string().into());
            target.insert("command".into(), command.clone().into());
        }
        Ok(Self(config))
    }

    /// A target's CPUs and memory.
    fn size(&self, name: &str) -> Result<(i64, String)> {
        let mut targets = self.0["target"].as_array().into_iter().flatten();
        let found = targets.find(|target| target["name"].as_str() == Some(name));
        let vm = found.and_then(|target| target.get("vm"));
        let cpus = vm.and_then(|vm| vm.get("num_cpus")?.as_integer());
        let memory = vm.and_then(|vm| vm.get("memory")?.as_str());
        let size = cpus.zip(memory.map(str::to_owned));
        size.with_context(|| format!("vmtest.toml does not say how large {name} is"))
    }
}

/// Runs a command that has to succeed.
fn done(command: &mut Command) -> Result<()> {
    let wrong = format!("cannot run {}", command.get_program().to_string_lossy());
    let status = command.stdin(Stdio::null()).status().context(wrong)?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmtests_targets_are_the_projects_with_the_job() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join("vmtest.toml")).expect("it can be read");
        let targets = Targets::of(&text, Path::new("/w"), Path::new("/w/job")).expect("it is one");
        let before: Table = text.parse().expect("it is TOML");
        let all = |config: &Table| config["target"].as_array().expect("it has some").clone();
        assert_eq!(all(&targets.0).len(), all(&before).len());
        for (new, old) in all(&targets.0).iter().zip(all(&before)) {
            assert_eq!(new["command"].as_str(), Some("'/w/job'; exit $?"));
            let kernel = format!("/w/{}", old["kernel"].as_str().expect("a path"));
            assert_eq!(new["kernel"].as_str(), Some(&*kernel));
            for same in ["name", "kernel_args", "vm"] {
                assert_eq!(new[same], old[same]);
            }
        }
        assert_eq!(targets.size("7.3").expect("it is there"), (2, "2G".to_owned()));
        assert!(targets.size("7.4").is_err());
    }

    #[test]
    fn modules_are_unpacked_and_nothing_else() {
        let mut archive = Vec::new();
        for (name, content) in
            [("modules", ""), ("modules/9p.ko", "module"), ("modules/order", "x")]
        {
            let size = u32::try_from(content.len()).expect("it is small");
            let mut file = cpio::newc::Builder::new(name).write(&mut archive, size);
            std::io::copy(&mut content.as_bytes(), &mut file).expect("it is written");
            file.finish().expect("it is written");
        }
        cpio::newc::trailer(&mut archive).expect("it is written");
        let dir = tempfile::tempdir().expect("a directory");
        unpack(&archive, dir.path()).expect("it is one");
        let files: Vec<_> = fs::read_dir(dir.path()).expect("it is there").collect();
        assert_eq!(files.len(), 1);
        assert_eq!(fs::read(dir.path().join("9p.ko")).expect("it is there"), b"module");
    }
}
