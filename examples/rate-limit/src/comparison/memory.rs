//! How many buckets there are, by the memory that the kernel counts: also where nobody else counts.

use anyhow::{Context as _, Result};
use libbpf_rs::btf::types::Struct;
use libbpf_rs::btf::{Btf, HasSize as _};
use libbpf_rs::{MapCore as _, MapFlags};

use crate::maps::{Maps, bytes};

/// A map's memory.
pub struct Memory<'a> {
    maps: &'a Maps,
    empty: u64,
    entry: u64,
    timer: u64,
}

impl<'a> Memory<'a> {
    /// Of a map that is empty, and to which no packet comes yet.
    pub fn of(maps: &'a Maps) -> Result<Self> {
        let buckets = &maps.buckets;
        let empty = bytes(buckets)?;
        let source = vec![0; buckets.key_size() as usize];
        let value = vec![0; buckets.value_size() as usize];
        buckets.update(&source, &value, MapFlags::ANY)?;
        let entry = bytes(buckets)?.checked_sub(empty).filter(|bytes| *bytes > 0);
        buckets.delete(&source)?;
        Ok(Self { maps, empty, entry: entry.context("the kernel counts no memory")?, timer: 0 })
    }

    /// The kernel counts a timer's memory for no map: as much as its type is added to each entry.
    pub fn with_timers(self) -> Result<Self> {
        let kernel = Btf::from_vmlinux()?;
        let timer = kernel.type_by_name::<Struct<'_>>("bpf_hrtimer");
        Ok(Self { timer: timer.context("no type of the kernel's timers")?.size() as u64, ..self })
    }

    /// Of each entry, with its timer.
    pub fn entry_bytes(&self) -> u64 {
        self.entry + self.timer
    }

    /// Entries, and their bytes with those of the empty map.
    pub fn now(&self) -> Result<(u64, u64)> {
        let bytes = bytes(&self.maps.buckets)?;
        let entries = (bytes - self.empty) / self.entry;
        Ok((entries, bytes + entries * self.timer))
    }

    /// Entries.
    pub fn entries(&self) -> Result<u64> {
        Ok(self.now()?.0)
    }
}
