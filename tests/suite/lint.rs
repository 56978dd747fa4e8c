//! What lint finds in object files, the suite's own among them. Nothing is loaded, so that all but
//! the tests of the running kernel need none.

use std::fs;
use std::path::{Path, PathBuf};

use bpf_wq::lint::Effect::{self, Absent, Hang, LostWork, Oops, Panic, Refused};
use bpf_wq::lint::{self, Finding, Target, Version};
use bpf_wq::{Answer, Error, Kernel, SetCallback};
use libbpf_rs::{MapType, ObjectBuilder, OpenMapMut, OpenObject};
use rstest::rstest;
use serial_test::serial;

use crate::support::btf::RawBtf;
use crate::support::{needs, version};

/// A finding as the tests name it: symbol, fault, effect.
type Found<'a> = (&'a str, &'a str, Effect);

fn path(object: &str) -> PathBuf {
    Path::new(env!("OUT_DIR")).join(format!("{object}.bpf.o"))
}

fn named(kernel: &str) -> Target {
    Target::named(kernel.parse().expect("a version"))
}

fn findings(object: &str, kernel: &Target) -> Vec<Finding> {
    lint::file(path(object), kernel).unwrap_or_else(|error| panic!("{object}: {error}"))
}

fn found(findings: &[Finding]) -> Vec<Found<'_>> {
    findings.iter().map(|f| (f.symbol.as_str(), f.fault.name(), f.effect)).collect()
}

/// In any order.
#[track_caller]
fn assert_found(object: &str, kernel: &str, expected: &[Found<'_>]) {
    let findings = findings(object, &named(kernel));
    let mut found = found(&findings);
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{object} on {kernel}");
}

/// The shape of the tutorials has four faults, and each kernel shows those that it has.
#[rstest]
#[case("6.10", &[
    ("on_unlink", "running-callback", Panic),
    ("on_unlink", "update-loses-work", LostWork),
    ("bpf_wq_set_callback_impl", "set-callback", Refused),
])]
#[case("6.12", &[
    ("on_unlink", "running-callback", Panic),
    ("on_unlink", "update-loses-work", LostWork),
])]
#[case("6.19.14", &[
    ("on_unlink", "running-callback", Panic),
    ("on_unlink", "update-loses-work", LostWork),
])]
#[case("7.0", &[
    ("on_unlink", "running-callback", Panic),
    ("on_unlink", "update-loses-work", LostWork),
    ("on_unlink", "no-attach-target", Refused),
    ("bpf_wq_set_callback_impl", "set-callback", Refused),
])]
#[case("6.9", &[("bpf_wq_init", "no-workqueues", Refused)])]
#[test_log::test]
#[serial]
fn tutorial(#[case] kernel: &str, #[case] expected: &[Found<'_>]) {
    assert_found("tutorial", kernel, expected);
}

#[test_log::test]
#[serial]
fn tutorial_on_the_running_kernel() {
    let kernel = Kernel::running();
    let mut expected = Vec::new();
    if version() < (6, 10) {
        expected.push(("bpf_wq_init", "no-workqueues", Refused));
    } else {
        expected.push(("on_unlink", "running-callback", Panic));
        expected.push(("on_unlink", "update-loses-work", LostWork));
        if kernel.set_callback() != Answer::Yes(SetCallback::Impl) {
            expected.push(("bpf_wq_set_callback_impl", "set-callback", Refused));
        }
    }
    if kernel.unlink_function() != Answer::Yes("do_unlinkat") {
        expected.push(("on_unlink", "no-attach-target", Refused));
    }
    let findings = findings("tutorial", &Target::running().unwrap());
    let mut found = found(&findings);
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// The objects of `bpf/tests/` in which there is something to find, as the tests below say.
const FAULTY: [&str; 19] = [
    "api",
    "by_hand_6_10",
    "by_hand_6_11",
    "by_hand_7_0",
    "contexts",
    "elements",
    "executor_types",
    "lifecycle",
    "lint",
    "maps",
    "maps_wrong_size",
    "program_types",
    "sleepable_calls",
    "sleeping",
    "teardown",
    "tutorial",
    "verifier",
    "verifier_fail",
    "verifier_fail_no_gpl",
];

#[test_log::test]
#[serial]
fn all_other_objects_are_clean() {
    let mut clean = 0;
    for entry in fs::read_dir(env!("OUT_DIR")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(object) = name.strip_suffix(".bpf.o") else { continue };
        if FAULTY.contains(&object) {
            continue;
        }
        println!("{object}");
        for kernel in ["6.10", "6.10.3", "6.12", "6.18.2", "7.0", "7.3"] {
            assert_found(object, kernel, &[]);
        }
        assert_dangers(object, &opened(object), "6.12", &[]);
        clean += 1;
    }
    assert!(clean > 10, "{clean} objects");
}

/// What keeps work from being lost, and a program that does without.
#[test_log::test]
#[serial]
fn lifecycle() {
    let arms = ("arms_itself", "sleeping-callback", Panic);
    let late = ["kprobe", "tracepoint"].map(|program| (program, "program-type", Refused));
    assert_found("lifecycle", "6.19", &[&late[..], &[arms]].concat());
    assert_found("lifecycle", "7.0", &[arms]);
    // It is one that is loaded only when asked for.
    let mut open = opened("lifecycle");
    assert_dangers("lifecycle", &open, "7.3", &[]);
    let mut program = open.progs_mut().find(|p| p.name() == "arms_itself").unwrap();
    program.set_autoload(true);
    assert_dangers("lifecycle", &open, "7.3", &[arms]);
}

/// Maps that are refused, or that the verifier dies of: H2, rules 27 to 30.
#[rstest]
#[case("6.12", Oops, true)]
#[case("6.18.1", Oops, true)]
#[case("6.18.2", Refused, true)]
#[case("7.1", Refused, true)]
#[case("7.2", Refused, false)]
#[test_log::test]
#[serial]
fn bad_maps(#[case] kernel: &str, #[case] effect: Effect, #[case] is_before_rhash: bool) {
    let bad = [
        ("two", "several-workqueues", effect),
        ("array_of_two", "array-of-workqueues", effect),
        ("misaligned", "misaligned", effect),
        ("in_a_union", "in-union", effect),
        ("value_is_wq", "value-is-workqueue", effect),
        ("percpu_array", "map-kind", effect),
        ("percpu_hash", "map-kind", effect),
        ("lru_percpu_hash", "map-kind", effect),
        ("rdonly_prog", "map-flag", effect),
        ("wronly_prog", "map-flag", effect),
        ("task_storage", "map-kind", Refused),
        ("sk_storage", "map-kind", Refused),
        ("inode_storage", "map-kind", Refused),
        ("cgrp_storage", "map-kind", Refused),
    ];
    // Those that replace the element on each run.
    let updates = [
        "use_array",
        "use_hash",
        "use_hash_no_prealloc",
        "use_lru_hash",
        "use_rhash",
        "use_array_of_one",
        "use_nested",
        "use_beside_a_timer",
        "tc_array",
        "tc_hash",
        "tc_hash_no_prealloc",
        "tc_lru_hash",
    ];
    let mut expected = bad.to_vec();
    expected.extend(updates.map(|program| (program, "update-loses-work", LostWork)));
    let may_not_sleep = updates.iter().filter(|program| program.starts_with("tc_"));
    expected.extend(may_not_sleep.map(|program| (*program, "running-callback", Panic)));
    if is_before_rhash {
        expected.push(("rhash", "map-kind", Refused));
    }
    assert_found("maps", kernel, &expected);
    assert_found("maps_wrong_size", kernel, &[("wrong_size", "wrong-size", effect)]);
}

/// A map that bpf_wq_init is given, and that has nothing for it: H2.
#[rstest]
#[case("7.2", Oops)]
#[case("7.3", Refused)]
#[test_log::test]
#[serial]
fn plain_map(#[case] kernel: &str, #[case] effect: Effect) {
    let mut expected = vec![
        ("plain", "no-workqueue-in-value", effect),
        // It is only to be refused for being started under a lock.
        ("lockeds", "not-armed", LostWork),
        ("callback_sleeps_under_rcu", "sleeping-callback", Panic),
        ("callback_sleeps_without_preemption", "sleeping-callback", Panic),
    ];
    let refused_for_another_reason = [
        "callback_is_global",
        "callback_returns_one",
        "key_read_too_wide",
        "key_written",
        "wq_on_the_stack_set_callback",
        "wrong_offset_set_callback",
    ];
    expected.extend(refused_for_another_reason.map(running));
    assert_found("verifier_fail", kernel, &expected);
}

fn running(program: &str) -> Found<'_> {
    (program, "running-callback", Panic)
}

#[test_log::test]
#[serial]
fn program_types() {
    let late = [
        "type_kprobe",
        "type_kprobe_multi",
        "type_uprobe",
        "type_uprobe_s",
        "type_tracepoint",
        "type_raw_tp",
        "type_raw_tp_w",
        "type_perf_event",
        "only_looks_up",
        "looks_up_with_timer",
    ];
    // Two only look at the map.
    let late_running = late[..8].iter().filter(|name| !name.ends_with("_s"));
    let late_running: Vec<_> = late_running.map(|name| running(name)).collect();
    let refused = late.map(|name| (name, "program-type", Refused));
    let others = [
        "action",
        "cgroup_connect4",
        "cgroup_dev",
        "cgroup_getsockopt",
        "cgroup_setsockopt",
        "cgroup_skb",
        "cgroup_sock",
        "cgroup_sysctl",
        "fentry",
        "fexit",
        "flow_dissector",
        "fmod_ret",
        "iter",
        "lsm",
        "lsm_cgroup",
        "lwt_in",
        "lwt_out",
        "lwt_seg6local",
        "lwt_xmit",
        "netfilter",
        "sk_lookup",
        "sk_msg",
        "sk_reuseport",
        "sk_skb",
        "socket",
        "sockops",
        "tc",
        "tp_btf",
        "xdp",
    ];
    let others = others.map(|kind| format!("type_{kind}"));
    let others: Vec<_> = others.iter().map(|name| running(name)).collect();
    assert_found("program_types", "6.19", &[&refused[..], &others].concat());
    assert_found("program_types", "7.0", &[late_running, others].concat());
    // An executor is armed by another program.
    assert_found("executor_types", "6.19", &refused[..8]);
    assert_found("executor_types", "7.0", &[]);
    assert_dangers("executor_types", &opened("executor_types"), "6.19", &[]);
}

/// Rule 9-sched.
#[test_log::test]
#[serial]
fn under_a_lock() {
    let locked = ("under_the_scheduler", "starts-under-lock", Hang);
    let late = ("in_perf_event", "program-type", Refused);
    let arm_themselves = [running("in_hardirq"), running("in_nmi")];
    let [hardirq, nmi] = arm_themselves;
    assert_found("contexts", "6.19", &[locked, late, hardirq, nmi]);
    let mut contexts = opened("contexts");
    assert_dangers("contexts", &contexts, "6.19", &[locked, hardirq, nmi]);
    do_not_load(&mut contexts, &["in_hardirq", "in_nmi"]);
    assert_dangers("contexts", &contexts, "6.19", &[locked]);
    assert_dangers("contexts", &contexts, "7.0", &[running("in_perf_event")]);
}

/// Programs that user space runs to see just that: loading does not refuse them.
#[test_log::test]
#[serial]
fn updates_on_purpose() {
    let updating =
        ["start_and_update_array", "start_and_update_hash", "start_and_update_no_prealloc"];
    let expected = updating.map(|program| (program, "update-loses-work", LostWork));
    assert_found("elements", "6.12", &expected);
    assert_dangers("elements", &opened("elements"), "6.12", &[]);
}

/// H1: where the program that sets it may not sleep. It is told which call of the callback does.
#[test_log::test]
#[serial]
fn sleeping_callbacks() {
    const FAULT: &str = "sleeping-callback";
    let of = |xdp| {
        let long = running("xdp_arms_itself_to_run_long");
        [("fentry_arms_itself", FAULT, Panic), ("xdp_arms_itself", FAULT, xdp), long]
    };
    // 6.16 opened the helper to XDP programs.
    assert_found("teardown", "6.15", &of(Refused));
    assert_found("teardown", "6.16", &of(Panic));
    assert_found("sleeping", "7.3", &[("by_workqueue", FAULT, Panic)]);
    let expected = [
        "wq_of_fentry_sleeps_by_helper",
        "wq_of_fentry_sleeps_by_kfunc",
        "wq_sleeps_in_a_static",
        "wq_sleeps_in_a_global",
    ];
    let asleep = expected.map(|name| (name, FAULT, Panic));
    let awake = [
        "callback_arms_a_timer",
        // Two callbacks.
        "callback_arms_another",
        "callback_arms_another",
        "callback_arms_its_own",
        "callback_arms_its_own",
        "plain_callback",
        "separate_stacks",
        "wq_global_locks_rcu",
        "wq_global_uses_no_rcu_pointer",
        "wq_global_uses_rcu_pointer",
    ];
    assert_found("verifier", "7.3", &[&asleep[..], &awake.map(running)].concat());
}

/// Whether a call is refused to the program is the rules C of `sleepable_calls.rs`.
#[rstest]
#[case("6.12")]
#[case("6.16")]
#[case("6.18")]
#[case("7.0")]
#[test_log::test]
#[serial]
fn sleeping_calls(#[case] kernel: &str) {
    let version: Version = kernel.parse().unwrap();
    let mut expected = Vec::new();
    for call in CALLS {
        for kind in ["fentry", "lsm"] {
            let refused = match call {
                "crypto_ctx_create" | "ksock_create" => true,
                "get_file_xattr" => kind != "lsm",
                _ => false,
            };
            expected.push((kind, call, "sleeping-callback", if refused { Refused } else { Panic }));
        }
        for kind in ["xdp", "tc", "cgroup_skb", "socket"] {
            let first = match call {
                "copy_from_user_str" | "arena_alloc_pages" => Some(Version::new(6, 10, 0)),
                "copy_from_user_task" => Some(Version::new(6, 16, 0)),
                "lookup_user_key" | "verify_pkcs7_signature" if kind != "socket" => {
                    Some(Version::new(6, 18, 0))
                }
                _ => None,
            };
            let is_open = first.is_some_and(|first| version >= first);
            expected.push((kind, call, "sleeping-callback", if is_open { Panic } else { Refused }));
        }
        for kind in ["raw_tp", "perf_event", "kprobe"] {
            let refused = match call {
                "crypto_ctx_create" | "ksock_create" | "get_file_xattr" => true,
                "lookup_user_key" | "verify_pkcs7_signature" | "rstat_flush" => kind == "kprobe",
                _ => false,
            };
            if version < Version::new(7, 0, 0) {
                expected.push((kind, call, "program-type", Refused));
            }
            if refused || version >= Version::new(7, 0, 0) {
                let effect = if refused { Refused } else { Panic };
                expected.push((kind, call, "sleeping-callback", effect));
            }
        }
    }
    let named: Vec<_> = expected
        .into_iter()
        .map(|(kind, call, fault, effect)| (format!("{kind}_{call}"), fault, effect))
        .collect();
    let expected: Vec<Found<'_>> =
        named.iter().map(|(name, fault, effect)| (name.as_str(), *fault, *effect)).collect();
    assert_found("sleepable_calls", kernel, &expected);
}

const CALLS: [&str; 9] = [
    "copy_from_user_task",
    "copy_from_user_str",
    "arena_alloc_pages",
    "crypto_ctx_create",
    "verify_pkcs7_signature",
    "lookup_user_key",
    "get_file_xattr",
    "rstat_flush",
    "ksock_create",
];

/// Rule V14.
#[test_log::test]
#[serial]
fn licence() {
    assert_found("verifier_fail_no_gpl", "6.12", &[("init", "licence", Refused)]);
}

/// A hash's key, as `tests/danger/malformed.rs` shows it.
#[rstest]
#[case("6.12", Some(Oops))]
#[case("6.19", Some(Refused))]
#[case("7.1", None)]
#[case("7.2", Some(Refused))]
#[test_log::test]
#[serial]
fn untyped_keys(#[case] kernel: &str, #[case] expected: Option<Effect>) {
    let findings = findings("lint", &named(kernel));
    let found = findings.iter().find(|finding| finding.symbol == "untyped_key");
    assert_eq!(found.map(|finding| finding.effect), expected);
}

/// What no other object has.
#[rstest]
#[case("6.12", Oops, false)]
#[case("7.3", Refused, true)]
#[test_log::test]
#[serial]
fn the_rest(#[case] kernel: &str, #[case] untyped: Effect, #[case] is_renamed: bool) {
    let mut expected = vec![
        ("untyped", "no-value-type", untyped),
        ("untyped_key", "no-key-type", untyped),
        ("enum_key", "key-of-array", untyped),
        ("pairs", "several-workqueues", untyped),
        ("outer.inner", "several-workqueues", untyped),
        ("sets_calling_a_module", "sleeping-callback", Panic),
        ("scratch", "map-kind", untyped),
        ("sets_sleeping_below", "sleeping-callback", Panic),
        ("sets_sleeping_twice", "sleeping-callback", Panic),
        ("sets_what_it_is_given", "running-callback", Panic),
        ("sets_plain", "running-callback", Panic),
        ("update_any", "update-loses-work", LostWork),
        ("update_exist", "update-loses-work", LostWork),
        ("not_armed", "not-armed", LostWork),
        ("only_inited", "not-armed", LostWork),
    ];
    if is_renamed {
        expected.push(("probes_unlink", "no-attach-target", Refused));
    }
    assert_found("lint", kernel, &expected);
}

#[test_log::test]
#[serial]
fn attach_targets_of_the_running_kernel() {
    let findings = findings("lint", &Target::running().unwrap());
    let mut missing: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.fault.name() == "no-attach-target")
        .map(|finding| finding.symbol.as_str())
        .collect();
    missing.sort_unstable();
    let mut expected = vec!["attaches_to_nothing"];
    if Kernel::running().unlink_function() != Answer::Yes("do_unlinkat") {
        expected.push("probes_unlink");
    }
    assert_eq!(missing, expected);
}

/// Each is for the kernels of one time, and refused by those before and after.
#[rstest]
#[case("by_hand_6_10", "bpf_wq_set_callback_impl", &["6.10", "6.10.2"], &["6.10.3", "7.0"])]
#[case("by_hand_6_11", "bpf_wq_set_callback_impl", &["6.10.3", "6.19"], &["6.10.2", "7.0"])]
#[case("by_hand_7_0", "bpf_wq_set_callback", &["7.0", "7.3"], &["6.10", "6.19"])]
#[test_log::test]
#[serial]
fn prototypes_of_one_time(
    #[case] object: &str,
    #[case] function: &str,
    #[case] good: &[&str],
    #[case] bad: &[&str],
) {
    for kernel in good {
        assert_found(object, kernel, &[]);
    }
    for kernel in bad {
        assert_found(object, kernel, &[(function, "set-callback", Refused)]);
    }
}

#[rstest]
#[case("6.12", Refused)]
#[case("7.0", Panic)]
#[test_log::test]
#[serial]
fn declarations(#[case] kernel: &str, #[case] effect: Effect) {
    let mut expected = vec![("bpf_task_from_pid___declared", "forward-declared", Absent)];
    let copying = [
        "xdp_copies",
        "tc_copies",
        "xdp_copies_from_a_task",
        "tc_copies_from_a_task",
        "cgroup_copies_from_a_task",
    ];
    expected.extend(copying.map(|program| (program, "sleeping-callback", effect)));
    if kernel == "7.0" {
        let function = "bpf_wq_set_callback_impl___aux";
        expected.push((function, "set-callback-with-aux", Refused));
    }
    assert_found("api", kernel, &expected);
}

/// Whether a function sleeps is in no kernel's BTF. When this fails on a new kernel, look for
/// KF_SLEEPABLE in its source, and add the functions to `src/lint/kfuncs.rs`.
#[test_log::test]
#[serial]
fn knows_the_functions_of_the_running_kernel() {
    if !needs((6, 12), "kernels of before do not mark such functions in their BTF") {
        return;
    }
    let btf = RawBtf::of_kernel();
    let functions = btf.kernel_functions();
    assert!(functions.contains("bpf_wq_start"), "{functions:?}");
    let unknown: Vec<_> =
        functions.into_iter().filter(|function| lint::sleeps(function).is_none()).collect();
    assert!(unknown.is_empty(), "lint does not know whether these sleep: {unknown:?}");
}

/// What a finding says to people.
#[test_log::test]
#[serial]
fn words() {
    let findings = findings("tutorial", &named("7.0"));
    let words: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let words = words.join("\n");
    for part in [
        "on_unlink: an update of elems cancels",
        "(lost work)",
        "attach to filename_unlinkat here",
        "include <bpf_wq/wq.bpf.h>",
    ] {
        assert!(words.contains(part), "{part:?} is not in:\n{words}");
    }
}

fn opened(object: &str) -> OpenObject {
    ObjectBuilder::default().open_file(path(object)).expect("it opens")
}

/// What an object is refused for, with what was chosen for it.
fn dangers(object: &str, open: &OpenObject, kernel: &str) -> Vec<Finding> {
    let bytes = fs::read(path(object)).unwrap();
    match lint::refuse_dangerous(object, &bytes, open, &named(kernel)) {
        Ok(()) => Vec::new(),
        Err(Error::Dangerous { name, findings, .. }) => {
            assert_eq!(name, object);
            assert!(!findings.is_empty());
            findings
        }
        Err(error) => panic!("{object} on {kernel}: {error}"),
    }
}

#[track_caller]
fn assert_dangers(object: &str, open: &OpenObject, kernel: &str, expected: &[Found<'_>]) {
    let findings = dangers(object, open, kernel);
    let mut found = found(&findings);
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{object} on {kernel}");
}

fn do_not_load(open: &mut OpenObject, programs: &[&str]) {
    let mut left = programs.len();
    for mut program in open.progs_mut() {
        if programs.iter().any(|name| program.name() == *name) {
            program.set_autoload(false);
            left -= 1;
        }
    }
    assert_eq!(left, 0, "all are there");
}

fn map<'a>(open: &'a mut OpenObject, name: &str) -> OpenMapMut<'a> {
    open.maps_mut().find(|map| map.name() == name).expect("it is there")
}

/// Not what a kernel only refuses, nor what is only possible.
#[test_log::test]
#[serial]
fn loading_refuses_what_does_harm() {
    assert_dangers(
        "tutorial",
        &opened("tutorial"),
        "7.0",
        &[running("on_unlink"), ("on_unlink", "update-loses-work", LostWork)],
    );
    let bad_maps = [
        ("two", "several-workqueues", Oops),
        ("array_of_two", "array-of-workqueues", Oops),
        ("misaligned", "misaligned", Oops),
        ("in_a_union", "in-union", Oops),
        ("value_is_wq", "value-is-workqueue", Oops),
    ];
    let mut others = vec![("tc_array", "update-loses-work", LostWork)];
    others.extend(["tc_array", "tc_hash", "tc_hash_no_prealloc", "tc_lru_hash"].map(running));
    assert_dangers("maps", &opened("maps"), "6.18.1", &[&bad_maps[..], &others].concat());
    assert_dangers("maps", &opened("maps"), "6.18.2", &others);
    let others = [
        ("sets_plain", "running-callback", Panic),
        ("sets_what_it_is_given", "running-callback", Panic),
        ("sets_calling_a_module", "sleeping-callback", Panic),
        ("sets_sleeping_below", "sleeping-callback", Panic),
        ("sets_sleeping_twice", "sleeping-callback", Panic),
        ("update_exist", "update-loses-work", LostWork),
        ("not_armed", "not-armed", LostWork),
        ("only_inited", "not-armed", LostWork),
    ];
    assert_dangers("lint", &opened("lint"), "7.3", &others);
    let bad_maps = [
        ("untyped", "no-value-type", Oops),
        ("untyped_key", "no-key-type", Oops),
        ("enum_key", "key-of-array", Oops),
        ("pairs", "several-workqueues", Oops),
        ("outer.inner", "several-workqueues", Oops),
    ];
    let mut open = opened("lint");
    let maybe = ("scratch", "map-kind", Oops);
    assert_dangers("lint", &open, "6.12", &[&others[..], &bad_maps, &[maybe]].concat());
    do_not_load(&mut open, &["inits_what_it_keeps"]);
    // It is given to a function that gives it to bpf_wq_init, too.
    do_not_load(&mut open, &["inits_untyped_key"]);
    assert_dangers("lint", &open, "6.12", &[&others[..], &bad_maps].concat());
    do_not_load(&mut open, &["inits_what_it_is_given"]);
    let typed: Vec<_> = bad_maps.into_iter().filter(|(map, ..)| *map != "untyped_key").collect();
    assert_dangers("lint", &open, "6.12", &[&others[..], &typed].concat());
}

/// What is not loaded does no harm.
#[test_log::test]
#[serial]
fn loading_respects_what_the_user_chose() {
    const FAULT: &str = "sleeping-callback";
    let (fentry, xdp) = (("fentry_arms_itself", FAULT, Panic), ("xdp_arms_itself", FAULT, Panic));
    let mut open = opened("teardown");
    let long = running("xdp_arms_itself_to_run_long");
    assert_dangers("teardown", &open, "6.16", &[fentry, xdp, long]);
    do_not_load(&mut open, &["xdp_arms_itself", "xdp_arms_itself_to_run_long"]);
    assert_dangers("teardown", &open, "6.16", &[fentry]);
    let mut program = open.progs_mut().find(|p| p.name() == "fentry_arms_itself").unwrap();
    program.set_flags(1 << 4);
    assert_dangers("teardown", &open, "6.16", &[]);

    let mut open = opened("maps");
    let init = ["two", "array_of_two", "misaligned", "in_a_union"].map(|m| format!("init_in_{m}"));
    do_not_load(&mut open, &init.each_ref().map(String::as_str));
    do_not_load(&mut open, &["tc_array", "tc_hash", "tc_hash_no_prealloc", "tc_lru_hash"]);
    assert_dangers("maps", &open, "6.12", &[("value_is_wq", "value-is-workqueue", Oops)]);
    map(&mut open, "value_is_wq").set_autocreate(false).unwrap();
    assert_dangers("maps", &open, "6.12", &[]);
    map(&mut open, "hash").set_type(MapType::PercpuHash).unwrap();
    assert_dangers("maps", &open, "6.12", &[("hash", "map-kind", Oops)]);
}

/// A program that arms has to be among those that are loaded, unless another object arms the map.
#[test_log::test]
#[serial]
fn loading_without_arming_loses_work() {
    let starts_only = |open: &mut OpenObject| {
        for mut program in open.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            program.set_autoload(name.starts_with("starts_armed_"));
        }
    };
    let mut open = opened("lint");
    starts_only(&mut open);
    const FAULT: &str = "not-armed";
    let (in_a_loop, for_each) =
        (("armed_in_a_loop", FAULT, LostWork), ("armed_for_each", FAULT, LostWork));
    assert_dangers("lint", &open, "7.3", &[in_a_loop, for_each]);
    map(&mut open, "armed_for_each").set_pin_path("/sys/fs/bpf/shared").unwrap();
    assert_dangers("lint", &open, "7.3", &[in_a_loop]);
    do_not_load(&mut open, &["starts_armed_in_a_loop"]);
    assert_dangers("lint", &open, "7.3", &[]);
}

#[test_log::test]
#[serial]
fn loading_takes_the_bytes_of_the_opened_object_only() {
    let open = opened("portable");
    for (object, words) in [
        ("tutorial", "only one of them has a program on_unlink"),
        ("lint", "only one of them has a map untyped"),
        ("by_hand_6_11", "the instructions of arm differ"),
    ] {
        let bytes = fs::read(path(object)).unwrap();
        match lint::refuse_dangerous(object, &bytes, &open, &named("6.12")) {
            Err(Error::OtherObject { name, why }) => {
                assert_eq!((name.as_str(), why.as_str()), (object, words));
            }
            other => panic!("{object}: {other:?}"),
        }
    }
    match lint::refuse_dangerous("nothing", &[], &open, &named("6.12")) {
        Err(Error::Object { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_no_object(name: &str, bytes: &[u8]) {
    match lint::object(name, bytes, &named("6.12")) {
        Err(Error::Object { .. }) => {}
        other => panic!("{name}: {other:?}"),
    }
}

#[test_log::test]
#[serial]
fn what_is_no_object_is_an_error() {
    assert_no_object("nothing", &[]);
    assert_no_object("text", b"this is no object, and has more characters than the header of one");
    assert_no_object("the test", &fs::read(std::env::current_exe().unwrap()).unwrap());
    let error = lint::file("/nonexistent.bpf.o", &named("6.12")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent.bpf.o"), "{error}");
}

/// libbpf opens none with maps and without types.
#[test_log::test]
#[serial]
fn an_object_without_types_is_an_error() {
    let mut bytes = fs::read(path("tutorial")).unwrap();
    // All sections that are named so, by their names in the string table.
    for at in 0..bytes.len() - 5 {
        if &bytes[at..at + 5] == b".BTF\0" {
            bytes[at + 1] = b'X';
        }
    }
    assert_no_object("without types", &bytes);
}

/// Whatever is wrong with a file: an answer, and no panic. An end that is missing is an error.
#[test_log::test]
#[serial]
fn broken_objects_do_no_harm() {
    let good = fs::read(path("tutorial")).unwrap();
    for length in (0..good.len()).step_by(61) {
        assert_no_object(&format!("{length} bytes"), &good[..length]);
    }
    for at in (0..good.len()).step_by(13) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            println!("{flip:#x} at {at}");
            _ = lint::object("broken", &bad, &named("6.12"));
        }
    }
}
