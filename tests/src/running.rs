//! A command of an application, as a person runs it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{DEADLINE, eventually};

/// It is killed when this is dropped.
pub struct Running {
    child: Child,
    said: Receiver<String>,
}

impl Running {
    /// Starts it. What it prints on standard output is for nobody.
    #[track_caller]
    pub fn start(program: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let (line, said) = channel();
        // It ends with the child's output.
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|text| line.send(text)));
        Self { child, said }
    }

    /// The next line of its standard error.
    #[track_caller]
    pub fn says(&mut self) -> String {
        self.said.recv_timeout(DEADLINE).expect("it says something")
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it lives");
    }

    /// Waits until it ends. Its exit code, unless a signal has killed it.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        eventually("it ends", || self.child.try_wait().expect("it is our child")).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}
