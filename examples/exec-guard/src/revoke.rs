//! Stops processes that were let in before it was known that they should not be.
//!
//! By a pidfd, which the kernel has had for long: `bpf_send_signal_task`, by which the workqueue
//! could do so itself, is there since 6.13 (6280cf718db0).

use std::collections::HashSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup::Scope;
use crate::opener::Opener;
use crate::policy::Revoke;
use crate::subject::Subject;

/// What /proc counts in: USER_HZ, which is 100 on all machines but the Alpha.
const TICK_NS: u64 = 10_000_000;

/// A process that forks meanwhile has children that are to be looked for, too.
const ROUNDS: usize = 16;

/// Stops a process that began then, if it is still there. Whether it was.
pub(crate) fn stop(process: u32, started_ns: u64, how: Revoke) -> bool {
    signal(process, how, || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The command, in brackets, may have any characters.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks: u64 = fields.split(' ').nth(19)?.parse().ok()?;
        (ticks == started_ns / TICK_NS).then_some(())
    })
}

/// Stops all processes of the scope that run this file. How many there were.
pub(crate) fn stop_all_of(file: &Subject, scope: &Scope, opener: &Opener, how: Revoke) -> usize {
    let mut stopped = HashSet::new();
    for _ in 0..ROUNDS {
        let before = stopped.len();
        for process in scope.processes() {
            let runs_it = || {
                let (_, program) = opener.open(format!("/proc/{process}/exe")).ok()?;
                program.is_same_file(file).then_some(())
            };
            if !stopped.contains(&process) && signal(process, how, runs_it) {
                stopped.insert(process);
            }
        }
        if stopped.len() == before {
            break;
        }
    }
    stopped.len()
}

/// The pidfd comes first: if the number is another process's by then, that one is looked at, and
/// if it becomes another one's later, the signal is for nobody.
fn signal(process: u32, how: Revoke, is_meant: impl FnOnce() -> Option<()>) -> bool {
    let signal = match how {
        Revoke::Kill => Signal::KILL,
        Revoke::Stop => Signal::STOP,
        Revoke::Leave => return false,
    };
    let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return false };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    is_meant().is_some() && pidfd_send_signal(&pidfd, signal).is_ok()
}
