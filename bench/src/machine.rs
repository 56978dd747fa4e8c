//! What measuring needs of the machine.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use libbpf_rs::libbpf_sys;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// More than anything here takes, also in an emulated machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Major and minor version of the running kernel.
///
/// # Errors
///
/// If its release begins with no version.
pub fn version() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("{} is no kernel version", release.trim()),
    }
}

/// How busy it is.
///
/// # Errors
///
/// If it cannot be read.
pub fn load_average() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

/// The CPUs that this process may run on.
///
/// # Errors
///
/// If they cannot be read.
pub fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("cannot read the set of CPUs")?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Runs `act` in a thread of its own, which runs on this CPU alone, as do those that it starts.
///
/// # Errors
///
/// If it may not, there is no such CPU, or `act` fails.
pub fn on_cpu<T: Send>(cpu: usize, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| pin(0, cpu).and_then(|()| act()));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Has a thread run on one CPU alone; 0 is the calling one.
pub(crate) fn pin(tid: i32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(tid), &set))
        .with_context(|| format!("cannot run on CPU {cpu}"))
}

/// CLOCK_MONOTONIC in ns, as bpf_ktime_get_ns().
///
/// # Errors
///
/// If there is no such clock.
pub fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(Duration::from(now).as_nanos() as u64)
}

/// Runs a SEC("syscall") program, whose context is some words. It returns a count, or a negative
/// errno.
///
/// # Errors
///
/// If it cannot be run, or what it returns is below 0.
pub fn call<const N: usize>(program: impl AsFd, mut words: [u64; N]) -> Result<u64> {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        // A program without a context is given none.
        ctx_in: if N == 0 { ptr::null_mut() } else { words.as_mut_ptr().cast() },
        ctx_size_in: size_of_val(&words) as u32,
        ..Default::default()
    };
    let fd = program.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes `words`, of this size, and nothing else.
    if unsafe { libbpf_sys::bpf_prog_test_run_opts(fd, &raw mut opts) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot run a program");
    }
    let returned = opts.retval as i32;
    u64::try_from(returned)
        .map_err(|_| io::Error::from_raw_os_error(-returned))
        .context("a program failed")
}

/// Looks again and again until it is so.
///
/// # Errors
///
/// If it is not within a minute, or `is_so` fails.
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > DEADLINE {
            bail!("{what}: not within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// Reads a number that programs, or other threads, write at any time.
pub(crate) fn read(number: &u64) -> u64 {
    // SAFETY: the reference is valid, and an aligned word is read as a whole.
    unsafe { (&raw const *number).read_volatile() }
}

/// Writes a number of a section that is mapped for writing.
pub(crate) fn write<T>(number: &T, value: T) {
    // SAFETY: as `read`; programs read what is written here, as a whole.
    unsafe { (&raw const *number).cast_mut().write_volatile(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_something_run_on_one_cpu_keeps_all() {
        let before = cpus().expect("they can be read");
        let there = on_cpu(before[0], cpus).expect("it runs");
        assert_eq!(there, before[..1]);
        assert_eq!(cpus().expect("they can be read"), before);
    }
}
