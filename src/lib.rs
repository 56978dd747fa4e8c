//! BPF workqueues (`bpf_wq`), safe and portable.
//!
//! A workqueue lets a BPF program defer work: the program runs in the fast path, where
//! it may not sleep, and starts a callback that the kernel runs a little later in a
//! kernel thread, where it may. Linux has them since 6.10.
//!
//! # The header
//!
//! `bpf_wq/wq.bpf.h` is what a BPF program in C includes. It gives the kernel's own
//! names, `bpf_wq_init`, `bpf_wq_set_callback` and `bpf_wq_start`, and one compiled
//! object loads on every kernel since 6.10, although the second of them has had three
//! prototypes. A build script finds the header's directory in either of two ways:
//!
//! * [`include_dir`], with `bpf-wq` among the `[build-dependencies]`;
//! * the environment variable `DEP_BPF_WQ_INCLUDE`, with `bpf-wq` among the
//!   `[dependencies]`.
//!
//! ```ignore
//! libbpf_cargo::SkeletonBuilder::new()
//!     .source("src/program.bpf.c")
//!     .clang_args(["-I".as_ref(), bpf_wq::include_dir().as_os_str()])
//!     .build_and_generate(out_dir.join("program.skel.rs"))?;
//! ```
//!
//! libbpf-cargo brings libbpf's own headers. clang 14 or later is needed, vmlinux.h and
//! the kernel's BTF are not.
//!
//! # The library
//!
//! * [`Kernel`] tells what the running kernel offers, as yes, no or inconclusive.
//! * [`Simple`] is the smallest use: a file is removed, and a callback runs.
//! * [`Error`] says what is missing and what to do about it.
//!
//! # The lifecycle of a workqueue
//!
//! A workqueue lives in the value of a map's element. A program *arms* it with
//! `bpf_wq_init` and `bpf_wq_set_callback`, once, and *starts* it with `bpf_wq_start`,
//! as often as it likes: starts of work that is still pending are one run. Updating
//! or deleting the element cancels what is pending.
//!
//! A callback that sleeps has to be armed by a sleepable program, such as a
//! `SEC("syscall")` program: the text of any other is freed without waiting for a
//! sleeping callback, and the kernel panics. Any program may start it.

use std::path::Path;

mod errno;
mod error;
mod kernel;
mod log;
mod privilege;
mod simple;

pub use error::{Error, Result};
pub use kernel::{Answer, BTF_PATH, Kernel, SetCallback, UNLINK_FUNCTIONS};
pub use simple::{Report, Simple};

/// The directory to give to clang with `-I`, so that a BPF program can
/// `#include <bpf_wq/wq.bpf.h>`.
///
/// For build scripts: it is the directory from which this crate was built.
pub fn include_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/include"))
}
