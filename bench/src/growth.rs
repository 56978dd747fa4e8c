//! How the executor grows: with jobs that wait, with workers, and with the time that handlers sleep.

use std::mem::MaybeUninit;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bpf_wq::{Armed, Executor};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{OpenObject, ProgramMut};

use crate::distribution::Distribution;
use crate::machine::{call, cpus, on_cpu, read, write};
use crate::results::{Deep, Growth, Wide};
use crate::skel::growth::{GrowthSkel, GrowthSkelBuilder, types};
use crate::slow::{PAGES, SlowPages};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/growth.bpf.o"));

/// Submissions that are measured together.
const BURST: u64 = 64;

/// With more that wait than this, the bursts of one fill do not add much to them.
const MANY: u64 = 10_000;

/// So many may wait where the other executor has one worker.
const FEW: u64 = 512;

/// In one call, after which the process can be interrupted.
const FILL: u64 = 1 << 15;

/// More than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Jobs that wait: powers of ten, up to this.
    pub most_pending: u64,
    /// Bursts behind them.
    pub bursts: usize,
    /// Numbers of workers.
    pub workers: &'static [u32],
    /// What handlers sleep, in ms.
    pub sleeps: &'static [u64],
    /// For how long jobs are done, of each.
    pub time: Duration,
}

impl Plan {
    /// What the page shows.
    pub const FULL: Self = Self {
        most_pending: 1_000_000,
        bursts: 31,
        workers: &[1, 4, 16, 64],
        sleeps: &[0, 1, 10, 100],
        time: Duration::from_secs(1),
    };

    /// To see that it works.
    pub const QUICK: Self = Self {
        most_pending: 100,
        bursts: 2,
        workers: &[1, 64],
        sleeps: &[0, 1],
        time: Duration::from_millis(50),
    };
}

/// Which of the object's executors is there.
#[derive(Clone, Copy)]
enum Which {
    Deep,
    /// With so many workers.
    Wide(u32),
}

/// Measures. Needs a kernel with FUSE.
///
/// # Errors
///
/// If something cannot be loaded, or a job was not done, or done twice.
pub fn measure(plan: &Plan) -> Result<Growth> {
    let pages = SlowPages::new()?;
    let growth = on_cpu(*cpus()?.first().context("a CPU")?, || on_this_cpu(plan, &pages))?;
    pages.end()?;
    Ok(growth)
}

fn on_this_cpu(plan: &Plan, pages: &SlowPages) -> Result<Growth> {
    let mut growth = Growth::default();
    let mut storage = MaybeUninit::uninit();
    // To make a million places takes seconds.
    let which = if plan.most_pending < FEW { Which::Wide(1) } else { Which::Deep };
    let deep = Measuring::new(&mut storage, which, pages, 0)?;
    let steps = (0..).map(|exponent| 10_u64.pow(exponent));
    for pending in steps.take_while(|pending| *pending <= plan.most_pending) {
        eprintln!("growth: {pending} pending");
        growth.deep.push(deep.deep(pending, plan.bursts)?);
    }
    let mut next_page = deep.end()?;
    for workers in plan.workers {
        let mut storage = MaybeUninit::uninit();
        let wide = Measuring::new(&mut storage, Which::Wide(*workers), pages, next_page)?;
        for sleep_ms in plan.sleeps {
            eprintln!("growth: {workers} workers, handlers that sleep {sleep_ms} ms");
            growth.wide.push(wide.wide(*workers, *sleep_ms, plan.time)?);
        }
        next_page = wide.end()?;
    }
    Ok(growth)
}

struct Measuring<'obj, 'p> {
    armed: Armed<'obj, GrowthSkel<'obj>>,
    jobs: Executor<[u64; 2]>,
    which: Which,
    pages: &'p SlowPages,
}

impl<'obj, 'p> Measuring<'obj, 'p> {
    fn new(
        storage: &'obj mut MaybeUninit<OpenObject>,
        which: Which,
        pages: &'p SlowPages,
        next_page: u64,
    ) -> Result<Self> {
        let mut open = GrowthSkelBuilder::default().open(storage)?;
        let (is_deep, name) = match which {
            Which::Deep => (true, "deep"),
            Which::Wide(_) => (false, "wide"),
        };
        // A million places are not to be made for the other one.
        for mut program in open.open_object_mut().progs_mut() {
            let of = program.name().to_string_lossy().into_owned();
            program.set_autoload(of.ends_with(name));
        }
        for mut map in open.open_object_mut().maps_mut() {
            let of = map.name().to_string_lossy().into_owned();
            let other = if is_deep { "wide_" } else { "deep_" };
            if of.starts_with(other) {
                map.set_autocreate(false)?;
            }
        }
        if let Which::Wide(workers) = which {
            // Of the 64 that are declared.
            open.maps.wide_workers.set_max_entries(workers)?;
        }
        let armed = bpf_wq::load(open, OBJECT)?.arm()?;
        let jobs = Executor::of(&armed, name)?;
        let measuring = Self { armed, jobs, which, pages };
        let bss = measuring.bss()?;
        write(&bss.holder, pages.pid());
        write(&bss.pages, pages.address());
        write(&bss.next_page, next_page);
        Ok(measuring)
    }

    fn bss(&self) -> Result<&types::bss> {
        self.armed.skel().maps.bss_data.as_deref().context("the section is mapped")
    }

    /// What submits, and what submits and takes the time.
    fn programs(&self) -> (&ProgramMut<'_>, &ProgramMut<'_>) {
        let progs = &self.armed.skel().progs;
        match self.which {
            Which::Deep => (&progs.submit_deep, &progs.measure_deep),
            Which::Wide(_) => (&progs.submit_wide, &progs.measure_wide),
        }
    }

    /// Its last page's number. All that was accepted has to be done.
    fn end(self) -> Result<u64> {
        let bss = self.bss()?;
        let (next_page, unread, failed) =
            (read(&bss.next_page), read(&bss.unread), read(&bss.failed));
        let counters = self.jobs.counters();
        ensure!(
            unread == 0 && failed == 0 && counters.accepted == counters.done,
            "{unread} pages were not read, {failed} submissions failed; {counters}"
        );
        ensure!(next_page < PAGES, "{next_page} pages were read: there are {PAGES}");
        Ok(next_page)
    }

    /// A worker that waits for a page, behind it so many jobs, and then more of them.
    fn deep(&self, pending: u64, bursts: usize) -> Result<Deep> {
        let (bss, (submit, measure)) = (self.bss()?, self.programs());
        let (fills, bursts) = if pending < MANY { (bursts, 1) } else { (1, bursts) };
        let (mut submits, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..fills {
            self.pages.hold();
            ensure!(call(submit, [1, 1, 0])? == 1, "the executor is full");
            self.pages.wait_for_readers(1)?;
            let mut left = pending;
            while left > 0 {
                let count = left.min(FILL);
                let accepted = call(submit, [count, 0, 0])?;
                ensure!(accepted == count, "{accepted} of {count} jobs were accepted");
                left -= count;
            }
            for _ in 0..bursts {
                let accepted = call(measure, [BURST, 0, 0])?;
                ensure!(accepted == BURST, "{accepted} of {BURST} jobs were accepted");
                submits.push(read(&bss.took_ns) / BURST);
            }
            let behind = pending + BURST * bursts as u64;
            write(&bss.first_ns, 0);
            self.pages.let_go();
            let left = self.jobs.wait_idle(DEADLINE);
            ensure!(left == 0, "{left} jobs are not done; {}", self.jobs.counters());
            let took = read(&bss.last_ns).saturating_sub(read(&bss.first_ns));
            rates.push(behind as f64 * 1e9 / took.max(1) as f64);
        }
        rates.sort_by(f64::total_cmp);
        let drained_per_second = rates[rates.len() / 2] as u64;
        let submit_ns = Distribution::of(submits).context("no burst")?;
        Ok(Deep { pending, submit_ns, drained_per_second })
    }

    /// As many jobs at a time as keep all workers at work.
    fn wide(&self, workers: u32, sleep_ms: u64, time: Duration) -> Result<Wide> {
        let (bss, (submit, _)) = (self.bss()?, self.programs());
        let (sleeps, at_a_time) = if sleep_ms > 0 { (1, 2 * u64::from(workers)) } else { (0, 512) };
        self.pages.take(Duration::from_millis(sleep_ms));
        write(&bss.slept_ns, 0);
        let before = self.jobs.counters().done;
        let began = Instant::now();
        // It may be late before any is done.
        let goes_on = || {
            let elapsed = began.elapsed();
            let is_late = self.jobs.counters().done - before < at_a_time;
            elapsed < time || (is_late && elapsed < DEADLINE)
        };
        while goes_on() {
            let missing = at_a_time.saturating_sub(self.jobs.counters().in_flight);
            call(submit, [missing, sleeps, 0])?;
            thread::sleep(Duration::from_micros(200));
        }
        let (jobs, took) = (self.jobs.counters().done - before, began.elapsed());
        let left = self.jobs.wait_idle(DEADLINE);
        ensure!(left == 0, "{left} jobs are not done; {}", self.jobs.counters());
        let all = self.jobs.counters().done - before;
        Ok(Wide {
            workers,
            sleep_ms,
            slept_us: read(&bss.slept_ns) / all.max(1) / 1000,
            jobs,
            per_second: (jobs as f64 / took.as_secs_f64()) as u64,
        })
    }
}
