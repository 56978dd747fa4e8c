//! The limiter of one interface.

use std::fs;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bpf_wq::{Drained, Pinned};
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore as _, Xdp, XdpFlags};
use nix::net::if_::if_nametoindex;

use crate::maps::{Maps, Numbers, fdinfo, set};
use crate::skel::RateLimitSkelBuilder;

/// What the skeleton was made from.
pub(crate) static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rate_limit.bpf.o"));

/// For the last sweep, and for another process that starts or stops the same limiter.
const DEADLINE: Duration = Duration::from_secs(10);

/// What each source may send, and what memory that may take.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Limits {
    /// Packets a second of one source address
    #[arg(long, value_name = "N", default_value_t = Self::DEFAULT.rate)]
    pub rate: NonZeroU32,
    /// Packets of one source at once, after it was silent
    #[arg(long, value_name = "N", default_value_t = Self::DEFAULT.burst)]
    pub burst: NonZeroU32,
    /// Sources that are known at a time; all others share the rate of one
    #[arg(long, value_name = "N", default_value_t = Self::DEFAULT.sources)]
    pub sources: NonZeroU32,
    /// How often sources that have their whole burst again are forgotten
    #[arg(long, value_name = "MS", default_value_t = Self::DEFAULT.sweep_ms)]
    pub sweep_ms: NonZeroU32,
}

impl Limits {
    /// What the command does when nothing else is said.
    pub const DEFAULT: Self = Self {
        rate: NonZeroU32::new(1000).unwrap(),
        burst: NonZeroU32::new(100).unwrap(),
        sources: NonZeroU32::new(65536).unwrap(),
        sweep_ms: NonZeroU32::new(100).unwrap(),
    };

    /// `struct limits` of `limit.h`.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let token_ns = (1_000_000_000 / u64::from(self.rate.get())).max(1);
        let spare_ns = token_ns * u64::from(self.burst.get() - 1);
        let sweep_ns = u64::from(self.sweep_ms.get()) * 1_000_000;
        [token_ns, spare_ns, sweep_ns].iter().flat_map(|ns| ns.to_ne_bytes()).collect()
    }
}

/// A limiter at work. It stays so when this is dropped, and when the process ends.
#[derive(Debug)]
pub struct Limiter {
    interface: String,
    pinned: Pinned,
    is_new: bool,
    maps: Maps,
}

impl Limiter {
    /// Attaches a limiter to an interface, or goes on with the one that is there. Its pins are in
    /// `rate-limit-INTERFACE` in `pins`, a directory of a bpffs.
    pub fn start(interface: &str, limits: &Limits, pins: &Path) -> Result<Self> {
        let index = index(interface)?;
        // A bpffs takes no name with a dot.
        let directory = pins.join(format!("rate-limit-{}", interface.replace('.', "%2e")));
        let found = Self::start_in(&directory, interface, index, limits)?;
        if found.is_new {
            return Ok(found);
        }
        if found.is_attached()? && found.maps.buckets.max_entries() == limits.sources.get() {
            found.maps.set(limits);
            return Ok(found);
        }
        // Of an interface that had this name, or of another size.
        let _last_sweep = found.stop()?;
        Self::start_in(&directory, interface, index, limits)
    }

    fn start_in(directory: &Path, interface: &str, index: i32, limits: &Limits) -> Result<Self> {
        let mut storage = MaybeUninit::uninit();
        let mut open = RateLimitSkelBuilder::default().open(&mut storage)?;
        open.maps.buckets.set_max_entries(limits.sources.get())?;
        let taken_over = bpf_wq::take_over(directory, DEADLINE, open, OBJECT, |loaded| {
            let mut armed = loaded.arm()?;
            set(&armed.skel().maps.data_limits, limits);
            armed.attach_with("rate_limit", |skel| skel.progs.rate_limit.attach_xdp(index))?;
            Ok(armed)
        });
        let taken_over = taken_over.with_context(|| {
            // It stays if there is something in it.
            let _removed = fs::remove_dir(directory);
            format!("cannot limit {interface}")
        })?;
        let pinned = taken_over.pinned;
        Ok(Self {
            interface: interface.to_owned(),
            is_new: taken_over.is_new,
            maps: Maps::by(|name| pinned.map(name))?,
            pinned,
        })
    }

    /// Whether it was attached by this process; else it was at work already.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Its maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Whether the interface that has this name is the one that it limits.
    pub fn is_attached(&self) -> Result<bool> {
        let Ok(index) = index(&self.interface) else { return Ok(false) };
        let program = self.pinned.program("rate_limit")?;
        let id = fdinfo(&program, "prog_id")?;
        let attached = Xdp::new(program.as_fd()).query_id(index, XdpFlags::NONE);
        Ok(attached.is_ok_and(|attached| u64::from(attached) == id))
    }

    /// What it has done.
    pub fn numbers(&self) -> Result<Numbers> {
        self.maps.numbers()
    }

    /// Detaches it, waits for its last sweep, and removes it.
    pub fn stop(self) -> Result<Drained> {
        let directory =
            self.pinned.path().parent().context("a pin without a directory")?.to_owned();
        let drained = self.pinned.stop(DEADLINE)?;
        fs::remove_dir(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
        Ok(drained)
    }
}

/// The number of an interface.
pub(crate) fn index(interface: &str) -> Result<i32> {
    let index = if_nametoindex(interface).with_context(|| {
        format!("there is no network interface {interface}: `ip link` lists those that are there")
    })?;
    Ok(i32::try_from(index)?)
}
