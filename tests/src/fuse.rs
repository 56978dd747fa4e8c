//! Memory that whoever reads it has to wait for: a page of a file that the test serves.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request, Session,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tempfile::TempDir;

use crate::eventually;

/// The kernel asks for a page at a time.
pub const PAGE: usize = 4096;

const SIZE: NonZeroUsize = NonZeroUsize::new(PAGE).expect("not 0");
/// The only file of such a file system.
pub const FILE: INodeNo = INodeNo(2);
const NAME: &str = "page";

/// A page that nobody has read yet, in the memory of a process that does nothing.
///
/// Not in the test's own: a callback that waits for it holds the lock of that memory, so that the
/// test could map no more, make no thread, and never answer.
pub struct Page {
    holder: Pid,
    address: usize,
    reads: Arc<Mutex<Reads>>,
    session: Option<BackgroundSession>,
    directory: TempDir,
}

/// Those who wait until the page is answered.
struct Reads {
    content: [u8; SIZE.get()],
    answered: bool,
    waiting: Vec<ReplyData>,
}

impl Page {
    /// Begins to serve a page that starts with `content`; the rest is zero. To be made before
    /// programs are loaded: the process that holds the page is a copy of this one.
    pub fn new(content: &[u8]) -> Self {
        let mut page = [0; SIZE.get()];
        page[..content.len()].copy_from_slice(content);
        let reads = Reads { content: page, answered: false, waiting: Vec::new() };
        let reads = Arc::new(Mutex::new(reads));

        let directory = TempDir::new().expect("a temporary directory");
        let server = Server(Arc::clone(&reads));
        let session = Session::new(server, directory.path(), &Config::default());
        let session = session.expect("/dev/fuse is there, and a file system is mounted");
        let session = session.spawn().expect("a thread that serves it");
        let file = File::open(directory.path().join(NAME)).expect("the file");
        let (holder, address) = hold(&file, SIZE).expect("a process that has it");
        Self { holder, address, reads, session: Some(session), directory }
    }

    /// The process that has the page in its memory.
    pub fn pid(&self) -> i32 {
        self.holder.as_raw()
    }

    /// Where it has it.
    pub fn address(&self) -> u64 {
        self.address as u64
    }

    /// Waits until somebody reads the page, who cannot go on before the answer.
    #[track_caller]
    pub fn wait_for_reader(&self) {
        eventually("the page is read", || (!lock(&self.reads).waiting.is_empty()).then_some(()));
    }

    /// After an answer: lets readers wait again. Those that come meanwhile may have the page still.
    pub fn forget(&self) -> io::Result<()> {
        let session = self.session.as_ref().expect("until it is dropped");
        // Whoever waits already has the lock of the page, and this would wait for that.
        session.notifier().inval_inode(FILE, 0, 0)?;
        lock(&self.reads).answered = false;
        Ok(())
    }

    /// Lets all readers have the page, from now on.
    pub fn answer(&self) {
        let mut reads = lock(&self.reads);
        reads.answered = true;
        let content = reads.content;
        for reply in reads.waiting.drain(..) {
            reply.data(&content);
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.answer();
        // It is our child and not yet waited for, so the id is still its own.
        kill(self.holder, Signal::SIGKILL).expect("the child is killed");
        waitpid(self.holder, None).expect("the child ends");
        umount2(self.directory.path(), MntFlags::MNT_DETACH).expect("the file is unmounted");
        let session = self.session.take().expect("dropped once");
        // The last reader has the memory, and with it the file, until it goes on.
        eventually("the last reader goes on", || session.guard.is_finished().then_some(()));
        match session.join() {
            // The file system went while the server was reading that the file is released.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
            ended => ended.expect("the server ends"),
        }
    }
}

/// Maps a file into a new process, and nowhere else: whoever waits for a page of it holds the lock of
/// that memory. Gives the process, which does nothing until it is killed, and where it has the file.
/// Its content must not change.
pub fn hold(file: &File, size: NonZeroUsize) -> io::Result<(Pid, usize)> {
    // SAFETY: it is a new mapping, where the kernel finds room for it.
    let at = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) }?;
    // The kernel would read ahead, and wait for the page rather than for the server.
    // SAFETY: this is the mapping made above, and its content does not change.
    unsafe { madvise(at, size.get(), MmapAdvise::MADV_RANDOM) }?;
    // SAFETY: the child makes system calls only, until it is killed: it neither allocates nor
    // takes a lock that another thread may have held.
    let holder = match unsafe { fork() }? {
        // SAFETY: none of these touches memory.
        ForkResult::Child => unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // What is closed here is to be closed: maps, and the server's end.
            libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
            loop {
                libc::pause();
            }
        },
        ForkResult::Parent { child } => child,
    };
    // SAFETY: nothing of this process refers to the mapping.
    unsafe { munmap(at, size.get()) }?;
    Ok((holder, at.as_ptr() as usize))
}

/// A file system with one file.
struct Server(Arc<Mutex<Reads>>);

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
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        assert_eq!((offset, size as usize), (0, SIZE.get()), "a page is read as a whole");
        let mut reads = lock(&self.0);
        if reads.answered {
            reply.data(&reads.content);
        } else {
            reads.waiting.push(reply);
        }
    }
}

/// How long the kernel need not ask again for names and attributes.
pub const TTL: Duration = Duration::from_secs(3600);

/// Of [`FILE`], which has this size, and of its directory.
pub fn attributes(inode: INodeNo, size: NonZeroUsize) -> FileAttr {
    let is_file = inode == FILE;
    FileAttr {
        ino: inode,
        size: if is_file { size.get() as u64 } else { 0 },
        blocks: u64::from(is_file),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_file { FileType::RegularFile } else { FileType::Directory },
        perm: if is_file { 0o444 } else { 0o555 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

/// Also where a test has panicked: whoever waits has to be answered.
fn lock(reads: &Mutex<Reads>) -> MutexGuard<'_, Reads> {
    reads.lock().unwrap_or_else(PoisonError::into_inner)
}
