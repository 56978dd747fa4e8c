//! The lifecycle of a BPF object with workqueues: load, arm, attach, drain, unload.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use libbpf_rs::skel::OpenSkel;
//! /// `open` is a skeleton that is open, `object` the object file that it was made from.
//! fn run<'obj>(open: impl OpenSkel<'obj>, object: &[u8]) -> bpf_wq::Result<()> {
//!     let mut armed = bpf_wq::load(open, object)?.arm()?;
//!     armed.attach()?;
//!     // ... programs submit, callbacks run ...
//!     let drained = armed.stop(Duration::from_secs(10));
//!     println!("{drained}");
//!     Ok(())
//! }
//! ```
//!
//! Whatever happens in between, the kernel is safe: the callbacks are those of a program that may
//! sleep, whose text outlives them. A handle may be dropped at any time, and a process may die at
//! any time. What is lost then is work that was not done yet, unless the whole is pinned.

use std::fmt;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libbpf_rs::skel::{OpenSkel, Skel};
use libbpf_rs::{AsRawLibbpf as _, Link, MapCore as _, MapType, Object, Program, libbpf_sys};

use crate::error::{Error, Result};
use crate::gate::{Counters, deadline_after};
use crate::kernel::Kernel;
use crate::lint::{self, Target};
use crate::parts::{ARM, Parts, Queue};
use crate::pin::Build;
use crate::{errno, log, syscall};

/// How long to wait before looking again whether programs are detached.
const POLL: Duration = Duration::from_millis(1);

/// Loads an object after lint has looked at it. `object` is the object file that the skeleton was
/// made from.
///
/// Needs Linux 6.10, BTF, CAP_BPF, CAP_PERFMON, and what else the object's programs need.
///
/// # Errors
///
/// [`Error::Dangerous`] if it would harm this kernel, or lose work; [`Error::OtherObject`] and
/// [`Error::Object`] if `object` is not what the skeleton was made from; [`Error::NoBtf`] and
/// [`Error::Unsupported`] if the kernel lacks what is needed, [`Error::Version`] if its release
/// begins with no version; [`Error::NoBpf`],
/// [`Error::Privilege`] or [`Error::TracingRefused`] if it does not let us; [`Error::Bpf`]
/// otherwise.
pub fn load<'obj, S: OpenSkel<'obj>>(open: S, object: &[u8]) -> Result<Loaded<'obj, S::Output>> {
    let name = open.open_object().name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "the object".to_owned());
    let kernel = Kernel::running();
    kernel.needs_bpf_wq()?;
    let release = kernel.release().to_owned();
    lint::refuse_dangerous(&name, object, open.open_object(), &Target::of(kernel)?)?;
    let (loaded, log) = log::capture(|| open.load());
    let what = format!("cannot load {name}");
    let skel = loaded.map_err(|error| Error::of_bpf(&what, &release, &error, log))?;
    Ok(Loaded { skel, name, build: Build::of(object), lifetime: PhantomData })
}

/// An object that is loaded, and whose workqueues can do nothing yet.
#[must_use = "workqueues do nothing until they are armed"]
pub struct Loaded<'obj, K: Skel<'obj>> {
    skel: K,
    name: String,
    build: Build,
    lifetime: PhantomData<&'obj ()>,
}

impl<'obj, K: Skel<'obj>> Loaded<'obj, K> {
    /// The skeleton, to fill maps before anything runs.
    pub fn skel(&self) -> &K {
        &self.skel
    }

    /// The skeleton, to fill maps before anything runs.
    pub fn skel_mut(&mut self) -> &mut K {
        &mut self.skel
    }

    /// Runs the arming programs, of which BPF_WQ_ARM and BPF_WQ_EXECUTOR make one each.
    ///
    /// # Errors
    ///
    /// [`Error::NothingToArm`] if there is none, [`Error::Arming`] if one fails.
    pub fn arm(self) -> Result<Armed<'obj, K>> {
        let Self { skel, name, build, .. } = self;
        let queues = arm(skel.object(), &name, |_| true)?;
        Ok(Armed { links: Vec::new(), queues, skel, name, build, lifetime: PhantomData })
    }
}

/// Runs the arming programs of the queues that are chosen.
fn arm(object: &Object, name: &str, is_chosen: impl Fn(&str) -> bool) -> Result<Vec<Queue>> {
    let mut queues = Vec::new();
    for program in object.progs().filter(is_loaded) {
        let program_name = program.name().to_string_lossy();
        let Some(queue) = program_name.strip_prefix(ARM).filter(|queue| is_chosen(queue)) else {
            continue;
        };
        let failed =
            |source| Error::Arming { object: name.to_owned(), queue: queue.to_owned(), source };
        syscall::call(program.as_fd()).map_err(failed)?;
        queues.push(Queue::new(object, queue).map_err(failed)?);
    }
    if queues.is_empty() {
        return Err(Error::NothingToArm { object: name.to_owned() });
    }
    Ok(queues)
}

/// Whether it was to be loaded with its object, which is loaded.
pub(crate) fn is_loaded(program: &Program<'_>) -> bool {
    // SAFETY: the program belongs to the object.
    unsafe { libbpf_sys::bpf_program__autoload(program.as_libbpf_object().as_ptr()) }
}

/// libbpf also calls a link what is none: for a map of the section `.struct_ops` it is the map.
pub(crate) fn is_link(fd: BorrowedFd<'_>) -> bool {
    let target = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    // The second is what the kernel calls one that was opened by its pin or id.
    let kinds = ["anon_inode:bpf_link", "anon_inode:bpf-link"];
    target.is_ok_and(|target| kinds.iter().any(|kind| target == Path::new(kind)))
}

impl Parts for Object {
    fn map(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        let map = self.maps().find(|map| map.name() == name && map.autocreate());
        map.map(|map| map.as_fd().try_clone_to_owned()).transpose()
    }

    fn program(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        let program = self.progs().find(|program| program.name() == name && is_loaded(program));
        program.map(|program| program.as_fd().try_clone_to_owned()).transpose()
    }
}

/// An object whose workqueues are armed. Dropping it detaches its programs, and then unloads all
/// that no [`Executor`](crate::Executor) holds; work that was not done is not done then.
pub struct Armed<'obj, K: Skel<'obj>> {
    // Dropped first, so that nothing submits while the rest goes away.
    links: Vec<(String, Link)>,
    queues: Vec<Queue>,
    skel: K,
    name: String,
    build: Build,
    lifetime: PhantomData<&'obj ()>,
}

impl<'obj, K: Skel<'obj>> fmt::Debug for Armed<'obj, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Armed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'obj, K: Skel<'obj>> Armed<'obj, K> {
    /// The skeleton.
    pub fn skel(&self) -> &K {
        &self.skel
    }

    /// The skeleton, such as to attach what [`attach`](Self::attach) does not. A link is to be given
    /// to [`keep`](Self::keep): others are neither detached by a drain nor pinned.
    pub fn skel_mut(&mut self) -> &mut K {
        &mut self.skel
    }

    /// Arms the elements that were added to hashes of BPF_WQ_ARM since: until then they take no
    /// submission (EINVAL).
    ///
    /// # Errors
    ///
    /// [`Error::NothingToArm`] if the object has only executors, [`Error::Arming`].
    pub fn arm_added(&self) -> Result<()> {
        let object = self.skel.object();
        let is_executor = |queue: &str| {
            let submit = format!("bpf_wq_submit_{queue}");
            object.progs().any(|program| program.name() == submit.as_str())
        };
        arm(object, &self.name, |queue| !is_executor(queue)).map(drop)
    }

    /// Attaches each program whose `SEC()` says where to, and registers each struct_ops map, but for
    /// those that have been.
    ///
    /// # Errors
    ///
    /// [`Error::Privilege`], [`Error::TracingRefused`] or [`Error::Bpf`]. What was attached before
    /// the error is detached.
    pub fn attach(&mut self) -> Result<()> {
        let mut links = Vec::new();
        let object = self.skel.object_mut();
        for program in object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            // SAFETY: the program belongs to the object.
            let is_wanted =
                unsafe { libbpf_sys::bpf_program__autoattach(program.as_libbpf_object().as_ptr()) };
            if !is_loaded(&program) || !is_wanted || has(&self.links, &name) {
                continue;
            }
            let (link, log) = log::capture(|| program.attach());
            // libbpf says so, without a word, of one whose section alone does not tell where to.
            let unsaid = |error| errno::of(error).raw_os_error() == Some(errno::EOPNOTSUPP);
            if log.is_empty() && link.as_ref().is_err_and(unsaid) {
                continue;
            }
            links.push((name.clone(), attached(&self.name, &name, link, log)?));
        }
        for mut map in object.maps_mut().filter(|map| map.map_type() == MapType::StructOps) {
            let name = map.name().to_string_lossy().into_owned();
            // SAFETY: the map belongs to the object.
            let is_wanted =
                unsafe { libbpf_sys::bpf_map__autoattach(map.as_libbpf_object().as_ptr()) };
            if !is_wanted || has(&self.links, &name) {
                continue;
            }
            let (link, log) = log::capture(|| map.attach_struct_ops());
            links.push((name.clone(), attached(&self.name, &name, link, log)?));
        }
        self.links.append(&mut links);
        Ok(())
    }

    /// Attaches a program in another way, such as XDP's to an interface, and keeps the link with the
    /// others. `name` is for errors and pins.
    ///
    /// ```no_run
    /// # use bpf_wq::{Armed, Result};
    /// # use libbpf_rs::{ProgramMut, skel::Skel};
    /// # fn xdp<'a, 'obj>(_: &'a mut impl Skel<'obj>) -> ProgramMut<'a> { unimplemented!() }
    /// # fn f<'obj, K: Skel<'obj>>(armed: &mut Armed<'obj, K>, interface: i32) -> Result<()> {
    /// armed.attach_with("xdp", |skel| xdp(skel).attach_xdp(interface))
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Privilege`], [`Error::TracingRefused`] or [`Error::Bpf`].
    pub fn attach_with(
        &mut self,
        name: &str,
        attach: impl FnOnce(&mut K) -> libbpf_rs::Result<Link>,
    ) -> Result<()> {
        let (link, log) = log::capture(|| attach(&mut self.skel));
        self.keep(name, attached(&self.name, name, link, log)?);
        Ok(())
    }

    /// Takes over a link of a program that was attached in another way: it goes away with the
    /// others. `name` is for errors and pins.
    pub fn keep(&mut self, name: &str, link: Link) {
        self.links.push((name.to_owned(), link));
    }

    /// What has become of the submissions to each map's workqueues and each executor, by name.
    pub fn counters(&self) -> Vec<(String, Counters)> {
        self.queues.iter().map(|queue| (queue.name.clone(), queue.gate.counters())).collect()
    }

    /// Detaches all programs, lets no submission through any more, and waits until the work that
    /// was accepted is done, at most for `deadline`. All stays loaded.
    ///
    /// A kprobe, a uprobe, a tracepoint or a perf_event program is detached only when no sleepable
    /// program or callback runs, of anybody's, which may be after the deadline: it submits nothing
    /// then. Likewise a process that is killed ends only then, and so does the drop of this.
    pub fn drain(&mut self, deadline: Duration) -> Drained {
        let deadline = deadline_after(deadline);
        let links = std::mem::take(&mut self.links).into_iter();
        let (links, others): (Vec<_>, _) = links.partition(|(_, link)| is_link(link.as_fd()));
        // Of the map that is its own link the skeleton has the descriptor: not in the thread.
        drop::<Vec<_>>(others);
        let detaching = detach(links);
        let drained = drain(&self.queues, deadline);
        let is_detaching = || detaching.as_ref().is_some_and(|thread| !thread.is_finished());
        while is_detaching() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        drained
    }

    /// Drains, and then unloads, also what is left, but for what an [`Executor`](crate::Executor)
    /// holds.
    pub fn stop(mut self, deadline: Duration) -> Drained {
        self.drain(deadline)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn build(&self) -> Build {
        self.build
    }

    pub(crate) fn links(&self) -> &[(String, Link)] {
        &self.links
    }

    /// One that takes no more submissions.
    pub(crate) fn closed_queue(&self) -> Option<&str> {
        let closed = self.queues.iter().find(|queue| !queue.gate.is_open());
        closed.map(|queue| queue.name.as_str())
    }

    /// Leaves the programs attached that something else holds the links of.
    pub(crate) fn disconnect(mut self) -> Vec<Queue> {
        for (_, mut link) in self.links.drain(..) {
            link.disconnect();
            // What libbpf has besides the link, of a kprobe or tracepoint a perf event, stays open
            // as long as the process: to close it, libbpf would also disable it.
            // SAFETY: a link that was disconnected does not close its descriptor.
            drop(unsafe { OwnedFd::from_raw_fd(link.as_fd().as_raw_fd()) });
        }
        self.queues
    }
}

impl<'obj, K: Skel<'obj>> Parts for Armed<'obj, K> {
    fn map(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        self.skel.object().map(name)
    }

    fn program(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        self.skel.object().program(name)
    }
}

fn has(links: &[(String, Link)], name: &str) -> bool {
    links.iter().any(|(attached, _)| attached == name)
}

fn attached(object: &str, name: &str, link: libbpf_rs::Result<Link>, log: String) -> Result<Link> {
    link.map_err(|error| {
        let what = format!("cannot attach {name} of {object}");
        Error::of_bpf(&what, Kernel::running().release(), &error, log)
    })
}

/// In a thread: since 6.13 (ef1b808e3b7c) whoever detaches a program from a perf event waits, and
/// cannot be killed, until no sleepable program runs. Where there can be no thread, this one waits.
fn detach(links: Vec<(String, Link)>) -> Option<JoinHandle<()>> {
    thread::Builder::new().name("bpf_wq detach".to_owned()).spawn(|| drop(links)).ok()
}

pub(crate) fn drain(queues: &[Queue], deadline: Instant) -> Drained {
    queues.iter().for_each(|queue| queue.gate.close());
    let left = queues.iter().filter_map(|queue| {
        let in_flight = queue.gate.wait_idle(deadline);
        (in_flight != 0).then(|| (queue.name.clone(), in_flight))
    });
    Drained { left: left.collect() }
}

/// What was left when draining ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "work may be left"]
pub struct Drained {
    /// For each map or executor that had some, its name and how many submissions were not done.
    pub left: Vec<(String, u64)>,
}

impl Drained {
    /// Whether all work was done.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            return write!(f, "all work is done");
        }
        let left = self.left.iter().map(|(name, count)| format!("{count} of {name}"));
        write!(f, "not done: {}", left.collect::<Vec<_>>().join(", "))
    }
}
