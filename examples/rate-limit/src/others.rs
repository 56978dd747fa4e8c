//! The same limiter, with buckets that no workqueue removes: to compare.

use anyhow::{Context as _, Result};
use libbpf_rs::{Link, Object, ObjectBuilder, ProgramMut};

use crate::limiter::{Limits, index};
use crate::maps::Maps;

static UNCLEANED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/uncleaned.bpf.o"));
static BY_TIMER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/by_timer.bpf.o"));

/// A limiter that is unloaded when this is dropped.
#[derive(Debug)]
pub struct Other {
    link: Option<Link>,
    object: Object,
    maps: Maps,
}

impl Other {
    /// One whose buckets stay, unless user space removes them.
    pub fn uncleaned(limits: &Limits) -> Result<Self> {
        Self::load(UNCLEANED, limits)
    }

    /// One whose buckets have a timer each.
    pub fn by_timer(limits: &Limits) -> Result<Self> {
        Self::load(BY_TIMER, limits)
    }

    fn load(object: &[u8], limits: &Limits) -> Result<Self> {
        let mut open = ObjectBuilder::default().open_memory(object)?;
        let mut buckets = open.maps_mut().find(|map| map.name() == "buckets");
        buckets.as_mut().context("a map buckets")?.set_max_entries(limits.sources.get())?;
        let object = open.load()?;
        let maps = Maps::of(&object)?;
        maps.set(limits);
        Ok(Self { link: None, object, maps })
    }

    /// Its maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Its XDP program.
    pub fn program(&self) -> ProgramMut<'_> {
        self.object.progs_mut().next().expect("there is one")
    }

    /// Attaches it to an interface.
    pub fn attach(&mut self, interface: &str) -> Result<()> {
        let link = self.program().attach_xdp(index(interface)?);
        self.link = Some(link.with_context(|| format!("cannot limit {interface}"))?);
        Ok(())
    }
}
