//! Where a bpf_wq may live (rules 27 to 30).

use std::io;
use std::os::fd::OwnedFd;

use libbpf_rs::{MapCore as _, MapFlags, ProgramInput};
use rstest::rstest;
use serial_test::serial;

use crate::support::creating::{Types, create, with_map};
use crate::support::loading::{Verdict, assert_verdict, load, needs_checked_records};
use crate::support::{answer, eventually, needs_bpf_wq, rule, version};

const GROUP: &str = "Where a bpf_wq may live";

#[track_caller]
fn assert_errno(result: &io::Result<OwnedFd>, errno: i32) {
    let error = result.as_ref().expect_err("the map should have been refused");
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
}

/// Starts the workqueue of the map's one element, and waits for the callback's value.
fn runs_in(map: &str) {
    runs_from(&format!("use_{map}"), &[], map);
}

/// The same from the program named, which gets this data.
fn runs_from(name: &str, data: &[u8], map: &str) {
    let fd = create("maps", map, Types::Given).unwrap_or_else(|error| panic!("{map}: {error}"));
    let object = load(with_map("maps", map, &fd, name)).expect("it loads");
    let program = object.progs_mut().find(|p| p.name() == name).expect("the program");
    let data_in = (!data.is_empty()).then_some(data);
    let output = program.test_run(ProgramInput { data_in, ..ProgramInput::default() });
    let output = output.expect("the program runs");
    assert_eq!(output.return_value as i32, 0, "update, init, set_callback or start failed");
    let found = object.maps().find(|m| m.name() == map).expect("the map");
    eventually("the callback writes its value", || {
        let value = found.lookup(&0_i32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        (value[..4] == 42_i32.to_ne_bytes()).then_some(())
    });
}

/// The kernel's own selftests `wq`: `test_call_array_sleepable` and `test_syscall_array_sleepable`
/// (27-array), `test_call_hash_sleepable` (27-hash), `test_call_hash_malloc_sleepable`
/// (27-hash_no_prealloc) and `test_call_lru_sleepable` (27-lru_hash). They look at what the
/// programs return, and of `test_syscall_array_sleepable` whether the callback ran. Here each has
/// to run it, from a tc program and from a syscall program. That a callback sleeps is shown where
/// it does, in `sleeping`.
#[rstest]
#[case::array("array", "an array may hold a bpf_wq")]
#[case::hash("hash", "a hash may hold a bpf_wq")]
#[case::hash_no_prealloc("hash_no_prealloc", "a hash with BPF_F_NO_PREALLOC may hold a bpf_wq")]
#[case::lru_hash("lru_hash", "an LRU hash may hold a bpf_wq")]
#[test_log::test]
#[serial]
fn may_hold_a_wq(#[case] map: &str, #[case] statement: &str) {
    rule(&format!("27-{map}"), GROUP, statement);
    if needs_bpf_wq() {
        runs_in(map);
        // An Ethernet frame with nothing in it.
        runs_from(&format!("tc_{map}"), &[0; 64], map);
    }
}

/// The resizable hash came between 7.1 and 7.2.
#[test_log::test]
#[serial]
fn resizable_hash_may_hold_a_wq() {
    rule("27-rhash", GROUP, "a resizable hash may hold a bpf_wq");
    if !needs_bpf_wq() {
        return;
    }
    if version() < (7, 2) {
        assert_errno(&create("maps", "rhash", Types::Given), libc::EINVAL);
        answer("no: -EINVAL, there is no BPF_MAP_TYPE_RHASH");
        return;
    }
    runs_in("rhash");
}

#[rstest]
#[case("percpu_array", "a per-CPU array may not hold a bpf_wq")]
#[case("percpu_hash", "a per-CPU hash may not hold a bpf_wq")]
#[case("lru_percpu_hash", "a per-CPU LRU hash may not hold a bpf_wq")]
#[case("task_storage", "task storage may not hold a bpf_wq")]
#[case("sk_storage", "socket storage may not hold a bpf_wq")]
#[case("inode_storage", "inode storage may not hold a bpf_wq")]
#[case("cgrp_storage", "cgroup storage may not hold a bpf_wq")]
#[test_log::test]
#[serial]
fn may_not_hold_a_wq(#[case] map: &str, #[case] statement: &str) {
    rule(&format!("28-{map}"), GROUP, &format!("{statement}: -EOPNOTSUPP"));
    if !needs_bpf_wq() {
        return;
    }
    assert_errno(&create("maps", map, Types::Given), libc::EOPNOTSUPP);
    // It is the bpf_wq: the kernel has such maps, and without types it cannot see one.
    let untyped = create("maps", map, Types::Withheld);
    if map.ends_with("_storage") {
        assert_errno(&untyped, libc::EINVAL);
    } else {
        untyped.unwrap();
    }
}

#[rstest]
#[case("rdonly_prog", "a map with BPF_F_RDONLY_PROG may not hold a bpf_wq")]
#[case("wronly_prog", "a map with BPF_F_WRONLY_PROG may not hold a bpf_wq")]
#[test_log::test]
#[serial]
fn has_to_be_writable(#[case] map: &str, #[case] statement: &str) {
    rule(&format!("29-{map}"), GROUP, &format!("{statement}: -EACCES"));
    if !needs_bpf_wq() {
        return;
    }
    assert_errno(&create("maps", map, Types::Given), libc::EACCES);
    create("maps", map, Types::Withheld).unwrap();
}

#[rstest]
#[case("array_of_one", "an array of one bpf_wq works")]
#[case("nested", "a bpf_wq works at any depth of a value")]
#[case("beside_a_timer", "a bpf_wq works beside a bpf_timer")]
#[test_log::test]
#[serial]
fn layout_works(#[case] map: &str, #[case] statement: &str) {
    rule(&format!("30-{map}"), GROUP, statement);
    if needs_bpf_wq() {
        runs_in(map);
    }
}

/// Created on every kernel. That the kernel dies on using one, before 6.18.2 and 6.19, is
/// shown in a machine of its own (hazard H2).
#[rstest]
#[case("maps", "two", Ok(()), "two in a value")]
#[case("maps", "array_of_two", Ok(()), "an array of two")]
#[case("maps", "misaligned", Ok(()), "one at an offset that is no multiple of 8")]
#[case("maps", "in_a_union", Ok(()), "one in a union")]
#[case("maps_wrong_size", "wrong_size", Ok(()), "one of the wrong size")]
#[case("maps", "value_is_wq", Ok(()), "one that is the whole value")]
#[test_log::test]
#[serial]
fn bad_layout_can_be_created(
    #[case] object: &str,
    #[case] map: &str,
    #[case] created: Result<(), i32>,
    #[case] what: &str,
) {
    rule(&format!("30-{map}-create"), GROUP, &format!("a map is created with {what}"));
    if !needs_bpf_wq() {
        return;
    }
    let result = create(object, map, Types::Given);
    match created {
        Ok(()) => drop(result.unwrap()),
        Err(errno) => assert_errno(&result, errno),
    }
}

#[rstest]
#[case("maps", "two", "two in a value")]
#[case("maps", "array_of_two", "an array of two")]
#[case("maps", "misaligned", "one at an offset that is no multiple of 8")]
#[case("maps", "in_a_union", "one in a union")]
#[case("maps_wrong_size", "wrong_size", "one of the wrong size")]
#[case("maps", "value_is_wq", "one that is the whole value")]
#[test_log::test]
#[serial]
fn bad_layout_cannot_be_used(#[case] object: &str, #[case] map: &str, #[case] what: &str) {
    rule(&format!("30-{map}-load"), GROUP, &format!("a program cannot use a map with {what}"));
    if !needs_bpf_wq() || !needs_checked_records() {
        return;
    }
    let fd = create(object, map, Types::Given).unwrap();
    let refused = load(with_map(object, map, &fd, &format!("init_in_{map}")));
    let words = format!("map '{map}' has no valid bpf_wq");
    assert_verdict(&refused, Verdict::Refused("-EINVAL", words.clone().leak()));
    answer(&format!("yes: -EINVAL, {words}"));
}

/// The kernel's own selftest `wq_custom/test_failure_map_no_btf`.
#[test_log::test]
#[serial]
fn map_without_types_cannot_be_used() {
    rule("30-no-types", GROUP, "a program cannot use a map that was created without its types");
    if !needs_bpf_wq() || !needs_checked_records() {
        return;
    }
    let fd = create("maps", "array", Types::Withheld).unwrap();
    let refused = load(with_map("maps", "array", &fd, "init_in_array"));
    let words = "map 'array' has to have BTF in order to use bpf_wq";
    assert_verdict(&refused, Verdict::Refused("-EINVAL", words));
    answer(&format!("yes: -EINVAL, {words}"));
    // With them, the same program loads.
    let fd = create("maps", "array", Types::Given).unwrap();
    load(with_map("maps", "array", &fd, "init_in_array")).unwrap();
}
