//! A cgroup, to which what is made within is charged.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::machine::until;

/// A cgroup of version 2.
pub struct Cgroup {
    mount: TempDir,
    name: String,
}

impl Cgroup {
    pub fn new() -> Result<Self> {
        let at = TempDir::new().context("cannot make a directory")?;
        let (none, flags) = (None::<&Path>, MsFlags::empty());
        mount(none, at.path(), Some("cgroup2"), flags, none).context("cannot mount cgroup v2")?;
        fs::write(at.path().join("cgroup.subtree_control"), "+memory")
            .context("cgroup v2 has no memory controller")?;
        let cgroup = Self { mount: at, name: format!("bench-{}", std::process::id()) };
        fs::create_dir(cgroup.path()).context("cannot make a cgroup")?;
        Ok(cgroup)
    }

    fn path(&self) -> PathBuf {
        self.mount.path().join(&self.name)
    }

    /// Runs `act` with this process in the cgroup.
    pub fn within<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let own = fs::read_to_string("/proc/self/cgroup").context("this process's cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("cgroup v2")?;
        fs::write(self.path().join("cgroup.procs"), "0").context("cannot enter a cgroup")?;
        let result = act();
        let own = self.mount.path().join(own).join("cgroup.procs");
        fs::write(own, "0").context("cannot leave a cgroup")?;
        result
    }

    /// The bytes of the kernel's memory that are charged to it: a process's own are others.
    pub fn kernel_memory(&self) -> Result<u64> {
        let stat = fs::read_to_string(self.path().join("memory.stat"))?;
        let kernel = stat.lines().find_map(|line| line.strip_prefix("kernel "));
        kernel.context("it does not say what the kernel has")?.parse().context("a number")
    }

    pub fn remove(self) -> Result<()> {
        until("the cgroup is empty", || Ok(fs::remove_dir(self.path()).is_ok()))?;
        umount2(self.mount.path(), MntFlags::MNT_DETACH).context("cannot unmount cgroup v2")
    }
}
