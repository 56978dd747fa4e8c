//! Memory that whoever reads it has to wait for: pages of a file that this process serves.

use std::ffi::OsStr;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bpf_wq_tests::fuse::{FILE, PAGE, TTL, attributes, hold};
use fuser::{
    BackgroundSession, Config, Errno, FileHandle, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request, Session,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::machine::until;

/// More than any measurement reads. The file has no content of its own.
pub const PAGES: u64 = 1 << 18;

const SIZE: NonZeroUsize = NonZeroUsize::new(PAGES as usize * PAGE).expect("not 0");
const NAME: &str = "pages";

/// Pages in the memory of a process that does nothing. Each takes its time when it is read first.
pub struct SlowPages {
    holder: Pid,
    address: usize,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    directory: TempDir,
}

struct State {
    /// When a read is answered; None: when it is let go.
    after: Option<Duration>,
    held: Vec<(ReplyData, usize)>,
    /// What answers in time, in the order in which it came.
    timed: Sender<(Instant, ReplyData, usize)>,
}

impl SlowPages {
    /// To be made before programs are loaded: the process that has the pages is a copy of this one.
    pub fn new() -> Result<Self> {
        let (timed, due) = mpsc::channel();
        thread::Builder::new().spawn(|| answer_in_time(due)).context("cannot start a thread")?;
        let state = Arc::new(Mutex::new(State { after: None, held: Vec::new(), timed }));
        let directory = TempDir::new().context("cannot make a directory")?;
        let server = Server(Arc::clone(&state));
        let session = Session::new(server, directory.path(), &Config::default())
            .context("cannot serve a file system: it needs CONFIG_FUSE_FS")?;
        let session = session.spawn().context("cannot start a thread")?;
        let file = File::open(directory.path().join(NAME)).context("cannot open the pages")?;
        let (holder, address) = hold(&file, SIZE).context("no process can have the pages")?;
        Ok(Self { holder, address, state, session: Some(session), directory })
    }

    /// The process that has them.
    pub fn pid(&self) -> u32 {
        self.holder.as_raw().unsigned_abs()
    }

    /// Where it has the first.
    pub fn address(&self) -> u64 {
        self.address as u64
    }

    /// From now on a read takes so long.
    pub fn take(&self, time: Duration) {
        lock(&self.state).after = Some(time);
    }

    /// From now on a read takes until it is let go.
    pub fn hold(&self) {
        lock(&self.state).after = None;
    }

    /// Waits until so many read.
    pub fn wait_for_readers(&self, readers: usize) -> Result<()> {
        until("the page is read", || Ok(lock(&self.state).held.len() >= readers))
    }

    /// Lets all go that read.
    pub fn let_go(&self) {
        for (reply, size) in lock(&self.state).held.drain(..) {
            reply.data(&[0; PAGE][..size]);
        }
    }

    /// Ends it, when nobody reads any more.
    pub fn end(mut self) -> Result<()> {
        self.let_go();
        kill(self.holder, Signal::SIGKILL).context("cannot end the pages' process")?;
        waitpid(self.holder, None).context("the pages' process")?;
        umount2(self.directory.path(), MntFlags::MNT_DETACH).context("cannot unmount the pages")?;
        let session = self.session.take().context("it is ended once")?;
        until("the last reader goes on", || Ok(session.guard.is_finished()))?;
        match session.join() {
            // The file system went while the server was reading that the file is released.
            Err(error) if error.raw_os_error() != Some(libc::ECONNABORTED) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn answer_in_time(due: Receiver<(Instant, ReplyData, usize)>) {
    for (due, reply, size) in due {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        reply.data(&[0; PAGE][..size]);
    }
}

/// A file system with one file.
struct Server(Arc<Mutex<State>>);

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &attributes(FILE, SIZE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(inode, SIZE));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = PAGE.min(size as usize);
        let mut state = lock(&self.0);
        match state.after {
            None => state.held.push((reply, size)),
            // Without the thread that answers, the read would take for ever, which is seen.
            Some(after) => _ = state.timed.send((Instant::now() + after, reply, size)),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
