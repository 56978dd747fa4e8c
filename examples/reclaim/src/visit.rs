//! Processes that connect to many addresses: for the demo, the figures and the tests.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::{process, thread};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

const PORT: u16 = 9;

/// What to visit.
#[derive(Debug, Clone, clap::Args)]
pub struct Visit {
    /// Connect to so many addresses
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=8_000_000))]
    pub addresses: u32,
    /// Connect to the first of them so often
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub times: u32,
    /// Connect to this address and send to it, too
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub send: Vec<SocketAddr>,
    /// Have so many processes do it at once, each with one address more than the one before
    #[arg(long, value_name = "N")]
    pub processes: Option<u32>,
    /// Have a process of this number do it
    #[arg(long, value_name = "PID", conflicts_with = "processes")]
    pub pid: Option<i32>,
    /// Have a thread do it once more, with one address more, when the first thread has ended
    #[arg(long)]
    pub outlive: bool,
    /// Before the end, or that last thread, say "ready" and wait until the standard input ends
    #[arg(long)]
    pub wait: bool,
}

impl Visit {
    /// Does it.
    ///
    /// # Errors
    ///
    /// If there are no sockets or processes, or one of the processes fails.
    ///
    /// # Safety
    ///
    /// The process must have one thread.
    pub unsafe fn run(&self) -> Result<()> {
        let numbers = 0..self.processes.unwrap_or(u32::from(self.pid.is_some()));
        if numbers.is_empty() {
            return if self.outlive { self.outlive() } else { self.visit(0) };
        }
        let children = numbers.map(|more| {
            // SAFETY: as the caller promises.
            let child = unsafe { fork(self.pid) }.context("cannot make a process")?;
            if child.is_none() {
                let done = self.visit(more);
                process::exit(done.is_err().into());
            }
            Ok(child)
        });
        let children = children.collect::<Result<Vec<_>>>()?;
        for child in children.into_iter().flatten() {
            let status = waitpid(child, None)?;
            if status != WaitStatus::Exited(child, 0) {
                bail!("a process ended otherwise: {status:?}");
            }
        }
        Ok(())
    }

    fn visit(&self, more: u32) -> Result<()> {
        self.connect(more)?;
        self.wait()
    }

    fn connect(&self, more: u32) -> Result<()> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot make a socket")?;
        for number in 0..self.addresses + more {
            for _ in 0..if number == 0 { self.times } else { 1 } {
                v4.connect((Ipv4Addr::from(0x7f00_0001 + number), PORT))
                    .context("cannot connect: is lo up?")?;
            }
        }
        for address in &self.send {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)?.send_to(&[0], address)?;
            UdpSocket::bind(any)?.connect(address)?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        if self.wait {
            println!("ready");
            io::stdout().flush()?;
            io::stdin().read_to_end(&mut Vec::new())?;
        }
        Ok(())
    }

    fn outlive(&self) -> Result<()> {
        self.connect(0)?;
        let visit = self.clone();
        let first = process::id();
        thread::spawn(move || {
            // A zombie: it has ended, and the process has not.
            let is_over = || {
                let stat = std::fs::read_to_string(format!("/proc/{first}/task/{first}/stat"));
                stat.is_ok_and(|stat| stat.contains(") Z "))
            };
            while !is_over() {
                thread::yield_now();
            }
            let done = visit.wait().and_then(|()| visit.connect(1));
            process::exit(done.is_err().into());
        });
        // SAFETY: nothing of this thread is used by the other one.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        unreachable!("the thread has ended")
    }
}

/// As fork(2), for a child of this number.
///
/// # Safety
///
/// The process must have one thread.
unsafe fn fork(pid: Option<i32>) -> io::Result<Option<Pid>> {
    // SAFETY: numbers of 0 ask for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(pid) = &pid {
        arguments.set_tid = std::ptr::from_ref(pid) as u64;
        arguments.set_tid_size = 1;
    }
    // SAFETY: the child has its own copy of all memory, and no other thread has left a lock in it.
    let child = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    };
    let child = Errno::result(child)?;
    Ok((child != 0).then(|| Pid::from_raw(child as i32)))
}
