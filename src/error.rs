//! What can go wrong, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::executor::Refusal;
use crate::lint::{Finding, Version};
use crate::pin::Cleared;
use crate::simple::Report;
use crate::{errno, privilege};

/// Result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done. Each message says what to do next, but for what the system
/// says of a file.
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

    /// Something was given as a kernel's version, and is none.
    #[error("{given:?} is no kernel version: write one as 6.12 or 6.12.107")]
    Version {
        /// What was given.
        given: String,
    },

    /// A file is no BPF object, or a broken one.
    #[error(
        "{name} is no BPF object that can be opened: {why}: compile it with `clang -g -O2 --target=bpf`{}",
        Log(log)
    )]
    Object {
        /// The file.
        name: String,
        /// What is wrong with it.
        why: String,
        /// What libbpf said.
        log: String,
    },

    /// An object would do harm on this kernel: an oops, a hang, a panic or lost work. Nothing was loaded.
    #[error(
        "{name} is not loaded, as it does harm on linux {kernel}: do what is said of each{}",
        List(findings)
    )]
    Dangerous {
        /// The object.
        name: String,
        /// The kernel.
        kernel: Version,
        /// What would do harm; lint may find more in the object.
        findings: Vec<Finding>,
    },

    /// An object was opened from other bytes than those that were given with it.
    #[error(
        "the bytes given for {name} are not those it was opened from: {why}: give those of the file that its skeleton was made from"
    )]
    OtherObject {
        /// The object.
        name: String,
        /// How they differ.
        why: String,
    },

    /// No program of the object arms anything.
    #[error(
        "{object} has no program bpf_wq_arm_*, so its workqueues would do nothing: declare BPF_WQ_ARM(map, ...) or BPF_WQ_EXECUTOR(name, ...)"
    )]
    NothingToArm {
        /// The object.
        object: String,
    },

    /// A program that arms workqueues has failed.
    #[error("cannot arm {queue} of {object}: {source}: {}", remedy(source))]
    Arming {
        /// The object.
        object: String,
        /// The map or executor.
        queue: String,
        /// What the program returned, or why it did not run.
        source: io::Error,
    },

    /// An object has no such executor.
    #[error(
        "there is no executor {name} of this type: {why}: compare it with BPF_WQ_EXECUTOR({name}, ...)"
    )]
    NoExecutor {
        /// Its name.
        name: String,
        /// What is missing or different.
        why: String,
    },

    /// An executor has refused a job.
    #[error("cannot {what} {name}: {refusal}")]
    Refused {
        /// What was being done.
        what: String,
        /// The executor.
        name: String,
        /// Why.
        refusal: Refusal,
    },

    /// A directory for pins is in another file system.
    #[error(
        "{} is in no bpffs: `mount -t bpf bpf /sys/fs/bpf`, and take a directory below",
        path.display()
    )]
    NotBpffs {
        /// The directory, or the one above that it would be made in.
        path: PathBuf,
    },

    /// This process may not do something to a pin.
    #[error(
        "cannot {what} {}: {source}: run as root, or as the user that has made it; bpffs also refuses names with a dot",
        path.display()
    )]
    PinDenied {
        /// What was being done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Another process pins, takes over or drains in the same directory.
    #[error(
        "another process is at work on the pins in {}: try again when it is done",
        directory.display()
    )]
    PinBusy {
        /// The directory of the pins.
        directory: PathBuf,
    },

    /// The same build is pinned in the directory already.
    #[error(
        "{} is there already: take it over with bpf_wq::take_over, or remove it with `bpf-wq unpin {}`",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    PinExists {
        /// The pin.
        path: PathBuf,
    },

    /// There is no pin, or no whole one.
    #[error("there is no pin {}, or it was not made or not removed to its end: {why}: start with bpf_wq::take_over", path.display())]
    NoPin {
        /// Where it should have been.
        path: PathBuf,
        /// What is missing.
        why: String,
    },

    /// Something failed after pins were removed that had work left.
    #[error("{source}; before, work was lost: {}", Lost(cleared))]
    WorkLost {
        /// The pins that were removed, and their work that was not done.
        cleared: Vec<Cleared>,
        /// What failed, and what to do next.
        source: Box<Error>,
    },

    /// An object is not pinned that takes no more work.
    #[error(
        "{object} is not pinned, as {queue} was drained: load it again, and pin it before a drain"
    )]
    PinDrained {
        /// The object.
        object: String,
        /// The map or executor.
        queue: String,
    },

    /// A pin's directory has something that no pin has, so it is not removed.
    #[error("{} is no part of a pin, and was left alone with its pin: remove it by hand", path.display())]
    UnknownPin {
        /// What was found.
        path: PathBuf,
    },

    /// A link is not one that can be pinned.
    #[error("cannot pin the link {name} of {object}: {why}")]
    LinkPin {
        /// The object.
        object: String,
        /// The link's name.
        name: String,
        /// Why, and what to do.
        why: &'static str,
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

impl Error {
    /// Explains what libbpf reported: tried first, probed only now.
    pub(crate) fn of_bpf(what: &str, release: &str, error: &libbpf_rs::Error, log: String) -> Self {
        let what = what.to_owned();
        let release = release.to_owned();
        let source = errno::of(error);
        match (source.raw_os_error(), privilege::missing()) {
            (Some(errno @ errno::ENOSYS), _) => Self::NoBpf { what, errno },
            (Some(errno @ errno::EPERM), Some(missing)) => Self::Privilege { what, errno, missing },
            (Some(errno @ errno::EPERM), None) => {
                Self::TracingRefused { what, release, errno, log }
            }
            _ => Self::Bpf { what, release, source, log },
        }
    }
}

/// What to do about an arming program that has failed.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        // Since 6.18 the kernel asks for it without waiting for any to be freed.
        Some(errno::ENOMEM) => {
            "the kernel has no memory at hand for its workqueues and timers, or memory.max of the cgroup of who created the maps allows no more: try again, or declare fewer jobs"
        }
        _ => "see the rules of bpf_wq_init and bpf_wq_set_callback in docs/compatibility.md",
    }
}

/// The end of a log, on lines of its own: what the verifier refuses comes last.
struct Log<'a>(&'a str);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 30;
        let lines: Vec<&str> = self.0.lines().collect();
        let left_out = lines.len().saturating_sub(SHOWN);
        if left_out > 0 {
            write!(f, "\n    ({left_out} lines before are in the error's `log`)")?;
        }
        for line in &lines[left_out..] {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// What was removed, with its work.
struct Lost<'a>(&'a [Cleared]);

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_pin = |pin: &Cleared| format!("of {}: {}", pin.name, pin.drained);
        f.write_str(&self.0.iter().map(of_pin).collect::<Vec<_>>().join("; "))
    }
}

/// Findings that follow a message, on lines of their own.
struct List<'a>(&'a [Finding]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.0 {
            write!(f, "\n    {finding}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arming_without_memory_is_told_of() {
        let failed = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            Error::Arming { object: "o".into(), queue: "jobs".into(), source }.to_string()
        };
        assert!(failed(errno::ENOMEM).ends_with("declare fewer jobs"));
        assert!(failed(errno::EINVAL).ends_with("docs/compatibility.md"));
    }

    #[test]
    fn of_a_long_log_the_end_is_shown() {
        let lines: Vec<String> = (1..=32).map(|number| format!("line {number}")).collect();
        assert_eq!(Log("").to_string(), "");
        assert_eq!(Log("one\ntwo\n").to_string(), "\n    one\n    two");
        assert!(Log(&lines[2..].join("\n")).to_string().starts_with("\n    line 3\n"));
        let shown = Log(&lines.join("\n")).to_string();
        let first = "\n    (2 lines before are in the error's `log`)\n    line 3\n";
        assert!(shown.starts_with(first) && shown.ends_with("\n    line 32"), "{shown}");
    }
}
