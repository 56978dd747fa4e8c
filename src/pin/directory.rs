//! A directory of pins: in a mounted bpffs, and used by one process at a time.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{self, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::error::{Error, Result};

/// How long a call without a deadline waits for another process.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before looking again.
const POLL: Duration = Duration::from_millis(5);

/// The error of what was done to a path.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => Error::PinDenied { what, path: path.clone(), source },
        _ => Error::Io { what: format!("{what} {}", path.display()), source },
    }
}

/// A directory of pins.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    path: PathBuf,
}

/// Other processes wait until this is dropped, or its process has died.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Directory {
    /// One that is there.
    pub fn open(path: &Path) -> Result<Self> {
        // Which fails where it cannot be read, or is a file.
        fs::read_dir(path).map_err(failed("open", path))?;
        check(path)?;
        Ok(Self { path: absolute(path)? })
    }

    /// One that is made if it is not there.
    pub fn create(path: &Path) -> Result<Self> {
        let path = &absolute(path)?;
        // Nothing is made in another file system.
        check(path.ancestors().find(|above| above.exists()).unwrap_or(path))?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(failed("make", path))?;
        Self::open(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for other processes that are at work here, at most until the deadline.
    pub fn lock(&self, deadline: Instant) -> Result<Lock> {
        let mut file = File::open(&self.path).map_err(failed("open", &self.path))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Lock { _file: file }),
                Err((again, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = again,
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(Error::PinBusy { directory: self.path.clone() });
                }
                Err((_, errno)) => return Err(failed("lock", &self.path)(errno.into())),
            }
            thread::sleep(POLL);
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path::absolute(path).map_err(failed("find", path))
}

fn check(path: &Path) -> Result<()> {
    let status = statfs(path).map_err(|errno| failed("look at", path)(errno.into()))?;
    match status.filesystem_type() {
        BPF_FS_MAGIC => Ok(()),
        _ => Err(Error::NotBpffs { path: path.to_owned() }),
    }
}
