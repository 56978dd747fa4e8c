//! Another process that removes files as fast as it can.

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tempfile::TempDir;

/// Removes this many files before it says so.
pub const BATCH: usize = 50;

/// The process; dropping this ends it.
pub struct Noise {
    pid: Pid,
    batches: UnixStream,
    _directory: TempDir,
}

impl Noise {
    /// Starts it.
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("noise");
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
        let (batches, mut done) = UnixStream::pair().expect("a pair of sockets");
        // SAFETY: the child makes system calls only, until it is killed: it neither
        // allocates nor takes a lock that another thread may have held.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Child => {
                loop {
                    for _ in 0..BATCH {
                        // SAFETY: the path is a C string, and the descriptor is
                        // closed at once.
                        unsafe {
                            libc::close(libc::creat(path.as_ptr(), 0o600));
                            libc::unlink(path.as_ptr());
                        }
                    }
                    if done.write_all(b".").is_err() {
                        // SAFETY: ends the process without running anything of ours.
                        unsafe { libc::_exit(0) }
                    }
                }
            }
            ForkResult::Parent { child } => Self { pid: child, batches, _directory: directory },
        }
    }

    /// Waits until it has removed another `BATCH` files from now on.
    pub fn wait_for_a_batch(&mut self) {
        // The one that is under way has begun before.
        self.drain();
        for _ in 0..2 {
            self.batches.read_exact(&mut [0]).expect("the process lives");
        }
    }

    fn drain(&mut self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd as _;
        loop {
            let mut fds = [PollFd::new(self.batches.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::ZERO).expect("poll") == 0 {
                return;
            }
            self.batches.read_exact(&mut [0]).expect("the process lives");
        }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        // It is our child and not yet waited for, so the id is still its own.
        if kill(self.pid, Signal::SIGKILL).is_ok() {
            let _ended = waitpid(self.pid, None);
        }
    }
}
