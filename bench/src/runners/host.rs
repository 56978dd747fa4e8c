//! What `cargo xtask bench --runners` says of this machine.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::Way;
use crate::results::json;

/// `host.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    pub command: String,
    pub machine: String,
    pub accel: String,
    pub root: PathBuf,
    pub target: PathBuf,
    kernels: Vec<Kernel>,
}

/// A kernel that can be booted: its directory has vmlinuz, initramfs and modules.cpio.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    pub kernel: String,
    pub release: String,
    pub dir: PathBuf,
}

impl Host {
    pub fn read(dir: &Path) -> Result<Self> {
        let host: Self = json(&dir.join("host.json"))?;
        let caches = host.kernels.iter().map(|kernel| &kernel.dir);
        for path in [&host.root, &host.target].into_iter().chain(caches) {
            if path.starts_with("/tmp") {
                bail!("{}: runners have a /tmp of their own: take another place", path.display());
            }
        }
        Ok(host)
    }

    pub fn is_emulated(&self) -> bool {
        self.accel == "TCG"
    }

    /// Those that have bpf_wq: on others the job has nothing to do.
    pub fn kernels(&self) -> Vec<Kernel> {
        let has = |kernel: &&Kernel| kernel.version().is_some_and(|of| of >= Way::Bare.since());
        self.kernels.iter().filter(has).cloned().collect()
    }
}

impl Kernel {
    fn version(&self) -> Option<(u32, u32)> {
        let (major, rest) = self.release.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &str) -> tempfile::TempDir {
        let kernel =
            |release: &str| serde_json::json!({"kernel": "x", "release": release, "dir": "/"});
        let host = serde_json::json!({
            "command": "", "machine": "", "accel": "TCG", "root": root, "target": "/w/target",
            "kernels": [kernel("6.1.0-50-amd64"), kernel("6.12.107+deb13-amd64"), kernel("7.3-rc1")]
        });
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("host.json"), host.to_string()).expect("it is written");
        dir
    }

    #[test]
    fn a_kernel_without_bpf_wq_is_left_out() {
        let host = Host::read(write("/w").path()).expect("it is one");
        let releases: Vec<String> = host.kernels().into_iter().map(|k| k.release).collect();
        assert_eq!(releases, ["6.12.107+deb13-amd64", "7.3-rc1"]);
    }

    #[test]
    fn a_workspace_that_runners_do_not_see_is_refused() {
        let error = Host::read(write("/tmp/w").path()).expect_err("it is refused").to_string();
        assert!(error.contains("/tmp of their own"), "{error}");
    }
}
