//! The threads that take part: readers of ring buffers, one that task work is for, and load.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use anyhow::{Context as _, Result};
use libbpf_rs::RingBuffer;
use nix::unistd::gettid;

use crate::machine::{pin, until};

/// How often a thread that has nothing to do looks whether that has changed.
const LOOK: Duration = Duration::from_millis(1);

/// Starts a thread, on one CPU if one is named.
pub fn scoped<'scope>(
    scope: &'scope Scope<'scope, '_>,
    cpu: Option<usize>,
    body: impl FnOnce() + Send + 'scope,
) -> Result<()> {
    let pinned = move || {
        if let Some(cpu) = cpu {
            pin(0, cpu).expect("the CPU is there");
        }
        body();
    };
    thread::Builder::new().spawn_scoped(scope, pinned).context("cannot start a thread")?;
    Ok(())
}

/// Something that is on or off.
#[derive(Default)]
pub struct Switch(AtomicBool);

impl Switch {
    pub fn set(&self, is_on: bool) {
        self.0.store(is_on, Ordering::SeqCst);
    }

    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Turns it on at the end of a scope.
    pub fn at_end(&self) -> AtEnd<'_> {
        AtEnd(self, true)
    }

    /// Keeps a CPU busy while it is on, until all is over.
    pub fn spin(&self, over: &Switch) {
        while !over.is_on() {
            while self.is_on() && !over.is_on() {
                spin_loop();
            }
            thread::sleep(LOOK);
        }
    }
}

/// Sets a switch when it is dropped.
pub struct AtEnd<'a>(&'a Switch, bool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// A thread that is in user mode while somebody wants it to be.
#[derive(Default)]
pub struct Spinner {
    tid: AtomicI32,
    is_wanted: Switch,
    spins: Switch,
}

impl Spinner {
    pub fn spin(&self, over: &Switch) {
        self.spin_with(over, spin_loop);
    }

    fn spin_with(&self, over: &Switch, mut step: impl FnMut()) {
        self.tid.store(gettid().as_raw(), Ordering::SeqCst);
        while !over.is_on() {
            while self.is_wanted.is_on() && !over.is_on() {
                self.spins.set(true);
                step();
            }
            self.spins.set(false);
            thread::sleep(LOOK);
        }
    }

    /// Has it spin, from now on, until the result is dropped.
    pub fn on(&self) -> Result<AtEnd<'_>> {
        until("the thread has stopped", || Ok(!self.spins.is_on()))?;
        self.is_wanted.set(true);
        let off = AtEnd(&self.is_wanted, false);
        until("the thread spins", || Ok(self.spins.is_on()))?;
        Ok(off)
    }

    pub fn tid(&self) -> Result<i32> {
        started(&self.tid)
    }
}

fn started(tid: &AtomicI32) -> Result<i32> {
    until("the thread starts", || Ok(tid.load(Ordering::SeqCst) != 0))?;
    Ok(tid.load(Ordering::SeqCst))
}

/// A thread that does what comes by a ring buffer.
#[derive(Default)]
pub struct Reader {
    spinner: Spinner,
    began_ns: AtomicU64,
    count: AtomicU64,
}

impl Reader {
    /// A piece of work begins.
    pub fn received(&self, now_ns: u64) -> i32 {
        self.began_ns.store(now_ns, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
        0
    }

    /// Reads when it is woken.
    pub fn wait(&self, ring: &RingBuffer<'_>, over: &Switch) {
        self.spinner.tid.store(gettid().as_raw(), Ordering::SeqCst);
        while !over.is_on() {
            // An error, such as a signal, is seen by what does not come.
            ring.poll_raw(Duration::from_millis(100));
        }
    }

    /// Reads all the time, while it is wanted.
    pub fn poll(&self, ring: &RingBuffer<'_>, over: &Switch) {
        self.spinner.spin_with(over, || _ = ring.consume_raw());
    }

    pub fn spinner(&self) -> &Spinner {
        &self.spinner
    }

    pub fn tid(&self) -> Result<i32> {
        self.spinner.tid()
    }

    pub fn began_ns(&self) -> u64 {
        self.began_ns.load(Ordering::SeqCst)
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}
