//! `bpf_wq/wq.bpf.h`: one compiled object on every kernel, at no cost.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use bpf_wq::{Answer, Kernel, SetCallback};
use libbpf_rs::{
    MapCore as _, MapFlags, Object, ObjectBuilder, PrintLevel, ProgramInput, ProgramMut,
};
use rstest::rstest;
use serial_test::serial;

use crate::support::btf::{RawBtf, with_btf_at_its_place};
use crate::support::{eventually, needs_bpf_wq, translated_instructions, version};

/// The object files that use the header, alone and after what else declares the kernel's
/// types.
const WITH_THE_HEADER: [&str; 4] =
    ["portable", "with_linux_bpf", "with_vmlinux_6_12", "with_vmlinux_7_0"];

/// What telling 6.10.0 from 6.10.3 costs. Only the prototype differs, so only libbpf can
/// tell, and only through the address of a function: two instructions. A third sets the
/// flags, and a hand-written program has but two in all for flags and the last argument.
const COST_ON_6_10: usize = 3;

static LIBBPF_SAID: Mutex<String> = Mutex::new(String::new());

/// Loads an object of `bpf/tests/`, or returns what libbpf said about it.
fn load(name: &str) -> Result<Object, String> {
    let path = Path::new(env!("OUT_DIR")).join(format!("{name}.bpf.o"));
    LIBBPF_SAID.lock().unwrap().clear();
    let previous = libbpf_rs::set_print(Some((PrintLevel::Info, |_, message| {
        print!("{message}");
        LIBBPF_SAID.lock().unwrap().push_str(&message);
    })));
    let loaded = ObjectBuilder::default().open_file(&path).and_then(|open| open.load());
    libbpf_rs::set_print(previous);
    loaded.map_err(|error| {
        let mut said = std::mem::take(&mut *LIBBPF_SAID.lock().unwrap());
        write!(said, "{name}: {error:#}").expect("writing to a string");
        said
    })
}

fn with_program<T>(object: &mut Object, act: impl FnOnce(&ProgramMut<'_>) -> T) -> T {
    let program = object.progs_mut().next().expect("the object has a program");
    act(&program)
}

/// Arms and starts the workqueue, waits for the callback's value, and returns the number
/// of instructions.
#[track_caller]
fn run(mut object: Object) -> usize {
    let instructions = with_program(&mut object, |program| {
        let output = program.test_run(ProgramInput::default()).expect("the program runs");
        assert_eq!(output.return_value as i32, 0, "init, set_callback or start failed");
        translated_instructions(program)
    });
    let elems = object.maps().find(|map| map.name() == "elems").expect("map elems");
    eventually("the callback writes its value", || {
        let elem = elems.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        (elem[..4] == 42_i32.to_ne_bytes()).then_some(())
    });
    instructions
}

/// The program that is written by hand for the prototype of this kernel.
fn written_by_hand() -> &'static str {
    match Kernel::running().set_callback() {
        Answer::Yes(SetCallback::ImplWithWq) => "by_hand_6_10",
        Answer::Yes(SetCallback::Impl) => "by_hand_6_11",
        Answer::Yes(SetCallback::ImplicitArgs) => "by_hand_7_0",
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::alone(WITH_THE_HEADER[0])]
#[case::after_linux_bpf(WITH_THE_HEADER[1])]
#[case::after_vmlinux_of_6_12(WITH_THE_HEADER[2])]
#[case::after_vmlinux_of_7_0(WITH_THE_HEADER[3])]
#[test_log::test]
#[serial]
fn runs_and_costs_nothing(#[case] name: &str) {
    if !needs_bpf_wq() {
        return;
    }
    let by_hand = run(load(written_by_hand()).unwrap());
    let portable = run(load(name).unwrap());
    println!("instructions: {portable}, by hand {by_hand}");
    assert_eq!(portable, by_hand);
}

/// What the header is for: each program written for one kernel fails on the others.
#[rstest]
#[case("by_hand_6_10")]
#[case("by_hand_6_11")]
#[case("by_hand_7_0")]
#[test_log::test]
#[serial]
fn by_hand_is_refused_elsewhere(#[case] name: &str) {
    if !needs_bpf_wq() {
        return;
    }
    if name == written_by_hand() {
        run(load(name).unwrap());
        return;
    }
    let said = load(name).expect_err("written for another kernel, and loads");
    let (function, why) = match name {
        "by_hand_7_0" => ("bpf_wq_set_callback", "not found in kernel or module BTFs"),
        _ => ("bpf_wq_set_callback_impl", "func_proto"),
    };
    let line = format!("extern (func ksym) '{function}': {why}");
    assert!(said.contains(&line), "{said}");
    if why == "func_proto" {
        assert!(said.contains("incompatible with vmlinux"), "{said}");
    }
}

/// 6.10.0 to 6.10.2, of which no package is left. libbpf is shown this kernel's own BTF
/// with what it would find there: the callback whose third parameter is the wq, and the
/// member that sk_buff had until 6.10.
///
/// It proves that libbpf resolves the third declaration and only that one, that the
/// branch the program then takes loads, is verified and runs, and how long it is. It does
/// not prove anything about the verifier or the workqueues of 6.10 itself: the kernel
/// that loads the program is the running one, to which both prototypes are the same.
#[test_log::test]
#[serial]
fn loads_by_the_prototype_of_6_10_0() {
    if !needs_bpf_wq() {
        return;
    }
    if Kernel::running().set_callback() != Answer::Yes(SetCallback::Impl) {
        // Since 7.0 there is no such function left, so it must be refused there.
        assert_ne!(version().0, 6);
        load("by_hand_6_10").expect_err("the prototype of 6.10.0 is gone");
        return;
    }
    let mut btf = RawBtf::of_kernel();
    btf.give_callback_of_6_10_0();
    btf.rename_members("tstamp_type", "mono_delivery_time");
    let file = btf.into_file();
    with_btf_at_its_place(file.path(), || {
        let said = load("by_hand_6_11").expect_err("the later prototype does not match");
        assert!(said.contains("'bpf_wq_set_callback_impl': func_proto"), "{said}");
        assert!(said.contains("incompatible with vmlinux"), "{said}");

        let by_hand = run(load("by_hand_6_10").unwrap());
        for name in WITH_THE_HEADER {
            assert_eq!(run(load(name).unwrap()), by_hand + COST_ON_6_10, "{name}");
        }
    });
}

/// 6.10.3 to 6.10.14: the later prototype, on a kernel that still has sk_buff's member.
/// The same caveat holds. Since 7.0 that member is not even asked for.
#[test_log::test]
#[serial]
fn loads_by_the_prototype_of_6_10_3() {
    if !needs_bpf_wq() {
        return;
    }
    let cost = match Kernel::running().set_callback() {
        Answer::Yes(SetCallback::ImplicitArgs) => 0,
        _ => COST_ON_6_10,
    };
    let mut btf = RawBtf::of_kernel();
    btf.rename_members("tstamp_type", "mono_delivery_time");
    let file = btf.into_file();
    with_btf_at_its_place(file.path(), || {
        let by_hand = run(load(written_by_hand()).unwrap());
        for name in WITH_THE_HEADER {
            assert_eq!(run(load(name).unwrap()), by_hand + cost, "{name}");
        }
    });
}
