//! `bpf-wq unpin` on a pin whose work is under way. What it does with pins that hold nothing is in
//! `cli/tests/pins.rs`.

use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bpf_wq::PinState;
use rstest::rstest;
use serial_test::serial;

use crate::support::bpffs::BpfFs;
use crate::support::called::call;
use crate::support::fuse::Page;
use crate::support::loader::{Ids, runs};
use crate::support::pin::is_empty;
use crate::support::{eventually, lifecycle, loads, needs_bpf_wq, needs_config, rule};

/// The command, of the same source as that of `cli/`.
fn bpf_wq(arguments: &[&str], at: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpf-wq-test-command"));
    command.args(arguments).arg(at).env_remove("CLICOLOR_FORCE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn assert_output(output: &Output, code: i32, said: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{output:?}");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

#[rstest]
#[case::done("P-unpin", "60", "waits for running work, and exits with 0 when it is done")]
#[case::lost(
    "P-unpin-lost",
    "0",
    "does not wait past its deadline, and exits with 1 if work is lost"
)]
#[test_log::test]
#[serial]
fn unpins_what_is_at_work(#[case] id: &str, #[case] deadline: &str, #[case] outcome: &str) {
    let statement =
        format!("bpf-wq unpin detaches and removes a pin at work: it {outcome}, which it tells");
    rule(id, "Pins", &statement);
    if !needs_bpf_wq() || !needs_config("CONFIG_FUSE_FS", "the callback waits for a file system") {
        return;
    }
    loads("lifecycle");
    let bpffs = BpfFs::new();
    let at = bpffs.application();
    let page = Page::new(&[]);
    let before = Ids::now();
    let mut storage = MaybeUninit::uninit();
    let programs = ["fentry", "submit"];
    let open = lifecycle::open(&mut storage, &programs, page.pid(), page.address());
    let loaded = bpf_wq::load(open, lifecycle::OBJECT).expect("it loads");
    let mut armed = loaded.arm().expect("it arms");
    armed.attach().expect("it attaches");
    let pinned = armed.pin(&at).expect("it is pinned");
    let ids = Ids::now().without(&before);
    let ended = ids.map("ended");
    let [] = call(pinned.program("submit").expect("it is pinned").as_fd(), "submit");
    page.wait_for_reader();
    let path = pinned.path().display().to_string();
    drop(pinned);

    let listed = bpf_wq(&["pins"], &at).output().expect("it runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(&format!("{path}  whole  ")), "{listed}");
    assert!(listed.contains("3 programs, 1 link\n    elems  in flight 1"), "{listed}");
    let unpin = bpf_wq(&["unpin", "--deadline", deadline], &at).spawn().expect("it runs");
    let is_lost = deadline == "0";
    if !is_lost {
        eventually("it waits for the work", || {
            let pins = bpf_wq::pins(&at).expect("there are pins");
            matches!(&pins[..], [pin] if pin.state == PinState::Draining).then_some(())
        });
        page.answer();
    }
    let output = unpin.wait_with_output().expect("it ends");
    if is_lost {
        assert_output(&output, 1, &format!("removed {path}: not done: 1 of elems\n"));
        assert_eq!(runs(&ended), 0, "it waited");
        page.answer();
    } else {
        assert_output(&output, 0, &format!("removed {path}: all work is done\n"));
        assert_eq!(runs(&ended), 1);
    }
    assert!(is_empty(&at));
    drop(ended);
    eventually("nothing is left", || ids.left().is_empty().then_some(()));
}
