//! The process is killed, and what it is given is wrong.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpf_wq_tests::{Running, eventually};
use exec_guard::database::Known;
use nix::sys::signal::Signal;
use serial_test::serial;

use crate::ip;
use crate::support::{Does, PINS, Place, Server, assert_nothing_is_left, can_run};

fn run(arguments: &[&str]) -> Running {
    Running::start(env!("CARGO_BIN_EXE_exec-guard"), &[&["run"], arguments].concat())
}

/// One that ends by itself: its exit code, and what it says.
#[track_caller]
fn ends(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exec-guard"));
    command.arg("run").args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let ended = eventually("it ends", || child.try_wait().expect("our child"));
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    (ended.code(), said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
#[serial]
fn killed_under_load_it_stays_at_work_and_the_next_one_goes_on() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let [known, new] = ["127.10.0.1", "127.10.0.2"].map(ip);
    let server = Server::new(&[known, new]);
    let policy = place.path("policy.toml");
    let program = place.program("program", "/bin/true");
    place.know(&program, Known::Bad);
    let questions =
        place.policy_text(server.address).replace("again_ms = 61_000", "again_ms = 500");
    // The server is waited for: nothing is given up.
    let questions = questions
        .replace("tries = 1\n            unreachable", "tries = 8\n            unreachable");
    fs::write(&policy, questions).expect("it is written");
    let cgroup = place.own.path();
    let arguments = ["--policy", text(&policy), "--scope", text(&cgroup)];
    let mut first = run(&arguments);
    assert_eq!(first.says(), format!("guards {}", cgroup.display()));
    assert!(place.may_connect(known));
    eventually("it is learned", || (!place.may_connect(known)).then_some(()));

    server.does(Does::Hold);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for third in 0.. {
                let some: Vec<_> =
                    (0..50).map(|last| ip(&format!("127.11.{third}.{last}"))).collect();
                place.connect(&some);
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let asked = server.asked();
        eventually("questions are open", || (server.asked() > asked + 8).then_some(()));
        first.signal(Signal::SIGKILL);
        assert_eq!(first.ends(), None);
        // By what is known, and by default.
        assert!(!place.may_connect(known));
        assert!(place.may_connect(new));
        assert!(place.may_run(&program));
        is_over.store(true, Ordering::Relaxed);
    });

    server.does(Does::Answer);
    let mut second = run(&arguments);
    assert_eq!(second.says(), format!("goes on to guard {}", cgroup.display()));
    eventually("it has learned what was asked before", || {
        (!place.may_connect(new) && !place.is_let_in(&program)).then_some(())
    });
    assert!(!place.may_connect(known));
    second.signal(Signal::SIGINT);
    assert_eq!(second.ends(), Some(0));
    let last = std::iter::repeat_with(|| second.says()).find(|line| line.contains("any more"));
    let expected = format!("{} is not guarded any more; all work is done", cgroup.display());
    assert_eq!(last, Some(expected));
    assert_nothing_is_left();
}

#[test]
#[serial]
fn bad_input_is_told_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let cgroup = place.own.path();
    let good = place.policy_text("127.0.0.1:53".parse().expect("an address"));
    let write = |name: &str, text: &str| {
        let path = place.path(name);
        fs::write(&path, text).expect("it is written");
        path
    };
    let says = |policy: &Path, more: &[&str], expected: &str| {
        let cgroup = text(&cgroup);
        let (code, said) = ends(&[&["--policy", text(policy), "--scope", cgroup], more].concat());
        assert!(code == Some(1) && said.contains(expected), "{code:?}: {said}");
        assert_nothing_is_left();
    };
    says(&place.path("none.toml"), &[], "cannot read the policy");
    for (from, to, expected) in [
        ("[exec]", "[exec", "TOML parse error"),
        ("[files]", "surprise = 1\n[files]", "unknown field `surprise`"),
        ("unknown = \"allow\"", "unknown = \"perhaps\"", "unknown variant `perhaps`"),
        ("unlisted = \"allow\"\n", "", "missing field `unlisted`"),
        ("127.0.0.1:53", "nowhere", "invalid socket address"),
        ("tries = 1", "tries = 0", "addresses.tries has to be 1 to 8"),
        ("again_ms = 61_000", "again_ms = 1", "raise questions.again_ms"),
        (
            "[questions]",
            "[[file]]\npath = \"/no/such/file\"\nverdict = \"deny\"\n[questions]",
            "cannot open /no/such",
        ),
        (
            "[questions]",
            "[[file]]\npath = \"relative\"\nverdict = \"deny\"\n[questions]",
            "begin it with /",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = write("bad.toml", &good.replacen(from, to, 1));
        says(&bad, &[], expected);
    }
    let policy = write("policy.toml", &good);
    let database = fs::read(place.database()).expect("it is there");
    for bytes in [&b"no database, but long enough to be looked at"[..], b""] {
        fs::write(place.database(), bytes).expect("it is written");
        says(&policy, &[], "cannot read the database");
    }
    fs::remove_file(place.database()).expect("it was there");
    says(&policy, &[], "cannot read the database");
    fs::write(place.database(), database).expect("it is written");

    let plain = text(place.directory.path());
    says(&policy, &["--pins", plain], "mount -t bpf");
    for (scope, expected) in [("/no/such/cgroup", "mkdir /no/such/cgroup"), (plain, "it is none")] {
        let (code, said) = ends(&["--policy", text(&policy), "--scope", scope]);
        assert!(code == Some(1) && said.contains(expected), "{code:?}: {said}");
    }
    assert_eq!(ends(&[]).0, Some(2));

    // One guard a cgroup, and not for who is in it.
    let arguments = ["--policy", text(&policy), "--scope", text(&cgroup)];
    let mut guard = run(&arguments);
    assert!(guard.says().starts_with("guards"));
    let (code, said) = ends(&arguments);
    assert!(code == Some(1) && said.contains("another exec-guard guards"), "{code:?}: {said}");
    guard.signal(Signal::SIGINT);
    assert_eq!(guard.ends(), Some(0));
    assert_nothing_is_left();
    let command = Path::new(env!("CARGO_BIN_EXE_exec-guard"));
    let mut within = place.own.shell("exec \"$0\" \"$@\"", command);
    let output = within.arg("run").args(arguments).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("start it outside"), "{said}");
    assert!(fs::read_dir(PINS).expect("a bpffs").next().is_none());
}

#[test]
#[serial]
fn a_cgroup_that_goes_away_ends_it() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let policy = place.path("policy.toml");
    let text_of = place.policy_text("127.0.0.1:53".parse().expect("an address"));
    fs::write(&policy, text_of).expect("it is written");
    let cgroup = place.own.path();
    let mut running = run(&["--policy", text(&policy), "--scope", text(&cgroup)]);
    assert!(running.says().starts_with("guards"));
    fs::remove_dir(&cgroup).expect("it is empty");
    assert_eq!(running.ends(), Some(1));
    let said = std::iter::repeat_with(|| running.says()).find(|line| line.contains("is gone"));
    assert!(said.is_some());
    assert_nothing_is_left();
}
