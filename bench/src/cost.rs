//! What the fast path pays a submission. Under a clock that counts instructions, a nanosecond is
//! one.

use std::fs;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bpf_wq::Executor;
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore as _, MapFlags, RingBuffer, RingBufferBuilder};
use nix::unistd::gettid;

use crate::Way;
use crate::distribution::Distribution;
use crate::machine::{call, cpus, on_cpu, read, until};
use crate::results::Cost;
use crate::skel::executor_cost::{ExecutorCostSkel, ExecutorCostSkelBuilder};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/executor_cost.bpf.o"));

/// Pieces of work in a burst: BATCH of `bpf/tests/executor_cost.bpf.c`.
pub const BATCH: u64 = 64;

/// The ways that are compared, in the order of the results.
pub const WAYS: [Way; 3] = [Way::Bare, Way::Executor, Way::Epoll];

/// Rounds that the page shows.
pub const FULL: u64 = 1000;

/// Rounds to see that it works.
pub const QUICK: u64 = 5;

/// A thread that reads the ring, as a daemon would.
#[derive(Default)]
struct Reader {
    tid: AtomicI32,
    received: AtomicU64,
    last: AtomicU64,
}

impl Reader {
    fn read(&self, ring: &RingBuffer<'_>) {
        self.tid.store(gettid().as_raw(), Ordering::Relaxed);
        // When nothing comes for so long, the measurement has failed.
        while self.received.load(Ordering::Relaxed) < self.last.load(Ordering::Relaxed)
            && ring.poll_raw(Duration::from_secs(60)) > 0
        {}
    }

    /// Whether it has read so many, and is off its CPU, in epoll_wait(2): of a thread that is not,
    /// the kernel says "running". After the last it ends.
    fn waits_after(&self, received: u64) -> bool {
        if self.received.load(Ordering::Relaxed) != received {
            return false;
        }
        let tid = self.tid.load(Ordering::Relaxed);
        let call = fs::read_to_string(format!("/proc/self/task/{tid}/syscall"));
        let waits = format!("{} ", libc::SYS_epoll_wait);
        received == self.last.load(Ordering::Relaxed)
            || call.is_ok_and(|call| call.starts_with(&waits))
    }
}

/// Hands over work by each way, a burst and a single one a round. The ways are tried in turn, and
/// all are idle before each. What is woken is woken on the same CPU: on another one it might run
/// meanwhile, or not.
///
/// # Errors
///
/// If something cannot be loaded, or a piece of work was not done, or done twice.
pub fn measure(rounds: u64) -> Result<Vec<Cost>> {
    let cpu = *cpus()?.first().context("a CPU")?;
    on_cpu(cpu, || on_this_cpu(rounds))
}

fn on_this_cpu(rounds: u64) -> Result<Vec<Cost>> {
    let all = rounds * (BATCH + 1);
    let mut storage = MaybeUninit::uninit();
    let open = ExecutorCostSkelBuilder::default().open(&mut storage)?;
    let armed = bpf_wq::load(open, OBJECT)?.arm()?;
    let jobs = Executor::<[u64; 2]>::of(&armed, "jobs")?;
    let (maps, progs) = (&armed.skel().maps, &armed.skel().progs);
    call(&progs.arm_bares, [])?;
    let reader = &Reader { last: all.into(), ..Reader::default() };
    let mut ring = RingBufferBuilder::new();
    ring.add(&maps.ring, |_| {
        reader.received.fetch_add(1, Ordering::Relaxed);
        0
    })?;
    let ring = ring.build()?;
    let bss = maps.bss_data.as_deref().context("the section is mapped")?;

    let programs =
        [&progs.measure_nothing, &progs.measure_bare, &progs.measure_executor, &progs.measure_ring];
    let mut bursts: [Vec<u64>; 4] = Default::default();
    let mut singles = bursts.clone();
    let mut handed = [0; 4];
    let all_idle = |[_, bare, submitted, output]: [u64; 4]| {
        until("all is done, and who has done it waits", || {
            let is_done = bare_runs(armed.skel())? == bare && jobs.counters().done == submitted;
            Ok(is_done && call(&progs.all_workers_wait, [])? == 1 && reader.waits_after(output))
        })
    };
    thread::scope(|scope| -> Result<()> {
        scope.spawn(move || reader.read(&ring));
        let measured = (|| {
            all_idle(handed)?;
            for round in 0..rounds as usize {
                if round % 100 == 0 {
                    eprintln!("cost: round {} of {rounds}", round + 1);
                }
                for (ns, count) in [(&mut bursts, BATCH), (&mut singles, 1)] {
                    // No way comes always behind the same: what was just woken is woken sooner.
                    for way in (0..4).map(|turn| (turn + round) % 4) {
                        call(programs[way], [count])?;
                        ns[way].push(read(&bss.took_ns));
                        handed[way] += count;
                        all_idle(handed)?;
                    }
                }
            }
            Ok(())
        })();
        if measured.is_err() {
            // So that the reader ends with what it has.
            reader.last.store(0, Ordering::Relaxed);
        }
        measured
    })?;
    let (failed, done) = (read(&bss.failed), jobs.counters().done);
    ensure!(failed == 0 && done == all, "{failed} submissions failed, {done} of {all} were done");
    Ok(costs(bursts, singles))
}

fn bare_runs(skel: &ExecutorCostSkel<'_>) -> Result<u64> {
    let runs = |key: u32| {
        let value = skel.maps.bares.lookup(&key.to_ne_bytes(), MapFlags::ANY)?;
        let count = value.as_deref().and_then(|value| value.first_chunk()).context("a count")?;
        Ok(u64::from_ne_bytes(*count))
    };
    (0..BATCH as u32).map(runs).sum()
}

/// Of each way, without the loop: what the first, which does nothing, takes in the middle.
fn costs(bursts: [Vec<u64>; 4], singles: [Vec<u64>; 4]) -> Vec<Cost> {
    let per_piece = |[nothing, ways @ ..]: [Vec<u64>; 4], count: u64| {
        let nothing = Distribution::of(nothing).map_or(0, |spread| spread.p50);
        ways.map(|ns| ns.iter().map(|ns| ns.saturating_sub(nothing) / count).collect::<Vec<_>>())
    };
    let (bursts, singles) = (per_piece(bursts, BATCH), per_piece(singles, 1));
    let both = bursts.into_iter().zip(singles).zip(WAYS);
    let cost = |((burst, single), way)| {
        let (single, burst) = (Distribution::of(single)?, Distribution::of(burst)?);
        Some(Cost { way, single, burst })
    };
    both.filter_map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_is_taken_off_and_a_burst_is_shared() {
        let of = |ns: [u64; 4]| ns.map(|ns| vec![ns; 3]);
        let costs = costs(of([100, 6500, 12900, 100]), of([50, 150, 350, 40]));
        let found: Vec<_> = costs.iter().map(|c| (c.way, c.burst.p50, c.single.p50)).collect();
        let expected = [(Way::Bare, 100, 100), (Way::Executor, 200, 300), (Way::Epoll, 0, 0)];
        assert_eq!(found, expected);
    }
}
