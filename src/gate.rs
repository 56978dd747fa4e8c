//! The gate that submissions pass, and what it counts: `struct bpf_wq_gate` in
//! `bpf_wq/gate.bpf.h`.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// How long to wait before looking again.
const POLL: Duration = Duration::from_millis(1);

/// The part of the map that is looked at; it is never shorter.
const SIZE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

const OPEN: u64 = 1;
const CLOSED: u64 = 2;

/// What has become of the submissions to a map's workqueues, or to an executor: each number is
/// since it was armed, and they are read one after the other. When nothing is in flight,
/// `accepted` is `done` and `cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Submissions that are delayed, queued or running.
    pub in_flight: u64,
    /// Of these, how many a handler is at work on. Of a map's workqueue, which does several at
    /// once, a run counts as one.
    pub running: u64,
    /// The most that was in flight at a time.
    pub longest: u64,
    /// Submissions that were, or will be, worked on.
    pub accepted: u64,
    /// Those that were not, with an error for who submitted.
    pub refused: u64,
    /// Those that have come to their end, also with an error.
    pub done: u64,
    /// Of these, where the handler returned an error.
    pub failed: u64,
    /// Runs that the handler of an executor asked to have again.
    pub retried: u64,
    /// Jobs of an executor that were cancelled.
    pub cancelled: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_flight, running, longest, accepted, refused, done, .. } = self;
        let Self { failed, retried, cancelled, .. } = self;
        write!(
            f,
            "in flight {in_flight} (running {running}, longest {longest}), accepted {accepted}, refused {refused}, done {done} (failed {failed}, retried {retried}), cancelled {cancelled}"
        )
    }
}

#[repr(C)]
struct Raw {
    phase: AtomicU64,
    read_mostly: [u64; 7],
    in_flight: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    longest: AtomicU64,
    submitters: [u64; 4],
    done: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    cancelled: AtomicU64,
    running: AtomicU64,
}

/// When so much time has passed; of more than the clock has, as good as never.
pub(crate) fn deadline_after(time: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now() + time.min(CENTURY)
}

/// A gate, in this process's memory.
pub(crate) struct Gate {
    raw: NonNull<Raw>,
}

// SAFETY: all that is behind the pointer are atomics, and the memory stays until the drop.
unsafe impl Send for Gate {}
// SAFETY: as above.
unsafe impl Sync for Gate {}

impl Gate {
    /// Of a map that BPF_WQ_ARM or BPF_WQ_EXECUTOR has declared.
    pub fn new(map: impl AsFd) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel finds room for it.
        let address = unsafe { mmap(None, SIZE, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { raw: address.cast() })
    }

    fn raw(&self) -> &Raw {
        // SAFETY: the mapping is a page, and stays as long as this. What is written by others is
        // written in atomic operations, to the atomics.
        unsafe { self.raw.as_ref() }
    }

    /// Whether submissions are let through.
    pub fn is_open(&self) -> bool {
        self.raw().phase.load(Ordering::SeqCst) == OPEN
    }

    /// From now on submissions are refused.
    pub fn close(&self) {
        // Of a gate that was never opened nothing is in flight.
        let phase = &self.raw().phase;
        let _ = phase.compare_exchange(OPEN, CLOSED, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Of a closed gate, 0 means that nothing will be in flight any more.
    pub fn in_flight(&self) -> u64 {
        self.raw().in_flight.load(Ordering::SeqCst)
    }

    /// Waits until nothing is in flight, at most until the deadline, and returns what is.
    pub fn wait_idle(&self, deadline: Instant) -> u64 {
        loop {
            let in_flight = self.in_flight();
            if in_flight == 0 || Instant::now() >= deadline {
                return in_flight;
            }
            thread::sleep(POLL);
        }
    }

    pub fn counters(&self) -> Counters {
        let raw = self.raw();
        let read = |number: &AtomicU64| number.load(Ordering::SeqCst);
        Counters {
            done: read(&raw.done),
            failed: read(&raw.failed),
            retried: read(&raw.retried),
            cancelled: read(&raw.cancelled),
            running: read(&raw.running),
            in_flight: read(&raw.in_flight),
            accepted: read(&raw.accepted),
            refused: read(&raw.refused),
            longest: read(&raw.longest),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and no reference to it is left.
        let unmapped = unsafe { munmap(self.raw.cast(), SIZE.get()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
