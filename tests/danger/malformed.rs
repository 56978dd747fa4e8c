//! Hazard H2: the verifier, and maps that hold no valid bpf_wq.

use std::ops::Range;

use libbpf_rs::Object;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::alone::{expects, is_alone};
use crate::support::creating::{Types, create, with_map};
use crate::support::loading::{Refusal, Verdict, assert_verdict, choose, load, load_alone, open};
use crate::support::{answer, needs_bpf_wq, rule, version};

const GROUP: &str = "What takes the kernel down";

/// Of one oops.
const REPORT: [&str; 2] = ["Oops: ", "RIP: 0010:check_kfunc_"];

const ANSWER: &str = "dies: the verifier has an oops, which kills the loader";

/// Maps whose bpf_wq is not valid, by object and name; `array` comes without its types.
const LAYOUTS: [(&str, &str, Types); 7] = [
    ("maps", "two", Types::Given),
    ("maps", "array_of_two", Types::Given),
    ("maps", "misaligned", Types::Given),
    ("maps", "in_a_union", Types::Given),
    ("maps_wrong_size", "wrong_size", Types::Given),
    ("maps", "value_is_wq", Types::Given),
    ("maps", "array", Types::Withheld),
];

/// The same without our doing, as libbpf creates them: maps whose types the kernel does not take, and
/// one in a map of maps. By name, each with its program, and what a kernel that looks says.
const BY_LIBBPF: [(&str, &str, &str); 4] = [
    ("untyped", "inits_untyped", "map 'untyped' has to have BTF in order to use bpf_wq"),
    (
        "untyped_key",
        "inits_untyped_key",
        "map 'untyped_key' has to have BTF in order to use bpf_wq",
    ),
    ("enum_key", "inits_enum_key", "map 'enum_key' has to have BTF in order to use bpf_wq"),
    ("outer", "inits_inner", "has no valid bpf_wq"),
];

/// Seen on 7.0 and 7.1 alone: a hash may have the type of its value without that of its key.
const KEYS_WITHOUT_TYPES: Range<(u32, u32)> = (7, 0)..(7, 2);

fn load_with_one_map(map: &str, program: &str) -> Result<Object, Refusal> {
    let mut open = open("lint");
    for mut other in open.maps_mut() {
        let is_it = other.name() == map;
        other.set_autocreate(is_it).expect("it is not created yet");
    }
    choose(&mut open, program);
    load(open)
}

/// Whether the kernel has 5f8d41172931, which looks at a map's record before it looks into it:
/// since 6.18.2 and 6.19.
fn is_fixed() -> bool {
    let kernel = bpf_wq::Kernel::running();
    let numbers = kernel.release().split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let release: Vec<u32> = numbers.map_while(Result::ok).collect();
    release >= vec![6, 18, 2]
}

#[test_log::test]
fn layouts() {
    let statement =
        "a program that uses a map with a malformed bpf_wq, or without types, is refused";
    rule("H2", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    if is_fixed() {
        let takes_untyped_keys = KEYS_WITHOUT_TYPES.contains(&version());
        for (object, map, types) in LAYOUTS {
            let words = match types {
                Types::Given => format!("map '{map}' has no valid bpf_wq"),
                Types::Withheld => format!("map '{map}' has to have BTF in order to use bpf_wq"),
            };
            let fd = create(object, map, types).expect("a bad layout can be created");
            let refused = load(with_map(object, map, &fd, &format!("init_in_{map}")));
            assert_verdict(&refused, Verdict::Refused("-EINVAL", words.leak()));
        }
        for (map, program, words) in BY_LIBBPF {
            let takes_it = takes_untyped_keys && map == "untyped_key";
            let verdict =
                if takes_it { Verdict::Loads } else { Verdict::Refused("-EINVAL", words) };
            assert_verdict(&load_with_one_map(map, program), verdict);
        }
        let but = if takes_untyped_keys {
            "; a hash whose key alone has no type is taken as it is"
        } else {
            ""
        };
        answer(&format!(
            "yes: -EINVAL, has no valid bpf_wq, or has to have BTF in order to use bpf_wq{but}"
        ));
        return;
    }
    if !is_alone() {
        return;
    }
    let reports = [REPORT; LAYOUTS.len() + BY_LIBBPF.len()].concat();
    expects("H2", GROUP, statement, &reports, ANSWER);
    for (object, map, types) in LAYOUTS {
        kills(|| {
            let fd = create(object, map, types).expect("a bad layout can be created");
            _ = load(with_map(object, map, &fd, &format!("init_in_{map}")));
        });
    }
    for (map, program, _) in BY_LIBBPF {
        kills(|| _ = load_with_one_map(map, program));
    }
}

/// 5f8d41172931 did not fix this one: there the record of the plain map is an error. 7.3 compares
/// the maps first.
#[test_log::test]
fn plain_map() {
    let statement = "a program that gives bpf_wq_init a map without any bpf_wq is refused";
    rule("H2-plain", GROUP, statement);
    if !needs_bpf_wq() {
        return;
    }
    if version() >= (7, 3) {
        const WORDS: &str =
            "workqueue pointer in R1 map_uid=0 doesn't match map pointer in R2 map_uid=0";
        let refused = load_alone("verifier_fail", "map_without_a_wq");
        assert_verdict(&refused, Verdict::Refused("-EINVAL", WORDS));
        answer(&format!("yes: -EINVAL, {WORDS}"));
        return;
    }
    if !is_alone() {
        return;
    }
    expects("H2-plain", GROUP, statement, &REPORT, ANSWER);
    kills(|| _ = load_alone("verifier_fail", "map_without_a_wq"));
}

/// Does it in a process of its own, which the kernel has to kill.
#[track_caller]
fn kills(deed: impl FnOnce()) {
    // SAFETY: the other thread, libtest's, holds no lock while it waits for this one.
    let status = match unsafe { fork() }.expect("a process") {
        ForkResult::Child => {
            deed();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => waitpid(child, None).expect("the child ends"),
    };
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "{status:?}");
}
