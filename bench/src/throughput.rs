//! Jobs a second, sustained: a thread on each CPU submits as many as are accepted.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bpf_wq::Armed;
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore as _, MapFlags, OpenObject, ProgramMut, RingBuffer, RingBufferBuilder};

use crate::Way;
use crate::distribution::Distribution;
use crate::machine::{call, cpus, pin, read, until, version, write};
use crate::results::{Job, Throughput};
use crate::skel::throughput::{ThroughputSkel, ThroughputSkelBuilder, types};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/throughput.bpf.o"));

const WAYS: [Way; 6] = [Way::Bare, Way::Executor, Way::Timer, Way::TaskWork, Way::Epoll, Way::Busy];

/// Jobs' sizes, in bytes.
pub const SIZES: [u32; 4] = [8, 64, 256, 512];

/// Of the jobs that write.
pub const SIZE_OF_WRITES: u32 = 64;

/// Submissions in a call of a program.
const BURST: u64 = 64;

/// Whoever is not accepted waits so long, in which the jobs that are pending are not all done.
const FULL: Duration = Duration::from_micros(50);

/// KEYS of `src/bpf/throughput.bpf.c`.
const KEYS: u64 = 1024;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of each way, size and job.
    pub rounds: usize,
    /// How long jobs are submitted, in a round.
    pub time: Duration,
}

impl Plan {
    /// What the page shows.
    pub const FULL: Self = Self { rounds: 5, time: Duration::from_millis(100) };

    /// To see that it works.
    pub const QUICK: Self = Self { rounds: 1, time: Duration::from_millis(10) };
}

/// One of a word from `$field`s by a job's size.
macro_rules! of_size {
    ($bytes:expr, $of:expr, $a:ident $b:ident $c:ident $d:ident) => {
        match $bytes {
            8 => &$of.$a,
            64 => &$of.$b,
            256 => &$of.$c,
            _ => &$of.$d,
        }
    };
}

/// Measures all ways that the kernel has, on all CPUs of this machine.
///
/// # Errors
///
/// If something cannot be loaded, or a job was not done, or done twice.
pub fn measure(plan: Plan) -> Result<Vec<Throughput>> {
    let cpus = cpus()?;
    let version = version()?;
    let ways: Vec<Way> = WAYS.into_iter().filter(|way| version >= way.since()).collect();
    let mut storage = MaybeUninit::uninit();
    let armed = load(&mut storage, &ways, &cpus)?;
    let measuring = Measuring { armed, cpus };

    let kinds: Vec<(u32, Job)> = SIZES
        .map(|bytes| (bytes, Job::Counts))
        .into_iter()
        .chain([(SIZE_OF_WRITES, Job::Writes)])
        .collect();
    let mut rates: BTreeMap<(Job, u32, Way), (u64, Vec<u64>)> = BTreeMap::new();
    for round in 0..plan.rounds {
        eprintln!("throughput: round {} of {}", round + 1, plan.rounds);
        for (bytes, job) in &kinds {
            for way in (0..ways.len()).map(|turn| ways[(turn + round) % ways.len()]) {
                let (jobs, took) = measuring.run(way, *bytes, *job, plan.time)?;
                let (all, of) = rates.entry((*job, *bytes, way)).or_default();
                *all += jobs;
                of.push((jobs as f64 / took.as_secs_f64()) as u64);
            }
        }
    }
    let rows = rates.into_iter().map(|((job, bytes, way), (jobs, rates))| {
        let per_second = Distribution::of(rates).context("no round")?;
        Ok(Throughput { way, cpus: measuring.cpus.len(), bytes, job, jobs, per_second })
    });
    rows.collect()
}

fn load<'obj>(
    storage: &'obj mut MaybeUninit<OpenObject>,
    ways: &[Way],
    cpus: &[usize],
) -> Result<Armed<'obj, ThroughputSkel<'obj>>> {
    let mut open = ThroughputSkelBuilder::default().open(storage)?;
    let rodata = open.maps.rodata_data.as_deref_mut().context("the section is mapped")?;
    rodata.cpus = cpus.len() as u64;
    let is_there = ways.contains(&Way::TaskWork);
    open.progs.submit_task_work_8.set_autoload(is_there);
    open.progs.submit_task_work_64.set_autoload(is_there);
    open.progs.submit_task_work_256.set_autoload(is_there);
    open.progs.submit_task_work_512.set_autoload(is_there);
    let armed = bpf_wq::load(open, OBJECT)?.arm()?;
    let bss = armed.skel().maps.bss_data.as_deref().context("the section is mapped")?;
    ensure!(
        cpus.iter().enumerate().all(|(index, cpu)| index == *cpu)
            && cpus.len() <= bss.of_cpus.len(),
        "the CPUs are {cpus:?}: they have to be numbered from 0, and at most {}",
        bss.of_cpus.len()
    );
    let progs = &armed.skel().progs;
    call(&progs.arm_places_8, [])?;
    call(&progs.arm_places_64, [])?;
    call(&progs.arm_places_256, [])?;
    call(&progs.arm_places_512, [])?;
    Ok(armed)
}

struct Measuring<'obj> {
    armed: Armed<'obj, ThroughputSkel<'obj>>,
    cpus: Vec<usize>,
}

impl Measuring<'_> {
    /// Submits for so long. How many jobs were done, and how long that took.
    fn run(&self, way: Way, bytes: u32, job: Job, time: Duration) -> Result<(u64, Duration)> {
        let bss = self.bss()?;
        write(&bss.writes, u64::from(job == Job::Writes));
        let (received, torn, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let table = &self.armed.skel().maps.table;
        let on_job = |job: &[u8]| {
            let (Some(first), Some(last)) = (job.first_chunk(), job.last_chunk()) else {
                return -1;
            };
            let number = u64::from_ne_bytes(*first);
            let key = (number % KEYS).to_ne_bytes();
            let is_written = read(&bss.writes) == 0
                || table.update(&key, &number.to_ne_bytes(), MapFlags::ANY).is_ok();
            if number != u64::from_ne_bytes(*last) || !is_written {
                torn.fetch_add(1, Ordering::Relaxed);
            }
            received.fetch_add(1, Ordering::Relaxed);
            0
        };
        let ring = self.ring(way, bytes, on_job)?;
        let done_before = self.done()?;
        let done = || -> Result<u64> {
            let by_programs = self.done()? - done_before;
            Ok(by_programs + received.load(Ordering::Relaxed))
        };
        let (accepted, took) = thread::scope(|scope| -> Result<(u64, Duration)> {
            let reader = ring.map(|ring| scope.spawn(|| take_all(way, ring, &over)));
            let began = Instant::now();
            let submitters = self.cpus.iter().map(|cpu| {
                let program = self.program(way, bytes).as_fd();
                scope.spawn(move || submit(program, *cpu, began, time))
            });
            // All of them first.
            let submitters: Vec<_> = submitters.collect();
            let accepted = submitters
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum::<Result<u64>>();
            let all_done = match &accepted {
                Ok(accepted) => {
                    until(&format!("{way}: all jobs are done"), || Ok(done()? >= *accepted))
                }
                Err(_) => Ok(()),
            };
            let took = began.elapsed();
            over.store(true, Ordering::Relaxed);
            if let Some(reader) = reader {
                reader.join().expect("no panic");
            }
            all_done?;
            Ok((accepted?, took))
        })?;
        let (done, failed) = (done()?, read(&bss.failed));
        let torn = torn.into_inner() + read(&bss.torn);
        ensure!(
            done == accepted && accepted > 0 && failed == 0 && torn == 0,
            "{way}, {bytes} bytes: {accepted} jobs were accepted, {done} done, {torn} of them not \
             whole, and {failed} submissions failed"
        );
        Ok((done, took))
    }

    fn bss(&self) -> Result<&types::bss> {
        self.armed.skel().maps.bss_data.as_deref().context("the section is mapped")
    }

    /// Jobs that programs have done.
    fn done(&self) -> Result<u64> {
        Ok(self.bss()?.of_cpus.iter().map(|of| read(&of.done)).sum())
    }

    fn program(&self, way: Way, bytes: u32) -> &ProgramMut<'_> {
        let p = &self.armed.skel().progs;
        match way {
            Way::Floor | Way::Bare => of_size!(
                bytes, p, submit_bare_8 submit_bare_64 submit_bare_256 submit_bare_512
            ),
            Way::Executor => of_size!(
                bytes, p,
                submit_executor_8 submit_executor_64 submit_executor_256 submit_executor_512
            ),
            Way::Timer => of_size!(
                bytes, p, submit_timer_8 submit_timer_64 submit_timer_256 submit_timer_512
            ),
            Way::TaskWork => of_size!(
                bytes, p,
                submit_task_work_8 submit_task_work_64 submit_task_work_256 submit_task_work_512
            ),
            Way::Epoll => of_size!(
                bytes, p, submit_epoll_8 submit_epoll_64 submit_epoll_256 submit_epoll_512
            ),
            Way::Busy => of_size!(
                bytes, p, submit_busy_8 submit_busy_64 submit_busy_256 submit_busy_512
            ),
        }
    }

    /// The ring of a way that has one.
    fn ring<'cb>(
        &self,
        way: Way,
        bytes: u32,
        on_job: impl FnMut(&[u8]) -> i32 + 'cb,
    ) -> Result<Option<RingBuffer<'cb>>> {
        let m = &self.armed.skel().maps;
        let map = match way {
            Way::Epoll => of_size!(
                bytes, m, epoll_ring_8 epoll_ring_64 epoll_ring_256 epoll_ring_512
            ),
            Way::Busy => of_size!(
                bytes, m, busy_ring_8 busy_ring_64 busy_ring_256 busy_ring_512
            ),
            _ => return Ok(None),
        };
        let mut builder = RingBufferBuilder::new();
        builder.add(map, on_job)?;
        Ok(Some(builder.build()?))
    }
}

/// Does what comes, in user space.
fn take_all(way: Way, ring: RingBuffer<'_>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        // An error is seen by what is not done.
        match way {
            Way::Busy => ring.consume_raw(),
            _ => ring.poll_raw(Duration::from_millis(10)),
        };
    }
}

/// Submits for so long on one CPU. How many were accepted.
fn submit(program: BorrowedFd<'_>, cpu: usize, began: Instant, time: Duration) -> Result<u64> {
    pin(0, cpu)?;
    let mut accepted = 0;
    loop {
        let more = call(program, [BURST])?;
        accepted += more;
        // It may be late before it has run at all.
        if began.elapsed() >= time && accepted > 0 {
            return Ok(accepted);
        }
        if more < BURST {
            thread::sleep(FULL);
        }
    }
}
