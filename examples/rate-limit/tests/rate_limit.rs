//! The limiter between two network namespaces, with real packets.

use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bpf_wq_tests::{Running, eventually, needs_bpf_wq, needs_config};
use libbpf_rs::MapCore as _;
use nix::sys::signal::Signal;
use rate_limit::flood::{Flood, KNOWN};
use rate_limit::limiter::{Limiter, Limits, directory_name};
use rate_limit::maps::{Maps, Numbers};
use rate_limit::network::{LIMITED, Network, received};
use rate_limit::others::Other;
use rate_limit::sweeper::sweep;
use serial_test::serial;

const PINS: &str = "/sys/fs/bpf";

const PORT: u16 = 7;

fn limits(rate: u32, burst: u32, sources: u32, sweep_ms: u32) -> Limits {
    let number = |number| NonZeroU32::new(number).expect("not 0");
    Limits {
        rate: number(rate),
        burst: number(burst),
        sources: number(sources),
        sweep_ms: number(sweep_ms),
    }
}

fn can_run() -> bool {
    needs_bpf_wq() && needs_config("CONFIG_VETH", "the packets go through a veth")
}

fn network() -> Network {
    Network::join().expect("a network")
}

fn start(limits: &Limits) -> Limiter {
    Limiter::start(LIMITED, limits, Path::new(PINS)).expect("it starts")
}

fn numbers(limiter: &Limiter) -> Numbers {
    limiter.numbers().expect("the maps can be read")
}

/// Of the limiter's pins.
fn directory() -> PathBuf {
    Path::new(PINS).join(directory_name(LIMITED).expect("a namespace"))
}

#[track_caller]
fn stop(limiter: Limiter) {
    let drained = limiter.stop().expect("it stops");
    assert!(drained.is_complete(), "{drained}");
    assert_nothing_is_left();
}

#[track_caller]
fn assert_nothing_is_left() {
    assert!(!directory().exists(), "{} is left", directory().display());
    let loaded = || libbpf_rs::query::ProgInfoIter::default().any(|p| p.name == "rate_limit");
    eventually("the program is gone", || (!loaded()).then_some(()));
}

fn seen(maps: &Maps, packets: u64) -> Numbers {
    eventually("all packets are seen", || {
        let now = maps.numbers().expect("the maps can be read");
        (now.passed + now.dropped >= packets).then_some(now)
    })
}

#[test]
#[serial]
fn what_is_over_the_rate_is_dropped_of_each_source() {
    if !can_run() {
        return;
    }
    let network = network();
    // A bucket that is empty is not full again, and forgotten, before this ends.
    let limiter = start(&limits(1, 30, 64, 10));
    let mut passed = 0;
    for (done, source) in ["10.1.1.1", "10.1.1.2", "fd00::7", "fd00::8"].into_iter().enumerate() {
        let source: IpAddr = source.parse().expect("an address");
        let receiver = network.receiver(source, PORT).expect("a receiver");
        let began = Instant::now();
        for _ in 0..50 {
            network.send(source, PORT).expect("it is sent");
        }
        let now = seen(limiter.maps(), 50 * (done as u64 + 1));
        // A token a second, and one of a bucket that is forgotten while it is taken.
        let most = 30 + began.elapsed().as_secs() + 1;
        // What is seen is on its way.
        let mut came = 0;
        eventually("what has passed comes", || {
            came += received(&receiver).expect("it can be read");
            (came >= now.passed - passed).then_some(())
        });
        passed = now.passed;
        assert!((30..=most).contains(&came), "{came} of {source}: {now:?}");
        assert_eq!(now.sources(), done as u64 + 1, "{now:?}");
    }
    let now = numbers(&limiter);
    assert_eq!(now.untracked, 0, "{now:?}");
    stop(limiter);
}

/// Sends some, and waits until they are seen: more than 256 at a time do not fit into a veth.
fn go_on(flood: &mut Flood<'_>, maps: &Maps) -> Numbers {
    flood.go_on().expect("it is sent");
    seen(maps, flood.sent())
}

/// Half of what it may send, and none of it is lost.
const KNOWN_RATE: u32 = 100;
const KNOWN_PERIOD: Duration = Duration::from_millis(20);

/// What it has sent before, which takes five seconds to be made up for.
const KNOWN_BEFORE: u64 = 500;

/// So many spoofed sources, of which a map of 1024 holds few.
const SPOOFED: u32 = 5_000;

#[test]
#[serial]
fn a_flood_of_spoofed_sources_takes_no_more_memory_and_nothing_from_a_known_one() {
    if !can_run() {
        return;
    }
    let network = network();
    // So few tokens that it would lose packets if it shared them with the flood.
    let limiter = start(&limits(KNOWN_RATE, 600, 1024, 10));
    let before = numbers(&limiter);
    let mut flood = Flood::new(&network, KNOWN_PERIOD).expect("sockets");
    // It is known before it begins, and has sent so much that it is not forgotten for five seconds,
    // also if nothing runs meanwhile: a fast machine fills the map.
    for sent in 1..=KNOWN_BEFORE {
        network.send(KNOWN, PORT).expect("it is sent");
        if sent % 100 == 0 {
            seen(limiter.maps(), sent);
        }
    }
    flood.known.go_on().expect("it is sent");
    let mut most = 0;
    let mut go_on = || {
        flood.go_on().expect("it is sent");
        let now = seen(limiter.maps(), KNOWN_BEFORE + flood.sent());
        most = now.sources().max(most);
        (flood.spoofed, now)
    };
    while go_on().0 < SPOOFED {}
    // The sweeps may be late.
    let after = eventually("places are used again", || {
        let (_, now) = go_on();
        (now.removed > 1024).then_some(now)
    });
    eventually("all of the known source comes through", || {
        flood.known.receive().expect("it can be read");
        (flood.known.received == flood.known.sent).then_some(())
    });
    // One that is forgotten is counted when its place may have been taken again.
    assert!(most <= 1024 + 1, "{most} sources at a time: {after:?}");
    let end = eventually("the map is empty", || {
        let now = numbers(&limiter);
        (now.sources() == 0).then_some(now)
    });
    assert_eq!(end.bytes, before.bytes, "{end:?}");
    stop(limiter);
}

/// The control: without cleaning up, whoever comes late is one of all those for whom there is no
/// place.
#[test]
#[serial]
fn without_cleaning_up_a_source_that_comes_late_is_lost() {
    if !can_run() {
        return;
    }
    let network = network();
    // A burst that takes half a minute to be there again, for all that have no place.
    let limiter = start(&limits(1, 30, 1024, u32::MAX));
    let mut flood = Flood::new(&network, Duration::MAX).expect("sockets");
    while flood.spoofed < SPOOFED {
        go_on(&mut flood, limiter.maps());
    }
    let now = numbers(&limiter);
    assert_eq!((now.sources(), now.removed), (1024, 0), "{now:?}");
    // Not the known one, which the flood has sent packets of all the time.
    let late: IpAddr = "10.128.0.2".parse().expect("an address");
    let receiver = network.receiver(late, PORT).expect("a receiver");
    for _ in 0..30 {
        network.send(late, PORT).expect("it is sent");
    }
    let now = seen(limiter.maps(), flood.sent() + 30);
    let came = received(&receiver).expect("it can be read");
    assert!(came < 30, "{came} of 30 came through: {now:?}");
    // Its sweep is due in 49 days.
    drop(limiter);
    let cleared = bpf_wq::clear_pins(directory(), None, Duration::ZERO).expect("it is removed");
    assert_eq!(cleared.len(), 1, "{cleared:?}");
    fs::remove_dir(directory()).expect("it is empty");
    assert_nothing_is_left();
}

/// The command, in this thread's network.
fn run(arguments: &[&str]) -> Running {
    Running::start(env!("CARGO_BIN_EXE_rate-limit"), &[&["run"], arguments].concat())
}

#[test]
#[serial]
fn killed_in_a_flood_it_goes_on_to_clean_up_and_the_next_one_takes_over() {
    if !can_run() {
        return;
    }
    let network = network();
    let arguments = [LIMITED, "--sources", "1024", "--sweep-ms", "10"];
    let mut first = run(&arguments);
    assert!(first.says().starts_with("limits limited"), "it is new");
    let mut flood = Flood::new(&network, Duration::MAX).expect("sockets");
    while flood.spoofed < SPOOFED {
        flood.go_on().expect("it is sent");
        if flood.spoofed == SPOOFED / 2 / 64 * 64 {
            first.signal(Signal::SIGKILL);
            assert_eq!(first.ends(), None);
        }
    }
    // Nobody but the kernel had the maps meanwhile.
    let limiter = start(&limits(1000, 100, 1024, 10));
    assert!(!limiter.is_new());
    // The sweeps may be late.
    eventually("places are used again", || {
        flood.go_on().expect("it is sent");
        (numbers(&limiter).removed > 1024).then_some(())
    });
    assert_gets_empty(limiter.maps());
    assert_all_are_counted(limiter.maps());
    drop(limiter);
    let mut second = run(&arguments);
    assert!(second.says().starts_with("goes on to limit limited"), "it was there");
    flood.go_on().expect("it is sent");
    second.signal(Signal::SIGINT);
    assert_eq!(second.ends(), Some(0));
    assert_eq!(second.says(), "limited is not limited any more; all work is done");
    assert_nothing_is_left();
}

/// Of the others: a bucket is full again after a millisecond.
const OTHERS: (u32, u32, u32, u32) = (1000, 10, 1024, 10);

fn other(load: fn(&Limits) -> anyhow::Result<Other>) -> Other {
    let (rate, burst, sources, sweep_ms) = OTHERS;
    let mut other = load(&limits(rate, burst, sources, sweep_ms)).expect("it loads");
    other.attach(LIMITED).expect("it attaches");
    other
}

/// Twice as many sources as there are places.
fn fill(flood: &mut Flood<'_>, maps: &Maps) {
    let until = flood.spoofed + 2 * OTHERS.2;
    while flood.spoofed < until {
        go_on(flood, maps);
    }
}

fn buckets(maps: &Maps) -> usize {
    maps.buckets.keys().count()
}

#[track_caller]
fn assert_gets_empty(maps: &Maps) {
    eventually("the map is empty", || (buckets(maps) == 0).then_some(()));
}

/// A bucket is counted a moment after it is removed.
#[track_caller]
fn assert_all_are_counted(maps: &Maps) {
    eventually("as many are removed as were created", || {
        let now = maps.numbers().expect("the maps can be read");
        (now.created == now.removed).then_some(())
    });
}

#[track_caller]
fn assert_nobody_cleans_up(maps: &Maps) {
    assert_eq!(buckets(maps), 1024);
    let mut removed = 0;
    // They are full, and were there.
    eventually("all can be removed", || {
        removed += sweep(&maps.buckets).expect("a sweep");
        (removed == 1024).then_some(())
    });
    assert_eq!(buckets(maps), 0);
}

/// What is so of another limiter when no packet comes any more.
fn after_a_flood(load: fn(&Limits) -> anyhow::Result<Other>, check: fn(&Maps)) {
    let network = network();
    let limiter = other(load);
    let mut flood = Flood::new(&network, Duration::MAX).expect("sockets");
    fill(&mut flood, limiter.maps());
    check(limiter.maps());
    drop(limiter);
    assert_nothing_is_left();
}

#[test]
#[serial]
fn timers_empty_the_map_after_a_flood() {
    if !can_run() {
        return;
    }
    after_a_flood(Other::by_timer, |maps| {
        assert_gets_empty(maps);
        assert_all_are_counted(maps);
        let now = maps.numbers().expect("the maps can be read");
        assert!(now.created > 1024, "{now:?}");
    });
}

#[test]
#[serial]
fn where_nobody_cleans_up_all_stays_until_somebody_does() {
    if !can_run() {
        return;
    }
    after_a_flood(Other::uncleaned, assert_nobody_cleans_up);
}

#[test]
#[serial]
fn killed_in_a_flood_user_space_cleans_up_no_more() {
    if !can_run() {
        return;
    }
    let network = network();
    let limiter = other(Other::uncleaned);
    let map = limiter.maps().buckets.info().expect("it is a map").info.id.to_string();
    let sweep = ["sweep", &map, "--sweep-ms", "10"];
    let mut sweeper = Running::start(env!("CARGO_BIN_EXE_rate-limit"), &sweep);
    assert_eq!(sweeper.says(), "removes buckets every 10 ms");
    let mut flood = Flood::new(&network, Duration::MAX).expect("sockets");
    fill(&mut flood, limiter.maps());
    assert_gets_empty(limiter.maps());
    flood.go_on().expect("it is sent");
    sweeper.signal(Signal::SIGKILL);
    flood.go_on().expect("it is sent");
    assert_eq!(sweeper.ends(), None);
    fill(&mut flood, limiter.maps());
    assert_nobody_cleans_up(limiter.maps());
    drop(limiter);
    assert_nothing_is_left();
}

#[test]
#[serial]
fn another_size_replaces_the_one_that_is_there() {
    if !can_run() {
        return;
    }
    let _network = network();
    drop(start(&limits(1, 10, 64, 10)));
    let again = start(&limits(2, 10, 64, 10));
    assert!(!again.is_new());
    drop(again);
    let other = start(&limits(2, 10, 128, 10));
    assert!(other.is_new());
    stop(other);
}

#[test]
#[serial]
fn a_size_that_cannot_be_leaves_the_one_that_is_there() {
    if !can_run() {
        return;
    }
    let _network = network();
    drop(start(&limits(1, 10, 64, 10)));
    let failed = Limiter::start(LIMITED, &limits(1, 10, u32::MAX, 10), Path::new(PINS));
    let said = format!("{:#}", failed.expect_err("no map has so many elements"));
    assert!(said.starts_with("cannot replace the limiter of limited"), "{said}");
    let again = start(&limits(1, 10, 64, 10));
    assert!(!again.is_new() && again.is_attached().expect("it can be asked"));
    stop(again);
}

#[test]
#[serial]
fn an_interface_of_the_same_name_in_another_namespace_has_its_own() {
    if !can_run() {
        return;
    }
    let _network = network();
    let first = start(&limits(1, 10, 64, 10));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let _network = network();
            let second = start(&limits(1, 10, 64, 10));
            assert!(second.is_new());
            assert!(second.stop().expect("it stops").is_complete());
            assert!(!directory().exists());
        });
        other.join().expect("it does not fail");
    });
    assert!(first.is_attached().expect("it can be asked"));
    stop(first);
}

#[test]
#[serial]
fn one_process_limits_an_interface() {
    if !can_run() {
        return;
    }
    let _network = network();
    let mut first = run(&[LIMITED]);
    assert!(first.says().starts_with("limits limited"));
    let mut second = run(&[LIMITED, "--rate", "7"]);
    let said = second.says();
    assert_eq!(said, "rate-limit: another process limits limited: end it first");
    assert_eq!(second.ends(), Some(1));
    first.signal(Signal::SIGINT);
    assert_eq!(first.ends(), Some(0));
    assert_nothing_is_left();
}

#[test]
#[serial]
fn an_interface_that_goes_away_ends_it() {
    if !can_run() {
        return;
    }
    let network = network();
    let mut running = run(&[LIMITED]);
    assert!(running.says().starts_with("limits limited"));
    network.remove().expect("it is removed");
    assert_eq!(running.ends(), Some(1));
    assert!(running.says().contains("limited is gone, or another program has taken its place"));
    assert_nothing_is_left();
}

#[test]
#[serial]
fn bad_input_is_told_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let mut running = run(&["nowhere"]);
    assert!(running.says().contains("there is no network interface nowhere"));
    assert_eq!(running.ends(), Some(1));
    for arguments in [&[LIMITED, "--rate", "0"][..], &[LIMITED, "--sources", "many"], &[]] {
        assert_eq!(run(arguments).ends(), Some(2), "{arguments:?}");
    }
    for (option, most) in [("--rate", 1_000_000_000_u32), ("--sources", 1 << 24)] {
        let mut running = run(&[LIMITED, option, &(most + 1).to_string()]);
        let said = running.says();
        assert!(said.contains(&format!("{most} is the most")), "{said}");
        assert_eq!(running.ends(), Some(2));
    }
    let _network = network();
    let plain = tempfile::tempdir().expect("a directory");
    let mut running = run(&[LIMITED, "--pins", plain.path().to_str().expect("UTF-8")]);
    let said = running.says();
    assert!(said.contains("mount -t bpf"), "{said}");
    assert_eq!(running.ends(), Some(1));
    assert_eq!(fs::read_dir(plain.path()).expect("it is there").count(), 0);
    assert_nothing_is_left();

    // Another program is attached, as of another directory.
    let other = Path::new(PINS).join("other");
    fs::create_dir(&other).expect("a directory");
    let limits = limits(1, 10, 64, 10);
    let limiter = Limiter::start(LIMITED, &limits, &other).expect("it starts");
    let mut running = run(&[LIMITED]);
    let said = running.says();
    assert!(said.contains("cannot limit limited") && said.contains("busy"), "{said}");
    assert_eq!(running.ends(), Some(1));
    assert!(!directory().exists());
    stop(limiter);
    fs::remove_dir(&other).expect("it is empty");
}
