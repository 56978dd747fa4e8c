//! Calls that sleep, in the callback of a bpf_wq: it is the type of the program that decides
//! which are allowed.

use nix::errno::Errno::{EBADMSG, ENOENT};
use rstest::rstest;
use serial_test::serial;

use crate::support::called::{Called, Code, OK, code};
use crate::support::loading::Verdict::{self, Loads, Refused};
use crate::support::loading::{
    FROM_THE_FIRST, History, assert_verdict, choose, load, load_alone, on_this_kernel, open,
};
use crate::support::{answer, eventually, needs, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "Calls that may sleep, by program type";

const ALWAYS: History = &[(FROM_THE_FIRST, Loads)];

/// Whatever their callbacks call: 19bd300e22c2.
const TRACING_PROGRAMS: (u32, u32) = (7, 0);
const TRACING: History = &[
    (FROM_THE_FIRST, Refused("-EINVAL", "tracing progs cannot use bpf_wq yet")),
    (TRACING_PROGRAMS, Loads),
];

/// 6.16 opened the helper to them (ee971630f20f).
const TASK_IN_NETWORK: History = &[
    (
        FROM_THE_FIRST,
        Refused("-EINVAL", "program of this type cannot use helper bpf_copy_from_user_task#191"),
    ),
    ((6, 16), Loads),
];

/// Between 6.17 and 6.18.
const KEYS: (u32, u32) = (6, 18);
const SYSTEM_KEY: History = &[
    (
        FROM_THE_FIRST,
        Refused("-EACCES", "calling kernel function bpf_lookup_system_key is not allowed"),
    ),
    (KEYS, Loads),
];
const USER_KEY: History = &[
    (
        FROM_THE_FIRST,
        Refused("-EACCES", "calling kernel function bpf_lookup_user_key is not allowed"),
    ),
    (KEYS, Loads),
];

/// Between 7.2 and 7.3.
const SOCKETS: (u32, u32) = (7, 3);
const KSOCK: History = &[
    (
        FROM_THE_FIRST,
        Refused("-EINVAL", "kfunc 'bpf_ksock_create' is referenced but wasn't resolved"),
    ),
    (SOCKETS, Loads),
];

/// Types whose callbacks have always been alike are one case.
#[rstest]
#[case("copy_from_user_task", &["fentry", "lsm", "syscall"], ALWAYS)]
#[case("copy_from_user_task", &["xdp", "tc", "cgroup_skb"], TASK_IN_NETWORK)]
#[case("copy_from_user_task", &["raw_tp", "perf_event"], TRACING)]
#[case("copy_from_user_str",
    &["fentry", "lsm", "syscall", "xdp", "tc", "cgroup_skb", "socket"], ALWAYS)]
#[case("copy_from_user_str", &["raw_tp", "perf_event", "kprobe"], TRACING)]
#[case("arena_alloc_pages",
    &["fentry", "lsm", "syscall", "xdp", "tc", "cgroup_skb", "socket"], ALWAYS)]
#[case("arena_alloc_pages", &["raw_tp", "perf_event", "kprobe"], TRACING)]
#[case("crypto_ctx_create", &["syscall"], ALWAYS)]
#[case("verify_pkcs7_signature", &["fentry", "lsm"], ALWAYS)]
#[case("verify_pkcs7_signature", &["syscall", "xdp", "tc", "cgroup_skb"], SYSTEM_KEY)]
#[case("verify_pkcs7_signature", &["raw_tp", "perf_event"], TRACING)]
#[case("lookup_user_key", &["fentry", "lsm"], ALWAYS)]
#[case("lookup_user_key", &["syscall", "xdp", "tc", "cgroup_skb"], USER_KEY)]
#[case("lookup_user_key", &["raw_tp", "perf_event"], TRACING)]
#[case("get_file_xattr", &["lsm"], ALWAYS)]
#[case("rstat_flush", &["fentry", "lsm"], ALWAYS)]
#[case("rstat_flush", &["raw_tp", "perf_event"], TRACING)]
#[case("ksock_create", &["syscall"], KSOCK)]
#[test_log::test]
#[serial]
fn is_allowed(#[case] call: &str, #[case] types: &[&str], #[case] history: History) {
    let statement =
        format!("{} may be called by callbacks of: {}", kernel_name(call), types.join(", "));
    rule(&format!("C-{call}-{}", types[0]), GROUP, &statement);
    if !needs_bpf_wq() || !needs_its_config(call) || !have_their_config(types) {
        return;
    }
    match on_this_kernel(history) {
        Loads => {
            let mut open = open("sleepable_calls");
            for kind in types {
                choose(&mut open, &format!("{kind}_{call}"));
            }
            assert_verdict(&load(open), Loads);
        }
        Refused(errno, words) => {
            answer(&format!("no: {errno}, {words}"));
            are_refused(call, types, |_| Refused(errno, words));
        }
    }
}

/// What a kernel has to be built with to have the call.
fn needs_its_config(call: &str) -> bool {
    let option = match call {
        "crypto_ctx_create" => "CONFIG_CRYPTO_ECB",
        "verify_pkcs7_signature" => "CONFIG_SYSTEM_DATA_VERIFICATION",
        "lookup_user_key" => "CONFIG_KEYS",
        "get_file_xattr" => "CONFIG_BPF_LSM",
        _ => return true,
    };
    needs_config(option, "the kernel function comes with it, or works only with it")
}

/// What a kernel has to be built with to have programs of all these types.
fn have_their_config(types: &[&str]) -> bool {
    !types.contains(&"lsm")
        || needs_config("CONFIG_BPF_LSM", "without it there are no LSM programs")
}

/// Each is: of several in one object, the first would hide the others.
#[track_caller]
fn are_refused(call: &str, types: &[&str], verdict: impl Fn(&str) -> Verdict) {
    for kind in types {
        let program = format!("{kind}_{call}");
        println!("{program}");
        assert_verdict(&load_alone("sleepable_calls", &program), verdict(kind));
    }
}

/// The kernel's name of the call; of one that has two, the newer.
fn kernel_name(call: &str) -> String {
    match call {
        "rstat_flush" => "css_rstat_flush (up to 6.15 cgroup_rstat_flush)".to_owned(),
        _ => format!("bpf_{call}"),
    }
}

/// The words name the first call that is not allowed: one that only prepares, for some types.
#[rstest]
#[case("copy_from_user_task", "bpf_task_from_pid", &["socket", "kprobe"])]
#[case("crypto_ctx_create", "bpf_crypto_ctx_create",
    &["fentry", "lsm", "xdp", "tc", "cgroup_skb", "socket", "raw_tp", "perf_event", "kprobe"])]
#[case("verify_pkcs7_signature", "bpf_lookup_system_key", &["socket", "kprobe"])]
#[case("lookup_user_key", "bpf_lookup_user_key", &["socket", "kprobe"])]
#[case("get_file_xattr", "bpf_get_task_exe_file",
    &["fentry", "syscall", "xdp", "tc", "cgroup_skb", "socket", "raw_tp", "perf_event", "kprobe"])]
#[case("rstat_flush", "rstat_flush", &["syscall", "xdp", "tc", "cgroup_skb"])]
#[case("rstat_flush", "bpf_cgroup_from_id", &["socket", "kprobe"])]
#[case("ksock_create", "bpf_ksock_create",
    &["fentry", "lsm", "xdp", "tc", "cgroup_skb", "socket", "raw_tp", "perf_event", "kprobe"])]
#[test_log::test]
#[serial]
fn is_refused(#[case] call: &str, #[case] function: &str, #[case] types: &[&str]) {
    let statement = format!("{function} is refused to callbacks of: {}", types.join(", "));
    rule(&format!("C-{call}-not-{}", types[0]), GROUP, &statement);
    if !needs_bpf_wq()
        || !needs_its_config(call)
        || !have_their_config(types)
        || (call == "ksock_create" && !needs(SOCKETS, "bpf_ksock_create came with 7.3"))
    {
        return;
    }
    let words = format!("{function} is not allowed").leak();
    // Before 7.0, tracing programs among them are told something else.
    answer(&format!("yes: -EACCES, {words}"));
    are_refused(call, types, |kind| {
        let tracing = ["raw_tp", "perf_event", "kprobe"].contains(&kind);
        match on_this_kernel(TRACING) {
            refused @ Refused(..) if tracing => refused,
            _ => Refused("-EACCES", words),
        }
    });
}

/// Armed by a SEC("syscall") program. That memory is read and allocated is seen in
/// `sleeping.rs`.
#[rstest]
#[case("crypto_ctx_create", "makes a context", FROM_THE_FIRST, OK)]
#[case("verify_pkcs7_signature", "refuses zeroes: -EBADMSG", KEYS, Err(EBADMSG))]
#[case("lookup_user_key", "finds no key 1: NULL", KEYS, Err(ENOENT))]
#[test_log::test]
#[serial]
fn runs(#[case] call: &str, #[case] does: &str, #[case] first: (u32, u32), #[case] returned: Code) {
    rule(
        &format!("C-{call}-runs"),
        GROUP,
        &format!("{}, called by a callback, {does}", kernel_name(call)),
    );
    if !needs_bpf_wq()
        || !needs_its_config(call)
        || !needs(first, "refused to SEC(\"syscall\") programs before")
    {
        return;
    }
    let program = format!("syscall_{call}");
    let called = Called::load("sleepable_calls", &[&program]);
    assert_eq!(called.call(&program), [OK, OK, OK]);
    eventually("the callback ends", || (called.seen().runs == 1).then_some(()));
    assert_eq!(code(called.seen().err[0]), returned);
}

#[test_log::test]
#[serial]
fn bpf_obj_new_does_not_sleep() {
    rule("C-obj_new", GROUP, "bpf_obj_new does not sleep: an fentry program itself may call it");
    if needs_bpf_wq() {
        assert_verdict(&load_alone("sleepable_calls", "main_obj_new"), Loads);
    }
}
