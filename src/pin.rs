//! Pins: an object stays at work in a bpffs when its loader is gone, and a later loader goes on
//! with it.
//!
//! A directory holds the pins of one application, each in a directory of its own:
//!
//! ```text
//! /sys/fs/bpf/NAME/build-<build>/{programs,maps,links}/
//! /sys/fs/bpf/NAME/new-<process>/{programs,maps,links}/   until the pin is whole
//! ```
//!
//! What needs the kernel to do several things at once is done in a rename. A pin whose links are
//! being removed has `detached` in place of `links`. So a process may die at any time.

mod build;
mod contents;
mod directory;
mod name;
mod stale;

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytemuck::NoUninit;
use libbpf_rs::skel::{OpenSkel, Skel};
use libbpf_rs::{MapCore as _, MapHandle};

use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::gate::{Counters, deadline_after};
use crate::lifecycle::{Armed, Drained, Loaded, drain, is_link, is_loaded, load};
use crate::parts::Queue;
use crate::{errno, syscall};

pub use build::Build;
use contents::{Contents, LINKS, MAPS, PROGRAMS, Place};
use directory::{Directory, PATIENCE, failed};
use name::escape;
pub use stale::{Cleared, Pin, PinState, clear_pins, pins};

/// What a pin is called until it is whole, before the number of the process that makes it.
const NEW: &str = "new-";

const NO_DIRECTORY: &str = "there is no such directory";

/// An object that is pinned: its programs stay attached, and its work goes on, when this is
/// dropped and when the process has ended.
pub struct Pinned {
    directory: Directory,
    build: Build,
    place: Place,
    queues: Vec<Queue>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("path", &self.place.0).finish_non_exhaustive()
    }
}

impl<'obj, K: Skel<'obj>> Armed<'obj, K> {
    /// Pins all maps, programs and links in a directory of this build in `directory`, which is in
    /// a bpffs and is made if it is not there. If that fails, the object is unloaded.
    ///
    /// Needs write permission there. Links that libbpf or [`keep`](Self::keep) gave the same name
    /// cannot be pinned, nor those that are none of the kernel's, such as what netlink attaches
    /// and a map of the section `.struct_ops`.
    ///
    /// # Errors
    ///
    /// [`Error::PinDrained`] if it was drained; [`Error::NotBpffs`], [`Error::PinDenied`],
    /// [`Error::PinExists`] if this build is pinned there, [`Error::PinBusy`] if another process is at work there for 10 seconds,
    /// [`Error::LinkPin`], [`Error::Io`].
    pub fn pin(self, directory: impl AsRef<Path>) -> Result<Pinned> {
        let directory = Directory::create(directory.as_ref())?;
        let _lock = directory.lock(deadline_after(PATIENCE))?;
        pin(self, &directory)
    }
}

impl Pinned {
    /// The pin of this build in `directory`.
    ///
    /// # Errors
    ///
    /// [`Error::NoPin`] if there is none, or not the whole of it or if it was being drained;
    /// [`Error::NotBpffs`], [`Error::PinDenied`], [`Error::PinBusy`] if another process is at work
    /// there for 10 seconds, [`Error::Io`].
    pub fn open(directory: impl AsRef<Path>, build: Build) -> Result<Self> {
        let directory = directory.as_ref();
        if !directory.exists() {
            return Err(no_pin(&directory.join(build.directory()), NO_DIRECTORY));
        }
        let directory = Directory::open(directory)?;
        let _lock = directory.lock(deadline_after(PATIENCE))?;
        open(&directory, build)
    }

    /// Which build of the object it is.
    pub fn build(&self) -> Build {
        self.build
    }

    /// The pin's own directory.
    pub fn path(&self) -> &Path {
        &self.place.0
    }

    /// A map, by its name in the BPF program.
    ///
    /// # Errors
    ///
    /// [`Error::NoPin`] if there is none of this name, [`Error::PinDenied`], [`Error::Io`].
    pub fn map(&self, name: &str) -> Result<MapHandle> {
        let path = self.place.0.join(MAPS).join(escape(name));
        MapHandle::from_pinned_path(&path).map_err(|error| no_part(&path, errno::of(&error)))
    }

    /// A program, by its name.
    ///
    /// # Errors
    ///
    /// [`Error::NoPin`] if there is none of this name, [`Error::PinDenied`], [`Error::Io`].
    pub fn program(&self, name: &str) -> Result<OwnedFd> {
        let path = self.place.0.join(PROGRAMS).join(escape(name));
        syscall::open_pinned(&path).map_err(|error| no_part(&path, error))
    }

    /// The executor that is declared as `BPF_WQ_EXECUTOR(name, …)`.
    ///
    /// # Errors
    ///
    /// [`Error::NoExecutor`] if the object has none of this name, or its jobs are of another size.
    pub fn executor<J: NoUninit>(&self, name: &str) -> Result<Executor<J>> {
        Executor::of_parts(&self.place, name)
    }

    /// What has become of the submissions to each map's workqueues and each executor, by name:
    /// since it was armed, by whichever process.
    pub fn counters(&self) -> Vec<(String, Counters)> {
        self.queues.iter().map(|queue| (queue.name.clone(), queue.gate.counters())).collect()
    }

    /// Detaches all programs, lets no submission through any more, and waits until the work that
    /// was accepted is done, at most for `deadline`. Maps and programs stay pinned, for
    /// [`stop`](Self::stop); no loader takes them over.
    ///
    /// # Errors
    ///
    /// [`Error::PinBusy`] if another process is at work in the directory for so long,
    /// [`Error::PinDenied`], [`Error::Io`].
    pub fn drain(&self, deadline: Duration) -> Result<Drained> {
        let until = deadline_after(deadline);
        let _lock = self.directory.lock(until)?;
        Contents::read(&self.place.0)?.detach()?;
        Ok(drain(&self.queues, until))
    }

    /// Drains, and then removes the pin, also with work that is left.
    ///
    /// # Errors
    ///
    /// As of [`drain`](Self::drain), and [`Error::UnknownPin`], before anything is done.
    pub fn stop(self, deadline: Duration) -> Result<Drained> {
        let until = deadline_after(deadline);
        let _lock = self.directory.lock(until)?;
        Contents::read(&self.place.0)?.clear(until)
    }
}

/// What [`take_over`] found and did.
#[derive(Debug)]
#[must_use = "work of what was replaced may be lost"]
pub struct TakenOver {
    /// What is at work now.
    pub pinned: Pinned,
    /// Whether it was loaded in this call; else it was at work already.
    pub is_new: bool,
    /// What was removed: pins of other builds, and stale ones.
    pub cleared: Vec<Cleared>,
}

/// Goes on with the pin of `object` in `directory`; or loads it, replaces the pin of another
/// build, and pins it. Stale pins are removed in any case.
///
/// `object` is the file that the skeleton was made from. `start` arms and attaches what was
/// loaded; when it is called, what was pinned is drained and gone. It is so that an object that
/// the kernel does not load leaves the other build at work.
///
/// `deadline` is for all pins that are drained, and for other processes that are at work in the
/// directory.
///
/// ```no_run
/// # use std::time::Duration;
/// # use libbpf_rs::skel::OpenSkel;
/// # use bpf_wq::Pinned;
/// /// `open` is a skeleton that is open, `object` the object file that it was made from.
/// fn run<'obj>(open: impl OpenSkel<'obj>, object: &[u8]) -> bpf_wq::Result<Pinned> {
///     let directory = "/sys/fs/bpf/my-program";
///     let deadline = Duration::from_secs(10);
///     let taken_over = bpf_wq::take_over(directory, deadline, open, object, |loaded| {
///         let mut armed = loaded.arm()?;
///         armed.attach()?;
///         Ok(armed)
///     })?;
///     Ok(taken_over.pinned)
/// }
/// ```
///
/// What a loader writes into read-only data before it loads is no part of the build: it is that of
/// whoever loaded what is taken over.
///
/// # Errors
///
/// [`Error::PinBusy`]; those of [`load`], of `start`, and of [`Armed::pin`];
/// [`Error::UnknownPin`] if a pin that is to be removed has something that no pin has; each of
/// them in an [`Error::WorkLost`] if it comes after work of a pin was lost.
pub fn take_over<'obj, S: OpenSkel<'obj>>(
    directory: impl AsRef<Path>,
    deadline: Duration,
    open_skel: S,
    object: &[u8],
    start: impl FnOnce(Loaded<'obj, S::Output>) -> Result<Armed<'obj, S::Output>>,
) -> Result<TakenOver> {
    let until = deadline_after(deadline);
    let build = Build::of(object);
    let directory = Directory::create(directory.as_ref())?;
    let _lock = directory.lock(until)?;
    match open(&directory, build) {
        Ok(pinned) => {
            let cleared = stale::clear(&directory, Some(build), until)?;
            return Ok(TakenOver { pinned, is_new: false, cleared });
        }
        Err(Error::NoPin { .. }) => {}
        Err(error) => return Err(error),
    }
    let loaded = load(open_skel, object)?;
    let cleared = stale::clear(&directory, None, until)?;
    match start(loaded).and_then(|armed| pin(armed, &directory)) {
        Ok(pinned) => Ok(TakenOver { pinned, is_new: true, cleared }),
        Err(error) => Err(stale::with_lost(cleared, error)),
    }
}

fn no_part(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => no_pin(path, error),
        _ => failed("open", path)(error),
    }
}

fn no_pin(path: &Path, why: impl ToString) -> Error {
    Error::NoPin { path: path.to_owned(), why: why.to_string() }
}

fn open(directory: &Directory, build: Build) -> Result<Pinned> {
    let path = directory.path().join(build.directory());
    if !path.exists() {
        return Err(no_pin(&path, NO_DIRECTORY));
    }
    let contents = Contents::read(&path)?;
    let queues = contents.queues()?;
    if let Some(why) = contents.fault(&queues) {
        return Err(no_pin(&path, why));
    }
    Ok(Pinned { directory: directory.clone(), build, place: contents.place, queues })
}

/// In a directory that is locked.
fn pin<'obj, K: Skel<'obj>>(armed: Armed<'obj, K>, directory: &Directory) -> Result<Pinned> {
    let build = armed.build();
    if let Some(queue) = armed.closed_queue() {
        let (object, queue) = (armed.name().to_owned(), queue.to_owned());
        return Err(Error::PinDrained { object, queue });
    }
    let path = directory.path().join(build.directory());
    if path.exists() {
        return Err(Error::PinExists { path });
    }
    // One that died may have had the same number, as the first process of a container has.
    let numbers = std::process::id()..;
    let mut new = numbers.map(|number| directory.path().join(format!("{NEW}{number}")));
    let new = new.find(|new| !new.exists()).expect("one of as many as there are processes");
    let renamed =
        pin_all(&armed, &new).and_then(|()| fs::rename(&new, &path).map_err(failed("make", &path)));
    if let Err(error) = renamed {
        // The error that came first is the one to tell of.
        let _ = Contents::read(&new).and_then(|new| new.detach().and_then(|()| new.remove()));
        return Err(error);
    }
    let queues = armed.disconnect();
    Ok(Pinned { directory: directory.clone(), build, place: Place(path), queues })
}

/// The links come last: until then, to die here is to die before pinning. The programs come first,
/// as they tell which maps are gates.
fn pin_all<'obj, K: Skel<'obj>>(armed: &Armed<'obj, K>, at: &Path) -> Result<()> {
    let [programs, maps, links] = [PROGRAMS, MAPS, LINKS].map(|kind| at.join(kind));
    for path in [at, &programs, &maps, &links] {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(failed("make", path))?;
    }
    let object = armed.skel().object();
    for program in object.progs() {
        if is_loaded(&program) {
            pin_one(program.as_fd(), &programs, &program.name().to_string_lossy())?;
        }
    }
    for map in object.maps().filter(libbpf_rs::Map::autocreate) {
        pin_one(map.as_fd(), &maps, &map.name().to_string_lossy())?;
    }
    for (name, link) in armed.links() {
        let error = |why| {
            let object = armed.name().to_owned();
            Error::LinkPin { object, name: name.clone(), why }
        };
        if !is_link(link.as_fd()) {
            return Err(error("it is none of the kernel's: use `.struct_ops.link` or a bpf_link"));
        }
        if links.join(escape(name)).exists() {
            return Err(error("there is another of this name: give keep() a name of its own"));
        }
        pin_one(link.as_fd(), &links, name)?;
    }
    Ok(())
}

fn pin_one(object: BorrowedFd<'_>, directory: &Path, name: &str) -> Result<()> {
    let path: PathBuf = directory.join(escape(name));
    syscall::pin(object, &path).map_err(failed("pin", &path))
}
