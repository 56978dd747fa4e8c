//! Builds a kernel from a source package, with the options that the workspace names for it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use liblzma::read::XzDecoder;
use nix::sys::signal::Signal;

use crate::cache::{self, Cache};
use crate::config::{Build, Pinned};
use crate::deb::Deb;
use crate::failure::{Interrupted, usage};
use crate::interrupt::{self, Busy};
use crate::options::Options;
use crate::{download, mirror, setup};

/// What a build takes on the disk: the package, the source, and what the compiler makes of it.
const SPACE: u64 = 3_500_000_000;

/// How much of what make said is shown when it fails.
const LAST_LINES: usize = 20;

/// A kernel, without modules: all that it has is built in.
pub struct Built {
    /// The bzImage.
    pub vmlinuz: Vec<u8>,
    /// Its `.config`.
    pub config: Vec<u8>,
}

/// Builds `pinned` from the package of `from`. The caller holds the lock of `key`.
pub fn build(
    pinned: &Pinned,
    from: &Build,
    options: &Options,
    cache: &Cache,
    key: &str,
    mirror: Option<&str>,
) -> Result<Built> {
    setup::ensure_build_tools()?;
    cache.want_space(SPACE)?;
    let package = download::fetch(&mirror::candidates(mirror)?, &from.source, cache)?;
    let unpacking = || format!("unpacking {}", from.source.name());
    let deb = Deb::open(package, cache).with_context(unpacking)?;

    // A signal ends the process only when the workshop is gone, which is dropped before this.
    let _busy = Busy::new();
    let workshop = cache.workshop(key)?;
    let source = unpack(&deb, workshop.path(), cache).with_context(unpacking)?;
    let make = Make { source: &source, workshop: workshop.path(), bar: progress(&pinned.series) };
    make.configure(options, from)?;
    make.run(&["include/config/kernel.release"])?;
    let release = make.read("include/config/kernel.release")?;
    let release = String::from_utf8_lossy(&release);
    if release.trim() != pinned.release {
        return Err(usage(format!(
            "kernels.toml calls it {}, and it calls itself {}: correct the release there, or \
             CONFIG_LOCALVERSION in {}",
            pinned.release,
            release.trim(),
            from.files()
        )));
    }
    make.image()?;
    Ok(Built { vmlinuz: make.read("arch/x86/boot/bzImage")?, config: make.read(".config")? })
}

/// Unpacks the source that a package holds; gives its directory.
fn unpack(deb: &Deb, to: &Path, cache: &Cache) -> Result<PathBuf> {
    let is_source = |path: &&str| path.starts_with("usr/src/") && path.ends_with(".tar.xz");
    let source = deb.paths().find(is_source).map(|path| deb.reader(path)).transpose()?.flatten();
    let source = source.context("it holds no usr/src/*.tar.xz")?;
    let mut tar = tar::Archive::new(XzDecoder::new_parallel(BufReader::new(source)));
    let explain = |error: io::Error| cache::explain(error, cache.dir());
    for entry in tar.entries().map_err(explain)? {
        if interrupt::requested() {
            return Err(Interrupted.into());
        }
        entry.and_then(|mut entry| entry.unpack_in(to)).map_err(explain)?;
    }
    let mut found = fs::read_dir(to).map_err(explain)?;
    match (found.next().transpose()?, found.next()) {
        (Some(source), None) => Ok(source.path()),
        _ => bail!("the source is not in one directory"),
    }
}

struct Make<'a> {
    source: &'a Path,
    workshop: &'a Path,
    bar: ProgressBar,
}

impl Make<'_> {
    /// Makes a `.config` of nothing but what `options` ask for and need.
    fn configure(&self, options: &Options, from: &Build) -> Result<()> {
        let wanted = self.workshop.join("options");
        fs::write(&wanted, options.text()).map_err(|error| cache::explain(error, &wanted))?;
        self.run(&["allnoconfig", &format!("KCONFIG_ALLCONFIG={}", wanted.display())])?;
        let config = self.read(".config")?;
        match &options.missing(&String::from_utf8_lossy(&config))[..] {
            [] => Ok(()),
            missing => Err(usage(format!(
                "{} asks for {}, and this source would leave it out: it does not know the option, \
                 or what that depends on is not asked for",
                from.files(),
                missing.join(", ")
            ))),
        }
    }

    fn image(&self) -> Result<()> {
        let begun = Instant::now();
        let jobs = std::thread::available_parallelism().context("counting processors")?;
        self.run(&[&format!("-j{jobs}"), "bzImage"])?;
        self.bar.finish_and_clear();
        eprintln!("built in {:.0} s", begun.elapsed().as_secs_f32());
        Ok(())
    }

    /// Runs make, and shows what it does; if it fails, what it said beside that.
    fn run(&self, arguments: &[&str]) -> Result<()> {
        let (read, write) = nix::unistd::pipe().context("making a pipe")?;
        let mut command = Command::new("make");
        command
            .args(arguments)
            .current_dir(self.source)
            // Kbuild listens to dozens of variables; the cache knows only the source and options.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", self.workshop)
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write)
            .process_group(0);
        // SAFETY: between fork and exec, only a system call is made, which is safe after a fork.
        unsafe {
            // A runner that is killed takes its make with it, which ends what it has started.
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        let mut child = command.spawn().context("running make")?;
        // It has the pipe's other end, too.
        drop(command);
        let mut said = VecDeque::new();
        let status = interrupt::supervised(child.id(), || -> io::Result<_> {
            for line in BufReader::new(File::from(read)).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                if is_step(&line) {
                    self.bar.set_message(line.trim().to_owned());
                    continue;
                }
                if said.len() == LAST_LINES {
                    said.pop_front();
                }
                said.push_back(line);
            }
            child.wait()
        })?
        .context("running make")?;
        if !status.success() {
            self.bar.finish_and_clear();
            let said = said.make_contiguous().join("\n");
            bail!("`make {}` failed ({status}):\n{said}", arguments.join(" "));
        }
        Ok(())
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        fs::read(self.source.join(file)).with_context(|| format!("make has left no {file}"))
    }
}

/// Whether a line of Kbuild's names a file that it makes: `  CC      kernel/fork.o`.
fn is_step(line: &str) -> bool {
    line.strip_prefix("  ").is_some_and(|step| step.starts_with(|c: char| c.is_ascii_uppercase()))
}

fn progress(series: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        eprintln!("building {series}, which takes minutes");
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:>12} {spinner} {elapsed:>4} {wide_msg}");
    let bar = ProgressBar::new_spinner().with_prefix(format!("building {series}"));
    let bar = bar.with_style(style.expect("a constant template"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_step_is_quoted() {
        for step in ["  CC      kernel/fork.o", "  HOSTCC  scripts/kallsyms", "  VDSO2C  x"] {
            assert!(is_step(step), "{step}");
        }
        for said in [
            "kernel/fork.c:12:5: error: no",
            "   12 | int x",
            "make: *** Error 2",
            "cc1: all warnings",
            "",
        ] {
            assert!(!is_step(said), "{said}");
        }
    }
}
