//! SIGINT, SIGTERM and SIGHUP: what runs is ended in order, so that nothing of it is left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::failure::{Exit, Interrupted};

/// How often a child's supervisor looks for a signal.
const LOOK: Duration = Duration::from_millis(100);

static REQUESTED: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Handles the signals from here on.
pub fn handle() -> Result<()> {
    ctrlc::set_handler(|| {
        REQUESTED.store(true, Ordering::SeqCst);
        // Without a guest or a child to end first, there is nothing to wait for.
        if BUSY.load(Ordering::SeqCst) == 0 {
            std::process::exit(Exit::Interrupted as i32);
        }
    })
    .context("cannot handle signals")
}

/// Whether a signal has come: whoever is [`Busy`] ends what it has started.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// While it lives, a signal only sets [`requested`], and its owner looks there.
pub struct Busy(());

impl Busy {
    /// From now on.
    pub fn new() -> Self {
        BUSY.fetch_add(1, Ordering::SeqCst);
        Busy(())
    }
}

impl Default for Busy {
    fn default() -> Self {
        Busy::new()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Does what has to be done with a child, and ends its process group when a signal comes.
pub fn supervised<T>(child: u32, work: impl FnOnce() -> T) -> Result<T> {
    let group = Pid::from_raw(i32::try_from(child).context("a process id")?);
    let _busy = Busy::new();
    let over = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if requested() {
                    // What the user's Ctrl-C would have sent, had it reached the group.
                    _ = killpg(group, Signal::SIGINT);
                    break;
                }
                std::thread::sleep(LOOK);
            }
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    });
    match requested() {
        true => Err(Interrupted.into()),
        false => Ok(result),
    }
}
