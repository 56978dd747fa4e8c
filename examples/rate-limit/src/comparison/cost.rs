//! What the XDP program costs a packet.

use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::thread;

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use libbpf_rs::skel::{Skel as _, SkelBuilder as _};
use libbpf_rs::{ProgramInput, ProgramMut};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use super::memory::Memory;
use super::{Cleaning, until};
use crate::limiter::{Limits, OBJECT};
use crate::maps::{Maps, set};
use crate::others::Other;
use crate::skel::RateLimitSkelBuilder;
use crate::sweeper::sweep;

const TURNS: usize = 31;

/// New sources a turn, of a packet each.
const NEW: u32 = 64;

/// Packets of the known source a turn.
const KNOWN: u32 = 1000;

/// What a packet costs, without what running the program by bpf(2) does: in ns of the machine's
/// clock, which are instructions where that counts them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Who cleans up.
    pub cleaning: Cleaning,
    /// Of a source that has a bucket: the median of the turns' means.
    pub known: f64,
    /// Of a new source: the median.
    pub new: f64,
    /// Of a new source: the mean, which has its part of what is done once for many.
    pub new_mean: f64,
    /// Of a new source: what 99 of 100 do not exceed.
    pub new_p99: f64,
}

/// Measures all, in turn.
pub fn measure() -> Result<Vec<Cost>> {
    // What a packet leaves to be done later is done on the same CPU, after the measurement.
    thread::scope(|scope| {
        scope.spawn(|| on_one_cpu().and_then(|()| all())).join().expect("no panic")
    })
}

fn on_one_cpu() -> Result<()> {
    let mine = sched_getaffinity(Pid::from_raw(0))?;
    let first = (0..CpuSet::count()).find(|cpu| mine.is_set(*cpu) == Ok(true));
    let mut one = CpuSet::new();
    one.set(first.context("no CPU")?)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("cannot stay on a CPU")
}

fn all() -> Result<Vec<Cost>> {
    let limits = Limits {
        // 20 ms until a new source's bucket is full: after a turn's last packet.
        rate: NonZeroU32::new(50).context("not 0")?,
        // Whoever is known is never over the rate.
        burst: NonZeroU32::MAX,
        sweep_ms: NonZeroU32::new(20).context("not 0")?,
        ..Limits::DEFAULT
    };
    let mut storage = MaybeUninit::uninit();
    let open = RateLimitSkelBuilder::default().open(&mut storage)?;
    let armed = bpf_wq::load(open, OBJECT)?.arm()?;
    set(&armed.skel().maps.data_limits, &limits);
    let workqueue_maps = Maps::of(armed.skel().object())?;
    // The same program: how far they differ is how far the numbers can be trusted.
    let [user_space, nobody] = [Other::uncleaned(&limits)?, Other::uncleaned(&limits)?];
    let timer = Other::by_timer(&limits)?;
    let programs = [user_space.program(), timer.program(), nobody.program()];
    let mut ways = [
        Way::new(Cleaning::Workqueue, &armed.skel().progs.rate_limit, &workqueue_maps)?,
        Way::new(Cleaning::UserSpace, &programs[0], user_space.maps())?,
        Way::new(Cleaning::Timer, &programs[1], timer.maps())?,
        Way::new(Cleaning::Nobody, &programs[2], nobody.maps())?,
    ];
    for step in [Way::new_sources, Way::known_source] {
        for turn in 0..TURNS {
            for place in 0..ways.len() {
                // None comes always behind the same.
                let at = (turn + place) % ways.len();
                step(&mut ways[at])?;
            }
        }
    }
    Ok(ways.into_iter().map(Way::cost).collect())
}

/// A limiter, and what was measured of it.
struct Way<'a> {
    cleaning: Cleaning,
    program: &'a ProgramMut<'a>,
    maps: &'a Maps,
    memory: Memory<'a>,
    next: u32,
    known: Vec<f64>,
    new: Vec<f64>,
}

impl<'a> Way<'a> {
    fn new(cleaning: Cleaning, program: &'a ProgramMut<'a>, maps: &'a Maps) -> Result<Self> {
        let (known, new, memory) = (Vec::new(), Vec::new(), Memory::of(maps)?);
        Ok(Self { cleaning, program, maps, memory, next: 0, known, new })
    }

    fn run(&self, packet: &[u8], repeat: u32) -> Result<f64> {
        let input = ProgramInput { data_in: Some(packet), repeat, ..ProgramInput::default() };
        Ok(self.program.test_run(input)?.duration.as_nanos() as f64)
    }

    fn new_sources(&mut self) -> Result<()> {
        for _ in 0..NEW {
            let nothing = self.run(&NOT_IP, 1)?;
            self.next += 1;
            let first_packet = self.run(&packet(0x0a00_0000 | self.next)?, 1)?;
            self.new.push(first_packet - nothing);
        }
        until("the map is empty", || {
            if matches!(self.cleaning, Cleaning::Nobody | Cleaning::UserSpace) {
                sweep(&self.maps.buckets)?;
            }
            Ok(self.memory.entries()? == 0)
        })
    }

    fn known_source(&mut self) -> Result<()> {
        let packet = packet(0x0a80_0001)?;
        // It has a bucket from here on, which is not full again before this ends.
        self.run(&packet, KNOWN)?;
        let nothing = self.run(&NOT_IP, KNOWN)?;
        self.known.push(self.run(&packet, KNOWN)? - nothing);
        Ok(())
    }

    fn cost(self) -> Cost {
        Cost {
            cleaning: self.cleaning,
            known: quantile(self.known, 0.5),
            new: quantile(self.new.clone(), 0.5),
            new_mean: self.new.iter().sum::<f64>() / self.new.len() as f64,
            new_p99: quantile(self.new, 0.99),
        }
    }
}

/// What passes at once: the program's least.
const NOT_IP: [u8; 60] = [0; 60];

fn packet(source: u32) -> Result<Vec<u8>> {
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let packet = packet.ipv4(Ipv4Addr::from(source).octets(), [10, 255, 255, 254], 64).udp(1, 9);
    let mut bytes = Vec::new();
    packet.write(&mut bytes, &[0])?;
    Ok(bytes)
}

fn quantile(mut numbers: Vec<f64>, part: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[((numbers.len() - 1) as f64 * part).round() as usize]
}
