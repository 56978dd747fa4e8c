//! The cgroup that is the guard's scope.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use tempfile::TempDir;

/// A cgroup whose processes are watched, by one agent.
pub struct Scope {
    path: PathBuf,
    /// Locked as long as this is there, and this process.
    pub(crate) directory: Flock<File>,
}

impl Scope {
    /// One that is there, of cgroup v2.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let what = || {
            format!(
                "cannot guard the cgroup {name}: make it with `mkdir {name}`, in a mount of cgroup2"
            )
        };
        let directory = File::open(path).with_context(what)?;
        let file_system = fstatfs(directory.as_fd()).with_context(what)?;
        if file_system.filesystem_type() != CGROUP2_SUPER_MAGIC {
            bail!("{}; it is none", what());
        }
        let directory = Flock::lock(directory, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("another exec-guard guards {name}"))?;
        let scope = Self { path: path.to_owned(), directory };
        // It would ask itself whether it may ask.
        if scope.processes().contains(&std::process::id()) {
            bail!("exec-guard is in the cgroup {name} itself: start it outside");
        }
        Ok(scope)
    }

    /// Its number, as long as it is there.
    pub(crate) fn number(&self) -> Result<u64> {
        Ok(self.directory.metadata()?.ino())
    }

    /// Whether it is there, and no other one in its place.
    pub fn is_there(&self) -> bool {
        let now = fs::metadata(&self.path).map(|now| now.ino());
        now.is_ok_and(|now| self.number().is_ok_and(|number| number == now))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Processes that are in it, or in one of its own.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut processes = Vec::new();
        for directory in with_those_within(self.path.clone()) {
            let here = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            processes.extend(here.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        processes
    }

    /// The numbers of all cgroups that there are, if this mount has them all: that of a container
    /// may not.
    pub(crate) fn numbers_of_all(&self) -> Result<Option<HashSet<u64>>> {
        let own = fs::canonicalize(&self.path)?;
        let device = self.directory.metadata()?.dev();
        let is_mounted =
            |directory: &Path| fs::metadata(directory).is_ok_and(|there| there.dev() == device);
        let root = own.ancestors().take_while(|directory| is_mounted(directory)).last();
        let root = root.context("a cgroup has a mount")?;
        if fs::metadata(root)?.ino() != ROOT {
            return Ok(None);
        }
        let all = with_those_within(root.to_owned());
        Ok(Some(all.filter_map(|cgroup| Some(fs::metadata(cgroup).ok()?.ino())).collect()))
    }
}

/// The number of the cgroup that has all others.
const ROOT: u64 = 1;

/// A cgroup, and all that are in it. Those that go away meanwhile have nothing any more.
fn with_those_within(cgroup: PathBuf) -> impl Iterator<Item = PathBuf> {
    let mut left = vec![cgroup];
    std::iter::from_fn(move || {
        let cgroup = left.pop()?;
        let within = fs::read_dir(&cgroup).into_iter().flatten().flatten();
        let within = within.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(within.map(|entry| entry.path()));
        Some(cgroup)
    })
}

/// A cgroup of its own, in a mount of its own; dropping this removes both.
pub struct Own {
    mount: TempDir,
}

impl Own {
    /// Makes it. Needs CAP_SYS_ADMIN.
    pub fn new() -> Result<Self> {
        let at = TempDir::new()?;
        mount(None::<&Path>, at.path(), Some("cgroup2"), MsFlags::empty(), None::<&Path>)
            .context("cannot mount cgroup2: run as root")?;
        let own = Self { mount: at };
        fs::create_dir(own.path()).context("cannot make a cgroup")?;
        Ok(own)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.mount.path().join(format!("exec-guard-{}", std::process::id()))
    }

    /// A script that a shell runs within it, with `$0`. The shell itself is executed outside.
    pub fn shell(&self, script: &str, zero: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        let procs = self.path().join("cgroup.procs");
        command.arg("-c").arg(format!("echo $$ > {}; {script}", procs.display())).arg(zero);
        command
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _killed = fs::write(self.path().join("cgroup.kill"), "1");
        // Those that were killed are in it until they are gone.
        for _ in 0..1000 {
            if fs::remove_dir(self.path()).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let _unmounted = umount2(self.mount.path(), MntFlags::MNT_DETACH);
    }
}
