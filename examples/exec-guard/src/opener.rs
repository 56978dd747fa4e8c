//! Opens files, and is told by the guard which ones they are. What stat(2) says is not enough: of a
//! file on overlayfs its numbers are others than those that LSM programs see.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytemuck::Zeroable as _;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use nix::fcntl::OFlag;

use crate::subject::Subject;

/// Of the thread that made it.
pub struct Opener {
    openers: MapHandle,
    thread: [u8; 4],
    /// Not to be used by another one.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Opener {
    /// With the guard's map.
    pub(crate) fn new(openers: MapHandle) -> Result<Self> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get().to_ne_bytes();
        let opener = Self { openers, thread, _thread: std::marker::PhantomData };
        opener.expect_nothing()?;
        Ok(opener)
    }

    fn expect_nothing(&self) -> Result<()> {
        let nothing = Subject::zeroed();
        let told = self.openers.update(&self.thread, bytemuck::bytes_of(&nothing), MapFlags::ANY);
        told.context("too many threads open files")
    }

    /// Opens a file or a directory. Of a file that changes, or another one of this name, the
    /// subject is another one.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<(File, Subject)> {
        let path = path.as_ref();
        self.expect_nothing()?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let seen = self.openers.lookup(&self.thread, MapFlags::ANY)?.context("an element")?;
        let seen: Subject = bytemuck::pod_read_unaligned(&seen);
        if seen == Subject::zeroed() {
            bail!(
                "BPF LSM programs do not run: see whether `bpf` is in /sys/kernel/security/lsm, \
                 and add it to the kernel's argument lsm=; this process also has to be in the \
                 first PID namespace"
            );
        }
        Ok((file, seen))
    }

    /// What a file is now that was opened before.
    pub fn again(&self, file: &File) -> Result<Subject> {
        self.open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(|(_, subject)| subject)
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        // It is of this process, whose end it outlives: the next guard removes it, too.
        let _removed = self.openers.delete(&self.thread);
    }
}
