//! bpf(2), where libbpf-rs has it for objects of its own only.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use libbpf_rs::libbpf_sys::{
    bpf_link_detach, bpf_obj_get, bpf_obj_pin, bpf_prog_test_run_opts, bpf_test_run_opts,
};

/// Runs a `SEC("syscall")` program once in this thread, with `context` for it to read and write,
/// and returns what it returned.
pub(crate) fn run(program: BorrowedFd<'_>, context: &mut [u8]) -> io::Result<i32> {
    let (ctx_in, length) = (context.as_mut_ptr().cast_const(), context.len());
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        // A program without a context is given none.
        ctx_in: if length == 0 { ptr::null() } else { ctx_in.cast() },
        ctx_size_in: length as _,
        ..Default::default()
    };
    // SAFETY: the descriptor is open. The kernel reads and writes the context, as long as told;
    // it writes through the pointer that is declared const, and the reference is exclusive.
    let result = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    of(result).map(|_| options.retval as i32)
}

/// Runs a `SEC("syscall")` program that takes nothing, and returns 0 or a negative errno.
pub(crate) fn call(program: BorrowedFd<'_>) -> io::Result<()> {
    match run(program, &mut [])? {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(()),
    }
}

/// Pins a map, program or link.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the descriptor is open, and the path a string.
    of(unsafe { bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) }).map(|_| ())
}

/// Opens what is pinned.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string.
    let fd = of(unsafe { bpf_obj_get(path.as_ptr()) })?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link whoever holds it, where its kind allows that.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    of(unsafe { bpf_link_detach(link.as_raw_fd()) }).map(|_| ())
}

fn of(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
