//! From the submission of a piece of work to the first instruction of what does it.
//!
//! One is under way at a time. All ways are tried in turn, a few times each, and again, so that
//! whatever else the machine does meets them all.

mod threads;

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bpf_wq::Armed;
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore, OpenObject, ProgramMut, RingBuffer, RingBufferBuilder};
use nix::unistd::gettid;

use self::threads::{Reader, Spinner, Switch, scoped};
use crate::Way;
use crate::distribution::Distribution;
use crate::machine::{call, cpus, now_ns, on_cpu, pin, read, until, version};
use crate::results::Latency;
use crate::skel::latency::{LatencySkel, LatencySkelBuilder};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/latency.bpf.o"));

const WAYS: [Way; 7] =
    [Way::Floor, Way::Bare, Way::Executor, Way::Timer, Way::TaskWork, Way::Epoll, Way::Busy];

/// Behind each sample, for whoever did the work to wait for more.
const PAUSE: Duration = Duration::from_micros(200);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of each way and condition.
    pub rounds: usize,
    /// In a round.
    pub samples: usize,
}

impl Plan {
    /// A thousand of each, so that there is a 99.9%.
    pub const FULL: Self = Self { rounds: 50, samples: 20 };

    /// To see that it works.
    pub const QUICK: Self = Self { rounds: 2, samples: 5 };
}

/// Where and when work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Condition {
    is_loaded: bool,
    is_elsewhere: bool,
}

impl Condition {
    const ALL: [Self; 4] = [
        Self { is_loaded: false, is_elsewhere: false },
        Self { is_loaded: false, is_elsewhere: true },
        Self { is_loaded: true, is_elsewhere: false },
        Self { is_loaded: true, is_elsewhere: true },
    ];
}

/// Measures all ways that the kernel has. Needs two CPUs.
///
/// # Errors
///
/// If something cannot be loaded, or a piece of work was not done, or done twice.
pub fn measure(plan: Plan) -> Result<Vec<Latency>> {
    let cpus = cpus()?;
    let [here, elsewhere, ..] = cpus[..] else {
        bail!("latency is measured on two CPUs: this machine has one");
    };
    on_cpu(here, || from(here, elsewhere, &cpus, plan))
}

fn from(here: usize, elsewhere: usize, cpus: &[usize], plan: Plan) -> Result<Vec<Latency>> {
    let version = version()?;
    let ways: Vec<Way> = WAYS.into_iter().filter(|way| version >= way.since()).collect();
    let mut storage = MaybeUninit::uninit();
    let armed = load(&mut storage, &ways)?;

    let (epoll, busy) = (Reader::default(), Reader::default());
    let maps = &armed.skel().maps;
    let (epoll_ring, busy_ring) =
        (read_by(&epoll, &maps.epoll_ring)?, read_by(&busy, &maps.busy_ring)?);
    let (target, load, over) = (Spinner::default(), Switch::default(), Switch::default());
    let (epoll, busy, target, load, over) = (&epoll, &busy, &target, &load, &over);
    thread::scope(|scope| {
        let _over = over.at_end();
        scoped(scope, None, move || epoll.wait(&epoll_ring, over))?;
        scoped(scope, None, move || busy.poll(&busy_ring, over))?;
        scoped(scope, None, move || target.spin(over))?;
        for cpu in cpus {
            scoped(scope, Some(*cpu), move || load.spin(over))?;
        }
        let measuring = Measuring { armed, epoll, busy, target };
        measuring.run(plan, &ways, load, (here, elsewhere))
    })
}

fn read_by<'a>(reader: &'a Reader, map: &dyn MapCore) -> Result<RingBuffer<'a>> {
    let mut builder = RingBufferBuilder::new();
    // A clock that cannot be read is seen by its time.
    builder.add(map, |_| reader.received(now_ns().unwrap_or(0)))?;
    Ok(builder.build()?)
}

fn load<'obj>(
    storage: &'obj mut MaybeUninit<OpenObject>,
    ways: &[Way],
) -> Result<Armed<'obj, LatencySkel<'obj>>> {
    let mut open = LatencySkelBuilder::default().open(storage)?;
    open.progs.submit_task_work.set_autoload(ways.contains(&Way::TaskWork));
    let armed = bpf_wq::load(open, OBJECT)?.arm()?;
    call(&armed.skel().progs.arm_place, [])?;
    Ok(armed)
}

struct Measuring<'obj, 'a> {
    armed: Armed<'obj, LatencySkel<'obj>>,
    epoll: &'a Reader,
    busy: &'a Reader,
    target: &'a Spinner,
}

impl Measuring<'_, '_> {
    fn run(
        mut self,
        plan: Plan,
        ways: &[Way],
        load: &Switch,
        (here, elsewhere): (usize, usize),
    ) -> Result<Vec<Latency>> {
        let mut samples: BTreeMap<(Condition, Way), Vec<u64>> = BTreeMap::new();
        for round in 0..plan.rounds {
            if round % 10 == 0 {
                eprintln!("latency: round {} of {}", round + 1, plan.rounds);
            }
            for condition in Condition::ALL {
                load.set(condition.is_loaded);
                let cpu = if condition.is_elsewhere { elsewhere } else { here };
                // The one that is first in a round is another each time.
                for way in (0..ways.len()).map(|turn| ways[(turn + round) % ways.len()]) {
                    if condition.is_elsewhere && !way.reaches_other_cpus() {
                        continue;
                    }
                    let of = samples.entry((condition, way)).or_default();
                    self.block(way, condition, cpu, plan.samples, of)?;
                }
            }
        }
        load.set(false);
        let spread = samples.into_iter().map(|((condition, way), samples)| {
            let Condition { is_loaded, is_elsewhere } = condition;
            let ns = Distribution::of(samples).context("no sample")?;
            Ok(Latency { way, is_loaded, is_elsewhere, ns })
        });
        spread.collect()
    }

    /// Some samples of one way, which is made ready before, and whose count is checked.
    fn block(
        &mut self,
        way: Way,
        condition: Condition,
        cpu: usize,
        count: usize,
        samples: &mut Vec<u64>,
    ) -> Result<()> {
        let progs = &mut self.armed.skel_mut().progs;
        let _links = match way {
            Way::Floor => vec![progs.on_execute.attach()?, progs.on_queue.attach()?],
            _ => vec![],
        };
        let mut tid = gettid().as_raw();
        let mut spins = None;
        match way {
            Way::Epoll => pin(self.epoll.tid()?, cpu)?,
            Way::Busy => {
                pin(self.busy.tid()?, cpu)?;
                spins = Some(self.busy.spinner().on()?);
            }
            Way::TaskWork if condition.is_elsewhere => {
                tid = self.target.tid()?;
                pin(tid, cpu)?;
                spins = Some(self.target.on()?);
            }
            _ => (),
        }
        let before = self.ran(way)?;
        for _ in 0..count {
            samples.push(self.sample(way, tid)?);
            thread::sleep(PAUSE);
        }
        drop(spins);
        let ran = self.ran(way)? - before;
        ensure!(ran == count as u64, "{way}: {count} were submitted, and {ran} done");
        Ok(())
    }

    fn sample(&self, way: Way, tid: i32) -> Result<u64> {
        let (before, called_before) = (self.ran(way)?, self.ran(Way::Bare)?);
        match way {
            // The last one may have begun, and not ended.
            Way::TaskWork => {
                until("the task work has ended", || match call(self.program(way), [tid as u64]) {
                    Err(error) if is_busy(&error) => Ok(false),
                    submitted => submitted.map(|_| true),
                })?
            }
            _ => _ = call(self.program(way), [])?,
        }
        until(&format!("{way}: the work is done"), || Ok(self.ran(way)? > before))?;
        // Its callback is that of the bare one, which would count it.
        if way == Way::Floor {
            until("the callback runs", || Ok(self.ran(Way::Bare)? > called_before))?;
        }
        let bss = self.armed.skel().maps.bss_data.as_deref().context("the section is mapped")?;
        let (from, to) = match way {
            Way::Floor => (read(&bss.queued_ns), read(&bss.executed_ns)),
            Way::Epoll => (read(&bss.submitted_ns), self.epoll.began_ns()),
            Way::Busy => (read(&bss.submitted_ns), self.busy.began_ns()),
            _ => (read(&bss.submitted_ns), read(&bss.began_ns[index(way)])),
        };
        to.checked_sub(from).with_context(|| format!("{way}: it began before it was submitted"))
    }

    /// How many were done by a way.
    fn ran(&self, way: Way) -> Result<u64> {
        let bss = self.armed.skel().maps.bss_data.as_deref().context("the section is mapped")?;
        Ok(match way {
            Way::Floor => read(&bss.executed),
            Way::Epoll => self.epoll.count(),
            Way::Busy => self.busy.count(),
            _ => read(&bss.ran[index(way)]),
        })
    }

    fn program(&self, way: Way) -> &ProgramMut<'_> {
        let progs = &self.armed.skel().progs;
        match way {
            Way::Floor => &progs.submit_traced,
            Way::Bare => &progs.submit_bare,
            Way::Executor => &progs.submit_executor,
            Way::Timer => &progs.submit_timer,
            Way::TaskWork => &progs.submit_task_work,
            Way::Epoll => &progs.submit_epoll,
            Way::Busy => &progs.submit_busy,
        }
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.and_then(io::Error::raw_os_error) == Some(libc::EBUSY)
}

/// As `src/bpf/latency.bpf.c` numbers them.
fn index(way: Way) -> usize {
    match way {
        Way::Executor => 1,
        Way::Timer => 2,
        Way::TaskWork => 3,
        _ => 0,
    }
}
