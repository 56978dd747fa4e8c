//! `kernels.toml` and `vmtest.toml`, read strictly: what is not known is refused.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::failure;

/// `kernels.toml`: the kernels that tests run on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// The workspace's directory, where `kernels.toml` was read.
    #[serde(skip)]
    pub root: PathBuf,
    /// What the initramfs loads.
    pub modules: Vec<String>,
    /// Those that tests need: loaded where the kernel has them.
    #[serde(default)]
    pub test_modules: Vec<String>,
    /// The kernels, in the order of the file.
    pub kernel: Vec<Pinned>,
}

/// One kernel, pinned by the hashes of its packages, or of the one that it is built from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// As in `6.12`.
    pub series: String,
    /// As in `6.12.107`.
    pub version: String,
    /// What `uname -r` says.
    pub release: String,
    /// The packages that hold it.
    #[serde(default)]
    pub package: Vec<Package>,
    /// How it is built, if no package holds it.
    pub build: Option<Build>,
    /// The only test targets that run on it; all, if none is named.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Whether it is one of those that are meant where none is named.
    #[serde(default = "yes")]
    pub default: bool,
}

fn yes() -> bool {
    true
}

/// What a kernel is built from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The package that holds the source.
    pub source: Package,
    /// The files of the options that it is to have, from the workspace's root. A later one has the
    /// last word.
    pub config: Vec<PathBuf>,
    /// More options: what only this source knows.
    #[serde(default)]
    pub options: Vec<String>,
}

impl Build {
    /// The files of its options, for a person.
    pub fn files(&self) -> String {
        let names: Vec<String> =
            self.config.iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    }
}

/// A file of the archive.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Under the mirror's URL.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

impl Package {
    /// The file's name.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

impl Matrix {
    /// Reads `kernels.toml` in `root`.
    pub fn load(root: &Path) -> Result<Matrix> {
        let file = "kernels.toml";
        let matrix: Matrix = read(root, file)?;
        if matrix.kernel.is_empty() {
            return Err(failure::usage(format!("{file} names no kernel")));
        }
        for (index, kernel) in matrix.kernel.iter().enumerate() {
            if matrix.kernel[..index].iter().any(|other| other.series == kernel.series) {
                return Err(failure::usage(format!("{file} names {} twice", kernel.series)));
            }
            let wrong = match (kernel.package.is_empty(), &kernel.build) {
                (true, None) => "has no package, and no build",
                (false, Some(_)) => "has packages, and a build: which of them is it?",
                _ => continue,
            };
            return Err(failure::usage(format!("{file}: {} {wrong}", kernel.series)));
        }
        Ok(Matrix { root: root.to_path_buf(), ..matrix })
    }

    /// The newest kernel, one that is built only if all are.
    pub fn newest(&self) -> &Pinned {
        let key = |kernel: &&Pinned| -> (bool, Vec<u32>) {
            let parts = kernel.version.split('.').map(|part| part.parse().unwrap_or(0));
            (kernel.build.is_none(), parts.collect())
        };
        // `load` refuses an empty matrix.
        self.kernel.iter().max_by_key(key).unwrap_or(&self.kernel[0])
    }

    /// The kernel of this series.
    pub fn find(&self, series: &str) -> Option<&Pinned> {
        self.kernel.iter().find(|kernel| kernel.series == series)
    }
}

/// `vmtest.toml`: how each kernel's guest is made.
pub struct Targets {
    targets: Vec<(String, GuestConfig)>,
}

/// What a guest is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// In QEMU's notation, as in `2G`.
    pub memory: String,
    /// Virtual processors.
    pub num_cpus: u8,
    /// Added to the kernel's command line.
    pub kernel_args: Option<String>,
}

impl GuestConfig {
    /// The guest's memory in bytes. QEMU's number without a suffix counts mebibytes.
    pub fn memory_bytes(&self) -> Result<u64> {
        let digits = self.memory.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match self.memory[digits.len()..].to_ascii_uppercase().as_str() {
            "K" => 10,
            "" | "M" => 20,
            "G" => 30,
            _ => return Err(self.bad_memory()),
        };
        let number: u64 = digits.parse().map_err(|_| self.bad_memory())?;
        number.checked_shl(shift).filter(|bytes| *bytes > 0).ok_or_else(|| self.bad_memory())
    }

    fn bad_memory(&self) -> anyhow::Error {
        failure::usage(format!("vmtest.toml: {} is no amount of memory, such as 2G", self.memory))
    }
}

/// As `vmtest::Config`, which accepts any key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VmtestFile {
    target: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    name: String,
    kernel: PathBuf,
    kernel_args: Option<String>,
    #[expect(dead_code, reason = "vmtest's own, checked to be there")]
    command: String,
    vm: Vm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    memory: String,
    num_cpus: u8,
    extra_args: Vec<String>,
}

impl Targets {
    /// Reads `vmtest.toml` in `root`, and checks that it has the kernels of `matrix`, no more
    /// and no fewer, each by the files that `cargo xtask kernels fetch` makes.
    pub fn load(root: &Path, matrix: &Matrix) -> Result<Targets> {
        let file = "vmtest.toml";
        let VmtestFile { target } = read(root, file)?;
        for kernel in &matrix.kernel {
            if !target.iter().any(|target| target.name == kernel.series) {
                return Err(failure::usage(format!(
                    "{file} has no target {}, which kernels.toml names",
                    kernel.series
                )));
            }
        }
        let mut targets: Vec<(String, GuestConfig)> = Vec::new();
        for Target { name, kernel, kernel_args, vm, .. } in target {
            if !matrix.kernel.iter().any(|kernel| kernel.series == name) {
                return Err(failure::usage(format!(
                    "{file} has a target {name}, which kernels.toml does not name"
                )));
            }
            if targets.iter().any(|(other, _)| *other == name) {
                return Err(failure::usage(format!("{file} has two targets {name}")));
            }
            let place = Path::new("target/kernels").join(&name);
            let initramfs = place.join("initramfs").display().to_string();
            if kernel != place.join("vmlinuz") || vm.extra_args != ["-initrd", &initramfs] {
                return Err(failure::usage(format!(
                    "{file}: target {name} must boot {place}/vmlinuz with extra_args [\"-initrd\", {initramfs:?}]",
                    place = place.display()
                )));
            }
            let guest = GuestConfig { memory: vm.memory, num_cpus: vm.num_cpus, kernel_args };
            targets.push((name, guest));
        }
        Ok(Targets { targets })
    }

    /// How the guest of this series is made; the last target's way for a kernel that is not in
    /// the matrix.
    pub fn vm(&self, series: &str) -> GuestConfig {
        let found = self.targets.iter().find(|(name, _)| name == series);
        // `load` has found a target for every kernel of a matrix that is not empty.
        found.unwrap_or(&self.targets[self.targets.len() - 1]).1.clone()
    }
}

fn read<T: DeserializeOwned>(root: &Path, file: &str) -> Result<T> {
    let path = root.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    // The error names the line and the key.
    toml::from_str(&text).map_err(|error| failure::usage(format!("{}: {error}", path.display())))
}
