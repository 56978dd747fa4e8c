//! A network of this thread and the processes that it starts, which is gone when they are: with
//! nothing but lo.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};

/// Makes it; the thread stays in it. Needs CAP_SYS_ADMIN.
///
/// # Errors
///
/// If it cannot be made.
pub fn join() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace: run as root")?;
    let run = Command::new("ip").args(["link", "set", "lo", "up"]).output();
    let run = run.context("cannot run ip: install iproute2")?;
    if !run.status.success() {
        bail!("ip link set lo up: {}", String::from_utf8_lossy(&run.stderr).trim());
    }
    Ok(())
}
