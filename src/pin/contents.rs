//! What is in a pin's directory, and how it goes.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::directory::failed;
use super::name::{escape, unescape};
use crate::error::{Error, Result};
use crate::lifecycle::{Drained, drain};
use crate::parts::{ARM, GATE, Parts, Queue};
use crate::syscall;

pub(crate) const MAPS: &str = "maps";
pub(crate) const PROGRAMS: &str = "programs";
pub(crate) const LINKS: &str = "links";

/// What the directory of the links is called once they are being removed: if that is interrupted,
/// nobody takes the rest for all.
const DETACHED: &str = "detached";

/// A pin's directory, from which maps and programs are opened.
#[derive(Debug)]
pub(crate) struct Place(pub PathBuf);

impl Place {
    fn open(&self, kind: &str, name: &str) -> io::Result<Option<OwnedFd>> {
        match syscall::open_pinned(&self.0.join(kind).join(escape(name))) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Parts for Place {
    fn map(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        self.open(MAPS, name)
    }

    fn program(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        self.open(PROGRAMS, name)
    }
}

/// What a pin's directory holds, by name.
pub(crate) struct Contents {
    pub place: Place,
    pub maps: Vec<String>,
    pub programs: Vec<String>,
    /// `None` if they were being removed.
    pub links: Option<Vec<String>>,
    /// What no pin has.
    pub unknown: Vec<PathBuf>,
}

impl Contents {
    pub fn read(path: &Path) -> Result<Self> {
        let mut contents = Self {
            place: Place(path.to_owned()),
            maps: Vec::new(),
            programs: Vec::new(),
            links: None,
            unknown: Vec::new(),
        };
        for (name, is_directory) in list(path)? {
            let path = path.join(&name);
            match name.as_str() {
                MAPS if is_directory => contents.maps = contents.files(&path)?,
                PROGRAMS if is_directory => contents.programs = contents.files(&path)?,
                LINKS if is_directory => contents.links = Some(contents.files(&path)?),
                DETACHED if is_directory => drop(contents.files(&path)?),
                _ => contents.unknown.push(path),
            }
        }
        Ok(contents)
    }

    fn files(&mut self, path: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (file, is_directory) in list(path)? {
            match unescape(&file) {
                Some(name) if !is_directory => names.push(name),
                _ => self.unknown.push(path.join(file)),
            }
        }
        Ok(names)
    }

    fn armed(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().filter_map(|program| program.strip_prefix(ARM))
    }

    /// The queues whose gates are there.
    pub fn queues(&self) -> Result<Vec<Queue>> {
        let queues = self.armed().filter(|name| self.maps.contains(&format!("{name}{GATE}")));
        let open = |name| Queue::new(&self.place, name).map_err(failed("open", &self.place.0));
        queues.map(open).collect()
    }

    /// Why no loader can go on with it, which has these queues.
    pub fn fault(&self, queues: &[Queue]) -> Option<String> {
        if self.links.is_none() {
            return Some("its links were being removed".to_owned());
        }
        if queues.is_empty() || queues.len() != self.armed().count() {
            return Some("it lacks an arming program, or a gate".to_owned());
        }
        let closed = queues.iter().find(|queue| !queue.gate.is_open())?;
        Some(format!("{} was being drained", closed.name))
    }

    /// Removes the links. Each program that the kernel attaches by a link is detached then, a
    /// grace period later at most.
    pub fn detach(&self) -> Result<()> {
        let path = &self.place.0;
        let (links, detached) = (path.join(LINKS), path.join(DETACHED));
        if links.exists() {
            fs::rename(&links, &detached).map_err(failed("detach", path))?;
        }
        for (file, _) in list_if_there(&detached)? {
            let link = detached.join(file);
            let fd = syscall::open_pinned(&link).map_err(failed("open", &link))?;
            // At once, so that another can be attached in its place. Of kinds that do not have this,
            // such as a tracing program's, the link goes with its pin, as nobody else holds it.
            let _ = syscall::detach(fd.as_fd());
            // Before the pin goes: who closes the last reference may have to wait for a sleepable
            // program of anybody's, since 6.13 (ef1b808e3b7c); for a pin, a worker does.
            drop(fd);
            fs::remove_file(&link).map_err(failed("remove", &link))?;
        }
        Ok(())
    }

    /// Whether all that is there may be removed.
    pub fn check(&self) -> Result<()> {
        match self.unknown.first() {
            Some(path) => Err(Error::UnknownPin { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Detaches, closes the gates, waits until the deadline, and removes the directory.
    ///
    /// The programs go last: if this is interrupted, they tell which queues there were.
    pub fn clear(&self, deadline: Instant) -> Result<Drained> {
        self.check()?;
        let queues = self.queues()?;
        self.detach()?;
        let drained = drain(&queues, deadline);
        self.remove()?;
        Ok(drained)
    }

    /// Removes the directory, and what a pin has there that was detached.
    pub fn remove(&self) -> Result<()> {
        let path = &self.place.0;
        for kind in [MAPS, PROGRAMS, DETACHED] {
            let kind = path.join(kind);
            for (file, _) in list_if_there(&kind)? {
                let file = kind.join(file);
                fs::remove_file(&file).map_err(failed("remove", &file))?;
            }
            if kind.exists() {
                fs::remove_dir(&kind).map_err(failed("remove", &kind))?;
            }
        }
        fs::remove_dir(path).map_err(failed("remove", path))
    }
}

/// The entries of a directory in their order, each with whether it is a directory itself.
pub(crate) fn list(path: &Path) -> Result<Vec<(String, bool)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(failed("open", path))? {
        let entry = entry.map_err(failed("read", path))?;
        let kind = entry.file_type().map_err(failed("look at", path))?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), kind.is_dir()));
    }
    entries.sort();
    Ok(entries)
}

fn list_if_there(path: &Path) -> Result<Vec<(String, bool)>> {
    if path.exists() { list(path) } else { Ok(Vec::new()) }
}
