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
//! ```no_run
//! # use std::path::PathBuf;
//! let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
//! libbpf_cargo::SkeletonBuilder::new()
//!     .source("src/program.bpf.c")
//!     .clang_args(["-I".as_ref(), bpf_wq::include_dir().as_os_str()])
//!     .build_and_generate(out_dir.join("program.skel.rs"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! libbpf-cargo brings libbpf's own headers. clang 14 or later is needed, vmlinux.h and
//! the kernel's BTF are not.
//!
//! Beside it are `bpf_wq/arm.bpf.h`, for workqueues in the elements of a map, and
//! `bpf_wq/executor.bpf.h`, for a queue of jobs. Each declares what arms them.
//!
//! # The library
//!
//! * [`load`], [`Loaded::arm`], [`Armed::attach`], [`Armed::stop`]: the lifecycle of an object with
//!   workqueues, such that no end of it harms the kernel.
//! * [`Executor`] submits jobs, waits for them, and tells what became of them.
//! * [`take_over`] and [`Armed::pin`] keep an object at work when its loader is gone.
//! * [`lint`] checks an object before it is loaded: what kernels refuse, what takes them down.
//! * [`Kernel`] tells what the running kernel offers, as yes, no or inconclusive.
//! * [`Simple`] is the smallest use: a file is removed, and a callback runs.
//! * [`Error`] says what is missing and what to do about it.
//!
//! # A workqueue
//!
//! lives in the value of a map's element. A program *arms* it with `bpf_wq_init` and
//! `bpf_wq_set_callback`, once, and *starts* it with `bpf_wq_start`, as often as it likes: starts
//! of work that is still pending are one run. Updating or deleting the element cancels what is
//! pending, and so does the end of the map's last descriptor and pin.
//!
//! A callback has to be armed by a sleepable program, such as a `SEC("syscall")` program: the text of
//! any other is freed without waiting for a callback that runs or sleeps, and the kernel panics. Any
//! program may start it. The library holds to that, and refuses an object that does
//! not; `docs/design.md` in the repository has the reasons.

use std::path::Path;

mod errno;
mod error;
mod executor;
mod gate;
mod kernel;
mod lifecycle;
pub mod lint;
mod log;
mod parts;
mod pin;
mod privilege;
mod simple;
mod syscall;

pub use error::{Error, Result};
pub use executor::{Executor, JobId, Options, Refusal};
pub use gate::Counters;
pub use kernel::{Answer, BTF_PATH, Kernel, SetCallback, UNLINK_FUNCTIONS};
pub use lifecycle::{Armed, Drained, Loaded, load};
pub use pin::{Build, Cleared, Pin, PinState, Pinned, TakenOver, clear_pins, pins, take_over};
pub use simple::{Report, Simple};

/// The directory to give to clang with `-I`, so that a BPF program can
/// `#include <bpf_wq/wq.bpf.h>`.
///
/// For build scripts: it is the directory from which this crate was built.
pub fn include_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/include"))
}
