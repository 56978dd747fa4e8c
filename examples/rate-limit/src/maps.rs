//! What a limiter's maps say, and what is written into them.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result, anyhow};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};
use serde::Serialize;

use crate::limiter::Limits;

/// The maps of `limit.h` and `tracked.h`.
#[derive(Debug)]
pub struct Maps {
    /// A bucket of each source that is tracked.
    pub buckets: MapHandle,
    counts: MapHandle,
    limits: MapHandle,
    tracked: MapHandle,
}

/// What the limiter has done since it was loaded, by whichever process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Numbers {
    /// Packets that went on.
    pub passed: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Of both, those of a source for which there was no place.
    pub untracked: u64,
    /// Sources that were tracked.
    pub created: u64,
    /// Of these, those that were forgotten, if it was the kernel that did so.
    pub removed: u64,
    /// How often that was looked for.
    pub sweeps: u64,
    /// Memory of the sources that are tracked, in bytes, as the kernel counts it.
    pub bytes: u64,
}

impl Numbers {
    /// Sources that are tracked.
    pub fn sources(&self) -> u64 {
        self.created.saturating_sub(self.removed)
    }
}

impl Maps {
    /// Those that `map` finds by their names.
    pub(crate) fn by<E>(map: impl Fn(&str) -> Result<MapHandle, E>) -> Result<Self, E> {
        Ok(Self {
            buckets: map("buckets")?,
            counts: map("counts")?,
            limits: map(".data.limits")?,
            tracked: map(".data.tracked")?,
        })
    }

    /// Those of an object that is loaded.
    pub(crate) fn of(object: &Object) -> Result<Self> {
        Self::by(|name| {
            let map = object.maps().find(|map| map.name() == name);
            Ok(MapHandle::try_from(&map.with_context(|| format!("there is no map {name}"))?)?)
        })
    }

    /// Changes what sources may send, from the next packet on.
    pub fn set(&self, limits: &Limits) {
        set(&self.limits, limits);
    }

    /// What has been done.
    pub fn numbers(&self) -> Result<Numbers> {
        let [passed, dropped, untracked] = self.counts()?;
        let tracked =
            self.tracked.lookup(&ZERO, MapFlags::ANY)?.context("an element of tracked")?;
        let [created, removed, sweeps] = words(&tracked)?;
        let bytes = bytes(&self.buckets)?;
        Ok(Numbers { passed, dropped, untracked, created, removed, sweeps, bytes })
    }

    /// Packets that were passed or dropped.
    pub fn seen(&self) -> Result<u64> {
        let [passed, dropped, _] = self.counts()?;
        Ok(passed + dropped)
    }

    /// `struct counts`, of all CPUs.
    fn counts(&self) -> Result<[u64; 3]> {
        let of_cpus = self.counts.lookup_percpu(&ZERO, MapFlags::ANY)?;
        let mut sum = [0; 3];
        for of_cpu in of_cpus.context("an element of counts")? {
            let counts: [u64; 3] = words(&of_cpu)?;
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Ok(sum)
    }
}

/// The only key of a map of one element.
const ZERO: [u8; 4] = [0; 4];

/// Writes limits into the map that has them.
pub(crate) fn set(map: &impl MapCore, limits: &Limits) {
    map.update(&ZERO, &limits.to_bytes(), MapFlags::ANY).expect("an element of .data");
}

/// A map's memory. Exact since 6.4 (90a5527d7686).
pub(crate) fn bytes(map: &MapHandle) -> Result<u64> {
    fdinfo(map, "memlock")
}

/// The words of a value.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> Result<[u64; N]> {
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8"))).collect();
    words.try_into().map_err(|_| anyhow!("a value of {} bytes is not {N} words", bytes.len()))
}

/// A number that the kernel tells of a descriptor.
pub(crate) fn fdinfo(fd: impl AsFd, name: &str) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| path.clone())?;
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let number = lines.find(|(key, _)| *key == name).map(|(_, number)| number.trim().parse());
    number
        .with_context(|| format!("{path} has no {name}"))?
        .with_context(|| format!("{name} of {path}"))
}
