//! The cache: what is kept of each kernel, and how several processes share it.
//!
//! `kernels/KEY/` holds one kernel. It is written beside its place and then renamed, so a
//! directory that is there is whole. Downloads go to files without a name, which the kernel
//! frees whatever becomes of the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::failure;

/// A directory that keeps kernels from one run to the next.
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens the cache in `dir`, else in `$XTASK_CACHE`, `$XDG_CACHE_HOME/xtask` or
    /// `~/.cache/xtask`, and makes it if it is not there.
    pub fn open(dir: Option<&Path>) -> Result<Cache> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dir = dir
            .map(Path::to_path_buf)
            .or_else(|| set("XTASK_CACHE").map(PathBuf::from))
            .or_else(|| set("XDG_CACHE_HOME").map(|base| Path::new(&base).join("xtask")))
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache/xtask")))
            .ok_or_else(|| failure::usage("no place for the cache: HOME is not set, name a directory with --cache DIR or XTASK_CACHE"))?;
        for part in ["kernels", "images", "locks"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).map_err(|error| explain(error, &part))?;
        }
        let dir = fs::canonicalize(&dir).map_err(|error| explain(error, &dir))?;
        Ok(Cache { dir })
    }

    /// The cache's directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the kernel of this key is, or will be.
    pub fn entry(&self, key: &str) -> PathBuf {
        self.dir.join("kernels").join(key)
    }

    /// Waits until no other process works on `key`. The lock ends with the returned value, and
    /// with the process.
    pub fn lock(&self, key: &str) -> Result<Flock<File>> {
        let path = self.dir.join("locks").join(key);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| explain(error, &path))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => {
                return Err(io::Error::from(errno)).context(format!("locking {}", path.display()));
            }
        };
        eprintln!("waiting for another xtask that works on {key}");
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))
            .with_context(|| format!("locking {}", path.display()))
    }

    /// Puts `files` in place as the entry of `key`, all or none. The caller holds the key's lock.
    pub fn install(&self, key: &str, files: &[(&str, &[u8])]) -> Result<PathBuf> {
        let entry = self.entry(key);
        let staging = self.dir.join("kernels").join(format!("{key}.new"));
        let write = || -> io::Result<()> {
            // What a process that was killed just here left behind.
            if staging.exists() {
                fs::remove_dir_all(&staging)?;
            }
            fs::create_dir(&staging)?;
            for (name, content) in files {
                let mut file = File::create(staging.join(name))?;
                file.write_all(content)?;
                file.sync_all()?;
            }
            fs::rename(&staging, &entry)
        };
        write().map_err(|error| {
            // Best effort: the error that brought us here matters more.
            let _ = fs::remove_dir_all(&staging);
            explain(error, &self.dir)
        })?;
        Ok(entry)
    }

    /// Makes `path` hold `content`; a reader sees the old content or the new, never a part.
    pub fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        if fs::read(path).is_ok_and(|old| old == content) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(&self.dir))?;
            file.write_all(content)?;
            // Guests' QEMU may run as another user.
            fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| explain(error, path))
    }

    /// A directory to work in for `key`, which goes with the returned value. The caller holds the
    /// key's lock.
    pub fn workshop(&self, key: &str) -> Result<TempDir> {
        let name = format!("{key}.build");
        let path = self.dir.join(&name);
        let make = || {
            // What a process that was killed has left behind.
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(&self.dir)
        };
        make().map_err(|error| explain(error, &path))
    }

    /// A file without a name on the cache's file system.
    pub fn scratch(&self) -> Result<File> {
        tempfile::tempfile_in(&self.dir).map_err(|error| explain(error, &self.dir))
    }

    /// Fails if fewer than `bytes` are free where the cache is.
    pub fn want_space(&self, bytes: u64) -> Result<()> {
        let stat = statvfs(&self.dir)
            .map_err(io::Error::from)
            .with_context(|| format!("asking for the free space of {}", self.dir.display()))?;
        let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
        if free < bytes {
            return Err(full(&self.dir).context(format!(
                "{} MB are needed and {} MB are free",
                bytes.div_ceil(1_000_000),
                free / 1_000_000
            )));
        }
        Ok(())
    }
}

/// Says what to do about a full disk; any other error keeps its own words.
pub fn explain(error: io::Error, path: &Path) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(path),
        _ => anyhow::Error::new(error).context(format!("writing {}", path.display())),
    }
}

fn full(path: &Path) -> anyhow::Error {
    anyhow!(
        "the disk that holds {} is full: free some space there, or name a cache on another disk with --cache DIR or XTASK_CACHE",
        path.display()
    )
}
