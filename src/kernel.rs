//! What the running kernel offers.
//!
//! A probe says yes, no or inconclusive. It says no only when it got the answer that
//! a kernel without the feature gives; being refused (EPERM) is never a no.

use std::ffi::c_int;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr;

use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, TypeId};
use libbpf_rs::libbpf_sys;

use crate::error::{Error, Result};
use crate::{errno, log, privilege};

/// Where the kernel shows its BTF.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// The functions behind unlink(2), newest first: 7.0 renamed `do_unlinkat`.
pub const UNLINK_FUNCTIONS: &[&str] = &["filename_unlinkat", "do_unlinkat"];

/// The answer of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T = ()> {
    /// The kernel has it.
    Yes(T),
    /// The kernel does not have it, for this reason.
    No(String),
    /// It could not be found out, for this reason.
    Inconclusive(String),
}

impl<T> Answer<T> {
    /// Whether the answer is yes.
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes(_))
    }

    fn and_then<U>(self, next: impl FnOnce(T) -> Answer<U>) -> Answer<U> {
        match self {
            Self::Yes(value) => next(value),
            Self::No(why) => Answer::No(why),
            Self::Inconclusive(why) => Answer::Inconclusive(why),
        }
    }
}

/// Which `bpf_wq_set_callback` a kernel has.
///
/// The header `bpf_wq/wq.bpf.h` makes one compiled object work with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCallback {
    /// 6.10.0 to 6.10.2 (81f1d7a583fa): `bpf_wq_set_callback_impl`, whose callback's
    /// third parameter is the workqueue.
    ImplWithWq,
    /// 6.10.3 to 6.19 (f56f4d541eab): `bpf_wq_set_callback_impl`, whose callback's
    /// third parameter is the element's value.
    Impl,
    /// Since 7.0 (b97931a25a4b): `bpf_wq_set_callback`, the program is an implicit
    /// argument.
    ImplicitArgs,
}

impl fmt::Display for SetCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ImplWithWq => "_impl, 6.10.0",
            Self::Impl => "_impl",
            Self::ImplicitArgs => "implicit args",
        })
    }
}

/// A kernel that can be asked what it offers.
pub struct Kernel {
    release: String,
    btf_path: PathBuf,
    btf: io::Result<Btf<'static>>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("release", &self.release)
            .field("btf_path", &self.btf_path)
            .field("btf", &self.btf.as_ref().map(|_| ()))
            .finish()
    }
}

impl Kernel {
    /// The running kernel. Works on any Linux, without privilege.
    pub fn running() -> Self {
        Self::with_btf(BTF_PATH)
    }

    /// The running kernel, with the BTF in another file: raw BTF or an ELF file.
    pub fn with_btf(path: impl AsRef<Path>) -> Self {
        let btf_path = path.as_ref().to_owned();
        Self { release: release(), btf: read_btf(&btf_path), btf_path }
    }

    /// The version, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Where this kernel's BTF is looked for.
    pub fn btf_path(&self) -> &Path {
        &self.btf_path
    }

    /// Whether the kernel describes its own types: CONFIG_DEBUG_INFO_BTF, 5.4.
    pub fn btf(&self) -> Answer {
        self.types().and_then(|_| Answer::Yes(()))
    }

    /// Whether the kernel has workqueues for BPF: 6.10 (eb48f6cd41a0).
    pub fn bpf_wq(&self) -> Answer {
        self.function("bpf_wq_init").and_then(|_| Answer::Yes(()))
    }

    /// Which way of setting a callback the kernel has: 6.10 (81f1d7a583fa), 6.10.3
    /// (f56f4d541eab) or 7.0 (b97931a25a4b).
    pub fn set_callback(&self) -> Answer<SetCallback> {
        // 7.0 and later have the old name too, for programs that do not use it.
        if self.function("bpf_wq_set_callback").is_yes() {
            return Answer::Yes(SetCallback::ImplicitArgs);
        }
        self.types().and_then(|btf| {
            self.function("bpf_wq_set_callback_impl").and_then(|function| match third_parameter_of_callback(btf, &function) {
                Some(BtfKind::Void) => Answer::Yes(SetCallback::Impl),
                Some(BtfKind::Struct) => Answer::Yes(SetCallback::ImplWithWq),
                other => Answer::Inconclusive(format!(
                    "bpf_wq_set_callback_impl has an unknown prototype: the callback's third parameter points to {other:?}"
                )),
            })
        })
    }

    /// The function behind unlink(2), to which an fentry program can be attached:
    /// `do_unlinkat`, or `filename_unlinkat` since 7.0.
    pub fn unlink_function(&self) -> Answer<&'static str> {
        self.types().and_then(|_| {
            UNLINK_FUNCTIONS.iter().find(|name| self.function(name).is_yes()).map_or_else(
                || Answer::No(format!("no {} in BTF", UNLINK_FUNCTIONS.join(" or "))),
                |name| Answer::Yes(*name),
            )
        })
    }

    /// Whether this thread may load a tracing program: 5.5. Needs CAP_BPF and
    /// CAP_PERFMON; loads, and unloads, a program that does nothing.
    pub fn tracing(&self) -> Answer {
        self.unlink_function().and_then(|name| self.function(name)).and_then(|function| {
            match load_empty_fentry(function.type_id().into()) {
                Ok(_) => Answer::Yes(()),
                Err(error) => explain_refusal(&error),
            }
        })
    }

    /// Why there is no point in loading a program with a workqueue.
    pub(crate) fn needs_bpf_wq(&self) -> Result<()> {
        if let Err(error) = &self.btf {
            return Err(Error::NoBtf {
                path: self.btf_path.clone(),
                source: io::Error::new(error.kind(), error.to_string()),
            });
        }
        if !self.bpf_wq().is_yes() {
            return Err(Error::Unsupported { release: self.release.clone(), needs: "6.10" });
        }
        Ok(())
    }

    pub(crate) fn types(&self) -> Answer<&Btf<'static>> {
        match &self.btf {
            Ok(btf) => Answer::Yes(btf),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Answer::No(format!("{}: {error}", self.btf_path.display()))
            }
            Err(error) => Answer::Inconclusive(format!("{}: {error}", self.btf_path.display())),
        }
    }

    fn function(&self, name: &str) -> Answer<Func<'_>> {
        self.types().and_then(|btf| match btf.type_by_name::<Func<'_>>(name) {
            Some(function) => Answer::Yes(function),
            None => Answer::No(format!("no {name} in BTF")),
        })
    }
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "(version unknown)".to_owned(), |release| release.trim_end().to_owned())
}

fn read_btf(path: &Path) -> io::Result<Btf<'static>> {
    // libbpf does not say whether a file is missing, unreadable or broken.
    File::open(path)?;
    let (btf, log) = log::capture(|| Btf::from_path(path));
    btf.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{error:#}: {log}")))
}

/// What the third parameter of the callback that `function` takes points to.
fn third_parameter_of_callback(btf: &Btf<'_>, function: &Func<'_>) -> Option<BtfKind> {
    let prototype = FuncProto::try_from(function.next_type()?).ok()?;
    let callback = pointed_to(btf, prototype.get(1)?.ty)?;
    let callback = FuncProto::try_from(callback).ok()?;
    Some(pointed_to(btf, callback.get(2)?.ty)?.kind())
}

fn pointed_to<'btf>(btf: &'btf Btf<'_>, ty: TypeId) -> Option<BtfType<'btf>> {
    let pointer = btf.type_by_id::<BtfType<'btf>>(ty)?.skip_mods_and_typedefs();
    // An id of 0 is void, which is no type that can be looked up by reference.
    Some(pointer.next_type()?.skip_mods_and_typedefs())
}

/// Loads the program that returns 0, for fentry on the function with this BTF id.
fn load_empty_fentry(function: u32) -> io::Result<OwnedFd> {
    let instructions = [
        libbpf_sys::bpf_insn { code: 0xb7, ..Default::default() }, // r0 = 0
        libbpf_sys::bpf_insn { code: 0x95, ..Default::default() }, // exit
    ];
    let mut opts = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: libbpf_sys::BPF_TRACE_FENTRY,
        attach_btf_id: function,
        ..Default::default()
    };
    // SAFETY: the strings end with a zero, and the instructions and options live
    // until the call returns; it keeps no pointer to them.
    let result: c_int = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_TRACING,
            ptr::null(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as libbpf_sys::size_t,
            &mut opts,
        )
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the call has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Why the kernel did not take that program.
fn explain_refusal(error: &io::Error) -> Answer {
    match error.raw_os_error() {
        Some(errno::ENOSYS) => Answer::No(format!("no bpf system call: {error}")),
        Some(errno::EPERM) => Answer::Inconclusive(match privilege::missing() {
            Some(missing) => format!("this thread lacks {missing}: {error}"),
            None => format!("refused although this thread has the capabilities: {error}"),
        }),
        _ => Answer::Inconclusive(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_btf_is_a_no() {
        let kernel = Kernel::with_btf("/nonexistent/vmlinux");
        for answer in [kernel.btf(), kernel.bpf_wq(), kernel.tracing()] {
            assert!(
                matches!(&answer, Answer::No(why) if why.contains("/nonexistent/vmlinux")),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn a_broken_btf_is_inconclusive() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "this is no BTF").unwrap();
        let kernel = Kernel::with_btf(file.path());
        assert!(matches!(kernel.btf(), Answer::Inconclusive(_)));
        assert!(matches!(kernel.set_callback(), Answer::Inconclusive(_)));
    }

    #[test]
    fn being_refused_is_not_a_no() {
        let answer = explain_refusal(&io::Error::from_raw_os_error(errno::EPERM));
        assert!(matches!(answer, Answer::Inconclusive(_)), "{answer:?}");
        let answer = explain_refusal(&io::Error::from_raw_os_error(errno::ENOSYS));
        assert!(matches!(answer, Answer::No(_)), "{answer:?}");
    }
}
