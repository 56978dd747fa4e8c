//! Hazard H2: the verifier, and maps that hold no valid bpf_wq.

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::alone::{expects, is_alone};
use crate::support::creating::{Types, create, with_map};
use crate::support::loading::{load, load_alone};
use crate::support::{is_before, needs_bpf_wq, rule};

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

/// What newer kernels answer instead: `maps::bad_layout_cannot_be_used`,
/// `maps::map_without_types_cannot_be_used`.
#[test_log::test]
fn layouts() {
    let statement =
        "a program that uses a map with a malformed bpf_wq, or without types, is refused";
    rule("H2", GROUP, statement);
    let fixed = "refused since 6.18.2 and 6.19 (5f8d41172931): see rule 30";
    if !needs_bpf_wq() || !is_before((6, 18), fixed) || !is_alone() {
        return;
    }
    expects("H2", GROUP, statement, &[REPORT; LAYOUTS.len()].concat(), ANSWER);
    for (object, map, types) in LAYOUTS {
        kills(|| {
            let fd = create(object, map, types).expect("a bad layout can be created");
            _ = load(with_map(object, map, &fd, &format!("init_in_{map}")));
        });
    }
}

/// 5f8d41172931 does not know this one.
#[test_log::test]
fn plain_map() {
    let statement = "a program that gives bpf_wq_init a map without any bpf_wq is refused";
    rule("H2-plain", GROUP, statement);
    if !needs_bpf_wq() || !is_before((7, 3), "refused on 7.3: see V2-plain") || !is_alone() {
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
