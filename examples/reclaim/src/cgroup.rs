//! A cgroup, version 2, whose processes are looked at.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

/// A cgroup that only this process shows.
pub struct Cgroup {
    path: PathBuf,
    directory: Flock<File>,
    id: u64,
}

impl Cgroup {
    /// The one in a directory.
    ///
    /// # Errors
    ///
    /// If the directory is none of a cgroup, or another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        let directory = File::open(path)
            .with_context(|| format!("cannot open the cgroup {}", path.display()))?;
        if fstatfs(&directory)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
            bail!(
                "{} is no cgroup of version 2: `findmnt -t cgroup2` says where they are",
                path.display()
            );
        }
        let id = directory.metadata()?.ino();
        // Two would each read some of the summaries.
        let locked = Flock::lock(directory, FlockArg::LockExclusiveNonblock);
        let directory = locked.map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => anyhow!("another process has {}: end it first", path.display()),
            errno => anyhow!("cannot lock {}: {errno}", path.display()),
        })?;
        Ok(Self { path: path.to_owned(), directory, id })
    }

    /// A new one, below the first cgroup of version 2 that is mounted.
    ///
    /// # Errors
    ///
    /// If none is mounted, or it cannot be made.
    pub fn create() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.find(|mount| mount.get(2) == Some(&"cgroup2"));
        let Some([_, mount, ..]) = mount.as_deref() else {
            bail!("no cgroup of version 2: `mount -t cgroup2 none /sys/fs/cgroup` mounts them");
        };
        let of_process = |number| Path::new(mount).join(format!("reclaim-{number}"));
        // One of a process that was killed may have had the same number.
        let mut paths = (std::process::id()..).map(of_process);
        let path = paths.find(|path| !path.exists()).expect("one of so many is free");
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Self::open(&path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// No other cgroup has, or will have, this number.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    /// Whether it is still there, and not another of the same name.
    pub fn exists(&self) -> bool {
        self.path.metadata().is_ok_and(|found| found.ino() == self.id)
    }

    /// Whether there is a process in it, or in one below it.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub fn is_populated(&self) -> Result<bool> {
        let path = self.path.join("cgroup.events");
        let events = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Has a command run in it.
    ///
    /// # Errors
    ///
    /// If it takes no process.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let path = self.path.join("cgroup.procs");
        let procs = OpenOptions::new().write(true).open(&path);
        let procs = procs.with_context(|| path.display().to_string())?;
        // SAFETY: between fork and exec it only writes to a file that is open.
        unsafe { command.pre_exec(move || io::Write::write_all(&mut &procs, b"0")) };
        Ok(())
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// If there is a process in it.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir(&self.path).with_context(|| {
            format!("cannot remove {}: has it a process left?", self.path.display())
        })
    }
}
