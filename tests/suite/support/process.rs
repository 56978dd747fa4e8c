//! Another process of the same test, such as a loader that is killed.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

/// What the process is to do, in its environment.
const ROLE: &str = "BPF_WQ_ROLE";

/// What its message begins with: libtest and the tests write other lines.
const SAYS: &str = "other process: ";

/// Another process of this test, for which [`role`] is not `None`. Dropping it kills it.
pub struct Process {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Process {
    /// Starts this binary again, with this test alone.
    pub fn start(test: &str, role: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, role)
            // The rules and answers of a test are told by one process.
            .env_remove("XTASK_EVENTS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("another process");
        let said = BufReader::new(child.stderr.take().expect("its stderr"));
        Self { child, said }
    }

    /// Waits for the next thing that it says. Panics if it ends before.
    #[track_caller]
    pub fn says(&mut self) -> String {
        let mut others = String::new();
        loop {
            let mut line = String::new();
            let length = self.said.read_line(&mut line).expect("its stderr");
            assert_ne!(length, 0, "the other process has ended:\n{others}");
            match line.trim_end().strip_prefix(SAYS) {
                Some(says) => return says.to_owned(),
                None => others.push_str(&line),
            }
        }
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("it is killed");
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    }

    /// Waits until it dies of a signal, and returns that.
    pub fn dies(mut self) -> i32 {
        let mut others = String::new();
        io::Read::read_to_string(&mut self.said, &mut others).expect("its stderr");
        let status = self.child.wait().expect("it ends");
        status.signal().unwrap_or_else(|| panic!("no signal, but {status}:\n{others}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already where the test has come so far.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What this process is to do, if a test has started it.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Tells the test that has started this process.
pub fn say(what: &str) {
    io::stderr().write_all(format!("{SAYS}{what}\n").as_bytes()).expect("the test listens");
}

/// Waits to be killed.
pub fn wait_for_death() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
