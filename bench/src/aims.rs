//! What the executor is to reach, as ratios of what was measured in one run.

use std::fmt;

use crate::Way;
use crate::results::{Cost, Job, Measured};
use crate::throughput::SIZE_OF_WRITES;

/// One aim, and what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Aim {
    /// What is divided by what.
    pub what: String,
    /// That.
    pub ratio: f64,
    /// What it is to be.
    pub bound: Bound,
}

/// What a ratio is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// This or less.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// This or more.
    AtLeast(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "at most {bound}"),
            Self::Below(bound) => write!(f, "below {bound}"),
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
        }
    }
}

impl Aim {
    /// Whether it is what it is to be.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.ratio <= bound,
            Bound::Below(bound) => self.ratio < bound,
            Bound::AtLeast(bound) => self.ratio >= bound,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} {}", self.ratio, if self.is_met() { "met" } else { "missed" })
    }
}

/// All aims of which something was measured.
pub fn of(measured: &Measured) -> Vec<Aim> {
    let mut aims = Vec::new();
    type Spread = fn(&Cost) -> u64;
    let alone: (&str, Spread) = ("alone", |cost| cost.single.p50);
    let of_burst: (&str, Spread) = ("of a burst of 64", |cost| cost.burst.p50);
    for (other, name, bound) in [
        (Way::Bare, "a bare bpf_wq_start", Bound::AtMost(1.5)),
        (Way::Epoll, "bpf_ringbuf_output", Bound::Below(1.0)),
    ] {
        for (how, spread) in [alone, of_burst] {
            let of = |way| measured.cost.iter().find(|cost| cost.way == way).map(spread);
            let what = format!("submit, {how}, of {name}");
            add(&mut aims, what, of(Way::Executor), of(other), bound);
        }
    }
    for is_loaded in [false, true] {
        let of = |way| latency_p50(measured, way, is_loaded);
        let what = format!("latency, {}, of the kernel's floor: p50", condition(is_loaded));
        add(&mut aims, what, of(Way::Executor), of(Way::Floor), Bound::AtMost(1.2));
    }
    for job in [Job::Counts, Job::Writes] {
        for cpus in cpu_counts(measured) {
            let of = |way| rate(measured, way, cpus, SIZE_OF_WRITES, job);
            let plural = if cpus == 1 { "" } else { "s" };
            let what = format!("{} a second, {cpus} CPU{plural}, of a ring buffer's", name_of(job));
            add(&mut aims, what, of(Way::Executor), of(Way::Epoll), Bound::AtLeast(2.0));
        }
    }
    aims
}

fn add(aims: &mut Vec<Aim>, what: String, of: Option<u64>, to: Option<u64>, bound: Bound) {
    if let (Some(of), Some(to)) = (of, to) {
        let ratio = of as f64 / to.max(1) as f64;
        aims.push(Aim { what, ratio, bound });
    }
}

/// A word for what else the CPUs do.
pub(crate) fn condition(is_loaded: bool) -> &'static str {
    if is_loaded { "under load" } else { "idle" }
}

/// A word for a job.
pub(crate) fn name_of(job: Job) -> &'static str {
    match job {
        Job::Counts => "jobs that count",
        Job::Writes => "jobs that write to a map",
    }
}

/// The median, on the CPU of the submission.
pub(crate) fn latency_p50(measured: &Measured, way: Way, is_loaded: bool) -> Option<u64> {
    let mut of = measured.latency.iter();
    let found = of.find(|l| (l.way, l.is_loaded, l.is_elsewhere) == (way, is_loaded, false));
    found.map(|latency| latency.ns.p50)
}

/// Jobs a second: the median of the rounds.
pub(crate) fn rate(
    measured: &Measured,
    way: Way,
    cpus: usize,
    bytes: u32,
    job: Job,
) -> Option<u64> {
    let mut of = measured.throughput.iter();
    let found = of.find(|t| (t.way, t.cpus, t.bytes, t.job) == (way, cpus, bytes, job));
    found.map(|throughput| throughput.per_second.p50)
}

/// Of the guests in which jobs a second were measured.
pub(crate) fn cpu_counts(measured: &Measured) -> Vec<usize> {
    let mut counts: Vec<usize> = measured.throughput.iter().map(|t| t.cpus).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_or_missed() {
        let met = |ratio, bound| Aim { what: String::new(), ratio, bound }.is_met();
        assert!(met(1.5, Bound::AtMost(1.5)) && !met(1.51, Bound::AtMost(1.5)));
        assert!(met(0.99, Bound::Below(1.0)) && !met(1.0, Bound::Below(1.0)));
        assert!(met(2.0, Bound::AtLeast(2.0)) && !met(1.99, Bound::AtLeast(2.0)));
        let missed = Aim { what: String::new(), ratio: 0.426, bound: Bound::AtLeast(2.0) };
        assert_eq!(missed.to_string(), "0.43 missed");
    }
}
