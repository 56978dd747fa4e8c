//! Processes that were let in, and should not have been.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use bpf_wq_tests::eventually;
use exec_guard::database::Known;
use exec_guard::policy::Revoke;
use exec_guard::subject::{Action, Subject, Why};
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::mkfifo;
use serial_test::serial;

use crate::ip;
use crate::support::{Does, Guarded, Place, Server, check};

/// How many processes are in the cgroup.
fn within(place: &Place) -> usize {
    let procs = fs::read_to_string(place.own.path().join("cgroup.procs"));
    procs.expect("the cgroup is there").lines().count()
}

#[test]
#[serial]
fn who_was_let_in_is_stopped() {
    check(&[
        a_program_that_turns_out_bad_is_killed_and_its_children,
        all_that_have_connected_to_a_bad_address_are_stopped,
        one_that_looks_when_the_answer_has_expired_is_stopped,
        one_that_has_the_number_of_another_one_is_stopped,
        who_was_not_let_in_is_not_stopped,
        // It leaves a guard that is drained.
        what_is_answered_as_it_ends_is_still_revoked,
    ]);
}

fn a_program_that_turns_out_bad_is_killed_and_its_children(place: &Place) {
    let server = Server::new(&[]);
    let bad = place.program("bad", "/bin/sh");
    place.know(&bad, Known::Bad);
    let policy = place.policy(server.address, |_| {});
    let mut guarded = Guarded::without_agent(place, &policy);
    let fifo = place.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("a fifo");
    // What is written stays in it, whoever else has closed it, or has not opened it yet.
    let mut end = OpenOptions::new().read(true).write(true).open(&fifo).expect("it is ours");
    // It waits for a child that waits for ever, of which the guard has heard nothing.
    let script = "(exec 3<>\"$0\"; read nothing <&3) & wait";
    let arguments = ["-c", script, fifo.to_str().expect("UTF-8")];
    let mut child = place.start(&bad, &arguments).expect("it is not known yet");
    let mut outside = Command::new(&bad).args(arguments).spawn().expect("it starts");
    eventually("it has a child", || (within(place) == 2).then_some(()));
    guarded.start_agent(&policy);
    let ended = eventually("it ends", || child.try_wait().expect("our child"));
    assert_eq!(ended.signal(), Some(nix::libc::SIGKILL));
    eventually("its child does, too", || (within(place) == 0).then_some(()));
    assert!(!place.may_run(&bad));
    assert_eq!(outside.try_wait().expect("our child"), None, "it is in no cgroup that is guarded");
    assert!(Command::new(&bad).args(["-c", ":"]).status().expect("it starts").success());
    end.write_all(b"\n").expect("there is place");
    assert!(outside.wait().expect("our child").success());
    guarded.leave();
}

fn all_that_have_connected_to_a_bad_address_are_stopped(place: &Place) {
    let address = ip("127.20.0.1");
    let server = Server::new(&[address]);
    let policy = place.policy(server.address, |policy| policy.connect.revoke = Revoke::Stop);
    let guarded = Guarded::start(place, &policy);
    server.does(Does::Hold);
    let connected = [place.connect(&[address]), place.connect(&[address, address])];
    let other = place.connect(&[ip("127.20.0.2")]);
    server.does(Does::Answer);
    assert_eq!(guarded.learns(&Subject::address(address)), (Action::Deny, Why::Bad));
    for process in &connected {
        eventually("it is stopped", || (process.state() == 'T').then_some(()));
    }
    assert_ne!(other.state(), 'T');
    // A process is counted after it has got its signal.
    eventually("both are counted", || (guarded.agent().stopped == 2).then_some(()));
    // So does the job when it has told the agent.
    guarded.no_question_is_open();
    assert_eq!(guarded.numbers().revoked, 2);
    guarded.leave();
}

fn one_that_looks_when_the_answer_has_expired_is_stopped(place: &Place) {
    let address = ip("127.22.0.1");
    let server = Server::with_ttl(&[address], 0);
    let policy = place.policy(server.address, |policy| policy.connect.revoke = Revoke::Stop);
    let guarded = Guarded::start(place, &policy);
    server.does(Does::Hold);
    // Jobs look after 1 ms, 2 ms, 4 ms and so on. That of the second process, which comes when the
    // first one's has looked for the tenth time, does so some 500 ms before or behind that one.
    let looked = |times| (guarded.retried() >= times).then_some(());
    let first = place.connect(&[address]);
    eventually("the first one waits", || looked(10));
    let second = place.connect(&[address]);
    eventually("the second one waits for so long, too", || looked(20));
    server.does(Does::Answer);
    eventually("it is answered", || (guarded.agent().answered == 1).then_some(()));
    let answered = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock"));
    for process in [&first, &second] {
        eventually("it is stopped", || (process.state() == 'T').then_some(()));
    }
    let expires = Duration::from_nanos(guarded.expires_ns(place, &Subject::address(address)));
    assert!(expires <= answered, "from then on: {expires:?}, and was answered at {answered:?}");
    guarded.leave();
}

fn one_that_has_the_number_of_another_one_is_stopped(place: &Place) {
    let address = ip("127.23.0.1");
    let server = Server::new(&[address]);
    let policy = place.policy(server.address, |policy| policy.connect.revoke = Revoke::Stop);
    let guarded = Guarded::start(place, &policy);
    server.does(Does::Hold);
    let first = place.connect(&[address]);
    // More than 30 ms: /proc counts in 10 ms when a process has begun.
    eventually("it waits", || (guarded.retried() >= 6).then_some(()));
    let number = first.pid;
    first.ends();
    let second = place.connect_as(number, &[address]);
    assert_eq!(second.pid, number);
    server.does(Does::Answer);
    eventually("it is stopped", || (second.state() == 'T').then_some(()));
    guarded.leave();
}

fn who_was_not_let_in_is_not_stopped(place: &Place) {
    let address = ip("127.21.0.1");
    let server = Server::new(&[address]);
    let policy = place.policy(server.address, |policy| {
        policy.connect.unknown = Action::Deny;
        policy.connect.revoke = Revoke::Kill;
    });
    let guarded = Guarded::start(place, &policy);
    let denied = place.connect(&[address]);
    assert!(!denied.allowed[0]);
    assert_eq!(guarded.learns(&Subject::address(address)), (Action::Deny, Why::Bad));
    guarded.no_question_is_open();
    // It may not have come to wait yet.
    eventually("it sleeps", || (denied.state() == 'S').then_some(()));
    let pid = denied.pid;
    assert_eq!(denied.ends(), WaitStatus::Exited(pid, 0));
    assert_eq!(guarded.numbers().revoked, 0);
    guarded.leave();
}

fn what_is_answered_as_it_ends_is_still_revoked(place: &Place) {
    let [address, other] = ["127.24.0.1", "127.24.0.2"].map(ip);
    let server = Server::new(&[address, other]);
    let policy = place.policy(server.address, |policy| policy.connect.revoke = Revoke::Stop);
    let mut guarded = Guarded::start(place, &policy);
    server.does(Does::Hold);
    let process = place.connect(&[address]);
    // From then on its job looks once a second at most: the answer is there before.
    eventually("it waits", || (guarded.retried() >= 10).then_some(()));
    server.does(Does::Answer);
    eventually("it is answered", || (guarded.agent().answered == 1).then_some(()));
    server.does(Does::Hold);
    place.connect(&[other]);
    guarded.drain();
    eventually("the agent did what it was told", || (process.state() == 'T').then_some(()));
    let numbers = guarded.numbers();
    assert_eq!((numbers.revoked, numbers.forgotten), (1, 1), "{numbers:?}");
}
