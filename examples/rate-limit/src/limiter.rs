//! The limiter of one interface.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::os::fd::AsFd as _;
use std::os::linux::fs::MetadataExt as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bpf_wq::{Drained, Pinned};
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore as _, Xdp, XdpFlags};
use nix::net::if_::if_nametoindex;

use crate::maps::{Maps, Numbers, fdinfo, set};
use crate::skel::{OpenRateLimitSkel, RateLimitSkelBuilder};

/// What the skeleton was made from.
pub(crate) static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rate_limit.bpf.o"));

/// For the last sweep, and for another process that starts or stops the same limiter.
const DEADLINE: Duration = Duration::from_secs(10);

const MOST_RATE: u32 = 1_000_000_000;
const MOST_SOURCES: u32 = 1 << 24;

fn at_most(text: &str, most: u32, why: &str) -> Result<NonZeroU32> {
    let number: NonZeroU32 = text.parse()?;
    if number.get() > most {
        bail!("{most} is the most: {why}");
    }
    Ok(number)
}

/// What each source may send, and what memory that may take.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Limits {
    /// Packets a second of one source address
    #[arg(long, value_name = "N", default_value_t = Self::DEFAULT.rate)]
    #[arg(value_parser = |text: &str| at_most(text, MOST_RATE, "a token takes a nanosecond or more"))]
    pub rate: NonZeroU32,
    /// Packets of one source at once, after it was silent
    #[arg(long, value_name = "N", default_value_t = Self::DEFAULT.burst)]
    pub burst: NonZeroU32,
    /// Sources that are known at a time; all others share the rate of one
    #[arg(long, value_name = "N", default_value_t = Self::DEFAULT.sources)]
    #[arg(value_parser = |text: &str| at_most(text, MOST_SOURCES, "these take more than a gigabyte"))]
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
        let token_ns = u64::from(MOST_RATE / self.rate);
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
    /// Attaches a limiter to an interface of this network namespace, or goes on with the one that is
    /// there. Its pins are in `rate-limit-NAMESPACE-INTERFACE` in `pins`, a directory of a bpffs.
    pub fn start(interface: &str, limits: &Limits, pins: &Path) -> Result<Self> {
        let index = index(interface)?;
        let directory = pins.join(directory_name(interface)?);
        let mut storage = MaybeUninit::uninit();
        let taken_over = open(&mut storage, limits).and_then(|open| {
            let taken_over = bpf_wq::take_over(&directory, DEADLINE, open, OBJECT, |loaded| {
                let mut armed = loaded.arm()?;
                set(&armed.skel().maps.data_limits, limits);
                armed.attach_with("rate_limit", |skel| skel.progs.rate_limit.attach_xdp(index))?;
                Ok(armed)
            });
            Ok(taken_over?)
        });
        let taken_over = taken_over.with_context(|| {
            // It stays if there is something in it.
            let _removed = fs::remove_dir(&directory);
            format!("cannot limit {interface}")
        })?;
        let found = Self::of(interface, taken_over.pinned, taken_over.is_new)?;
        if found.is_new {
            return Ok(found);
        }
        if found.is_attached()? && found.maps.buckets.max_entries() == limits.sources.get() {
            found.maps.set(limits);
            return Ok(found);
        }
        // Of an interface that had this name, or of another size.
        found.replace(index, limits, &directory)
    }

    /// What cannot be loaded leaves this one at work.
    fn replace(self, index: i32, limits: &Limits, directory: &Path) -> Result<Self> {
        let interface = self.interface.clone();
        let mut storage = MaybeUninit::uninit();
        let armed = open(&mut storage, limits)
            .and_then(|open| Ok(bpf_wq::load(open, OBJECT)?.arm()?))
            .with_context(|| {
                format!("cannot replace the limiter of {interface}, which stays as it is")
            });
        let mut armed = armed?;
        set(&armed.skel().maps.data_limits, limits);
        let _last_sweep = self.stop()?;
        let pinned = armed
            .attach_with("rate_limit", |skel| skel.progs.rate_limit.attach_xdp(index))
            .and_then(|()| armed.pin(directory));
        Self::of(&interface, pinned.with_context(|| format!("cannot limit {interface}"))?, true)
    }

    fn of(interface: &str, pinned: Pinned, is_new: bool) -> Result<Self> {
        let maps = Maps::by(|name| pinned.map(name))?;
        Ok(Self { interface: interface.to_owned(), pinned, is_new, maps })
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

fn open<'obj>(
    storage: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
    limits: &Limits,
) -> Result<OpenRateLimitSkel<'obj>> {
    let mut open = RateLimitSkelBuilder::default().open(storage)?;
    open.maps.buckets.set_max_entries(limits.sources.get())?;
    Ok(open)
}

/// What a limiter's directory is called: interfaces of other network namespaces have the same names.
pub fn directory_name(interface: &str) -> Result<String> {
    let namespace = fs::metadata("/proc/thread-self/ns/net").context("no network namespaces")?;
    // A bpffs takes no name with a dot.
    Ok(format!("rate-limit-{}-{}", namespace.st_ino(), interface.replace('.', "%2e")))
}

/// Keeps other processes from the same until it is dropped, or this process has ended: two would
/// change each other's limits, and the first to end would stop both.
pub fn claim(interface: &str) -> Result<UnixListener> {
    index(interface)?;
    // A name without a file is one of this network namespace, as the interface's is.
    let address = SocketAddr::from_abstract_name(format!("rate-limit-{interface}"))?;
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!("another process limits {interface}: end it first"),
        _ => anyhow!("cannot claim {interface}: {error}"),
    })
}

/// The number of an interface.
pub(crate) fn index(interface: &str) -> Result<i32> {
    let index = if_nametoindex(interface).with_context(|| {
        format!("there is no network interface {interface}: `ip link` lists those that are there")
    })?;
    Ok(i32::try_from(index)?)
}
