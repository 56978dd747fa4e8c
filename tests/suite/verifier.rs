//! What the verifier says to programs with workqueues, in the words of each version.

use libbpf_rs::{MapCore as _, MapFlags, ProgramInput};
use rstest::rstest;
use serial_test::serial;

use crate::support::loading::Verdict::{self, Loads, Refused};
use crate::support::loading::{
    FROM_THE_FIRST, History, assert_verdict, load_alone, on_this_kernel,
};
use crate::support::{answer, eventually, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "What the verifier checks";

/// Asserts the verdict on a program that the rule says is refused.
#[track_caller]
fn refuses(object: &str, program: &str, history: History) {
    let verdict = on_this_kernel(history);
    let result = load_alone(object, program);
    assert_verdict(&result, verdict);
    match verdict {
        Loads => answer("no: accepted"),
        Refused(errno, words) => answer(&format!("yes: {errno}, {words}")),
    }
}

/// Asserts the verdict on a program that the rule says is accepted.
#[track_caller]
fn accepts(object: &str, program: &str, history: History) {
    let verdict = on_this_kernel(history);
    assert_verdict(&load_alone(object, program), verdict);
    if let Refused(errno, words) = verdict {
        answer(&format!("no: {errno}, {words}"));
    }
}

/// The same words on every kernel.
macro_rules! always {
    ($verdict:expr) => {
        &[(FROM_THE_FIRST, $verdict)]
    };
}

/// Where an entry names 6.18, 7.0 or 7.3, the kernel tried before it was 6.12, 6.18 or 7.0:
/// the change lies somewhere between.
///
/// The kernel's own selftests `failures_wq`: `test_wq_init_nomap` (V1), `test_wq_init_wrong_map`
/// (V2), `test_wrong_wq_pointer` (V3-set-callback), `test_wrong_wq_pointer_offset`
/// (V4-set-callback) and `test_bad_wq_off` (V5).
#[rstest]
#[case::map_is_no_map(
    "V1",
    "bpf_wq_init's second argument has to be a map",
    "map_is_no_map",
    always!(Refused("-EINVAL", "pointer in R2 isn't map pointer"))
)]
#[case::map_is_null(
    "V1-null",
    "bpf_wq_init's second argument may not be NULL",
    "map_is_null",
    &[
        (FROM_THE_FIRST, Refused("-EINVAL", "pointer in R2 isn't map pointer")),
        ((7, 0), Refused("-EACCES", "Possibly NULL pointer passed to trusted arg1")),
        ((7, 2), Refused("-EACCES", "Possibly NULL pointer passed to trusted R2")),
    ]
)]
#[case::map_is_another(
    "V2",
    "bpf_wq_init's map has to be the one that holds the bpf_wq",
    "map_is_another",
    always!(Refused(
        "-EINVAL",
        "workqueue pointer in R1 map_uid=0 doesn't match map pointer in R2 map_uid=0"
    ))
)]
#[case::on_the_stack(
    "V3-stack",
    "a bpf_wq may not be on the stack",
    "wq_on_the_stack",
    &[
        (FROM_THE_FIRST, Refused("-EINVAL", "arg#0 doesn't point to a map value")),
        ((7, 2), Refused("-EINVAL", "R1 doesn't point to a map value")),
    ]
)]
#[case::on_the_stack_set_callback(
    "V3-set-callback",
    "bpf_wq_set_callback's bpf_wq may not be on the stack",
    "wq_on_the_stack_set_callback",
    &[
        (FROM_THE_FIRST, Refused("-EINVAL", "arg#0 doesn't point to a map value")),
        ((7, 2), Refused("-EINVAL", "R1 doesn't point to a map value")),
    ]
)]
#[case::is_the_context(
    "V3-context",
    "a bpf_wq may not be the program's context",
    "wq_is_the_context",
    &[
        (FROM_THE_FIRST, Refused("-EINVAL", "arg#0 doesn't point to a map value")),
        ((7, 2), Refused("-EINVAL", "R1 doesn't point to a map value")),
    ]
)]
#[case::wrong_offset(
    "V4",
    "the pointer to a bpf_wq has to have its exact offset",
    "wrong_offset",
    always!(Refused("-EINVAL", "off 9 doesn't point to 'struct bpf_wq' that is at 8"))
)]
#[case::wrong_offset_set_callback(
    "V4-set-callback",
    "bpf_wq_set_callback's pointer has to have the exact offset of a bpf_wq",
    "wrong_offset_set_callback",
    always!(Refused("-EINVAL", "off 9 doesn't point to 'struct bpf_wq' that is at 8"))
)]
#[case::variable_offset(
    "V5",
    "the pointer to a bpf_wq may not have a variable offset",
    "variable_offset",
    &[
        (FROM_THE_FIRST, Loads),
        (
            (6, 18),
            Refused(
                "-EINVAL",
                "R1 doesn't have constant offset. bpf_wq has to be at the constant offset"
            )
        ),
    ]
)]
#[case::unchecked_lookup(
    "V6",
    "the result of a lookup has to be checked, also where the bpf_wq is at offset 0",
    "unchecked_lookup",
    &[
        (FROM_THE_FIRST, Refused("-EINVAL", "arg#0 doesn't point to a map value")),
        ((7, 0), Refused("-EACCES", "Possibly NULL pointer passed to trusted arg0")),
        ((7, 2), Refused("-EACCES", "Possibly NULL pointer passed to trusted R1")),
    ]
)]
#[case::callback_is_null(
    "V7",
    "a callback may not be NULL",
    "callback_is_null",
    &[
        (FROM_THE_FIRST, Refused("-EINVAL", "arg1 expected pointer to func")),
        ((7, 0), Refused("-EACCES", "Possibly NULL pointer passed to trusted arg1")),
        ((7, 2), Refused("-EACCES", "Possibly NULL pointer passed to trusted R2")),
    ]
)]
#[case::callback_is_global(
    "V8",
    "a callback has to be a static function",
    "callback_is_global",
    always!(Refused("-EINVAL", "callback function not static"))
)]
#[case::load_from_the_wq(
    "V9-load",
    "a program may not read a bpf_wq",
    "load_from_the_wq",
    always!(Refused("-EACCES", "bpf_wq cannot be accessed directly by load/store"))
)]
#[case::store_to_the_wq(
    "V9-store",
    "a program may not write a bpf_wq",
    "store_to_the_wq",
    always!(Refused("-EACCES", "bpf_wq cannot be accessed directly by load/store"))
)]
#[case::callback_returns_one(
    "V10",
    "a callback has to return 0",
    "callback_returns_one",
    always!(Refused(
        "-EINVAL",
        "At async callback return the register R0 has smin=1 smax=1 should have been in [0, 0]"
    ))
)]
#[case::key_read_too_wide(
    "V11",
    "a callback may not read more than the key",
    "key_read_too_wide",
    always!(Refused("-EACCES", "invalid access to map key, key_size=4 off=0 size=8"))
)]
#[case::key_written(
    "V12",
    "a callback may not write the key",
    "key_written",
    always!(Refused("-EACCES", "write to change key R2 not allowed"))
)]
#[case::under_a_spin_lock(
    "V13",
    "bpf_wq_start may not be called under a bpf_spin_lock",
    "under_a_spin_lock",
    always!(Refused("-EINVAL", "function calls are not allowed while holding a lock"))
)]
#[test_log::test]
#[serial]
fn is_refused(
    #[case] id: &str,
    #[case] statement: &str,
    #[case] program: &str,
    #[case] history: History,
) {
    rule(id, GROUP, statement);
    if needs_bpf_wq() {
        refuses("verifier_fail", program, history);
    }
}

#[test_log::test]
#[serial]
fn lookup_in_an_array_may_be_unchecked() {
    rule("V6-array", GROUP, "a lookup in an array by a constant key needs no check");
    if needs_bpf_wq() {
        let history: History = &[
            (FROM_THE_FIRST, Refused("-EINVAL", "arg#0 doesn't point to a map value")),
            // Between 6.12 and 6.16.
            ((6, 16), Loads),
        ];
        accepts("verifier_fail", "unchecked_lookup_in_array", history);
    }
}

#[test_log::test]
#[serial]
fn program_has_to_be_gpl() {
    rule("V14", GROUP, "a program that is not compatible with the GPL may not use bpf_wq");
    if needs_bpf_wq() {
        const WORDS: &str = "cannot call kernel function from non-GPL compatible program";
        refuses("verifier_fail_no_gpl", "init", always!(Refused("-EINVAL", WORDS)));
        // It is the call: the map alone is allowed.
        assert_verdict(&load_alone("verifier_fail_no_gpl", "look_up"), Loads);
    }
}

const SLEEPS_BY_HELPER: History = &[
    (FROM_THE_FIRST, Refused("-EINVAL", "helper call might sleep in a non-sleepable prog")),
    ((7, 1), Refused("-EINVAL", "sleepable helper bpf_copy_from_user#148 in non-sleepable prog")),
];

const SLEEPS_BY_KFUNC: Verdict =
    Refused("-EACCES", "program must be sleepable to call sleepable kfunc bpf_copy_from_user_str");

/// Claim S7, first half.
#[rstest]
#[case::by_helper("V15-main", "a sleepable helper", "main_sleeps_by_helper", SLEEPS_BY_HELPER)]
#[case::by_kfunc("V16-main", "a sleepable kfunc", "main_sleeps_by_kfunc", always!(SLEEPS_BY_KFUNC))]
#[test_log::test]
#[serial]
fn sleeping_is_refused_in_the_program(
    #[case] id: &str,
    #[case] what: &str,
    #[case] program: &str,
    #[case] history: History,
) {
    rule(id, GROUP, &format!("an fentry program may not call {what}"));
    if needs_bpf_wq() {
        refuses("verifier_fail", program, history);
    }
}

/// The kernel's own selftest `verifier_async_cb_context`: `timer_non_sleepable_prog` (V15-timer).
#[rstest]
#[case::by_helper("V15-timer", "a sleepable helper", "timer_sleeps_by_helper", SLEEPS_BY_HELPER)]
#[case::by_kfunc("V16-timer", "a sleepable kfunc", "timer_sleeps_by_kfunc",
    always!(SLEEPS_BY_KFUNC))]
#[test_log::test]
#[serial]
fn sleeping_is_refused_in_a_timer(
    #[case] id: &str,
    #[case] what: &str,
    #[case] program: &str,
    #[case] history: History,
) {
    rule(id, GROUP, &format!("a bpf_timer callback of an fentry program may not call {what}"));
    if needs_bpf_wq() {
        refuses("verifier_fail", program, history);
    }
}

/// Accepted before 469d638d1520: a callback of a timer was taken for a part of its
/// program. The fix came to 6.18.2, so that of the kernels tried 6.17 is the last without.
///
/// The kernel's own selftest `verifier_async_cb_context`: `timer_sleepable_prog` (V18-helper).
#[rstest]
#[case::by_helper("V18-helper", "a sleepable helper", "timer_of_sleepable_sleeps_by_helper", &[
    (FROM_THE_FIRST, Loads),
    ((6, 18), Refused("-EINVAL", "helper call might sleep in a non-sleepable prog")),
    ((7, 1), Refused("-EINVAL", "sleepable helper bpf_copy_from_user#148 in non-sleepable prog")),
])]
#[case::by_kfunc("V18-kfunc", "a sleepable kfunc", "timer_of_sleepable_sleeps_by_kfunc", &[
    (FROM_THE_FIRST, Loads),
    ((6, 18), SLEEPS_BY_KFUNC),
])]
#[test_log::test]
#[serial]
fn sleeping_is_refused_in_a_timer_of_a_sleepable_program(
    #[case] id: &str,
    #[case] what: &str,
    #[case] program: &str,
    #[case] history: History,
) {
    rule(id, GROUP, &format!("a bpf_timer callback of a sleepable program may not call {what}"));
    if needs_bpf_wq() {
        refuses("verifier_fail", program, history);
    }
}

#[rstest]
#[case::under_rcu("V17-rcu", "in an RCU section", "callback_sleeps_under_rcu", &[
    (FROM_THE_FIRST, Refused(
        "-EINVAL",
        "sleepable helper bpf_copy_from_user#148 in rcu_read_lock region"
    )),
])]
#[case::without_preemption(
    "V17-preempt",
    "with preemption off",
    "callback_sleeps_without_preemption",
    &[(FROM_THE_FIRST, Refused(
        "-EINVAL",
        "sleepable helper bpf_copy_from_user#148 in non-preemptible region"
    ))]
)]
#[test_log::test]
#[serial]
fn callback_may_not_sleep_everywhere(
    #[case] id: &str,
    #[case] place: &str,
    #[case] program: &str,
    #[case] history: History,
) {
    rule(id, GROUP, &format!("a callback may not sleep {place}"));
    if needs_bpf_wq() {
        refuses("verifier_fail", program, history);
    }
}

const IN_A_GLOBAL_SINCE_7_3: History =
    &[(FROM_THE_FIRST, SLEEPS_BY_HELPER[0].1), ((7, 1), SLEEPS_BY_HELPER[1].1), ((7, 3), Loads)];

/// Claim S7, second half, as far as the verifier goes: the callback runs in another test.
/// The kernel's own selftests `verifier_async_cb_context`: `wq_non_sleepable_prog` (V19-fentry)
/// and `wq_sleepable_prog` (V19-lsm.s).
#[rstest]
#[case::of_fentry("V19-fentry", "of an fentry program may call a sleepable helper",
    "wq_of_fentry_sleeps_by_helper", always!(Loads))]
#[case::of_fentry_by_kfunc("V19-kfunc", "of an fentry program may call a sleepable kfunc",
    "wq_of_fentry_sleeps_by_kfunc", always!(Loads))]
#[case::of_lsm_s("V19-lsm.s", "of a sleepable LSM program may call a sleepable helper",
    "wq_of_lsm_s_sleeps_by_helper", always!(Loads))]
#[case::in_a_static("V20-static", "may sleep in a static function that it calls",
    "wq_sleeps_in_a_static", always!(Loads))]
#[case::in_a_global(
    "V20-global",
    "may sleep in a global function that it calls",
    "wq_sleeps_in_a_global",
    IN_A_GLOBAL_SINCE_7_3
)]
#[test_log::test]
#[serial]
fn callback_may_sleep(
    #[case] id: &str,
    #[case] statement: &str,
    #[case] program: &str,
    #[case] history: History,
) {
    rule(id, GROUP, &format!("a bpf_wq callback {statement}"));
    let reason = "without it there are no LSM programs";
    if needs_bpf_wq() && (id != "V19-lsm.s" || needs_config("CONFIG_BPF_LSM", reason)) {
        accepts("verifier", program, history);
    }
}

/// The kernel's own selftests `verifier_async_cb_context`: `wq_global_rcu_lock_prog` (V21-lock)
/// and `wq_global_no_rcu_prog` (V21-none).
#[rstest]
#[case("V21-lock", "may lock RCU and use an RCU pointer", "wq_global_locks_rcu", always!(Loads))]
#[case("V21-none", "may be without RCU", "wq_global_uses_no_rcu_pointer", always!(Loads))]
#[test_log::test]
#[serial]
fn global_function_of_a_callback(
    #[case] id: &str,
    #[case] statement: &str,
    #[case] program: &str,
    #[case] history: History,
) {
    rule(id, GROUP, &format!("a global function that a callback calls {statement}"));
    if needs_bpf_wq() {
        accepts("verifier", program, history);
    }
}

/// The kernel's own selftest `verifier_async_cb_context`: `wq_global_rcu_prog`.
#[test_log::test]
#[serial]
fn global_function_of_a_callback_may_not_take_rcu_for_granted() {
    let statement = "a global function that a callback calls may not use an RCU pointer unlocked";
    rule("V21-rcu", GROUP, statement);
    if needs_bpf_wq() {
        let history: History =
            &[(FROM_THE_FIRST, Loads), ((7, 3), Refused("-EINVAL", "R1 must be a rcu pointer"))];
        refuses("verifier", "wq_global_uses_rcu_pointer", history);
    }
}

/// Claim S4 says that the verifier refuses a callback whose `int *key` should be `__u32 *`.
/// It does not: it knows the size of a key, and of its type nothing. Neither does libbpf,
/// which loads them here, and the callback gets the key. Only the C compiler complains.
#[rstest]
#[case("S4-unsigned", "__u32 *key for int keys", "unsigned_callback_for_int_keys", "elems")]
#[case("S4-int", "int *key for __u32 keys", "int_callback_for_unsigned_keys", "by_unsigned_key")]
#[case("S4-char", "char *key for int keys", "characters_for_int_keys", "elems")]
#[test_log::test]
#[serial]
fn type_of_the_key_is_not_checked(
    #[case] id: &str,
    #[case] what: &str,
    #[case] program: &str,
    #[case] map: &str,
) {
    rule(id, GROUP, &format!("a callback may take {what}: the type is not checked"));
    if !needs_bpf_wq() {
        return;
    }
    let object = load_alone("verifier", program).unwrap();
    let found = object.progs_mut().find(|p| p.name() == program).expect("the program");
    let output = found.test_run(ProgramInput::default()).expect("the program runs");
    assert_eq!(output.return_value as i32, 0, "init, set_callback or start failed");
    let map = object.maps().find(|m| m.name() == map).expect("the map");
    let key = 1_u32.to_ne_bytes();
    eventually("the callback stores its key", || {
        let elem = map.lookup(&key, MapFlags::ANY).unwrap().unwrap();
        (elem[..4] == key).then_some(())
    });
}

#[test_log::test]
#[serial]
fn callback_has_a_stack_of_its_own() {
    let statement = "a program and its callback may use 480 bytes of stack each";
    rule("V22", GROUP, statement);
    if needs_bpf_wq() {
        accepts("verifier", "separate_stacks", always!(Loads));
        // A function that the program calls shares the program's 512 bytes.
        let words = "combined stack size of 2 calls is";
        let together = load_alone("verifier_fail", "stack_of_caller_and_callee");
        assert_verdict(&together, Refused("-EACCES", words));
    }
}

#[rstest]
#[case("V23-own", "a callback may init, set and start its own bpf_wq", "callback_arms_its_own")]
#[case("V23-another", "a callback may init, set and start another", "callback_arms_another")]
#[case("V23-timer", "a callback may init, set and start a bpf_timer", "callback_arms_a_timer")]
#[case("V24", "a bpf_timer callback may start a bpf_wq (delayed work)", "timer_starts_a_wq")]
#[case("V25", "a callback may do nothing", "plain_callback")]
#[test_log::test]
#[serial]
fn also_loads(#[case] id: &str, #[case] statement: &str, #[case] program: &str) {
    rule(id, GROUP, statement);
    if needs_bpf_wq() {
        accepts("verifier", program, always!(Loads));
    }
}
