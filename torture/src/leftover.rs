//! What there is of BPF objects, processes and memory, to compare the end with the beginning.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bpf_wq_tests::{is_set, of_running_kernel};
use libbpf_rs::libbpf_sys::{
    bpf_btf_get_next_id, bpf_link_get_next_id, bpf_map_get_next_id, bpf_prog_get_fd_by_id,
    bpf_prog_get_next_id,
};

/// How long the kernel may take to free what nobody has any more.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The kernel memory that may be missing at the end: slabs and per-CPU areas are given back by the
/// page, and some of their pages hold something that lives on.
const BOUND: u64 = 16 << 20;

/// KASAN keeps back what was freed, to see who still uses it: so much of all memory at most
/// (QUARANTINE_FRACTION of mm/kasan/quarantine.c).
const QUARANTINE: u64 = 32;

/// Where the kernel's leak detector is.
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// It reports nothing younger (MSECS_MIN_AGE).
const KMEMLEAK_AGE: Duration = Duration::from_secs(5);

/// The ids of all BPF objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objects([(&'static str, BTreeSet<u32>); 4]);

impl Objects {
    /// At this moment.
    pub fn now() -> Result<Self> {
        Ok(Self([
            ("program", ids(bpf_prog_get_next_id)?),
            ("map", ids(bpf_map_get_next_id)?),
            ("link", ids(bpf_link_get_next_id)?),
            ("btf", ids(bpf_btf_get_next_id)?),
        ]))
    }

    /// Those that there are now and were not then, in words.
    fn new_since(&self, before: &Self) -> Vec<String> {
        let pairs = self.0.iter().zip(&before.0);
        pairs
            .flat_map(|((kind, now), (_, then))| {
                now.difference(then).map(move |id| format!("{kind} {id}"))
            })
            .collect()
    }

    /// Waits until all that came since is gone.
    pub fn wait_until_gone(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let left = Self::now()?.new_since(self);
            if left.is_empty() {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "left in the kernel: {}", left.join(", "));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn ids(next: unsafe extern "C" fn(u32, *mut u32) -> i32) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    let mut id = 0;
    loop {
        // SAFETY: the kernel writes a number to where it may.
        match unsafe { next(id, &raw mut id) } {
            0 => all.insert(id),
            error if error == -libc::ENOENT => return Ok(all),
            error => {
                return Err(io::Error::from_raw_os_error(-error)).context("listing BPF objects");
            }
        };
    }
}

/// Waits until programs of these ids are gone, and with them all that they hold.
pub fn wait_until_programs_are_gone(ids: &[u32]) -> Result<()> {
    let begun = Instant::now();
    for id in ids {
        while program_exists(*id)? {
            ensure!(begun.elapsed() < PATIENCE, "program {id} is still loaded");
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

fn program_exists(id: u32) -> Result<bool> {
    // SAFETY: takes a number, and returns a descriptor or a negative errno.
    match unsafe { bpf_prog_get_fd_by_id(id) } {
        fd @ 0.. => {
            // SAFETY: the descriptor is new, and nobody else's.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(true)
        }
        error if error == -libc::ENOENT => Ok(false),
        error => Err(io::Error::from_raw_os_error(-error)).context("looking for a program"),
    }
}

/// Fails if a process is left that this one has started.
pub fn no_processes() -> Result<()> {
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let path = entry?.path();
        // One that is no process has no such file; one that has just ended, neither.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let behind_the_name = stat.rsplit(')').next().unwrap_or_default();
        if behind_the_name.split_whitespace().nth(1) == Some(&own) {
            bail!("a process is left: {}", stat.trim());
        }
    }
    Ok(())
}

/// Fails if something is pinned in a bpffs.
pub fn no_pins(bpffs: &Path) -> Result<()> {
    let entries = fs::read_dir(bpffs).with_context(|| bpffs.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        // What a kernel with CONFIG_BPF_PRELOAD has there.
        if path.extension().is_some_and(|extension| extension == "debug") {
            continue;
        }
        bail!("{} is left", path.display());
    }
    Ok(())
}

/// The memory of the kernel that it cannot take back, in bytes.
pub fn kernel_memory() -> Result<u64> {
    // It takes back what it can, so that less of its caches lies between pages that are in use.
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop_caches")?;
    let text = meminfo()?;
    let parts = ["SUnreclaim", "VmallocUsed", "Percpu", "KernelStack"];
    parts.into_iter().map(|name| memory(&text, name)).sum()
}

fn meminfo() -> Result<String> {
    fs::read_to_string("/proc/meminfo").context("/proc/meminfo")
}

/// A line of `/proc/meminfo`, in bytes.
fn memory(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    let number = number.with_context(|| format!("no {name} in /proc/meminfo"))?;
    Ok(number.parse::<u64>()? << 10)
}

/// How much more memory this kernel may have at the end.
pub fn bound() -> Result<u64> {
    let config = of_running_kernel();
    let keeps_back = config.is_some_and(|config| is_set(&config, "CONFIG_KASAN_GENERIC"));
    Ok(BOUND + if keeps_back { memory(&meminfo()?, "MemTotal")? / QUARANTINE } else { 0 })
}

/// Waits until the kernel has no more memory than before, but for a [`bound`].
pub fn wait_for_memory(before: u64, bound: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let now = kernel_memory()?;
        if now <= before + bound {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "the kernel had {} KiB in use before, and has {} KiB: more than {} KiB are gone",
            before >> 10,
            now >> 10,
            bound >> 10
        );
        thread::sleep(Duration::from_millis(500));
    }
}

/// Lets the kernel forget what it takes for leaks by now, if it looks for some.
pub fn forget_leaks() -> Result<()> {
    if !mount_debugfs()? {
        return Ok(());
    }
    for word in ["scan", "clear"] {
        fs::write(KMEMLEAK, word).with_context(|| format!("{KMEMLEAK}: {word}"))?;
    }
    Ok(())
}

/// Fails if the kernel has lost memory that nothing leads to. Whether it looks for such.
pub fn no_leaks() -> Result<bool> {
    if !mount_debugfs()? {
        return Ok(false);
    }
    // What was freed by a grace period may have been in a register, or on a stack, for a moment.
    for _ in 0..2 {
        thread::sleep(KMEMLEAK_AGE + Duration::from_secs(1));
        fs::write(KMEMLEAK, "scan").with_context(|| format!("{KMEMLEAK}: scan"))?;
    }
    no_leaks_in(&fs::read_to_string(KMEMLEAK).context(KMEMLEAK)?)?;
    Ok(true)
}

fn no_leaks_in(leaks: &str) -> Result<()> {
    ensure!(leaks.trim().is_empty(), "the kernel has lost memory:\n{leaks}");
    Ok(())
}

fn mount_debugfs() -> Result<bool> {
    use nix::mount::{MsFlags, mount};
    if !Path::new(KMEMLEAK).exists() {
        let (none, at) = (None::<&str>, "/sys/kernel/debug");
        let mounted = Path::new(at).exists()
            && mount(none, at, Some("debugfs"), MsFlags::empty(), none).is_ok();
        if !mounted {
            return Ok(false);
        }
    }
    Ok(Path::new(KMEMLEAK).exists())
}

/// Fails if lockdep has given up, as it does at its first report. Whether there is lockdep.
pub fn lockdep_watches() -> Result<bool> {
    let Ok(stats) = fs::read_to_string("/proc/lockdep_stats") else { return Ok(false) };
    lockdep_watches_in(&stats).map(|()| true)
}

fn lockdep_watches_in(stats: &str) -> Result<()> {
    let word = stats.lines().find_map(|line| line.trim().strip_prefix("debug_locks:"));
    ensure!(word.map(str::trim) == Some("1"), "lockdep has given up: {stats}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_named() {
        let of = |ids: &[u32]| {
            let some = ids.iter().copied().collect();
            Objects([
                ("program", some),
                ("map", BTreeSet::new()),
                ("link", BTreeSet::from([9])),
                ("btf", BTreeSet::new()),
            ])
        };
        assert_eq!(of(&[1, 2, 3]).new_since(&of(&[1, 3])), ["program 2"]);
        assert!(of(&[1]).new_since(&of(&[1, 3])).is_empty());
    }

    #[test]
    fn what_the_kernel_says_of_itself_is_heard() {
        let leak = "unreferenced object 0xffff88800b9d8000 (size 64):\n  comm \"torture\", pid 9\n";
        assert!(no_leaks_in(leak).unwrap_err().to_string().contains("(size 64)"));
        no_leaks_in("\n").unwrap();
        let stats = |word| format!(" lock-classes:  1811 [max: 8192]\n debug_locks: {word:>20}\n");
        lockdep_watches_in(&stats("1")).unwrap();
        assert!(lockdep_watches_in(&stats("0")).is_err());
        assert!(lockdep_watches_in("").is_err());
    }
}
