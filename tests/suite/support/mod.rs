//! What several topics need.

pub mod bpffs;
pub mod btf;
pub mod called;
pub mod creating;
pub mod lifecycle;
pub mod loader;
pub mod loading;
pub mod nmi;
pub mod noise;
pub mod pin;
pub mod process;
pub mod restricted;
pub mod running;
pub mod teardown;

use std::fmt::Debug;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

pub use bpf_wq_tests::*;

/// Sets the flag when this is dropped, also where an assertion fails: whoever looks at it ends.
pub struct End<'flag>(pub &'flag AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Records that the test loads an object of `bpf/tests/`; the first is the one that its rule points
/// to.
pub fn loads(object: &str) {
    event(&json!({"program": format!("bpf/tests/{object}.bpf.c")}));
}

/// Unwraps an error, and prints what should have been one.
#[track_caller]
pub fn refusal<T: Debug>(result: bpf_wq::Result<T>) -> bpf_wq::Error {
    let error = result.expect_err("this should have been refused");
    println!("refused, as it should be: {error}");
    error
}

/// The number of instructions of a loaded program as the kernel runs it, before they
/// become machine code.
pub fn translated_instructions(program: &libbpf_rs::ProgramMut<'_>) -> usize {
    use libbpf_rs::libbpf_sys::{bpf_insn, bpf_obj_get_info_by_fd, bpf_prog_info};
    use std::os::fd::AsFd as _;

    let mut info = bpf_prog_info::default();
    let mut size = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the descriptor is open, and the kernel writes at most `size` bytes.
    let result = unsafe {
        bpf_obj_get_info_by_fd(program.as_fd().as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    };
    assert_eq!(result, 0, "bpf_obj_get_info_by_fd");
    assert_ne!(info.xlated_prog_len, 0, "the kernel hides its instructions");
    info.xlated_prog_len as usize / size_of::<bpf_insn>()
}
