//! Which types of programs may use a bpf_wq.

use libbpf_rs::{MapCore as _, MapFlags, Object, ProgramInput};
use rstest::rstest;
use serial_test::serial;

use crate::support::loading::Verdict::{Loads, Refused};
use crate::support::loading::{FROM_THE_FIRST, History};
use crate::support::loading::{assert_verdict, load_alone, on_this_kernel, open};
use crate::support::program_types::{FRAME, needs_their_config};
use crate::support::{answer, eventually, is_before, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "Which program types may use a bpf_wq";

/// What programs of the tracing types are told before 7.0 (19bd300e22c2).
const OF_TRACING: History =
    &[(FROM_THE_FIRST, Refused("-EINVAL", "tracing progs cannot use bpf_wq yet")), ((7, 0), Loads)];

/// How the program of one type is declared, such as `fentry.s`.
fn section_of(name: &str) -> String {
    let program = format!("type_{name}");
    let open = open("program_types");
    let found = open.progs().find(|p| p.name() == program.as_str()).expect("the program");
    let section = found.section().to_str().expect("sections are ASCII");
    section.trim_end_matches("/bpf_fentry_test1").to_owned()
}

/// Loads the program of one type.
#[track_caller]
fn load_type(name: &str) -> Object {
    load_alone("program_types", &format!("type_{name}")).unwrap_or_else(|e| panic!("{name}: {e:?}"))
}

#[rstest]
#[case("fentry")]
#[case("fentry_s")]
#[case("fexit")]
#[case("fexit_s")]
#[case("fmod_ret")]
#[case("tp_btf")]
#[case("iter")]
#[case("iter_s")]
#[case("lsm")]
#[case("lsm_s")]
#[case("lsm_cgroup")]
#[case("sk_skb")]
#[case("sk_msg")]
#[case("sk_lookup")]
#[case("sk_reuseport")]
#[case("sockops")]
#[case("lwt_seg6local")]
#[case("netfilter")]
#[case("flow_dissector")]
#[case("cgroup_sock")]
#[case("cgroup_connect4")]
#[case("cgroup_dev")]
#[case("cgroup_sysctl")]
#[case("cgroup_getsockopt")]
#[case("cgroup_setsockopt")]
#[test_log::test]
#[serial]
fn may(#[case] name: &str) {
    rule(&format!("T-{name}"), GROUP, &format!("{}: loads", section_of(name)));
    if needs_bpf_wq() && needs_their_config(&[name]) {
        load_type(name);
    }
}

/// Those that BPF_PROG_TEST_RUN runs without more: from each, the callback runs.
#[rstest]
#[case("syscall", &[])]
#[case("xdp", &FRAME)]
#[case("tc", &FRAME)]
#[case("action", &FRAME)]
#[case("socket", &FRAME)]
#[case("cgroup_skb", &FRAME)]
#[case("lwt_in", &FRAME)]
#[case("lwt_out", &FRAME)]
#[case("lwt_xmit", &FRAME)]
#[test_log::test]
#[serial]
fn may_and_the_callback_runs(#[case] name: &str, #[case] data: &[u8]) {
    rule(
        &format!("T-{name}"),
        GROUP,
        &format!("{}: loads, and the callback runs", section_of(name)),
    );
    if !needs_bpf_wq() || !needs_their_config(&[name]) {
        return;
    }
    let object = load_type(name);
    let reason = "a test run of lwt_xmit borrows a route of IPv6";
    if name != "lwt_xmit" || needs_config("CONFIG_IPV6", reason) {
        run(&object, data);
    }
}

/// Runs the object's program, and waits for its callback.
#[track_caller]
fn run(object: &Object, data: &[u8]) {
    let program = object.progs_mut().find(|p| p.autoload()).expect("a program");
    let input =
        ProgramInput { data_in: (!data.is_empty()).then_some(data), ..ProgramInput::default() };
    program.test_run(input).expect("the program runs");
    let elems = object.maps().find(|m| m.name() == "elems").expect("map elems");
    eventually("the callback writes its value", || {
        let elem = elems.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        (elem[..4] == 42_i32.to_ne_bytes()).then_some(())
    });
}

#[rstest]
#[case("kprobe")]
#[case("kprobe_multi")]
#[case("uprobe")]
#[case("uprobe_s")]
#[case("tracepoint")]
#[case("raw_tp")]
#[case("raw_tp_w")]
#[case("perf_event")]
#[test_log::test]
#[serial]
fn may_since_7_0(#[case] name: &str) {
    rule(&format!("T-{name}"), GROUP, &format!("{}: loads", section_of(name)));
    if needs_bpf_wq() && needs_their_config(&[name]) {
        tracing(&format!("type_{name}"));
    }
}

/// Not even the map may be used: the value of its elements has a bpf_wq.
#[test_log::test]
#[serial]
fn may_look_up_since_7_0() {
    rule("T-kprobe-map", GROUP, "a kprobe may use a map that holds a bpf_wq, if only to look up");
    if needs_bpf_wq() && needs_their_config(&["kprobe"]) {
        tracing("only_looks_up");
    }
}

#[track_caller]
fn tracing(program: &str) {
    let verdict = on_this_kernel(OF_TRACING);
    assert_verdict(&load_alone("program_types", program), verdict);
    if let Refused(errno, words) = verdict {
        answer(&format!("no: {errno}, {words}"));
    }
}

/// The verifier looks for a timer first, and names that.
#[test_log::test]
#[serial]
fn timer_beside_it_is_what_is_refused() {
    let statement = "where the value also has a bpf_timer, a kprobe is refused for that";
    rule("T-kprobe-timer", GROUP, statement);
    if needs_bpf_wq()
        && is_before((7, 0), "kprobes may use both since 7.0 (19bd300e22c2)")
        && needs_their_config(&["kprobe"])
    {
        let words = "tracing progs cannot use bpf_timer yet";
        let refused = load_alone("program_types", "looks_up_with_timer");
        assert_verdict(&refused, Refused("-EINVAL", words));
        answer(&format!("yes: -EINVAL, {words}"));
    }
}
