//! The kernel that an object is checked against.

use std::ffi::OsStr;
use std::fs;

use libbpf_rs::btf::types::{Func, Typedef};

use super::history::{CALLBACK_GETS_VALUE, FIRST, IMPLICIT_ARGS};
use super::version::Version;
use crate::error::Result;
use crate::kernel::{Answer, Kernel, SetCallback};

/// Every symbol of the kernel and of its modules.
const SYMBOLS: &str = "/proc/kallsyms";

/// A kernel: the running one, of which more can be found out, or one by its version.
#[derive(Debug)]
pub struct Target {
    version: Version,
    running: Option<Kernel>,
}

impl Target {
    /// The running kernel. Its BTF and list of symbols are asked for functions and tracepoints to
    /// attach to; where they cannot be read, those are not checked. Works on any Linux, without
    /// privilege.
    ///
    /// # Errors
    ///
    /// [`Error::Version`](crate::Error::Version) if its release begins with no version.
    pub fn running() -> Result<Self> {
        Self::of(Kernel::running())
    }

    /// The running kernel, as it was looked at.
    pub(crate) fn of(kernel: Kernel) -> Result<Self> {
        Ok(Self { version: Version::of_release(kernel.release())?, running: Some(kernel) })
    }

    /// A kernel by its version, of which only that is known. A series such as 6.18 stands for
    /// its first release, which lacks what later ones fixed.
    pub fn named(version: Version) -> Self {
        Self { version, running: None }
    }

    /// The kernel's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether this is the running kernel.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Which set_callback it has; `None` before 6.10.
    pub(crate) fn set_callback(&self) -> Option<SetCallback> {
        match self.running.as_ref().map(Kernel::set_callback) {
            Some(Answer::Yes(found)) => Some(found),
            Some(Answer::No(_) | Answer::Inconclusive(_)) | None => set_callback_of(self.version),
        }
    }

    /// Whether the running kernel's BTF has such a function; `None` if it cannot be found out.
    pub(crate) fn has_function(&self, is_it: impl Fn(&str) -> bool) -> Option<bool> {
        let Answer::Yes(types) = self.running.as_ref()?.types() else { return None };
        let mut functions = types.type_by_kind::<Func<'_>>();
        let is_it = |name: &OsStr| name.to_str().is_some_and(&is_it);
        Some(functions.any(|function| function.name().is_some_and(is_it)))
    }

    /// Whether the running kernel's BTF has a typedef.
    pub(crate) fn has_typedef(&self, name: &str) -> Option<bool> {
        let Answer::Yes(types) = self.running.as_ref()?.types() else { return None };
        let mut typedefs = types.type_by_kind::<Typedef<'_>>();
        Some(typedefs.any(|typedef| typedef.name().is_some_and(|n| n == name)))
    }

    /// The running kernel's symbols; `None` if they cannot be read.
    pub(crate) fn symbols(&self) -> Option<Symbols> {
        self.running.as_ref()?;
        fs::read_to_string(SYMBOLS).ok().map(Symbols)
    }
}

/// The list of a kernel's symbols, as it prints it, which takes it some time.
pub(crate) struct Symbols(String);

impl Symbols {
    /// Where there is such a symbol.
    pub(crate) fn place(&self, is_it: impl Fn(&str) -> bool) -> Symbol {
        let mut place = Symbol::Nowhere;
        for line in self.0.lines() {
            let mut words = line.split_whitespace().skip(2);
            if words.next().is_some_and(&is_it) {
                match words.next() {
                    Some(_module) => place = Symbol::InModule,
                    None => return Symbol::InKernel,
                }
            }
        }
        place
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbol {
    InKernel,
    InModule,
    Nowhere,
}

/// Which set_callback a kernel of this version has.
pub(crate) fn set_callback_of(version: Version) -> Option<SetCallback> {
    match version {
        version if version < FIRST => None,
        version if version < CALLBACK_GETS_VALUE => Some(SetCallback::ImplWithWq),
        version if version < IMPLICIT_ARGS => Some(SetCallback::Impl),
        _ => Some(SetCallback::ImplicitArgs),
    }
}
