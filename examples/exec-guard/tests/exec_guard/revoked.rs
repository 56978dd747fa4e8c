//! Processes that were let in, and should not have been.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};

use bpf_wq_tests::eventually;
use exec_guard::agent::Agent;
use exec_guard::database::Known;
use exec_guard::policy::Revoke;
use exec_guard::subject::{Action, Subject, Why};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serial_test::serial;

use crate::ip;
use crate::support::{Does, Guarded, Place, Server, can_run};

/// How many processes are in the cgroup.
fn within(place: &Place) -> usize {
    let procs = fs::read_to_string(place.own.path().join("cgroup.procs"));
    procs.expect("the cgroup is there").lines().count()
}

/// As /proc has it: `T` is stopped.
fn state(child: &Child) -> char {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it lives");
    let (_, fields) = stat.rsplit_once(") ").expect("a command");
    fields.chars().next().expect("a state")
}

#[test]
#[serial]
fn a_program_that_turns_out_bad_is_killed_and_its_children() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let server = Server::new(&[]);
    let bad = place.program("bad", "/bin/sh");
    place.know(&bad, Known::Bad);
    let policy = place.policy(server.address, |_| {});
    let guarded = place.guard(&policy);
    let fifo = place.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("a fifo");
    // It waits for a child that waits for ever, of which the guard has heard nothing.
    let script = "(exec 3<>\"$0\"; read nothing <&3) & wait";
    let arguments = ["-c", script, fifo.to_str().expect("UTF-8")];
    let mut child = place.start(&bad, &arguments).expect("it is not known yet");
    let mut outside = Command::new(&bad).args(arguments).spawn().expect("it starts");
    eventually("it has a child", || (within(&place) == 2).then_some(()));
    let agent = Agent::start(&guarded, &policy).expect("it starts");
    let ended = eventually("it ends", || child.try_wait().expect("our child"));
    assert_eq!(ended.signal(), Some(nix::libc::SIGKILL));
    eventually("its child does, too", || (within(&place) == 0).then_some(()));
    assert!(!place.may_run(&bad));
    assert_eq!(outside.try_wait().expect("our child"), None, "it is in no cgroup that is guarded");
    assert!(Command::new(&bad).args(["-c", ":"]).status().expect("it starts").success());
    fs::write(&fifo, "\n").expect("it is read");
    assert!(outside.wait().expect("our child").success());
    Guarded { guard: guarded, agent }.stop();
}

#[test]
#[serial]
fn all_that_have_connected_to_a_bad_address_are_stopped() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let address = ip("127.20.0.1");
    let server = Server::new(&[address]);
    let policy = place.policy(server.address, |policy| policy.connect.revoke = Revoke::Stop);
    let guarded = Guarded::start(&place, &policy);
    server.does(Does::Hold);
    let connected = [place.connect(&[address]), place.connect(&[address, address])];
    let other = place.connect(&[ip("127.20.0.2")]);
    server.does(Does::Answer);
    assert_eq!(guarded.learns(&Subject::address(address)), (Action::Deny, Why::Bad));
    for process in &connected {
        eventually("it is stopped", || (state(&process.child) == 'T').then_some(()));
    }
    assert_ne!(state(&other.child), 'T');
    assert_eq!(guarded.agent.numbers().stopped, 2);
    guarded.stop();
}

#[test]
#[serial]
fn who_was_not_let_in_is_not_stopped() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let address = ip("127.21.0.1");
    let server = Server::new(&[address]);
    let policy = place.policy(server.address, |policy| {
        policy.connect.unknown = Action::Deny;
        policy.connect.revoke = Revoke::Kill;
    });
    let guarded = Guarded::start(&place, &policy);
    let mut denied = place.connect(&[address]);
    assert!(!denied.allowed[0]);
    assert_eq!(guarded.learns(&Subject::address(address)), (Action::Deny, Why::Bad));
    eventually("its question is closed", || {
        let questions = guarded.guard.questions().expect("an executor");
        (questions.in_flight == 0).then_some(())
    });
    // What it reads ends.
    drop(denied.child.stdin.take());
    assert!(denied.child.wait().expect("our child").success());
    assert_eq!(guarded.numbers().revoked, 0);
    guarded.stop();
}
