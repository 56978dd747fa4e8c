//! Who pays for the memory of a workqueue: rule 7.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno::ENOMEM;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serial_test::serial;
use tempfile::TempDir;

use crate::support::called::{Called, OK};
use crate::support::{answer, needs_bpf_wq, rule, version};

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
    if !needs_bpf_wq() {
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
    if !needs_bpf_wq() {
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

/// An object whose maps were created by a process in a cgroup of its own, which the
/// process has left.
fn in_a_cgroup() -> (Cgroup, Called) {
    let cgroup = Cgroup::new();
    let own = fs::read_to_string("/proc/self/cgroup").expect("this process's cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup v2");
    fs::write(cgroup.path().join("cgroup.procs"), "0").expect("entering the cgroup");
    let called = Called::load("memory", &["first_half", "second_half"]);
    let own = cgroup.mount.path().join(own).join("cgroup.procs");
    fs::write(own, "0").expect("leaving the cgroup");
    (cgroup, called)
}

/// A cgroup; dropping this removes it.
struct Cgroup {
    mount: TempDir,
    name: String,
}

impl Cgroup {
    fn new() -> Self {
        let at = TempDir::new().expect("a temporary directory");
        let (none, flags) = (None::<&Path>, MsFlags::empty());
        mount(none, at.path(), Some("cgroup2"), flags, none).expect("cgroup v2 is mounted");
        fs::write(at.path().join("cgroup.subtree_control"), "+memory")
            .expect("the memory controller of cgroup v2");
        let cgroup = Self { mount: at, name: format!("bpf-wq-{}", std::process::id()) };
        fs::create_dir(cgroup.path()).expect("a cgroup");
        cgroup
    }

    fn path(&self) -> PathBuf {
        self.mount.path().join(&self.name)
    }

    fn current(&self) -> u64 {
        let bytes = fs::read_to_string(self.path().join("memory.current")).expect("its memory");
        bytes.trim().parse().expect("a number")
    }

    fn write(&self, file: &str, value: &str) {
        fs::write(self.path().join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(self.path()).expect("the cgroup is empty");
        umount2(self.mount.path(), MntFlags::MNT_DETACH).expect("cgroup v2 is unmounted");
    }
}
