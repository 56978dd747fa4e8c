//! How many buckets there are, by the memory that the kernel counts: also where nobody else counts.

use anyhow::{Context as _, Result};
use libbpf_rs::btf::types::Struct;
use libbpf_rs::btf::{Btf, HasSize as _};
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};

use crate::maps::{Maps, bytes};

/// A map's memory.
pub struct Memory<'a> {
    maps: &'a Maps,
    empty: u64,
    entry: u64,
    timer: u64,
}

impl<'a> Memory<'a> {
    /// How much an entry has is seen in a map of the same sizes: of this one somebody may remove it.
    pub fn of(maps: &'a Maps) -> Result<Self> {
        let info = maps.buckets.info()?.info;
        let flags = bpf_map_create_opts {
            sz: size_of::<bpf_map_create_opts>() as _,
            map_flags: info.map_flags,
            ..Default::default()
        };
        let (key, value, entries) = (info.key_size, info.value_size, info.max_entries);
        let like = MapHandle::create(MapType::Hash, None::<&str>, key, value, entries, &flags)?;
        let empty = bytes(&like)?;
        like.update(&vec![0; key as usize], &vec![0; value as usize], MapFlags::ANY)?;
        let entry = bytes(&like)?.checked_sub(empty).filter(|bytes| *bytes > 0);
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
