//! Lists and removes pins, of whichever loader and build.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::NEW;
use super::build::Build;
use super::contents::{Contents, list};
use super::directory::Directory;
use crate::error::{Error, Result};
use crate::gate::{Counters, deadline_after};
use crate::lifecycle::Drained;

/// What a directory of pins holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pin {
    /// The pin's own directory.
    pub path: PathBuf,
    /// Of which build it is; `None` of one that is not whole yet.
    pub build: Option<Build>,
    /// Whether a loader can take it over.
    pub state: PinState,
    /// The names of the maps that are pinned.
    pub maps: Vec<String>,
    /// The names of the programs that are pinned.
    pub programs: Vec<String>,
    /// The names of the links that are pinned.
    pub links: Vec<String>,
    /// What has become of the submissions to each map's workqueues and each executor, by name.
    pub counters: Vec<(String, Counters)>,
    /// What no pin has: if there is any, the pin is not removed.
    pub unknown: Vec<PathBuf>,
}

/// How far a pin has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinState {
    /// It is whole, and open to submissions.
    Whole,
    /// A loader is making it, or died before it was whole.
    Incomplete,
    /// It is being drained, or whoever did that died before it was gone.
    Draining,
}

impl fmt::Display for PinState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "whole",
            Self::Incomplete => "incomplete",
            Self::Draining => "draining",
        })
    }
}

/// A pin that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleared {
    /// What its directory was called.
    pub name: String,
    /// The work of it that was not done, and is lost.
    pub drained: Drained,
}

/// The pins in a directory, which is in a bpffs; it is not looked at what is no pin.
///
/// # Errors
///
/// [`Error::NotBpffs`](crate::Error::NotBpffs), [`Error::PinDenied`](crate::Error::PinDenied),
/// [`Error::Io`](crate::Error::Io).
pub fn pins(directory: impl AsRef<Path>) -> Result<Vec<Pin>> {
    let directory = Directory::open(directory.as_ref())?;
    let mut pins = Vec::new();
    for name in names(&directory)? {
        let path = directory.path().join(&name);
        pins.extend(read_if_there(&path, Build::of_directory(&name))?);
    }
    Ok(pins)
}

/// Another process may be removing it: what was listed and is not found any more tells so, and the
/// pin is looked at again, as it is now.
fn read_if_there(path: &Path, build: Option<Build>) -> Result<Option<Pin>> {
    loop {
        match read(path, build) {
            Ok(pin) => return Ok(Some(pin)),
            Err(_) if !path.exists() => return Ok(None),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

fn read(path: &Path, build: Option<Build>) -> Result<Pin> {
    let contents = Contents::read(path)?;
    let queues = contents.queues()?;
    let state = match build {
        None => PinState::Incomplete,
        Some(_) if contents.fault(&queues).is_none() => PinState::Whole,
        Some(_) => PinState::Draining,
    };
    let counters = queues.into_iter().map(|queue| (queue.name, queue.gate.counters()));
    Ok(Pin {
        path: path.to_owned(),
        build,
        state,
        counters: counters.collect(),
        maps: contents.maps,
        programs: contents.programs,
        links: contents.links.unwrap_or_default(),
        unknown: contents.unknown,
    })
}

/// Drains and removes the pins in a directory, but for that of the build `keep`, if it is whole
/// and at work. `deadline` is for all of them, and for other processes that are at work in the
/// directory. What is no pin is left alone; the directory itself stays.
///
/// # Errors
///
/// [`Error::PinBusy`](crate::Error::PinBusy); [`Error::UnknownPin`](crate::Error::UnknownPin) if a
/// pin has something that no pin has, before anything is done;
/// [`Error::NotBpffs`](crate::Error::NotBpffs), [`Error::PinDenied`](crate::Error::PinDenied),
/// [`Error::Io`](crate::Error::Io); [`Error::WorkLost`](crate::Error::WorkLost) if it comes after
/// work of another pin was lost.
pub fn clear_pins(
    directory: impl AsRef<Path>,
    keep: Option<Build>,
    deadline: Duration,
) -> Result<Vec<Cleared>> {
    let until = deadline_after(deadline);
    let directory = Directory::open(directory.as_ref())?;
    let _lock = directory.lock(until)?;
    let keep = match keep.map(|build| super::open(&directory, build)) {
        // What cannot be looked at may be at work.
        Some(Err(error)) if !matches!(error, Error::NoPin { .. }) => return Err(error),
        Some(Ok(pinned)) => Some(pinned.build()),
        Some(Err(_)) | None => None,
    };
    clear(&directory, keep, until)
}

/// In a directory that is locked: so what is not whole will not become so.
pub(crate) fn clear(
    directory: &Directory,
    keep: Option<Build>,
    until: Instant,
) -> Result<Vec<Cleared>> {
    let keep = keep.map(Build::directory);
    let mut stale = Vec::new();
    for name in names(directory)?.into_iter().filter(|name| Some(name) != keep.as_ref()) {
        let contents = Contents::read(&directory.path().join(&name))?;
        contents.check()?;
        stale.push((name, contents));
    }
    let mut cleared = Vec::new();
    for (name, contents) in stale {
        match contents.clear(until) {
            Ok(drained) => cleared.push(Cleared { name, drained }),
            Err(error) => return Err(with_lost(cleared, error)),
        }
    }
    Ok(cleared)
}

/// An error after these were removed: the work that they had left is told of in any case.
pub(crate) fn with_lost(mut cleared: Vec<Cleared>, error: Error) -> Error {
    cleared.retain(|pin| !pin.drained.is_complete());
    if cleared.is_empty() {
        return error;
    }
    Error::WorkLost { cleared, source: Box::new(error) }
}

/// What is called as pins are.
fn names(directory: &Directory) -> Result<Vec<String>> {
    let is_new = |name: &str| name.strip_prefix(NEW).is_some_and(|n| n.parse::<u32>().is_ok());
    let mut entries = list(directory.path())?;
    entries.retain(|(name, is_directory)| {
        *is_directory && (is_new(name) || Build::of_directory(name).is_some())
    });
    Ok(entries.into_iter().map(|(name, _)| name).collect())
}
