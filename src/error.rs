//! What can go wrong, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::simple::Report;

/// Result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done. Each message ends with what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel is older than bpf_wq.
    #[error(
        "linux {release} has no bpf_wq: needs linux {needs} or later; `cargo xtask test` runs such kernels in a VM"
    )]
    Unsupported {
        /// The running kernel, as `uname -r` prints it.
        release: String,
        /// The first version that will do.
        needs: &'static str,
    },

    /// The kernel's description of its own types cannot be read.
    #[error(
        "cannot read the kernel's BTF at {path}: {source}: needs a kernel with CONFIG_DEBUG_INFO_BTF=y and a mounted /sys; `cargo xtask test` runs such kernels in a VM"
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The kernel has no function behind unlink(2) that is known.
    #[error(
        "linux {release} has no function {} in its BTF, so there is nothing to attach to: report the kernel version",
        tried.join(" or ")
    )]
    NoUnlinkFunction {
        /// The running kernel, as `uname -r` prints it.
        release: String,
        /// The names that were looked for.
        tried: &'static [&'static str],
    },

    /// The kernel has no bpf(2), or a sandbox hides it.
    #[error(
        "{what}: the bpf system call is not there (errno {errno}): needs a kernel with CONFIG_BPF_SYSCALL=y and no filter on bpf(2); `cargo xtask test` runs in a VM"
    )]
    NoBpf {
        /// What was being done, and to which object.
        what: String,
        /// Always ENOSYS, 38.
        errno: i32,
    },

    /// This thread lacks capabilities.
    #[error(
        "{what}: not permitted (errno {errno}): needs CAP_BPF and CAP_PERFMON, and this thread lacks {missing}: run as root, or `cargo xtask test` in a VM"
    )]
    Privilege {
        /// What was being done, and to which object.
        what: String,
        /// Always EPERM, 1.
        errno: i32,
        /// The capabilities that are missing.
        missing: String,
    },

    /// This thread has the capabilities, and the system refuses all the same.
    #[error(
        "{what}: linux {release} refuses tracing programs (errno {errno}) although this thread has CAP_BPF and CAP_PERFMON: lockdown, a security module or the host of a container may do so; `cargo xtask test` runs in a VM{}",
        Log(log)
    )]
    TracingRefused {
        /// What was being done, and to which object.
        what: String,
        /// The running kernel, as `uname -r` prints it.
        release: String,
        /// Always EPERM, 1.
        errno: i32,
        /// What libbpf and the verifier said.
        log: String,
    },

    /// The kernel or libbpf refused an object for another reason.
    #[error(
        "{what}: {source} on linux {release}: see the log for the instruction or symbol{}",
        Log(log)
    )]
    Bpf {
        /// What was being done, and to which object.
        what: String,
        /// The running kernel, as `uname -r` prints it.
        release: String,
        /// What the system said, with its errno.
        source: io::Error,
        /// What libbpf and the verifier said.
        log: String,
    },

    /// The callback did not run in time.
    #[error("no callback ran in {waited:?}: {report}: raise the deadline on a slow machine")]
    Timeout {
        /// How long it was waited for.
        waited: Duration,
        /// What had happened until then.
        report: Report,
    },

    /// A file operation failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done, and to which file.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A log that follows a message, on lines of its own.
struct Log<'a>(&'a str);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.0.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}
