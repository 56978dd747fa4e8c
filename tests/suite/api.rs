//! How the kernels differ in their API, as far as the topic `header` does not say.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, Struct};
use libbpf_rs::{Object, ProgramInput};
use rstest::rstest;
use serial_test::serial;

use crate::support::loading::Verdict::{Loads, Refused};
use crate::support::loading::{
    FROM_THE_FIRST, History, assert_verdict, load_alone, on_this_kernel,
};
use crate::support::{answer, needs, needs_bpf_wq, needs_config, rule, version};

const GROUP: &str = "How the API differs";

/// What the one program of an object returns, here whether libbpf finds a kfunc.
#[track_caller]
fn finds(program: &str) -> bool {
    let object: Object = load_alone("api", program).unwrap();
    let found = object.progs_mut().find(|p| p.name() == program).expect("the program");
    match found.test_run(ProgramInput::default()).expect("the program runs").return_value {
        0 => false,
        1 => true,
        other => panic!("{other}"),
    }
}

/// libbpf compares the prototypes of kfuncs by structure, and a struct that is only declared
/// is no struct.
#[test_log::test]
#[serial]
fn structs_in_prototypes_have_to_be_defined() {
    rule("A1", GROUP, "a weak kfunc is found only if the structs of its prototype are defined");
    if needs_bpf_wq() {
        assert!(finds("finds_defined"));
        assert!(!finds("finds_declared"));
    }
}

/// b97931a25a4b kept the name for the verifier's own use, with another type of argument.
#[test_log::test]
#[serial]
fn old_name_counts_as_absent() {
    let statement = "bpf_wq_set_callback_impl with `void *aux` is found";
    rule("A2", GROUP, statement);
    if needs_bpf_wq() {
        let found = finds("finds_impl_with_void");
        assert_eq!(found, version() < (7, 0));
        if !found {
            answer("no: absent, bpf_wq_set_callback took its place (b97931a25a4b)");
        }
    }
}

/// Before 7.0 the prototype does not match and the call is removed. Since then libbpf finds
/// the function, and the verifier knows no such kfunc.
#[test_log::test]
#[serial]
fn old_name_with_its_new_type_is_a_trap() {
    let statement = "bpf_wq_set_callback_impl with `struct bpf_prog_aux *` is absent";
    rule("A3", GROUP, statement);
    if needs_bpf_wq() {
        // The words are those of 7.0.13; the errno changed between it and 7.3.4.
        const WORDS: &str = "cannot find address for kernel function bpf_wq_set_callback_impl";
        let history: History = &[
            (FROM_THE_FIRST, Loads),
            ((7, 0), Refused("-EINVAL", WORDS)),
            ((7, 3), Refused("-ENOENT", "bpf_wq_set_callback_impl")),
        ];
        let verdict = on_this_kernel(history);
        assert_verdict(&load_alone("api", "calls_impl_with_aux"), verdict);
        if let Refused(errno, _) = verdict {
            answer(&format!("no: it is found, and a program that calls it is refused: {errno}"));
        }
    }
}

/// Functions for work that is deferred, and since when.
#[rstest]
#[case("A4", "bpf_wq_set_callback", (7, 0))]
#[case("A5", "bpf_task_work_schedule_signal_impl", (6, 18))]
#[case("A6", "bpf_task_work_schedule_signal", (7, 0))]
#[test_log::test]
fn function_came_later(#[case] id: &str, #[case] name: &str, #[case] first: (u32, u32)) {
    rule(id, GROUP, &format!("the kernel has {name}"));
    if !needs_bpf_wq() {
        return;
    }
    let there = Btf::from_vmlinux().unwrap().type_by_name::<Func<'_>>(name).is_some();
    assert_eq!(there, version() >= first);
    if !there {
        answer(&format!("no: not in BTF before {}.{}", first.0, first.1));
    }
}

/// Debian leaves HID_BPF out of 6.12, and has it in 6.16.
#[test_log::test]
fn hid_bpf_is_struct_ops() {
    rule("A7", GROUP, "HID-BPF is struct_ops, with hid_bpf_try_input_report");
    if !needs_bpf_wq()
        || !needs((6, 11), "HID-BPF is struct_ops since 6.11 (ebc0d8093e8c)")
        || !needs_config("CONFIG_HID_BPF", "without it HID devices have no BPF programs")
    {
        return;
    }
    let btf = Btf::from_vmlinux().unwrap();
    assert!(btf.type_by_name::<Struct<'_>>("hid_bpf_ops").is_some());
    for function in ["hid_bpf_input_report", "hid_bpf_try_input_report", "hid_bpf_hw_request"] {
        assert!(btf.type_by_name::<Func<'_>>(function).is_some(), "{function}");
    }
}

/// ee971630f20f.
const SINCE_6_16: History = &[
    (FROM_THE_FIRST, Refused("-EINVAL", "program of this type cannot use helper")),
    ((6, 16), Loads),
];

#[rstest]
#[case("A8-xdp", "an XDP program's callback may call bpf_copy_from_user", "xdp_copies")]
#[case("A8-tc", "a tc program's callback may call bpf_copy_from_user", "tc_copies")]
#[case(
    "A8-xdp-task",
    "an XDP program's callback may call bpf_copy_from_user_task",
    "xdp_copies_from_a_task"
)]
#[case(
    "A8-tc-task",
    "a tc program's callback may call bpf_copy_from_user_task",
    "tc_copies_from_a_task"
)]
#[case(
    "A8-cgroup-task",
    "a cgroup/connect4 program's callback may call bpf_copy_from_user_task",
    "cgroup_copies_from_a_task"
)]
#[test_log::test]
#[serial]
fn network_programs_may_copy_since_6_16(
    #[case] id: &str,
    #[case] statement: &str,
    #[case] program: &str,
) {
    rule(id, GROUP, statement);
    if needs_bpf_wq() {
        let verdict = on_this_kernel(SINCE_6_16);
        assert_verdict(&load_alone("api", program), verdict);
        if let Refused(errno, words) = verdict {
            answer(&format!("no: {errno}, {words}"));
        }
    }
}
