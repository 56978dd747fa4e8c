//! That each quantity is what it says: all ways are there, and each piece of work was done once,
//! which measuring itself checks.

use std::collections::BTreeSet;
use std::time::Duration;

use bench::results::Job;
use bench::{Way, growth, latency, machine, memory, throughput};
use bpf_wq_tests::{needs_bpf_wq, needs_config, version};
use serial_test::serial;

/// The ways of this kernel, but those.
fn ways(without: &[Way]) -> BTreeSet<Way> {
    let all =
        [Way::Floor, Way::Bare, Way::Executor, Way::Timer, Way::TaskWork, Way::Epoll, Way::Busy];
    all.into_iter()
        .filter(|way| !without.contains(way) && (*way != Way::TaskWork || version() >= (6, 18)))
        .collect()
}

#[test]
#[serial]
fn latency_is_of_all_ways_in_all_conditions() {
    if !needs_bpf_wq() {
        return;
    }
    let plan = latency::Plan { rounds: 2, samples: 3 };
    let measured = latency::measure(plan).expect("all is measured");
    for (is_loaded, is_elsewhere) in [(false, false), (false, true), (true, false), (true, true)] {
        let of = measured.iter().filter(|latency| {
            (latency.is_loaded, latency.is_elsewhere) == (is_loaded, is_elsewhere)
        });
        let found: Vec<Way> = of.map(|latency| latency.way).collect();
        let local = [Way::Floor, Way::Bare, Way::Executor, Way::Timer];
        let expected = ways(if is_elsewhere { &local } else { &[] });
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    for latency in &measured {
        assert_eq!(latency.ns.samples, 6, "{latency:?}");
        assert!(latency.ns.min > 0, "{latency:?}");
    }
    // What the kernel does is a part of it.
    let of = |way| measured.iter().find(|l| l.way == way).expect("it is there").ns;
    assert!(of(Way::Floor).min < of(Way::Bare).max);
}

#[test]
#[serial]
fn jobs_are_done_by_all_ways_in_all_sizes() {
    if !needs_bpf_wq() {
        return;
    }
    let plan = throughput::Plan { rounds: 1, time: Duration::from_millis(5) };
    let measured = throughput::measure(plan).expect("all is measured");
    let sizes = throughput::SIZES.map(|bytes| (bytes, Job::Counts));
    let mut kinds = sizes.to_vec();
    kinds.push((throughput::SIZE_OF_WRITES, Job::Writes));
    for (bytes, job) in kinds {
        let of = measured.iter().filter(|row| (row.bytes, row.job) == (bytes, job));
        let found: BTreeSet<Way> = of.map(|row| row.way).collect();
        assert_eq!(found, ways(&[Way::Floor]), "{bytes} bytes, {job:?}");
    }
    let cpus = machine::cpus().expect("they can be read").len();
    for row in &measured {
        assert!(row.cpus == cpus && row.jobs > 0 && row.per_second.p50 > 0, "{row:?}");
    }
}

#[test]
#[serial]
fn growth_is_of_what_is_pending_and_of_handlers_that_sleep() {
    if !needs_bpf_wq() || !needs_config("CONFIG_FUSE_FS", "handlers wait for a file system") {
        return;
    }
    let plan = growth::Plan {
        most_pending: 10,
        bursts: 1,
        workers: &[8],
        sleeps: &[0, 20],
        time: Duration::from_millis(500),
    };
    let measured = growth::measure(&plan).expect("all is measured");
    let pending: Vec<u64> = measured.deep.iter().map(|deep| deep.pending).collect();
    assert_eq!(pending, [1, 10]);
    assert!(measured.deep.iter().all(|deep| deep.submit_ns.p50 > 0 && deep.drained_per_second > 0));
    let [awake, asleep] = &measured.wide[..] else { panic!("{:?}", measured.wide) };
    assert_eq!((awake.sleep_ms, awake.slept_us), (0, 0));
    assert!(asleep.slept_us >= 20_000, "{asleep:?}");
    // In each second they sleep more than a second: several do at once.
    assert!(asleep.per_second * asleep.slept_us > 1_000_000, "{asleep:?}");
}

#[test]
#[serial]
fn memory_is_what_a_place_takes() {
    if !needs_bpf_wq() || !needs_config("CONFIG_MEMCG", "without it nobody is charged") {
        return;
    }
    // A record of the ring is a job of 16 bytes, and a header of 8.
    let bytes = |way| memory::of(way).expect("it is measured").bytes;
    assert!((24..=25).contains(&bytes(Way::Epoll)));
    // An element has a workqueue of 16 bytes and the job, and the kernel's part is behind it.
    assert!((33..=512).contains(&bytes(Way::Bare)));
}
