//! What becomes of the workqueue in an element: rules 14 to 19, 25 and 26.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use nix::errno::Errno::{EBUSY, EINVAL};
use rstest::rstest;
use serial_test::serial;

use crate::support::called::{Called, Code, ENOTSUPP, OK, code, errno, get, put, word};
use crate::support::{eventually, needs_bpf_wq, rule};

const GROUP: &str = "Elements and their workqueue";

const UNINITIALISED: [Code; 2] = [Err(EINVAL), OK];

/// What a test does to an element, from user space.
enum Act {
    Update,
    UpdateLocked,
    Delete,
    /// Another element is added, for which this one has to go.
    Evict,
}

/// The value of an element of this map, with `fill` where its workqueue is.
fn value(map: &MapHandle, data: u64, fill: u8) -> Vec<u8> {
    let mut value = vec![0; map.value_size() as usize];
    value[..8].copy_from_slice(&data.to_ne_bytes());
    let at = value.len() - 16;
    value[at..].fill(fill);
    value
}

impl Act {
    #[track_caller]
    fn on(&self, map: &MapHandle, key: u32) {
        let bytes = key.to_ne_bytes();
        match self {
            Act::Update => put(map, key, &value(map, 7, 0)),
            Act::UpdateLocked => {
                map.update(&bytes, &value(map, 7, 0), MapFlags::LOCK).expect("it is updated");
            }
            Act::Delete => map.delete(&bytes).expect("it is deleted"),
            Act::Evict => {
                put(map, key + 1, &value(map, 0, 0));
                let left = map.lookup(&bytes, MapFlags::ANY).expect("the map can be read");
                assert_eq!(left, None, "no eviction");
            }
        }
    }
}

/// The element is new, its workqueue pending, when user space acts. That an update loses work is
/// what is wrong with the program of claim S5 (hazard H5).
#[rstest]
#[case::array_update("14-update", "array", Act::Update, "an update")]
#[case::array_locked("14-locked", "locked_array", Act::UpdateLocked, "one with BPF_F_LOCK")]
#[case::hash_update("15-update", "hash", Act::Update, "an update")]
#[case::no_prealloc_update("15-no-prealloc", "no_prealloc", Act::Update, "an update")]
#[case::hash_replaced("15-replaced", "locked_hash", Act::Update, "one without BPF_F_LOCK")]
#[case::hash_delete("16-hash", "hash", Act::Delete, "a delete")]
#[case::no_prealloc_delete("16-no-prealloc", "no_prealloc", Act::Delete, "a delete")]
#[case::lru_delete("16-lru", "lru", Act::Delete, "a delete")]
#[case::lru_evict("16-evict", "lru", Act::Evict, "an eviction")]
#[test_log::test]
#[serial]
fn cancels(#[case] id: &str, #[case] map: &str, #[case] act: Act, #[case] what: &str) {
    let reset = matches!(act, Act::Update | Act::UpdateLocked);
    let then = if reset { " and resets it: start -EINVAL, init 0" } else { "" };
    rule(id, GROUP, &format!("{map}: {what} from user space cancels pending work{then}"));
    if !needs_bpf_wq() {
        return;
    }
    let called = act_while_pending(map, &act);
    assert_eq!(called.seen().entered, 0, "it was not cancelled");
    if reset {
        assert_eq!(word(&get(&called.map(map), 0), 0), 7);
        assert_eq!(called.call(&format!("state_{map}")), UNINITIALISED);
    }
}

#[test_log::test]
#[serial]
fn locked_update_of_a_hash() {
    rule("15-locked", GROUP, "hash: an update with BPF_F_LOCK keeps the workqueue and its work");
    if !needs_bpf_wq() {
        return;
    }
    let called = act_while_pending("locked_hash", &Act::UpdateLocked);
    assert_eq!(called.seen().entered, 1, "it was cancelled");
    assert_eq!(word(&get(&called.map("locked_hash"), 0), 0), 7);
    assert_eq!(called.call("state_locked_hash"), [OK, Err(EBUSY)]);
}

#[test_log::test]
#[serial]
fn delete_of_an_array() {
    rule("14-delete", GROUP, "array: a delete is -EINVAL, and pending work runs");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("elements", &["hold_array"]);
    let map = called.map("array");
    let started = called.while_waiting(
        None,
        "hold_array",
        |seen| seen.others == 1,
        || assert_eq!(errno(map.delete(&0_u32.to_ne_bytes())), EINVAL as i32),
    );
    assert_eq!(started, [OK, OK, OK]);
    called.settle();
    assert_eq!(called.seen().runs, 1);
}

/// Arms and starts element 0 on a CPU that is kept until `act` has been done.
#[track_caller]
fn act_while_pending(map: &str, act: &Act) -> Called {
    let hold = format!("hold_{map}");
    let state = format!("state_{map}");
    let has_state = !matches!(act, Act::Delete | Act::Evict);
    let programs = [hold.as_str(), state.as_str()];
    let called = Called::load("elements", if has_state { &programs } else { &programs[..1] });
    let elems = called.map(map);
    put(&elems, 0, &value(&elems, 1, 0));
    let started = called.while_waiting(
        None,
        &hold,
        |seen| seen.others == 1,
        || {
            assert_eq!(called.seen().entered, 0, "it is not pending any more");
            act.on(&elems, 0);
        },
    );
    assert_eq!(started, [OK, OK, OK]);
    called.settle();
    called
}

/// The same by the program itself, with preemption off.
#[rstest]
#[case::update_array("14-program", "update_array", "array", OK)]
#[case::delete_array("14-program-delete", "delete_array", "array", Err(EINVAL))]
#[case::update_hash("15-program", "update_hash", "hash", OK)]
#[case::delete_hash("16-program-hash", "delete_hash", "hash", OK)]
#[case::update_no_prealloc("15-program-no-prealloc", "update_no_prealloc", "no_prealloc", OK)]
#[case::delete_no_prealloc("16-program-no-prealloc", "delete_no_prealloc", "no_prealloc", OK)]
#[case::delete_lru("16-program-lru", "delete_lru", "lru", OK)]
#[test_log::test]
#[serial]
fn by_the_program(#[case] id: &str, #[case] act: &str, #[case] map: &str, #[case] acted: Code) {
    let what = if act.starts_with("update") { "an update" } else { "a delete" };
    let then = match acted {
        OK => "cancels pending work",
        Err(_) => "is -EINVAL, and pending work runs",
    };
    rule(id, GROUP, &format!("{map}: {what} by a program {then}"));
    if !needs_bpf_wq() {
        return;
    }
    let program = format!("start_and_{act}");
    let called = Called::load("elements", &[&program]);
    let elems = called.map(map);
    put(&elems, 0, &value(&elems, 1, 0));
    assert_eq!(called.call(&program), [OK, OK, OK, acted]);
    called.settle();
    assert_eq!(called.seen().entered, u64::from(acted.is_err()));
}

#[rstest]
#[case::array_update("17-array", "array", Act::Update, "an update")]
#[case::hash_update("17-update", "hash", Act::Update, "an update")]
#[case::hash_delete("17-hash", "hash", Act::Delete, "a delete")]
#[case::no_prealloc_update("17-update-no-prealloc", "no_prealloc", Act::Update, "an update")]
#[case::no_prealloc_delete("17-no-prealloc", "no_prealloc", Act::Delete, "a delete")]
#[case::lru_delete("17-lru", "lru", Act::Delete, "a delete")]
#[case::lru_evict("17-evict", "lru", Act::Evict, "an eviction")]
#[test_log::test]
#[serial]
fn while_it_runs(#[case] id: &str, #[case] map: &str, #[case] act: Act, #[case] what: &str) {
    let statement = "lets a running callback finish, whose start is then -EINVAL";
    rule(id, GROUP, &format!("{map}: {what} {statement}"));
    if !needs_bpf_wq() {
        return;
    }
    let program = format!("wait_in_{map}");
    let called = Called::load("elements", &[&program]);
    let elems = called.map(map);
    put(&elems, 0, &value(&elems, 1, 0));
    let started = called.while_waiting(
        None,
        &program,
        |seen| seen.entered == 1,
        || {
            act.on(&elems, 0);
            assert_eq!(called.seen().runs, 0, "it has ended already");
        },
    );
    assert_eq!(started, [OK, OK, OK]);
    eventually("it ends", || (called.seen().runs == 1).then_some(()));
    assert_eq!(code(called.seen().err[0]), Err(EINVAL));
    called.settle();
    assert_eq!(called.seen().entered, 1);
}

#[test_log::test]
#[serial]
fn deletes_itself() {
    let then = "start is then -EINVAL, but init of the stale value returns 0";
    rule("18", GROUP, &format!("a callback may delete its own element; {then}"));
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("elements", &["deletes_itself"]);
    let elems = called.map("hash");
    put(&elems, 0, &value(&elems, 1, 0));
    assert_eq!(called.call("deletes_itself"), [OK, OK, OK]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
    assert_eq!(called.seen().err.map(code), [OK, Err(EINVAL), OK]);
    assert_eq!(elems.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap(), None);
}

#[test_log::test]
#[serial]
fn stale_pointer() {
    let then = "the next element in that memory is born initialised: init -EBUSY";
    rule(
        "19",
        GROUP,
        &format!("preallocated hash: init of a deleted value works, and runs; {then}"),
    );
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("elements", &["init_stale"]);
    let elems = called.map("one");
    put(&elems, 0, &value(&elems, 1, 0));
    // delete, init, set_callback, start, update, whether it is the same memory, init
    assert_eq!(called.call("init_stale"), [OK, OK, OK, OK, OK, OK, Err(EBUSY)]);
    eventually("it runs", || (called.seen().runs == 1).then_some(()));
}

#[rstest]
#[case::array("25-array", "array")]
#[case::hash("25-hash", "hash")]
#[test_log::test]
#[serial]
fn seen_from_user_space(#[case] id: &str, #[case] map: &str) {
    let statement = "user space reads the bpf_wq as zeros, and what it writes there is ignored";
    rule(id, GROUP, &format!("{map}: {statement}"));
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("elements", &["arm_both"]);
    for map in ["array", "hash"] {
        let elems = called.map(map);
        put(&elems, 0, &value(&elems, 1, 0xff));
    }
    let elems = called.map(map);
    assert_eq!(get(&elems, 0), value(&elems, 1, 0));
    // What was written is no workqueue that would be initialised already.
    assert_eq!(called.call("arm_both"), [OK, OK]);
    assert_eq!(get(&elems, 0), value(&elems, 1, 0));
    assert_eq!(called.call("arm_both"), [Err(EBUSY), Err(EBUSY)]);
}

#[test_log::test]
#[serial]
fn neither_mapped_nor_frozen() {
    rule("26", GROUP, "a map with a bpf_wq cannot be mapped into memory or frozen: errno 524");
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("elements", &[]);
    let (with, without) = (called.map("mmapable"), called.map("mmapable_plain"));
    assert_eq!(mapped(&without), None);
    assert_eq!(mapped(&with), Some(ENOTSUPP));
    without.freeze().expect("a map without a bpf_wq can be frozen");
    assert_eq!(errno(with.freeze()), ENOTSUPP);
}

/// The errno of mapping it into memory.
fn mapped(map: &MapHandle) -> Option<i32> {
    let (fd, size) = (map.as_fd().as_raw_fd(), 4096);
    // SAFETY: a new mapping, which nobody uses.
    let at = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED {
        return io::Error::last_os_error().raw_os_error();
    }
    // SAFETY: the mapping just made.
    assert_eq!(unsafe { libc::munmap(at, size) }, 0);
    None
}
