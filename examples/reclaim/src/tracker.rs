//! What counts the connects of a cgroup's processes.

use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bpf_wq::{Armed, Drained, Pinned};
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBufferBuilder};
use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::skel::{OpenReclaimSkel, ReclaimSkel, ReclaimSkelBuilder};
use crate::summary::Summary;

/// What the skeleton was made from.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reclaim.bpf.o"));

/// For the processes that have ended before, and for another process that starts or stops the same.
const DEADLINE: Duration = Duration::from_secs(60);

/// What memory the processes' state may take.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Limits {
    /// Processes at a time, also those that have ended and were not told of yet
    #[arg(
        long,
        value_name = "N",
        default_value_t = Self::DEFAULT.processes,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(Self::DEFAULT.processes)),
    )]
    pub processes: u32,
    /// Addresses at a time, of all processes together
    #[arg(
        long,
        value_name = "N",
        default_value_t = Self::DEFAULT.addresses,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub addresses: u32,
}

impl Limits {
    /// What the command does when nothing else is said. More processes it does not take: each has a
    /// job when it ends.
    pub const DEFAULT: Self = Self { processes: 1020, addresses: 262_144 };
}

/// What has happened since it was loaded, by whichever process: `struct tracked` of `state.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Numbers {
    /// Processes that connected to something.
    pub processes: u64,
    /// Connects of processes for which there was no place.
    pub missed: u64,
    /// Of the processes, those that have ended and were told of.
    pub summaries: u64,
    /// And those that could not be told of, where the exit itself does it.
    pub lost: u64,
    /// Entries that were made, one for each address of a process.
    pub entries: u64,
    /// Of these, those that were freed in the exit of their process.
    pub freed_by_owner: u64,
    /// And those freed by a worker.
    pub freed_by_worker: u64,
    /// Exits of such processes.
    pub exits: u64,
    /// Nanoseconds in which the program for exits ran, for all of these.
    pub exit_ns: u64,
    /// Ends of such processes that were not seen then, but by a look a little later.
    pub found_later: u64,
}

impl Numbers {
    fn read(tracked: &impl MapCore) -> Result<Self> {
        let bytes = tracked.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        let bytes = bytes.context("an element of tracked")?;
        let words = bytes.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().expect("8")));
        let words: [u64; 10] =
            words.collect::<Vec<_>>().try_into().map_err(|words: Vec<u64>| {
                anyhow!("a value of {} words is none of this program", words.len())
            })?;
        let [
            processes,
            missed,
            summaries,
            lost,
            entries,
            by_owner,
            by_worker,
            exits,
            exit_ns,
            found_later,
        ] = words;
        Ok(Self {
            processes,
            missed,
            summaries,
            lost,
            entries,
            freed_by_owner: by_owner,
            freed_by_worker: by_worker,
            exits,
            exit_ns,
            found_later,
        })
    }

    /// Entries that are there.
    pub fn entries_left(&self) -> u64 {
        self.entries.saturating_sub(self.freed_by_owner + self.freed_by_worker)
    }

    /// Processes that live, or have ended and were not told of.
    pub fn processes_left(&self) -> u64 {
        self.processes.saturating_sub(self.summaries + self.lost)
    }
}

/// Where the entries of a process that ends are freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// In a worker.
    Deferred,
    /// In the exit itself.
    Inline,
}

fn open<'obj>(
    storage: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
    limits: &Limits,
) -> Result<OpenReclaimSkel<'obj>> {
    let mut open = ReclaimSkelBuilder::default().open(storage)?;
    open.maps.owners.set_max_entries(limits.processes)?;
    open.maps.entries.set_max_entries(limits.addresses)?;
    Ok(open)
}

fn attach<'obj>(armed: &mut Armed<'obj, ReclaimSkel<'obj>>, cgroup: &Cgroup) -> bpf_wq::Result<()> {
    // The program for exits first: whoever is counted is told of when it ends.
    armed.attach()?;
    let fd = cgroup.fd();
    armed.attach_with("connect4", |skel| skel.progs.connect4.attach_cgroup(fd))?;
    armed.attach_with("connect6", |skel| skel.progs.connect6.attach_cgroup(fd))?;
    armed.attach_with("sendmsg4", |skel| skel.progs.sendmsg4.attach_cgroup(fd))?;
    armed.attach_with("sendmsg6", |skel| skel.progs.sendmsg6.attach_cgroup(fd))
}

/// Tells of each process whose summary is there, or comes within this time. The ring keeps it until
/// it is told: whoever is killed meanwhile has another one told of it again.
fn read(
    ring: &dyn MapCore,
    wait: Duration,
    mut tell: impl FnMut(Summary) -> Result<()>,
) -> Result<()> {
    let mut told = Ok(());
    let mut builder = RingBufferBuilder::new();
    builder.add(ring, |bytes| {
        told = Summary::parse(bytes).and_then(&mut tell);
        if told.is_ok() { 0 } else { -1 }
    })?;
    let ring = builder.build()?;
    let polled = ring.poll(wait);
    drop(ring);
    told?;
    match polled {
        // A signal: it is as if the time was over.
        Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => Ok(()),
        polled => polled.context("cannot read the summaries"),
    }
}

/// A tracker at work. It stays so when this is dropped, and when the process ends.
#[derive(Debug)]
pub struct Tracker {
    pinned: Pinned,
    is_new: bool,
    tracked: MapHandle,
    entries: MapHandle,
    summaries: MapHandle,
}

impl Tracker {
    /// Looks at the processes of a cgroup, or goes on with it. Its pins are in `reclaim-ID` in
    /// `pins`, a directory of a bpffs, after the cgroup's number.
    ///
    /// # Errors
    ///
    /// If it cannot be loaded, attached or pinned; or if one is at work with other limits.
    pub fn start(cgroup: &Cgroup, limits: &Limits, pins: &Path) -> Result<Self> {
        let directory = pins.join(format!("reclaim-{}", cgroup.id()));
        let mut storage = MaybeUninit::uninit();
        let open = open(&mut storage, limits)?;
        let taken_over = bpf_wq::take_over(&directory, DEADLINE, open, OBJECT, |loaded| {
            let mut armed = loaded.arm()?;
            attach(&mut armed, cgroup)?;
            Ok(armed)
        });
        let taken_over = taken_over.with_context(|| {
            // It stays if there is something in it.
            let _removed = fs::remove_dir(&directory);
            format!("cannot look at the processes of {}", cgroup.path().display())
        })?;
        let pinned = taken_over.pinned;
        let found = Self {
            is_new: taken_over.is_new,
            tracked: pinned.map(".data.tracked")?,
            entries: pinned.map("entries")?,
            summaries: pinned.map("summaries")?,
            pinned,
        };
        let processes = found.pinned.map("owners")?.max_entries();
        let addresses = found.entries.max_entries();
        if (processes, addresses) != (limits.processes, limits.addresses) {
            bail!(
                "it is at work for {processes} processes and {addresses} addresses: name these, \
                 by --processes {processes} --addresses {addresses}"
            );
        }
        Ok(found)
    }

    /// Whether it was attached by this process; else it was at work already.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Tells of each process that has ended and nobody was told of. If there is none, one may end
    /// within this time.
    ///
    /// # Errors
    ///
    /// If the ring cannot be read, and what `tell` returns: then this process is told of no more, and
    /// the next one later.
    pub fn ended(&self, wait: Duration, tell: impl FnMut(Summary) -> Result<()>) -> Result<()> {
        read(&self.summaries, wait, tell)
    }

    /// What has happened.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn numbers(&self) -> Result<Numbers> {
        Numbers::read(&self.tracked)
    }

    /// The map of all entries.
    pub fn entries(&self) -> &MapHandle {
        &self.entries
    }

    /// Detaches it, waits for what is still to be told of processes that have ended, and removes it:
    /// also if they cannot be told of.
    ///
    /// # Errors
    ///
    /// If something cannot be read or removed, and what `tell` returns first: from then on nobody is
    /// told.
    pub fn stop(self, mut tell: impl FnMut(Summary) -> Result<()>) -> Result<Stopped> {
        let until = Instant::now() + DEADLINE;
        let mut told = Ok(());
        loop {
            // The work may wait for a place in the ring: who waits for the work has to read.
            let drained = self.pinned.drain(Duration::from_millis(50))?;
            let read = self.ended(Duration::ZERO, |summary| {
                if told.is_ok() {
                    told = tell(summary);
                }
                Ok(())
            });
            told = told.and(read);
            if drained.is_complete() || Instant::now() > until {
                break;
            }
        }
        let directory =
            self.pinned.path().parent().context("a pin without a directory")?.to_owned();
        let drained = self.pinned.stop(Duration::ZERO)?;
        fs::remove_dir(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
        told?;
        Ok(Stopped { drained, numbers: Numbers::read(&self.tracked)? })
    }
}

/// What was left at the end.
#[derive(Debug)]
pub struct Stopped {
    /// What was not done.
    pub drained: Drained,
    /// What has happened until then.
    pub numbers: Numbers,
}

/// A tracker that is gone with the process, to compare the two ways to free.
pub struct Compared<'obj> {
    armed: Armed<'obj, ReclaimSkel<'obj>>,
}

impl<'obj> Compared<'obj> {
    /// Looks at the processes of a cgroup.
    ///
    /// # Errors
    ///
    /// If it cannot be loaded or attached.
    pub fn start(
        storage: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
        cgroup: &Cgroup,
        freed: Freed,
    ) -> Result<Self> {
        let mut open = open(storage, &Limits::DEFAULT)?;
        open.progs.exit_inline.set_autoload(freed == Freed::Inline);
        open.progs.exit_deferred.set_autoload(freed == Freed::Deferred);
        let mut armed = bpf_wq::load(open, OBJECT)?.arm()?;
        attach(&mut armed, cgroup)?;
        Ok(Self { armed })
    }

    /// As of [`Tracker`].
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn numbers(&self) -> Result<Numbers> {
        Numbers::read(&self.armed.skel().maps.data_tracked)
    }

    /// As of [`Tracker`].
    ///
    /// # Errors
    ///
    /// As of [`Tracker`].
    pub fn ended(&self, wait: Duration, tell: impl FnMut(Summary) -> Result<()>) -> Result<()> {
        read(&self.armed.skel().maps.summaries, wait, tell)
    }
}
