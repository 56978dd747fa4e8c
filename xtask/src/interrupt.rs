//! SIGINT, SIGTERM and SIGHUP: what runs is ended in order, so that nothing of it is left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};

use crate::failure::Exit;

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
