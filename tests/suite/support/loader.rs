//! Another process that loads programs, and goes away: `tests/loader.rs`.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use libbpf_rs::libbpf_sys::{bpf_link_get_next_id, bpf_map_get_next_id, bpf_prog_get_next_id};
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore as _, MapHandle};

use super::called::{get, word};
use super::fuse::Page;
use super::{DEADLINE, eventually};

/// How often a test does what goes well or wrong by chance, unless the runner says another number.
const ROUNDS: u32 = 2;

/// How often to do it: `cargo xtask test --rounds`.
pub fn rounds() -> u32 {
    let said = env::var("XTASK_ROUNDS");
    said.map_or(ROUNDS, |number| number.parse().expect("XTASK_ROUNDS is a number"))
}

/// The process.
pub struct Loader {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Loader {
    /// Starts it. It has loaded and attached when this returns, and submits when it goes on.
    pub fn start(programs: &[&str], end: &str, page: &Page) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bpf-wq-test-loader"))
            .args([&programs.join(","), end, &page.pid().to_string(), &page.address().to_string()])
            // One that panics as it should has nothing to tell, and its symbols take seconds.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (says, said) = mpsc::channel();
        // Ends with the process.
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| says.send(l)));
        let loader = Self { child, stdin, said };
        loader.expect("attached");
        loader
    }

    /// Waits until it says this.
    #[track_caller]
    pub fn expect(&self, word: &str) {
        let said = self.said.recv_timeout(DEADLINE);
        assert_eq!(said.as_deref(), Ok(word), "what the loader said");
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        let stdin = self.stdin.as_mut().expect("not ended yet");
        stdin.write_all(b"\n").expect("the loader listens");
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().expect("the loader lives");
    }

    /// Waits for its end, and returns the signal or the exit code.
    pub fn ended(mut self) -> Result<i32, i32> {
        self.stdin = None;
        let status =
            eventually("the loader ends", || self.child.try_wait().expect("it is our child"));
        status.code().ok_or_else(|| status.signal().expect("a signal"))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Nothing, where the test has waited for its end. Otherwise it may not end before the page
        // is answered, so nobody waits here.
        let _killed = self.child.kill();
    }
}

/// The ids of all that is loaded.
#[derive(Debug, Default)]
pub struct Ids {
    pub programs: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

impl Ids {
    /// At this moment.
    pub fn now() -> Self {
        Self {
            programs: list(bpf_prog_get_next_id),
            maps: list(bpf_map_get_next_id),
            links: list(bpf_link_get_next_id),
        }
    }

    /// Those that are not in the other.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs - &other.programs,
            maps: &self.maps - &other.maps,
            links: &self.links - &other.links,
        }
    }

    /// Those that are there still.
    pub fn left(&self) -> Self {
        let now = Self::now();
        Self {
            programs: &self.programs & &now.programs,
            maps: &self.maps & &now.maps,
            links: &self.links & &now.links,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }

    /// The map of this name.
    pub fn map(&self, name: &str) -> MapHandle {
        let mut infos = MapInfoIter::default();
        let found = infos.find(|info| info.name == name && self.maps.contains(&info.id));
        let id = found.unwrap_or_else(|| panic!("no map {name} in {:?}", self.maps)).id;
        MapHandle::from_map_id(id).expect("a descriptor")
    }
}

fn list(next: unsafe extern "C" fn(u32, *mut u32) -> i32) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut id = 0;
    loop {
        // SAFETY: the kernel writes one number.
        match unsafe { next(id, &raw mut id) } {
            0 => ids.insert(id),
            error => {
                assert_eq!(error, -libc::ENOENT, "there is no next id");
                return ids;
            }
        };
    }
}

/// How many runs of callbacks have begun, or have come to their end, by the map of that name.
pub fn runs(map: &MapHandle) -> usize {
    assert_eq!(map.value_size(), 8);
    word(&get(map, 0), 0) as usize
}
