//! The loader goes away, in whatever way, while a callback sleeps: nothing of it is left, and the
//! kernel is well. What becomes of it otherwise is in `tests/danger/lifecycle.rs`.

use libbpf_rs::MapHandle;
use rstest::rstest;
use serial_test::serial;

use crate::support::fuse::Page;
use crate::support::loader::{Ids, Loader, rounds, runs};
use crate::support::teardown::wait_until_text_is_freed;
use crate::support::{answer, eventually, fact, loads, needs, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "The lifecycle";

/// How a loader ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Sigkill,
    Exit,
    Panic,
    /// The callbacks may not have begun.
    DropEarly,
    DropLate,
    DropAfterwards,
}

impl End {
    /// As `tests/loader.rs` is told.
    fn argument(self) -> &'static str {
        match self {
            Self::Sigkill => "kill",
            Self::Exit => "exit",
            Self::Panic => "panic",
            Self::DropEarly => "drop at once",
            Self::DropLate | Self::DropAfterwards => "drop",
        }
    }

    /// Its exit code, or the signal.
    fn status(self) -> Result<i32, i32> {
        match self {
            Self::Sigkill => Err(libc::SIGKILL),
            Self::Panic => Ok(101),
            Self::Exit | Self::DropEarly | Self::DropLate | Self::DropAfterwards => Ok(0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sigkill => "sigkill",
            Self::Exit => "exit",
            Self::Panic => "panic",
            Self::DropEarly => "drop-early",
            Self::DropLate => "drop-late",
            Self::DropAfterwards => "drop-afterwards",
        }
    }

    fn statement(self) -> &'static str {
        match self {
            Self::Sigkill => "while the callbacks sleep, their loader is killed",
            Self::Exit => "while the callbacks sleep, their loader exits",
            Self::Panic => "while the callbacks sleep, their loader panics",
            Self::DropEarly => "at once their loader drops the handle",
            Self::DropLate => "while the callbacks sleep, their loader drops the handle",
            Self::DropAfterwards => "after the callbacks have slept, their loader drops the handle",
        }
    }
}

/// One of each of these types, in one object.
#[rstest]
#[test_log::test]
#[serial]
fn nothing_is_left(
    #[values(
        End::Sigkill,
        End::Exit,
        End::Panic,
        End::DropEarly,
        End::DropLate,
        End::DropAfterwards
    )]
    end: End,
) {
    let statement = format!(
        "fentry, tp_btf, XDP, tc and LSM programs submit; {}: nothing is left",
        end.statement()
    );
    rule(&format!("L-{}", end.name()), GROUP, &statement);
    if !has_what_it_needs()
        || !needs_config("CONFIG_NET_XGRESS", "tc programs are attached by links only with it")
        || !needs_config("CONFIG_BPF_LSM", "LSM programs run only with it")
    {
        return;
    }
    rounds_of(&["fentry", "tp_btf", "xdp", "tc", "lsm"], end, false);
}

/// Whoever detaches a program from a perf event waits until no callback is under way that a
/// sleepable program has set, as if it were the program's own.
#[rstest]
#[test_log::test]
#[serial]
fn nothing_of_perf_events_is_left(
    #[values(
        End::Sigkill,
        End::Exit,
        End::Panic,
        End::DropEarly,
        End::DropLate,
        End::DropAfterwards
    )]
    end: End,
) {
    let statement =
        format!("kprobe and tracepoint programs submit; {}: nothing is left", end.statement());
    rule(&format!("L-perf-{}", end.name()), GROUP, &statement);
    if !has_what_it_needs()
        || !needs((7, 0), "tracing programs may not use bpf_wq before 19bd300e22c2")
        || !needs_config("CONFIG_KPROBE_EVENTS", "kprobe programs run only with it")
        || !needs_config("CONFIG_BPF_EVENTS", "tracepoint programs run only with it")
    {
        return;
    }
    if !matches!(end, End::DropAfterwards) {
        answer("yes: once the callbacks have ended, for which the loader's end waits");
    }
    rounds_of(&["kprobe", "tracepoint"], end, true);
}

fn has_what_it_needs() -> bool {
    needs_bpf_wq() && needs_config("CONFIG_FUSE_FS", "the callback waits for a file system")
}

fn rounds_of(programs: &[&str], end: End, detach_waits: bool) {
    loads("lifecycle");
    let rounds = rounds();
    for _ in 0..rounds {
        round(programs, end, detach_waits);
    }
    fact("rounds", &rounds.to_string());
}

/// One loader, from its start until nothing of it is left.
fn round(programs: &[&str], end: End, detach_waits: bool) {
    let page = Page::new(&42_u64.to_ne_bytes());
    let before = Ids::now();
    let mut loader = Loader::start(programs, end.argument(), &page);
    let ids = Ids::now().without(&before);
    assert_eq!((ids.programs.len(), ids.links.len()), (programs.len() + 1, programs.len()));
    let [began, ended] = ["began", "ended"].map(|name| ids.map(name));
    let all = |map: &MapHandle| (runs(map) == programs.len()).then_some(());
    loader.go_on();
    match end {
        End::DropEarly => {}
        _ => {
            loader.expect("submitted");
            eventually("the callbacks begin", || all(&began));
            page.wait_for_reader();
        }
    }
    if let End::DropAfterwards = end {
        page.answer();
        eventually("the callbacks end", || all(&ended));
    }
    match end {
        End::DropEarly => {}
        End::Sigkill => loader.kill(),
        _ => loader.go_on(),
    }
    match end {
        End::DropAfterwards => {}
        // Whoever detaches waits for those that have begun.
        End::DropEarly if detach_waits => page.answer(),
        _ => {
            if !detach_waits {
                eventually("the programs go away", || ids.left().programs.is_empty().then_some(()));
            }
            wait_until_text_is_freed();
            assert_eq!(ids.left().programs.is_empty(), !detach_waits, "{ids:?}");
            assert_eq!(runs(&ended), 0, "they did not wait for the answer");
            page.answer();
        }
    }
    if let End::DropEarly | End::DropLate | End::DropAfterwards = end {
        loader.expect("dropped");
    }
    match end {
        End::DropEarly => {
            eventually("those that began end", || (runs(&ended) == runs(&began)).then_some(()))
        }
        _ => eventually("the callbacks end", || all(&ended)),
    }
    drop((began, ended));
    eventually("nothing is left", || ids.left().is_empty().then_some(()));
    if let End::DropEarly | End::DropLate | End::DropAfterwards = end {
        loader.go_on();
    }
    assert_eq!(loader.ended(), end.status(), "how the loader ended");
}
