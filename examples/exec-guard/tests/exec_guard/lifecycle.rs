//! The process is killed, and what it is given is wrong.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpf_wq_tests::{Running, eventually};
use exec_guard::database::Known;
use exec_guard::guard::Guard;
use exec_guard::policy::Policy;
use nix::sys::signal::Signal;
use serial_test::serial;

use crate::connected::state;
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
    let [known, new, other] = ["127.10.0.1", "127.10.0.2", "127.10.0.4"].map(ip);
    let server = Server::new(&[known, new, other]);
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
    // As by Ctrl-Z and fg: all that its threads wait for is interrupted.
    first.signal(Signal::SIGSTOP);
    eventually("it is stopped", || (state(first.pid()) == 'T').then_some(()));
    first.signal(Signal::SIGCONT);
    assert!(place.may_connect(other));
    eventually("it still answers", || (!place.may_connect(other)).then_some(()));

    server.does(Does::Hold);
    let asked = server.asked();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for third in (0..=u8::MAX).cycle() {
                let some: Vec<_> =
                    (0..50).map(|last| ip(&format!("127.11.{third}.{last}"))).collect();
                place.connect(&some);
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        eventually("questions are open", || (server.asked() > asked + 8).then_some(()));
        first.signal(Signal::SIGKILL);
        assert_eq!(first.ends(), None);
        // By what is known, and by default.
        assert!(!place.may_connect(known));
        assert!(place.may_connect(new));
        assert!(place.may_run(&program));
        is_over.store(true, Ordering::Relaxed);
    });

    // Nothing tells one in another PID namespace what it opens, as if there were no BPF LSM.
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--pid", "--fork", env!("CARGO_BIN_EXE_exec-guard"), "run"]).args(arguments);
    let output = elsewhere.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/sys/kernel/security/lsm"), "{said}");
    assert!(!place.may_connect(known), "the guard is as it was");

    server.does(Does::Answer);
    let mut second = run(&arguments);
    assert_eq!(second.says(), format!("goes on to guard {}", cgroup.display()));
    eventually("it has learned what was asked before", || {
        (!place.may_connect(new) && !place.is_let_in(&program)).then_some(())
    });
    let connects = [known, ip("127.10.0.3")].map(|address| address.to_string());
    let mut connect = Command::new(env!("CARGO_BIN_EXE_exec-guard"));
    let connect = connect.arg("connect").arg(&cgroup).args(connects).stdin(Stdio::null());
    let said = String::from_utf8(connect.output().expect("it starts").stdout).expect("text");
    assert_eq!(said, "127.10.0.1: permission denied\n127.10.0.3: connected\n");
    // Those that wait for their next try would be forgotten.
    eventually("no question is open", || (place.open_questions() == 0).then_some(()));
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
    for (from, to, expected) in [
        ("[exec]", "[exec", "TOML parse error"),
        ("[files]", "surprise = 1\n[files]", "unknown field `surprise`"),
        ("unknown = \"allow\"", "unknown = \"perhaps\"", "unknown variant `perhaps`"),
        ("unlisted = \"allow\"\n", "", "missing field `unlisted`"),
        ("127.0.0.1:53", "nowhere", "invalid socket address"),
        ("tries = 1", "tries = 0", "addresses.tries has to be 1 to 8"),
        ("again_ms = 61_000", "again_ms = 1", "raise questions.again_ms"),
        ("[questions]", &format!("{}[questions]", rule("relative")), "begin it with /"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Policy::parse(&good.replacen(from, to, 1)).expect_err(expected);
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
    let policy = Policy::parse(&good).expect("a policy");
    let fails = |policy: &Policy, scope: &Path, pins: &str, expected: &str| {
        let Err(error) = Guard::start(policy, scope, Path::new(pins)) else { panic!("{expected}") };
        assert!(format!("{error:#}").contains(expected), "{error:#}");
        assert_nothing_is_left();
    };
    let database = fs::read(place.database()).expect("it is there");
    for bytes in [&b"no database, but long enough to be looked at"[..], b""] {
        fs::write(place.database(), bytes).expect("it is written");
        fails(&policy, &cgroup, PINS, "cannot read the database");
    }
    fs::remove_file(place.database()).expect("it was there");
    fails(&policy, &cgroup, PINS, "cannot read the database");
    fs::write(place.database(), database).expect("it is written");

    let plain = place.directory.path();
    fails(&policy, &cgroup, text(plain), "mount -t bpf");
    fails(&policy, Path::new("/no/such/cgroup"), PINS, "mkdir /no/such/cgroup");
    fails(&policy, plain, PINS, "it is none");
    let no_file = Policy::parse(&format!("{good}\n{}", rule("/no/such/file"))).expect("a policy");
    fails(&no_file, &cgroup, PINS, "cannot open /no/such");
    assert!(fs::read_dir(PINS).expect("a bpffs").next().is_none());
}

fn rule(path: &str) -> String {
    format!("[[file]]\npath = \"{path}\"\nverdict = \"deny\"\n")
}

#[test]
#[serial]
fn one_command_guards_a_cgroup_until_it_is_gone() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let policy = place.path("policy.toml");
    let cgroup = place.own.path();
    let arguments = ["--policy", text(&policy), "--scope", text(&cgroup)];
    let (code, said) = ends(&arguments);
    assert!(code == Some(1) && said.contains("cannot read the policy"), "{code:?}: {said}");
    assert_eq!(ends(&[]).0, Some(2));
    let text_of = place.policy_text("127.0.0.1:53".parse().expect("an address"));
    fs::write(&policy, text_of).expect("it is written");
    let command = Path::new(env!("CARGO_BIN_EXE_exec-guard"));
    let mut within = place.own.shell("exec \"$0\" \"$@\"", command);
    let output = within.arg("run").args(arguments).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("start it outside"), "{said}");
    assert_nothing_is_left();

    let mut running = run(&arguments);
    assert!(running.says().starts_with("guards"));
    let pins = place.pins();
    let (code, said) = ends(&arguments);
    assert!(code == Some(1) && said.contains("another exec-guard guards"), "{code:?}: {said}");
    // The processes that were in it have ended, and may still be on their way.
    running.signal(Signal::SIGKILL);
    assert_eq!(running.ends(), None);
    eventually("it is empty", || fs::remove_dir(&cgroup).ok());
    assert!(pins.exists(), "nobody was there to remove it");

    // The next one has another number.
    fs::create_dir(&cgroup).expect("it is made again");
    let mut running = run(&arguments);
    assert!(running.says().starts_with("guards"));
    assert!(!pins.exists(), "it guards nothing any more");
    fs::remove_dir(&cgroup).expect("it is empty");
    assert_eq!(running.ends(), Some(1));
    let said = std::iter::repeat_with(|| running.says()).find(|line| line.contains("is gone"));
    assert!(said.is_some());
    assert_nothing_is_left();
}

/// Where cgroup v2 is mounted.
fn mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").expect("it is there");
    mounts.lines().filter(|line| line.contains(" cgroup2 ")).map(str::to_owned).collect()
}

#[test]
#[serial]
fn a_demo_that_is_ended_leaves_nothing() {
    if !can_run() {
        return;
    }
    // For the loopback interface.
    let _place = Place::new();
    let before = mounts();
    let mut demo = Running::start(env!("CARGO_BIN_EXE_exec-guard"), &["demo"]);
    let pinned = || fs::read_dir(PINS).expect("a bpffs").next().is_some();
    eventually("it guards", || pinned().then_some(()));
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.ends(), Some(1));
    let said = std::iter::repeat_with(|| demo.says()).find(|line| line.contains("it was ended"));
    assert!(said.is_some());
    assert_nothing_is_left();
    assert_eq!(mounts(), before);
}
