//! The maps and programs of an object that is loaded, by name: in this process, or pinned.

use std::io;
use std::os::fd::OwnedFd;

use crate::gate::Gate;

/// What an arming program is called, before the name of what it arms.
pub(crate) const ARM: &str = "bpf_wq_arm_";

/// What a gate's map is called, after that name.
pub(crate) const GATE: &str = "_gate";

pub(crate) trait Parts {
    fn map(&self, name: &str) -> io::Result<Option<OwnedFd>>;
    fn program(&self, name: &str) -> io::Result<Option<OwnedFd>>;
}

/// A map with workqueues, or an executor.
pub(crate) struct Queue {
    pub name: String,
    pub gate: Gate,
}

impl Queue {
    /// What is armed by the program `bpf_wq_arm_NAME`.
    pub fn new(parts: &dyn Parts, name: &str) -> io::Result<Self> {
        let map = format!("{name}{GATE}");
        let Some(fd) = parts.map(&map)? else {
            let why = format!("there is no map {map}");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        };
        Ok(Self { name: name.to_owned(), gate: Gate::new(&fd)? })
    }
}
