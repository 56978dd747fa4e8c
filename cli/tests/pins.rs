//! `bpf-wq pins` and `bpf-wq unpin` as people and machines see them. They load nothing: what is
//! pinned by loaders is the matter of `tests/suite/pin.rs`.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};

use serde_json::Value;

const AT: &str = env!("CARGO_TARGET_TMPDIR");
const BUILD: &str = "build-0123456789abcdef";

/// Runs a script in a directory of a bpffs that nobody else sees, `$wq` being the command. None
/// but root may mount one.
fn in_bpffs(script: &str) -> Output {
    let script = format!("mount -t bpf bpf {AT} && mkdir {AT}/app && cd {AT}/app && {script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env("wq", env!("CARGO_BIN_EXE_bpf-wq"));
    command.env_remove("CLICOLOR_FORCE").output().expect("util-linux has unshare")
}

/// If not, that is said past libtest, which would keep it to itself.
fn is_root() -> bool {
    let is_root = std::fs::metadata("/proc/self").expect("this process").uid() == 0;
    if !is_root {
        let skipped = b"SKIPPED a test of cli/tests/pins.rs: only root may mount a bpffs\n";
        std::io::stderr().write_all(skipped).expect("stderr");
    }
    is_root
}

fn bpf_wq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bpf-wq")).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[track_caller]
fn assert_output(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(text(&output.stdout), stdout, "{output:?}");
    assert!(text(&output.stderr).contains(stderr), "{output:?}");
}

#[test]
fn nothing_is_pinned() {
    if !is_root() {
        return;
    }
    assert_output(&in_bpffs("$wq pins ."), 0, ".: no pins\n", "");
    assert_output(&in_bpffs("$wq pins --json ."), 0, "[]\n", "");
    let none = format!("{AT}/app: no pins\n");
    assert_output(&in_bpffs(&format!("$wq unpin {AT}/app")), 0, &none, "");
}

#[test]
fn stale_pins_are_listed_and_removed() {
    if !is_root() {
        return;
    }
    let app = format!("{}/app", AT);
    let make = format!("mkdir -p new-42/maps new-42/programs {BUILD}/detached other/mine");
    let table = format!(
        "{app}/{BUILD}  draining  0 maps, 0 programs, 0 links\n\
         {app}/new-42  incomplete  0 maps, 0 programs, 0 links\n{AT}: 2 pins\n"
    );
    assert_output(&in_bpffs(&format!("{make} && $wq pins {AT}")), 0, &table, "");

    let json = in_bpffs(&format!("{make} && $wq pins --json {app}"));
    let pins: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(pins.as_array().map(Vec::len), Some(2), "{pins:#}");
    assert_eq!(pins[0]["path"], format!("{app}/{BUILD}"));
    assert_eq!(pins[0]["build"], BUILD["build-".len()..]);
    assert_eq!(pins[0]["state"], "draining");
    assert_eq!(pins[1]["build"], Value::Null);
    assert_eq!(pins[1]["state"], "incomplete");

    let removed = format!(
        "removed {app}/{BUILD}: all work is done\nremoved {app}/new-42: all work is done\nother\n"
    );
    assert_output(&in_bpffs(&format!("{make} && $wq unpin {app} && ls")), 0, &removed, "");

    // What `pins` prints is the pin itself, and not its directory.
    for other in [format!("{app}/{BUILD}"), AT.to_owned()] {
        let output = in_bpffs(&format!("{make} && $wq unpin {other}"));
        assert_output(&output, 2, "", &format!("give the directory that does, {app}"));
    }
}

#[test]
fn what_is_no_pin_is_left_alone() {
    if !is_root() {
        return;
    }
    let app = format!("{}/app", AT);
    let script =
        format!("mkdir -p {BUILD}/maps/mine new-1 && ! $wq unpin {app} && ls {BUILD}/maps");
    assert_output(&in_bpffs(&script), 0, "mine\n", &format!("{app}/{BUILD}/maps/mine is no part"));
    let script = format!("mkdir -p {BUILD}/maps/mine && $wq unpin {app}");
    assert_output(&in_bpffs(&script), 2, "", "remove it by hand");
    let listed = in_bpffs(&format!("mkdir -p {BUILD}/maps/mine && $wq pins {app}"));
    let line = format!("    {app}/{BUILD}/maps/mine is no part of it\n");
    assert!(text(&listed.stdout).contains(&line), "{listed:?}");
}

#[test]
fn another_process_at_work_is_waited_for() {
    if !is_root() {
        return;
    }
    let output = in_bpffs("flock . $wq unpin --deadline 0 .");
    assert_output(&output, 2, "", "another process is at work");
}

#[test]
fn what_is_in_no_bpffs_is_an_error() {
    for arguments in [["pins", AT], ["unpin", AT]] {
        assert_output(&bpf_wq(&arguments), 2, "", "mount -t bpf bpf /sys/fs/bpf");
    }
    let missing = "/nonexistent/pins";
    assert_output(&bpf_wq(&["unpin", missing]), 2, "", "cannot open /nonexistent/pins");
    assert_output(&bpf_wq(&["unpin"]), 2, "", "required");
    assert_output(&bpf_wq(&["unpin", AT, "--deadline", "soon"]), 2, "", "soon");
}
