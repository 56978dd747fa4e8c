//! Packages bpf-wq as for a registry, and builds examples/cmdlines, outside of this workspace, with
//! the package.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;
use tar::Archive;

fn main() -> Result<()> {
    let root = Path::new("../..").canonicalize()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("no OUT_DIR")?);
    for path in ["Cargo.toml", "README.md", "bpf", "build.rs", "examples", "src"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let target = out.join("target");
    let packages = target.join("package");
    fs::create_dir_all(&target)?;
    replace_dir(&packages)?;
    let mut package = cargo(&root, &target, "package");
    run(package.args(["--package", "bpf-wq", "--allow-dirty", "--no-verify"]))?;
    let archive = archive_in(&packages)?;
    // Of the package's name and version, as the directory in the archive.
    let unpacked = out.join(archive.file_stem().context("no name")?);
    let archive = File::open(&archive).with_context(|| format!("no {}", archive.display()))?;
    replace_dir(&unpacked)?;
    Archive::new(GzDecoder::new(archive)).unpack(&out).context("cannot unpack the package")?;

    let example = out.join("cmdlines");
    replace_dir(&example)?;
    copy(&root.join("examples/cmdlines"), &example)?;
    let patch = format!("patch.crates-io.bpf-wq.path={unpacked:?}");
    run(cargo(&example, &target, "build").args(["--config", &patch]))?;
    println!("cargo::rustc-env=CMDLINES={}", target.join("debug/cmdlines").display());
    Ok(())
}

fn archive_in(dir: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crate") {
            return Ok(path);
        }
    }
    bail!("no package in {}", dir.display())
}

/// A cargo of its own, which knows nothing of the one that runs this.
fn cargo(dir: &Path, target: &Path, command: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_cargos = text.starts_with("CARGO") && text != "CARGO_HOME";
        if is_cargos || text.starts_with("RUSTC") || text == "RUSTFLAGS" {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(dir).args([command, "--target-dir"]).arg(target);
    cargo
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(())
}

fn replace_dir(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// What git would have: not what a build has left there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let (name, to) = (entry.file_name(), to.join(entry.file_name()));
        if name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
