//! Kernels: chosen by a word, fetched, made ready to boot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::config::{Build, Matrix, Pinned};
use crate::deb::Deb;
use crate::download::{self, hex};
use crate::modules::Available;
use crate::options::Options;
use crate::{build, failure, initramfs, mirror};

/// Part of every key: another layout of an entry is another entry.
const LAYOUT: &str = "1";

/// A kernel that was asked for.
#[derive(Clone, Debug)]
pub enum Choice {
    /// One of the matrix.
    Pinned(Pinned),
    /// The user's own.
    Image {
        /// A bzImage.
        path: PathBuf,
        /// As in `/lib/modules/RELEASE`; `None` if all that is needed is built in.
        modules: Option<PathBuf>,
    },
}

impl Choice {
    /// The series, or the file's name.
    pub fn name(&self) -> String {
        match self {
            Choice::Pinned(pinned) => pinned.series.clone(),
            Choice::Image { path, .. } => {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    /// The only test targets that run on it; all, if there is none.
    pub fn tests(&self) -> &[String] {
        match self {
            Choice::Pinned(pinned) => &pinned.tests,
            Choice::Image { .. } => &[],
        }
    }
}

/// A kernel that is ready to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its series, or its file's name.
    pub name: String,
    /// What QEMU's `-kernel` takes.
    pub vmlinuz: PathBuf,
    /// What QEMU's `-initrd` takes.
    pub initramfs: PathBuf,
    /// The configuration that it was built with, if it is one of the matrix.
    pub config: Option<PathBuf>,
}

/// Finds the kernels that `words` name: a series (`6.12`), a version, a release or the path of a
/// bzImage, whose modules are in `modules`. No words mean the matrix's default kernels.
pub fn choose(matrix: &Matrix, words: &[String], modules: Option<&Path>) -> Result<Vec<Choice>> {
    let mut choices = Vec::new();
    let mut chosen: Vec<&str> = Vec::new();
    let mut images = 0;
    for word in words {
        let pinned = matrix
            .kernel
            .iter()
            .find(|kernel| [&kernel.series, &kernel.version, &kernel.release].contains(&word));
        if let Some(kernel) = pinned {
            if !chosen.contains(&kernel.series.as_str()) {
                chosen.push(&kernel.series);
                choices.push(Choice::Pinned(kernel.clone()));
            }
        } else if Path::new(word).is_file() {
            check_image(Path::new(word))?;
            images += 1;
            let modules = modules.map(Path::to_path_buf);
            choices.push(Choice::Image { path: PathBuf::from(word), modules });
        } else {
            let series: Vec<&str> = matrix.kernel.iter().map(|kernel| &*kernel.series).collect();
            return Err(failure::usage(format!(
                "no kernel and no file {word:?}: there are {}, or the path of a bzImage",
                series.join(", ")
            )));
        }
    }
    if modules.is_some() && images == 0 {
        return Err(failure::usage("--modules is for a kernel that is named by its path"));
    }
    if words.is_empty() {
        let by_default = matrix.kernel.iter().filter(|kernel| kernel.default);
        choices.extend(by_default.cloned().map(Choice::Pinned));
    }
    Ok(choices)
}

/// Fails unless the file is one that QEMU can boot.
fn check_image(path: &Path) -> Result<()> {
    let mut start = [0; 0x206];
    let read =
        fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut start));
    let known = match read {
        // The boot protocol's magic, or an ELF vmlinux.
        Ok(()) => &start[0x202..] == b"HdrS" || start.starts_with(b"\x7fELF"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error).context(format!("reading {}", path.display())),
    };
    if !known {
        return Err(failure::usage(format!("{} is not a kernel image", path.display())));
    }
    Ok(())
}

/// Makes the kernel ready to boot: fetches or builds it unless it is in the cache, and makes its
/// initramfs.
pub fn ensure(
    choice: &Choice,
    matrix: &Matrix,
    cache: &Cache,
    mirror: Option<&str>,
) -> Result<Kernel> {
    match choice {
        Choice::Pinned(pinned) => ensure_pinned(pinned, matrix, cache, mirror)
            .with_context(|| format!("kernel {}", pinned.release)),
        Choice::Image { path, modules } => ensure_image(path, modules.as_deref(), matrix, cache)
            .with_context(|| format!("kernel {}", path.display())),
    }
}

fn ensure_pinned(
    pinned: &Pinned,
    matrix: &Matrix,
    cache: &Cache,
    mirror: Option<&str>,
) -> Result<Kernel> {
    let key = key(pinned, matrix)?;
    let entry = cache.entry(&key);
    if !entry.exists() {
        let _lock = cache.lock(&key)?;
        if !entry.exists() {
            match &pinned.build {
                Some(from) => build_pinned(pinned, from, matrix, cache, &key, mirror)?,
                None => fetch_pinned(pinned, matrix, cache, &key, mirror)?,
            }
        }
    }
    let modules = entry.join("modules.cpio");
    let modules = fs::read(&modules).with_context(|| format!("reading {}", modules.display()))?;
    let initramfs = entry.join("initramfs");
    cache.replace(&initramfs, &with_init(modules)?)?;
    link(&matrix.root, &pinned.series, &entry)?;
    let config = Some(entry.join("config"));
    let vmlinuz = entry.join("vmlinuz");
    Ok(Kernel { name: pinned.series.clone(), vmlinuz, initramfs, config })
}

/// Names a kernel's place in the cache, after all that decides what is there.
pub fn key(pinned: &Pinned, matrix: &Matrix) -> Result<String> {
    let mut hash = Sha256::new();
    if let Some(from) = &pinned.build {
        hash.update(format!("{}\n", from.source.sha256));
        hash.update(Options::read(from, &matrix.root)?.text());
    } else {
        let packages = pinned.package.iter().map(|package| &package.sha256);
        for part in packages.chain(&matrix.modules).chain(&matrix.test_modules) {
            hash.update(part);
            hash.update("\n");
        }
    }
    hash.update(LAYOUT);
    Ok(format!("{}-{}", pinned.release, &hex(&hash.finalize())[..12]))
}

fn build_pinned(
    pinned: &Pinned,
    from: &Build,
    matrix: &Matrix,
    cache: &Cache,
    key: &str,
    mirror: Option<&str>,
) -> Result<()> {
    let options = Options::read(from, &matrix.root)?;
    let built = build::build(pinned, from, &options, cache, key, mirror)?;
    let no_modules = initramfs::modules(&[])?;
    let files =
        [("vmlinuz", &built.vmlinuz), ("config", &built.config), ("modules.cpio", &no_modules)];
    cache.install(key, &files.map(|(name, content)| (name, &content[..])))?;
    Ok(())
}

fn fetch_pinned(
    pinned: &Pinned,
    matrix: &Matrix,
    cache: &Cache,
    key: &str,
    mirror: Option<&str>,
) -> Result<()> {
    let mirrors = mirror::candidates(mirror)?;
    let mut debs = Vec::new();
    for package in &pinned.package {
        let file = download::fetch(&mirrors, package, cache)?;
        let deb = Deb::open(file, cache);
        debs.push(deb.with_context(|| format!("unpacking {}", package.name()))?);
    }
    let find = |path: &str| {
        let found = debs.iter().find_map(|deb| deb.read(path).transpose());
        found.transpose()
    };
    // Debian 12 has the modules in /lib; since 6.19 image and configuration are beside them.
    let release = &pinned.release;
    let find_one = |places: &[String], what| {
        for place in places {
            if let Some(content) = find(place)? {
                return Ok(content);
            }
        }
        Err(anyhow!("the packages that kernels.toml names for it hold no {what} of {release}"))
    };
    let directories = [format!("usr/lib/modules/{release}"), format!("lib/modules/{release}")];
    let either = |file: &str| directories.each_ref().map(|dir| format!("{dir}/{file}"));
    let boot =
        |file: &str| [format!("boot/{file}-{release}"), format!("{}/{file}", directories[0])];
    let vmlinuz = find_one(&boot("vmlinuz"), "vmlinuz")?;
    let config = find_one(&boot("config"), "config")?;
    let builtin = find_one(&either("modules.builtin"), "modules.builtin")?;

    let inside = |path: &&str| directories.iter().any(|dir| path.starts_with(dir));
    let paths = debs.iter().flat_map(Deb::paths).filter(inside);
    let available = Available::new(paths, &String::from_utf8_lossy(&builtin));
    let chosen = available.select(&wanted(matrix, &available), |path| {
        find(path)?.ok_or_else(|| anyhow!("{path} is gone"))
    })?;
    let modules = initramfs::modules(&chosen)?;
    cache
        .install(key, &[("vmlinuz", &vmlinuz), ("config", &config), ("modules.cpio", &modules)])?;
    Ok(())
}

/// The modules to load: those without which nothing boots, and those that tests need, as far as
/// this kernel has them.
fn wanted(matrix: &Matrix, available: &Available) -> Vec<String> {
    let for_tests = matrix.test_modules.iter().filter(|module| available.has(module));
    matrix.modules.iter().chain(for_tests).cloned().collect()
}

fn ensure_image(
    path: &Path,
    modules: Option<&Path>,
    matrix: &Matrix,
    cache: &Cache,
) -> Result<Kernel> {
    let vmlinuz = fs::canonicalize(path)?;
    let chosen = match modules {
        Some(directory) => {
            let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
            let paths = files_under(directory)?;
            let available = Available::new(paths.iter().map(String::as_str), &builtin);
            if available.is_empty() {
                return Err(failure::usage(format!(
                    "{} holds no kernel modules: a directory like /lib/modules/RELEASE is needed",
                    directory.display()
                )));
            }
            available.select(&wanted(matrix, &available), |path| {
                fs::read(path).with_context(|| format!("reading {path}"))
            })?
        }
        None => Vec::new(),
    };
    // One file for a path, made anew when what is in it changes.
    let key = &hex(&Sha256::digest(vmlinuz.as_os_str().as_encoded_bytes()))[..12];
    let initramfs = cache.dir().join("images").join(format!("{key}.initramfs"));
    cache.replace(&initramfs, &with_init(initramfs::modules(&chosen)?)?)?;
    let name = vmlinuz.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Kernel { name, vmlinuz, initramfs, config: None })
}

fn with_init(mut modules: Vec<u8>) -> Result<Vec<u8>> {
    modules.extend(initramfs::init(&initramfs::build_init()?)?);
    Ok(modules)
}

fn files_under(directory: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        let entries = fs::read_dir(&directory)
            .map_err(|error| failure::usage(format!("{}: {error}", directory.display())))?;
        for entry in entries {
            let entry = entry?;
            // Not through links: `build` leads to a whole source tree.
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                files.push(entry.path().to_string_lossy().into_owned());
            }
        }
    }
    Ok(files)
}

/// Makes `target/kernels/SERIES`, which `vmtest.toml` names, lead to the cache's entry, and
/// `target/kernels/workspace` to the workspace: plain `vmtest` mounts that in another place, where
/// Cargo would build all anew.
fn link(root: &Path, series: &str, entry: &Path) -> Result<()> {
    let directory = root.join("target/kernels");
    let make = |name: &str, to: &Path| -> io::Result<()> {
        let link = directory.join(name);
        if fs::read_link(&link).is_ok_and(|old| old == to) {
            return Ok(());
        }
        let staging = directory.join(format!(".{name}.{}", std::process::id()));
        std::os::unix::fs::symlink(to, &staging)?;
        fs::rename(&staging, &link)
    };
    fs::create_dir_all(&directory)
        .and_then(|()| make(series, entry))
        .and_then(|()| make("workspace", root))
        .with_context(|| format!("linking {}", directory.join(series).display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Package;
    use crate::failure::{Exit, exit_of};
    use rstest::rstest;

    fn matrix() -> Matrix {
        let kernel = |version: &str| {
            let (series, _) = version.rsplit_once('.').unwrap();
            let release = format!("{version}-amd64");
            Pinned {
                series: series.into(),
                version: version.into(),
                release,
                package: vec![],
                build: None,
                tests: vec![],
                default: true,
            }
        };
        let kernel = ["6.9.8", "6.10.2", "6.2.1"].map(kernel).to_vec();
        Matrix { root: PathBuf::new(), modules: vec![], test_modules: vec![], kernel }
    }

    fn names(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        let name = |choice| match choice {
            Choice::Pinned(pinned) => pinned.series,
            Choice::Image { path, .. } => path.display().to_string(),
        };
        choose(&matrix(), &words, None).unwrap().into_iter().map(name).collect()
    }

    #[test]
    fn a_kernel_has_three_names_and_comes_once() {
        assert_eq!(names(&["6.10", "6.9.8", "6.2.1-amd64", "6.10.2"]), ["6.10", "6.9", "6.2"]);
        assert_eq!(names(&[]), ["6.9", "6.10", "6.2"]);
        assert_eq!(matrix().newest().series, "6.10");
    }

    #[test]
    fn a_kernel_that_is_built_is_not_the_newest() {
        let mut matrix = matrix();
        let source = Package { path: "x".into(), bytes: 1, sha256: "0".into() };
        let build = Build { source, config: vec!["x".into()], options: vec![] };
        let newest = matrix.newest().clone();
        let series = "6.10-x".to_owned();
        matrix.kernel.push(Pinned { series, build: Some(build), ..newest });
        assert_eq!(matrix.newest().series, "6.10");
        assert_eq!(choose(&matrix, &["6.10.2".to_owned()], None).unwrap()[0].name(), "6.10");
        matrix.kernel.retain(|kernel| kernel.build.is_some());
        assert_eq!(matrix.newest().series, "6.10-x");
    }

    #[test]
    fn a_kernel_that_is_no_default_has_to_be_named() {
        let mut matrix = matrix();
        matrix.kernel[1].default = false;
        let chosen = choose(&matrix, &[], None).unwrap();
        assert_eq!(chosen.iter().map(Choice::name).collect::<Vec<_>>(), ["6.9", "6.2"]);
        assert_eq!(choose(&matrix, &["6.10".to_owned()], None).unwrap()[0].name(), "6.10");
    }

    #[rstest]
    #[case::unknown("6.1", "there are 6.9, 6.10, 6.2, or the path")]
    #[case::no_file("/nowhere/bzImage", "no kernel and no file \"/nowhere/bzImage\"")]
    fn a_word_that_names_nothing_is_refused(#[case] word: &str, #[case] says: &str) {
        let error = choose(&matrix(), &[word.to_owned()], None).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn an_image_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bzImage");
        let word = [path.display().to_string()];
        let mut image = vec![0; 0x400];
        fs::write(&path, &image).unwrap();
        let error = choose(&matrix(), &word, None).unwrap_err();
        assert!(error.to_string().contains("is not a kernel image"), "{error}");
        fs::write(&path, b"short").unwrap();
        assert_eq!(exit_of(&choose(&matrix(), &word, None).unwrap_err()), Exit::Usage);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        fs::write(&path, &image).unwrap();
        assert_eq!(names(&[&word[0]]), word);
    }

    #[test]
    fn modules_are_for_an_image() {
        let error = choose(&matrix(), &["6.9".to_owned()], Some(Path::new("/"))).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
    }

    #[test]
    fn a_directory_without_modules_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let choice = Choice::Image {
            path: "/proc/self/exe".into(),
            modules: Some(directory.path().to_path_buf()),
        };
        let error = ensure(&choice, &matrix(), &cache, None).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
        assert!(format!("{error:#}").contains("holds no kernel modules"), "{error:#}");
    }
}
