//! A cgroup, to whose memory what is made within is charged.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// A cgroup; dropping this removes it.
pub struct Cgroup {
    mount: TempDir,
    name: String,
}

impl Cgroup {
    /// Makes it.
    #[expect(clippy::new_without_default, reason = "it makes something")]
    pub fn new() -> Self {
        Self::named(&format!("bpf-wq-{}", std::process::id()))
    }

    /// Makes one of several of this process.
    pub fn named(name: &str) -> Self {
        let at = TempDir::new().expect("a temporary directory");
        let (none, flags) = (None::<&Path>, MsFlags::empty());
        mount(none, at.path(), Some("cgroup2"), flags, none).expect("cgroup v2 is mounted");
        fs::write(at.path().join("cgroup.subtree_control"), "+memory")
            .expect("the memory controller of cgroup v2");
        let cgroup = Self { mount: at, name: name.to_owned() };
        fs::create_dir(cgroup.path()).expect("a cgroup");
        cgroup
    }

    /// Runs `act` with this process in the cgroup.
    pub fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        let own = fs::read_to_string("/proc/self/cgroup").expect("this process's cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup v2");
        fs::write(self.path().join("cgroup.procs"), "0").expect("entering the cgroup");
        let result = act();
        let own = self.mount.path().join(own).join("cgroup.procs");
        fs::write(own, "0").expect("leaving the cgroup");
        result
    }

    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.mount.path().join(&self.name)
    }

    /// The bytes of memory charged to it.
    pub fn current(&self) -> u64 {
        let bytes = fs::read_to_string(self.path().join("memory.current")).expect("its memory");
        bytes.trim().parse().expect("a number")
    }

    /// How often its limit was hit.
    pub fn hits(&self) -> u64 {
        let events = fs::read_to_string(self.path().join("memory.events")).expect("its events");
        let max = events.lines().find_map(|line| line.strip_prefix("max ")).expect("a line");
        max.parse().expect("a number")
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, value: &str) {
        fs::write(self.path().join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(self.path()).expect("the cgroup is empty");
        umount2(self.mount.path(), MntFlags::MNT_DETACH).expect("cgroup v2 is unmounted");
    }
}
