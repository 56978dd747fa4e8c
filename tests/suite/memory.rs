//! Who pays for the memory of a workqueue: rule 7.

use nix::errno::Errno::ENOMEM;
use serial_test::serial;

use crate::support::called::{Called, OK};
use crate::support::cgroup::Cgroup;
use crate::support::{answer, needs_bpf_wq, needs_config, rule, version};

const GROUP: &str = "Arming";

/// HALF of `bpf/tests/memory.bpf.c`.
const HALF: u64 = 20000;

/// It changed between 6.17 and 6.18. Before, the memory is asked for with __GFP_HIGH, which no
/// limit refuses.
const LIMITED: (u32, u32) = (6, 18);

#[test_log::test]
#[serial]
fn init_is_charged() {
    rule("7", GROUP, "init allocates memory, charged to the cgroup of who created the map");
    if !needs_bpf_wq() || !charges() {
        return;
    }
    let (cgroup, called) = in_a_cgroup();
    let before = cgroup.current();
    assert_eq!(called.call("first_half"), [OK]);
    let each = (cgroup.current() - before) / HALF;
    println!("{each} bytes a workqueue");
    assert!((64..=512).contains(&each), "{each} bytes a workqueue");
}

#[test_log::test]
#[serial]
fn init_beyond_the_limit() {
    rule("7-limit", GROUP, "init beyond the limit of that cgroup: -ENOMEM");
    if !needs_bpf_wq() || !charges() {
        return;
    }
    let (cgroup, called) = in_a_cgroup();
    assert_eq!(called.call("first_half"), [OK]);
    assert_eq!(called.seen().data, HALF);
    let limit = cgroup.current();
    cgroup.write("memory.max", &limit.to_string());
    let second = called.call("second_half");
    let (done, current) = (called.seen().data, cgroup.current());
    println!("limit {limit}, now {current}, {done} more");
    if version() >= LIMITED {
        assert_eq!(second, [Err(ENOMEM)]);
        assert!(done < HALF, "all of {HALF} fit");
    } else {
        answer("no: the limit is ignored");
        assert_eq!((second, done), ([OK], HALF));
        assert!(current > limit);
    }
}

fn charges() -> bool {
    needs_config("CONFIG_MEMCG", "without it nobody is charged")
}

/// An object whose maps were created in a cgroup of their own.
fn in_a_cgroup() -> (Cgroup, Called) {
    let cgroup = Cgroup::new();
    let called = cgroup.within(|| Called::load("memory", &["first_half", "second_half"]));
    (cgroup, called)
}
