//! A clock of a CPU, whose ticks run a program in an interrupt.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::ptr;
use std::time::Duration;

use libbpf_rs::libbpf_sys::{
    PERF_COUNT_SW_CPU_CLOCK, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, perf_event_attr,
};
use libbpf_rs::{Link, ProgramMut};

/// Between two ticks.
pub const PERIOD: Duration = Duration::from_millis(4);

/// Attaches it to the clock of the CPU that this thread is on.
pub fn attach(program: &ProgramMut<'_>) -> libbpf_rs::Result<Link> {
    let event = loop {
        match open(this_cpu()?) {
            // That CPU has just gone.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            other => break other?,
        }
    };
    let link = program.attach_perf_event(event.as_raw_fd())?;
    // It is the link's now.
    let _ = event.into_raw_fd();
    Ok(link)
}

fn this_cpu() -> io::Result<i32> {
    // SAFETY: takes nothing, and returns a number.
    match unsafe { libc::sched_getcpu() } {
        cpu @ 0.. => Ok(cpu),
        _ => Err(io::Error::last_os_error()),
    }
}

fn open(cpu: i32) -> io::Result<OwnedFd> {
    let mut event = perf_event_attr {
        type_: PERF_TYPE_SOFTWARE,
        size: size_of::<perf_event_attr>() as u32,
        config: PERF_COUNT_SW_CPU_CLOCK.into(),
        ..Default::default()
    };
    event.__bindgen_anon_1.sample_period = PERIOD.as_nanos() as u64;
    let (every_process, no_group) = (-1, -1);
    // SAFETY: the kernel reads `event`, of the size that it says.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            ptr::from_ref(&event),
            every_process,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    match i32::try_from(opened) {
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
