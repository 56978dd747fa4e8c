//! A process that has connected, or tried to.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

/// It stays until it is told to end, or this is dropped.
pub struct Connected {
    pub pid: Pid,
    pub allowed: Vec<bool>,
    stays: Option<OwnedFd>,
    has_ended: bool,
}

/// As fork(2), but the child may be given a number that is free.
#[track_caller]
fn fork(number: Option<Pid>) -> Option<Pid> {
    let number = number.map(Pid::as_raw);
    let args = libc::clone_args {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: number.as_ref().map_or(0, |number| std::ptr::from_ref(number) as u64),
        set_tid_size: number.is_some().into(),
        // SAFETY: all are numbers.
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: the arguments live until it returns, and the child has its own memory. It may do what
    // a signal handler may.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of_val(&args)) };
    match i32::try_from(Errno::result(pid).expect("a process")).expect("a number") {
        0 => None,
        pid => Some(Pid::from_raw(pid)),
    }
}

/// Of a process, as /proc has it: `T` is stopped.
#[track_caller]
pub fn state(process: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it is there");
    let (_, fields) = stat.rsplit_once(") ").expect("a command");
    fields.chars().next().expect("a state")
}

impl Connected {
    /// Connects within a cgroup, by UDP. It is forked and executes nothing, which would take a
    /// hundred times longer in an emulated guest.
    #[track_caller]
    pub fn start(cgroup: &Path, addresses: &[IpAddr], number: Option<Pid>) -> Self {
        let procs = cgroup.join("cgroup.procs");
        let mut procs = OpenOptions::new().write(true).open(procs).expect("the cgroup is there");
        let [v4, v6] = ["0.0.0.0:0", "[::]:0"].map(|any| UdpSocket::bind(any).expect("a socket"));
        let [(told, tell), (end, stays)] =
            [(); 2].map(|()| pipe2(OFlag::O_CLOEXEC).expect("a pipe"));
        if let Some(pid) = fork(number) {
            drop((tell, end));
            let mut connected =
                Self { pid, allowed: Vec::new(), stays: Some(stays), has_ended: false };
            let mut allowed = vec![0; addresses.len()];
            fs::File::from(told).read_exact(&mut allowed).expect("it tells");
            connected.allowed.extend(allowed.iter().map(|allowed| *allowed == 1));
            return connected;
        }
        // In the child: system calls only, with what was made before.
        drop(stays);
        let (mut tell, mut end) = (fs::File::from(tell), fs::File::from(end));
        let mut tried = procs.write_all(b"0");
        for address in addresses {
            let socket = if address.is_ipv4() { &v4 } else { &v6 };
            let connected = socket.connect((*address, 9));
            let is_denied =
                connected.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
            tried = tried.and_then(|()| tell.write_all(&[u8::from(!is_denied)]));
        }
        tried = tried.and_then(|()| end.read(&mut [0]).map(drop));
        // SAFETY: what is left to be done at exit is the parent's.
        unsafe { libc::_exit(tried.is_err().into()) }
    }

    #[track_caller]
    pub fn state(&self) -> char {
        state(self.pid)
    }

    /// Tells it to end, and says how it has.
    #[track_caller]
    pub fn ends(mut self) -> WaitStatus {
        self.stays = None;
        self.has_ended = true;
        waitpid(self.pid, None).expect("our child")
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if !self.has_ended {
            let _killed = kill(self.pid, Signal::SIGKILL);
            let _status = waitpid(self.pid, None);
        }
    }
}
