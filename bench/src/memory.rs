//! The memory of a job that can be pending: what a cgroup is charged for many of them.

mod cgroup;

use std::mem::MaybeUninit;

use anyhow::{Result, ensure};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};

use self::cgroup::Cgroup;
use crate::Way;
use crate::machine::call;
use crate::results::Memory;
use crate::skel::memory::{MemorySkel, MemorySkelBuilder};

/// PLACES of `src/bpf/memory.bpf.c`.
const PLACES: u64 = 1 << 18;

/// Measures the ways whose memory is there from the start. Needs a kernel with cgroups of version 2.
///
/// # Errors
///
/// If something cannot be loaded, or there can be no cgroup.
pub fn measure() -> Result<Vec<Memory>> {
    [Way::Bare, Way::Executor, Way::Timer, Way::Epoll].into_iter().map(of).collect()
}

/// Measures one of them.
///
/// # Errors
///
/// As of [`measure`].
pub fn of(way: Way) -> Result<Memory> {
    eprintln!("memory: {way}");
    let (program, maps) = match way {
        Way::Bare => ("arm_bares", "bares"),
        Way::Executor => ("bpf_wq_arm_jobs", "jobs_"),
        Way::Timer => ("arm_timers", "timers"),
        _ => ("fill_ring", "ring"),
    };
    let mut storage = MaybeUninit::uninit();
    let mut open = MemorySkelBuilder::default().open(&mut storage)?;
    for mut of in open.open_object_mut().progs_mut() {
        let is_wanted = of.name() == program;
        of.set_autoload(is_wanted);
    }
    for mut of in open.open_object_mut().maps_mut() {
        let is_wanted = of.name().to_string_lossy().starts_with(maps);
        of.set_autocreate(is_wanted)?;
    }
    let cgroup = Cgroup::new()?;
    let before = cgroup.kernel_memory()?;
    let made = cgroup.within(|| -> Result<(MemorySkel<'_>, u64)> {
        let skel = open.load()?;
        let progs = &skel.progs;
        let places = match way {
            Way::Bare => call(&progs.arm_bares, []).map(|_| PLACES),
            Way::Executor => call(&progs.bpf_wq_arm_jobs, []).map(|_| PLACES),
            Way::Timer => call(&progs.arm_timers, []).map(|_| PLACES),
            _ => call(&progs.fill_ring, []),
        }?;
        Ok((skel, places))
    });
    let measured = made.and_then(|(skel, places)| {
        let after = cgroup.kernel_memory()?;
        drop(skel);
        ensure!(places > 0 && after > before, "{way}: {places} places, {before} to {after} bytes");
        Ok(Memory { way, bytes: (after - before) / places })
    });
    cgroup.remove()?;
    measured
}
