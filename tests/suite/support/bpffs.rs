//! A bpffs of the test's own: what is pinned there goes with it.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// A bpffs; dropping this unmounts it.
pub struct BpfFs(TempDir);

impl BpfFs {
    /// Mounts it.
    pub fn new() -> Self {
        let at = TempDir::new().expect("a temporary directory");
        let none = None::<&Path>;
        mount(none, at.path(), Some("bpf"), MsFlags::empty(), none).expect("bpffs is mounted");
        Self(at)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The directory of an application.
    pub fn application(&self) -> PathBuf {
        self.path().join("application")
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).expect("bpffs is unmounted");
    }
}
