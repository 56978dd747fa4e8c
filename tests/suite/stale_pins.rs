//! Pins that are not whole, that nobody may touch, or that cannot be made.

use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bpf_wq::{Build, Error, Executor, PinState, Pinned};
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{Link, MapHandle};
use nix::fcntl::{Flock, FlockArg};
use rstest::rstest;
use serial_test::serial;
use tempfile::TempDir;

use crate::support::bpffs::BpfFs;
use crate::support::pin::{
    Job, OBJECT, PinSkelBuilder, entries, executor, hold, is_empty, load, runs, stop, take_new,
    take_over,
};
use crate::support::process::{Process, role, say};
use crate::support::restricted::{die_at, needs_seccomp, without_access};
use crate::support::{DEADLINE, End, eventually, loads, needs_bpf_wq, refusal, rule};

const GROUP: &str = "Pins";

/// Pins, and is killed at the system call.
fn die_while_pinning(at: &Path, call: &str) -> ! {
    let mut storage = MaybeUninit::uninit();
    let armed = load(&mut storage);
    let map = MapHandle::try_from(&armed.skel().maps.hold).expect("a descriptor");
    hold(&map, true);
    let executor = Executor::<Job>::of(&armed, "jobs").expect("it has an executor");
    for number in 0..3 {
        executor.submit(&[number]).expect("it is accepted");
    }
    say("it pins");
    const BPF_OBJ_PIN: u32 = libbpf_rs::libbpf_sys::BPF_OBJ_PIN;
    match call {
        "rename" => die_at(libc::SYS_rename, None),
        "pin" => die_at(libc::SYS_bpf, Some(BPF_OBJ_PIN)),
        _ => panic!("{call}"),
    }
    let pinned = armed.pin(at);
    panic!("it should have died: {pinned:?}");
}

/// As a loader does that finds an incomplete pin of this name: it is drained and cleared.
#[track_caller]
fn take_over_from(at: &Path, name: &str) -> Pinned {
    let taken_over = take_over(at, OBJECT, DEADLINE).expect("it takes over");
    assert!(taken_over.is_new);
    let [cleared] = &taken_over.cleared[..] else { panic!("{taken_over:?}") };
    assert_eq!(cleared.name, name);
    assert!(cleared.drained.is_complete(), "{}", cleared.drained);
    taken_over.pinned
}

#[rstest]
#[case::rename("rename", "P-stale-rename", "its last step")]
#[case::pin("pin", "P-stale-pin", "its first step")]
#[test_log::test]
#[serial]
fn a_loader_that_dies_while_it_pins(#[case] call: &str, #[case] id: &str, #[case] step: &str) {
    if let Some(at) = role() {
        die_while_pinning(Path::new(&at), call);
    }
    let statement = format!(
        "a loader that dies before {step} of pinning leaves a pin that is found to be incomplete, and cleared"
    );
    rule(id, GROUP, &statement);
    if !needs_bpf_wq() || !needs_seccomp() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let case = if call == "rename" { "case_1_rename" } else { "case_2_pin" };
    let test = format!("stale_pins::a_loader_that_dies_while_it_pins::{case}");
    let mut loader = Process::start(&test, at.to_str().expect("UTF-8"));
    assert_eq!(loader.says(), "it pins");
    assert_eq!(loader.dies(), libc::SIGSYS);

    let pins = bpf_wq::pins(&at).expect("it is found");
    let [pin] = &pins[..] else { panic!("{pins:?}") };
    assert_eq!((pin.state, pin.build), (PinState::Incomplete, None));
    let name = pin.path.file_name().and_then(|name| name.to_str()).expect("a name");
    if call == "pin" {
        assert!(pin.programs.is_empty() && pin.maps.is_empty() && pin.links.is_empty(), "{pin:?}");
        assert!(matches!(Pinned::open(&at, Build::of(OBJECT)), Err(Error::NoPin { .. })));
        let cleared = bpf_wq::clear_pins(&at, None, DEADLINE).expect("it is cleared");
        assert_eq!(cleared.len(), 1, "{cleared:?}");
        assert_eq!(cleared[0].name, name);
        assert!(is_empty(&at));
        return;
    }
    // All of it was pinned, so it is at work.
    assert_eq!(pin.links, ["attached", "tick"]);
    assert_eq!(pin.counters[0].1.in_flight, 3, "{pin:?}");
    let map =
        |name: &str| MapHandle::from_pinned_path(pin.path.join("maps").join(name)).expect("a map");
    let ran = map("runs");
    hold(&map("hold"), false);
    let pinned = take_over_from(&at, name);
    assert_eq!(runs(&ran)[..4], [1, 1, 1, 0]);
    stop(pinned);
}

#[test_log::test]
#[serial]
fn a_loader_that_dies_between_two_links() {
    rule(
        "P-stale-links",
        GROUP,
        "a loader that dies when one of its programs is pinned with its link, and another is not, leaves a pin that is found to be incomplete, drained, and cleared",
    );
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let first = take_new(&at, OBJECT);
    let (held, ran) = (first.map("hold").expect("a map"), first.map("runs").expect("a map"));
    hold(&held, true);
    executor(&first).submit(&[0]).expect("it is accepted");
    // As of a loader that dies here: its directory has not got its name, nor the other link.
    let incomplete = at.join("new-1");
    fs::remove_file(first.path().join("links/tick")).expect("it is pinned");
    fs::rename(first.path(), &incomplete).expect("it is renamed");
    drop(first);

    let pins = bpf_wq::pins(&at).expect("it is found");
    let [pin] = &pins[..] else { panic!("{pins:?}") };
    assert_eq!((&pin.path, pin.state, pin.build), (&incomplete, PinState::Incomplete, None));
    assert_eq!(pin.links, ["attached"]);
    assert_eq!(pin.counters[0].1.in_flight, 1, "{pin:?}");
    hold(&held, false);
    let pinned = take_over_from(&at, "new-1");
    assert_eq!(runs(&ran)[0], 1);
    stop(pinned);
}

#[test_log::test]
#[serial]
fn a_drain_that_was_interrupted_is_finished() {
    rule(
        "P-drain",
        GROUP,
        "a pin that was being drained is not taken over, but drained and replaced",
    );
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let first = take_new(&at, OBJECT);
    let state = || bpf_wq::pins(&at).expect("there are pins")[0].state;
    assert_eq!(state(), PinState::Whole);
    assert!(first.drain(DEADLINE).expect("it is drained").is_complete());
    assert_eq!(state(), PinState::Draining);
    let error = refusal(Pinned::open(&at, Build::of(OBJECT)));
    assert!(matches!(error, Error::NoPin { .. }), "{error:?}");
    // As of a loader that dies here.
    drop(first);
    let second = take_over(&at, OBJECT, DEADLINE).expect("it takes over");
    assert!(second.is_new && second.cleared.len() == 1, "{second:?}");
    assert_eq!(state(), PinState::Whole);

    // A gate that is closed lets nothing through any more, links or not.
    assert_eq!(executor(&second.pinned).drain(DEADLINE), 0);
    assert_eq!(state(), PinState::Draining);
    let third = take_over(&at, OBJECT, DEADLINE).expect("it takes over");
    assert!(third.is_new && third.cleared.len() == 1, "{third:?}");

    // As of a loader that dies when it has begun to detach.
    let links = third.pinned.path().join("links");
    fs::rename(&links, third.pinned.path().join("detached")).expect("it is renamed");
    assert_eq!(state(), PinState::Draining);
    drop(third);
    let fourth = take_over(&at, OBJECT, DEADLINE).expect("it takes over");
    assert!(fourth.is_new && fourth.cleared.len() == 1, "{fourth:?}");
    stop(fourth.pinned);
}

#[test_log::test]
#[serial]
fn what_is_no_pin_is_left_alone() {
    rule("P-unknown", GROUP, "what is not known to be of a pin is not removed, nor its pin");
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let pinned = take_new(&at, OBJECT);
    let mine = at.join("mine");
    fs::create_dir(&mine).expect("a directory");
    for unknown in [pinned.path().join("other"), pinned.path().join("maps/other")] {
        fs::create_dir(&unknown).expect("a directory");
        let error = refusal(bpf_wq::clear_pins(&at, None, DEADLINE));
        assert!(matches!(&error, Error::UnknownPin { path } if *path == unknown), "{error:?}");
        let pins = bpf_wq::pins(&at).expect("there are pins");
        assert_eq!(pins[0].unknown, [&*unknown]);
        assert_eq!((pins[0].state, pins[0].links.len()), (PinState::Whole, 2));
        fs::remove_dir(&unknown).expect("it is empty");
    }
    let kept = bpf_wq::clear_pins(&at, Some(Build::of(OBJECT)), DEADLINE).expect("it clears");
    assert!(kept.is_empty(), "{kept:?}");
    let cleared = bpf_wq::clear_pins(&at, None, DEADLINE).expect("it clears");
    assert_eq!(cleared.len(), 1, "{cleared:?}");
    assert_eq!(entries(&at), [mine]);
}

#[test_log::test]
#[serial]
fn can_be_listed_while_they_are_removed() {
    const ROUNDS: usize = 200;
    if !needs_bpf_wq() {
        return;
    }
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    fs::create_dir(&at).expect("a directory");
    let pin = at.join("build-0123456789abcdef");
    let (seen, are_gone) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let lists = scope.spawn(|| {
            while !are_gone.load(Ordering::Relaxed) {
                let pins = bpf_wq::pins(&at).expect("what is there is listed");
                seen.fetch_add(pins.len(), Ordering::Relaxed);
            }
        });
        let _end = End(&are_gone);
        for _ in 0..ROUNDS {
            for kind in ["maps", "programs", "links"] {
                fs::create_dir_all(pin.join(kind)).expect("a directory");
            }
            let before = seen.load(Ordering::Relaxed);
            eventually("it is listed", || {
                (lists.is_finished() || seen.load(Ordering::Relaxed) > before).then_some(())
            });
            let cleared = bpf_wq::clear_pins(&at, None, DEADLINE).expect("it clears");
            assert_eq!(cleared.len(), 1, "{cleared:?}");
        }
    });
}

#[test_log::test]
#[serial]
fn bad_input_is_an_error() {
    rule("P-bad", GROUP, "a pin that cannot be made says why, and leaves nothing behind");
    if !needs_bpf_wq() {
        return;
    }
    loads("pin");
    let plain = TempDir::new().expect("a directory");
    let error = refusal(take_over(&plain.path().join("pins"), OBJECT, DEADLINE));
    assert!(matches!(&error, Error::NotBpffs { path } if path == plain.path()), "{error:?}");
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    assert!(is_empty(plain.path()));

    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let error = refusal(bpf_wq::pins(&at));
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    fs::create_dir(&at).expect("a directory");
    assert!(bpf_wq::pins(&at).expect("it is a bpffs").is_empty());
    let error = refusal(Pinned::open(&at, Build::of(OBJECT)));
    assert!(matches!(error, Error::NoPin { .. }), "{error:?}");

    chown(&at, Some(65534), None).expect("root gives it away");
    fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    let error = without_access(|| refusal(take_over(&at, OBJECT, DEADLINE)));
    assert!(matches!(error, Error::PinDenied { .. }), "{error:?}");
    chown(&at, Some(0), None).expect("root takes it back");

    let mut storage = MaybeUninit::uninit();
    let open = PinSkelBuilder::default().open(&mut storage).expect("it opens");
    let mut armed = bpf_wq::load(open, OBJECT).expect("it loads").arm().expect("it arms");
    let mut link = armed.skel().progs.attached.attach().expect("it is attached");
    let file = bpffs.path().join("link");
    link.pin(&file).expect("it is pinned");
    armed.keep("attached", link);
    armed.keep("attached", Link::open(&file).expect("it is a link"));
    fs::remove_file(&file).expect("it is not pinned");
    let error = refusal(armed.pin(&at));
    assert!(matches!(&error, Error::LinkPin { name, .. } if name == "attached"), "{error:?}");
    assert!(error.to_string().contains("another of this name"), "{error}");
    assert!(is_empty(&at));

    let mut storage = MaybeUninit::uninit();
    let mut armed = load(&mut storage);
    assert!(armed.drain(DEADLINE).is_complete());
    let error = refusal(armed.pin(&at));
    assert!(matches!(&error, Error::PinDrained { queue, .. } if queue == "jobs"), "{error:?}");
    assert!(is_empty(&at));

    let pinned = take_new(&at, OBJECT);
    let mut storage = MaybeUninit::uninit();
    let error = refusal(load(&mut storage).pin(&at));
    assert!(matches!(&error, Error::PinExists { path } if path == pinned.path()), "{error:?}");

    let file = fs::File::open(&at).expect("a directory");
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
    let lock = lock.expect("nobody else has it");
    let error = refusal(take_over(&at, OBJECT, Duration::from_millis(50)));
    assert!(matches!(&error, Error::PinBusy { directory } if *directory == at), "{error:?}");
    drop(lock);
    stop(pinned);
}
