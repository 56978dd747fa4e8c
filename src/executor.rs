//! An executor of `bpf_wq/executor.bpf.h`, from user space.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use bytemuck::{NoUninit, Pod, Zeroable};
use libbpf_rs::MapInfo;
use libbpf_rs::skel::Skel;

use crate::error::{Error, Result};
use crate::gate::{Counters, Gate, deadline_after};
use crate::lifecycle::Armed;
use crate::parts::{Parts, Queue};
use crate::{errno, syscall};

/// How a job is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Not before so long. More than 146 years is that.
    pub delay: Duration,
    /// After all jobs of this key that were submitted before, and before all that come later. One
    /// with a delay takes its place when it is due. As keys share lanes, after those of some other
    /// keys, too.
    pub ordered_by: Option<u64>,
}

/// A job, to cancel it. It is the number that the BPF program's handler has as `run->id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId(pub u64);

/// Why a job was not accepted, or not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// As many jobs as fit are not done yet (ENOSPC).
    Full,
    /// The executor is being drained (ESHUTDOWN).
    Draining,
    /// It was not armed (EINVAL).
    NotArmed,
    /// The job is running, or is just being freed (EBUSY).
    Running,
    /// There is no such job, or no longer (ENOENT).
    Gone,
    /// The program returned another number.
    Other(i32),
}

impl Refusal {
    fn of(returned: i32) -> Self {
        match -returned {
            errno::ENOSPC => Self::Full,
            errno::ESHUTDOWN => Self::Draining,
            errno::EINVAL => Self::NotArmed,
            errno::EBUSY => Self::Running,
            errno::ENOENT => Self::Gone,
            _ => Self::Other(returned),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "it is full (ENOSPC): submit again when jobs are done"),
            Self::Draining => write!(f, "it is being drained (ESHUTDOWN): submit where it goes on"),
            Self::NotArmed => write!(f, "it was not armed (EINVAL): run its arming program"),
            Self::Running => write!(f, "the job is running (EBUSY): wait for its end"),
            Self::Gone => {
                write!(f, "there is no such job, or no longer (ENOENT): nothing is left to cancel")
            }
            Self::Other(returned) => {
                write!(f, "the program returned {returned}: see errno(3), of the number below 0")
            }
        }
    }
}

/// `struct bpf_wq_options` and the id: what comes behind the job in a request.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Tail {
    delay_ns: u64,
    key: u64,
    is_ordered: u64,
    id: u64,
}

/// What comes before the job in a slot: `struct bpf_wq_slot` and a timer.
const SLOT: usize = 40 + 16;

/// An executor whose jobs are `J`, which is the C struct of its declaration.
///
/// ```no_run
/// # use std::time::Duration;
/// # use libbpf_rs::skel::Skel;
/// # use bpf_wq::{Armed, Executor, Options};
/// #[derive(Clone, Copy, bytemuck::NoUninit)]
/// #[repr(C)]
/// struct Check {
///     pid: u32,
/// }
///
/// /// Of an object with `BPF_WQ_EXECUTOR(checks, struct check, 1024, 4, handle)`.
/// fn check<'obj>(armed: &Armed<'obj, impl Skel<'obj>>) -> bpf_wq::Result<()> {
///     let checks = Executor::<Check>::of(armed, "checks")?;
///     checks.submit(&Check { pid: 1 })?;
///     let later = Options { delay: Duration::from_secs(3600), ..Options::default() };
///     let id = checks.submit_with(&Check { pid: 2 }, later)?;
///     checks.cancel(id)?;
///     assert_eq!(checks.wait_idle(Duration::from_secs(10)), 0);
///     println!("{}", checks.counters());
///     Ok(())
/// }
/// ```
///
/// It works as long as it exists, also without the handle that it was taken from: what the kernel
/// needs for its jobs stays loaded, also when that was dropped or stopped.
pub struct Executor<J> {
    name: String,
    gate: Gate,
    submit: OwnedFd,
    cancel: OwnedFd,
    /// Without a descriptor the kernel would cancel what they hold.
    _maps: [OwnedFd; 2],
    job: PhantomData<fn(J)>,
}

impl<J> fmt::Debug for Executor<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<J: NoUninit> Executor<J> {
    /// The executor that is declared as `BPF_WQ_EXECUTOR(name, …)`.
    ///
    /// # Errors
    ///
    /// [`Error::NoExecutor`] if the object has none of this name, or its jobs are of
    /// another size, in words of 8 bytes.
    pub fn of<'obj, K: Skel<'obj>>(armed: &Armed<'obj, K>, name: &str) -> Result<Self> {
        Self::of_parts(armed, name)
    }

    pub(crate) fn of_parts(parts: &dyn Parts, name: &str) -> Result<Self> {
        let no = |why: String| Error::NoExecutor { name: name.to_owned(), why };
        let found = |what: &str, part: &str, found: io::Result<Option<OwnedFd>>| match found {
            Ok(Some(fd)) => Ok(fd),
            Ok(None) => Err(no(format!("there is no {what} {part}"))),
            Err(error) => Err(no(format!("{what} {part}: {error}"))),
        };
        let program = |part: &str| found("program", part, parts.program(part));
        let map = |part: &str| found("map", part, parts.map(part));
        let submit = program(&format!("bpf_wq_submit_{name}"))?;
        let cancel = program(&format!("bpf_wq_cancel_{name}"))?;
        let maps = [map(&format!("{name}_jobs"))?, map(&format!("{name}_workers"))?];
        let jobs = MapInfo::new(maps[0].as_fd()).map_err(|error| no(error.to_string()))?;
        let slot = jobs.info.value_size as usize;
        let expected = (SLOT + size_of::<J>()).next_multiple_of(8);
        if slot != expected {
            let bytes = size_of::<J>();
            return Err(no(format!(
                "a slot has {slot} bytes, and with a job of {bytes} bytes it would have {expected}"
            )));
        }
        let gate = Queue::new(parts, name).map_err(|error| no(error.to_string()))?.gate;
        Ok(Self { name: name.to_owned(), gate, submit, cancel, _maps: maps, job: PhantomData })
    }

    /// Submits a job, to be run at once.
    ///
    /// # Errors
    ///
    /// As of [`submit_with`](Self::submit_with).
    pub fn submit(&self, job: &J) -> Result<JobId> {
        self.submit_with(job, Options::default())
    }

    /// Submits a job.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is not accepted, [`Error::Io`] if the program cannot be run.
    pub fn submit_with(&self, job: &J, options: Options) -> Result<JobId> {
        let tail = Tail {
            delay_ns: u64::try_from(options.delay.as_nanos()).unwrap_or(u64::MAX),
            key: options.ordered_by.unwrap_or(0),
            is_ordered: u64::from(options.ordered_by.is_some()),
            id: 0,
        };
        let mut request = bytemuck::bytes_of(job).to_vec();
        request.resize(request.len().next_multiple_of(8), 0);
        let at = request.len();
        request.extend_from_slice(bytemuck::bytes_of(&tail));
        self.run("submit a job to", &self.submit, &mut request)?;
        let tail: Tail = bytemuck::pod_read_unaligned(&request[at..]);
        Ok(JobId(tail.id))
    }

    /// Cancels a job that does not run yet: it will not.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is running or has run, [`Error::Io`] if the program cannot be run.
    pub fn cancel(&self, job: JobId) -> Result<()> {
        self.run("cancel a job of", &self.cancel, &mut job.0.to_ne_bytes())
    }

    fn run(&self, what: &str, program: &OwnedFd, context: &mut [u8]) -> Result<()> {
        let returned = syscall::run(program.as_fd(), context).map_err(|source: io::Error| {
            Error::Io { what: format!("{what} {}", self.name), source }
        })?;
        match returned {
            0 => Ok(()),
            returned => Err(Error::Refused {
                what: what.to_owned(),
                name: self.name.clone(),
                refusal: Refusal::of(returned),
            }),
        }
    }

    /// What has become of the jobs.
    pub fn counters(&self) -> Counters {
        self.gate.counters()
    }

    /// Waits until nothing is in flight, at most for `deadline`; others may submit meanwhile.
    /// Returns how many jobs are in flight then.
    #[must_use = "jobs may be in flight"]
    pub fn wait_idle(&self, deadline: Duration) -> u64 {
        self.gate.wait_idle(deadline_after(deadline))
    }

    /// Lets no job through any more, and waits until those that were accepted are done, at most
    /// for `deadline`. Returns how many are not.
    #[must_use = "jobs may be left"]
    pub fn drain(&self, deadline: Duration) -> u64 {
        self.gate.close();
        self.wait_idle(deadline)
    }
}
