//! A DNS server as those who have such lists run it: Debian's rbldnsd.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bpf_wq_tests::{Running, eventually};
use exec_guard::events::Events;
use exec_guard::policy::{Policy, Revoke};
use exec_guard::subject::{Action, Subject, Why};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serial_test::serial;
use tempfile::TempDir;

use crate::connected::state;
use crate::ip;
use crate::support::{Guarded, Place, ZONE, check};

#[test]
#[serial]
fn a_server_of_blocklists_is_asked() {
    check(&[
        both_families_are_decided_as_the_list_says_and_for_as_long,
        a_list_that_has_changed_counts_when_the_answer_has_expired,
        a_server_that_was_stopped_or_killed_is_asked_when_it_is_back,
    ]);
}

/// Nobody else listens at port 53 of it.
const SERVER: &str = "127.53.0.1";

const PROGRAM: &str = "/usr/sbin/rbldnsd";

/// It is killed when this is dropped.
struct Rbldnsd {
    running: Running,
    directory: TempDir,
}

impl Rbldnsd {
    #[track_caller]
    fn start(list: &str) -> Self {
        assert!(Path::new(PROGRAM).exists(), "no {PROGRAM}: cargo xtask setup installs it");
        let directory = TempDir::new().expect("a directory");
        write(&directory, list);
        let zone = ZONE.trim_end_matches('.');
        let zone = format!("{zone}:combined:{}/{LIST}", directory.path().display());
        // It tells what it does on standard output. It looks for another list when it is told to.
        let script = "exec \"$0\" -n -c 0 -b \"$1\" \"$2\" >&2";
        let running = Running::start("sh", &["-c", script, PROGRAM, SERVER, &zone]);
        let mut rbldnsd = Self { running, directory };
        rbldnsd.until("started");
        rbldnsd
    }

    /// rbldnsd reads a list again if its size or its time has changed, so `list` is of another size.
    #[track_caller]
    fn has_now(&mut self, list: &str) {
        write(&self.directory, list);
        self.running.signal(Signal::SIGHUP);
        // A signal that comes right before it waits for a packet is not seen before the next one.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.send_to(b"no question", (SERVER, 53)).expect("it is sent");
        self.until("zones reloaded");
    }

    /// Waits until it has said so.
    #[track_caller]
    fn until(&mut self, what: &str) {
        let mut said = String::new();
        while !said.contains(what) {
            said = self.running.says();
            eprintln!("{said}");
        }
    }
}

const LIST: &str = "list";

#[track_caller]
fn write(directory: &TempDir, list: &str) {
    let path = directory.path().join(LIST);
    // It does not read a last line that does not end.
    fs::write(&path, format!("{list}\n")).expect("it is written");
    // It is a user of its own.
    for (path, mode) in [(directory.path(), 0o755), (&path, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }
}

#[track_caller]
fn policy(place: &Place, with: impl FnOnce(&mut Policy)) -> Policy {
    place.policy(format!("{SERVER}:53").parse().expect("an address"), with)
}

#[track_caller]
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock").into()
}

const LISTED: (Action, Why) = (Action::Deny, Why::Bad);
const NOT_LISTED: (Action, Why) = (Action::Allow, Why::Answer);
const NO_ANSWER: (Action, Why) = (Action::Deny, Why::Unreachable);

fn both_families_are_decided_as_the_list_says_and_for_as_long(place: &Place) {
    let _rbldnsd = Rbldnsd::start(
        "$SOA 600 localhost root.localhost 1 600 600 600 200
         $DATASET ip4set @
         $TTL 300
         127.30.0.1
         127.30.4.0/24 :127.0.0.4:
         !127.30.4.9
         $DATASET ip6trie @
         $TTL 400
         2001:db8:30::1bad
         2001:db8:31::/48 :127.0.0.4:
         !2001:db8:31::9",
    );
    let policy = policy(place, |policy| policy.connect.revoke = Revoke::Stop);
    let guarded = Guarded::start(place, &policy);
    for (address, expected, ttl) in [
        ("127.30.0.1", LISTED, 300),
        ("127.30.4.8", LISTED, 300),
        ("2001:db8:30::1bad", LISTED, 400),
        ("2001:db8:31:1:2::8", LISTED, 400),
        ("127.30.0.2", NOT_LISTED, 200),
        ("127.30.4.9", NOT_LISTED, 200),
        ("1.0.30.127", NOT_LISTED, 200),
        ("2001:db8:30::1bae", NOT_LISTED, 200),
        ("2001:db8:31::9", NOT_LISTED, 200),
    ] {
        let (address, subject) = (ip(address), Subject::address(ip(address)));
        let began = now();
        let process = place.connect(&[address]);
        assert!(process.allowed[0], "{address}: it is not known yet");
        assert_eq!(guarded.learns(&subject), expected, "{address}");
        let expires = Duration::from_nanos(guarded.expires_ns(place, &subject));
        let ttl = Duration::from_secs(ttl);
        assert!((began + ttl..now() + ttl).contains(&expires), "{address}: {:?}", expires - began);
        assert_eq!(place.may_connect(address), expected == NOT_LISTED, "{address}");
        if expected == LISTED {
            eventually("it is stopped", || (process.state() == 'T').then_some(()));
        } else {
            assert_ne!(process.state(), 'T', "{address}");
        }
    }
    // Each is counted when the agent was told, which may have been faster.
    guarded.no_question_is_open();
    assert_eq!(guarded.numbers().revoked, 4);
    guarded.leave();
}

fn a_list_that_has_changed_counts_when_the_answer_has_expired(place: &Place) {
    let [kept, removed, added] = ["127.31.0.1", "127.31.0.2", "2001:db8:32::1"].map(ip);
    let mut rbldnsd = Rbldnsd::start(
        "$SOA 600 localhost root.localhost 1 600 600 600 1
         $DATASET ip4set @
         $TTL 600
         127.31.0.1
         $DATASET ip4set @
         $TTL 1
         127.31.0.2",
    );
    let guarded = Guarded::start(place, &policy(place, |_| {}));
    let all = [kept, removed, added];
    assert_eq!(place.connect(&all).allowed, [true; 3], "they are not known yet");
    // Some may be known and forgotten by now.
    eventually("they are known", || (guarded.numbers().learned == 3).then_some(()));
    rbldnsd.has_now(
        "$SOA 600 localhost root.localhost 2 600 600 600 600
         $DATASET ip6trie @
         2001:db8:32::1",
    );
    for address in [removed, added] {
        expires(&guarded, address);
    }
    assert_eq!(place.connect(&all).allowed, [false, true, true], "only the first one is known");
    assert_eq!(guarded.learns(&Subject::address(removed)), NOT_LISTED);
    assert_eq!(guarded.learns(&Subject::address(added)), LISTED);
    assert_eq!(place.connect(&all).allowed, [false, true, false]);
    eventually("it is counted", || (guarded.agent().answered == 5).then_some(()));
    guarded.leave();
}

fn expires(guarded: &Guarded, address: IpAddr) {
    let verdict = || guarded.guard.verdict(&Subject::address(address));
    let is_over = || verdict().expect("the map can be read").is_none();
    eventually("its time is over", || is_over().then_some(()));
}

fn a_server_that_was_stopped_or_killed_is_asked_when_it_is_back(place: &Place) {
    const ONE: &str = "$SOA 600 localhost root.localhost 1 600 600 600 600
         $DATASET ip4set @
         127.32.0.1";
    let [listed, not_listed] = ["127.32.0.1", "127.32.0.2"].map(ip);
    let policy = |timeout_ms| {
        policy(place, |policy| {
            policy.connect.when_unreachable = Action::Deny;
            policy.addresses.timeout_ms = timeout_ms;
            policy.questions.unreachable_ms = 2000;
        })
    };
    let guarded = Guarded::start(place, &policy(3000));
    let rbldnsd = Rbldnsd::start(ONE);
    rbldnsd.running.signal(Signal::SIGSTOP);
    eventually("it is stopped", || (state(rbldnsd.running.pid()) == 'T').then_some(()));
    learns_no_answer(place, &guarded, listed);
    assert_eq!(guarded.agent().silent, 1);
    rbldnsd.running.signal(Signal::SIGCONT);
    expires(&guarded, listed);
    guarded.leave();

    // One that is back is waited for, however slow this machine is.
    let guarded = Guarded::start(place, &policy(60_000));
    let learns = |address, expected| {
        assert!(place.may_connect(address), "it is not known");
        assert_eq!(guarded.learns(&Subject::address(address)), expected, "{address}");
    };
    learns(listed, LISTED);
    drop(rbldnsd);
    learns_no_answer(place, &guarded, not_listed);
    let _rbldnsd = Rbldnsd::start(ONE);
    expires(&guarded, not_listed);
    learns(not_listed, NOT_LISTED);
    // The agent counts right after it has answered.
    eventually("it is counted", || (guarded.agent().answered == 3).then_some(()));
    assert_eq!(guarded.agent().silent, 1);
    guarded.leave();
}

/// What is told of it is there also when its time is over before this machine looks.
#[track_caller]
fn learns_no_answer(place: &Place, guarded: &Guarded, address: IpAddr) {
    let mut events = Events::of(&guarded.guard).expect("a ring");
    assert!(place.may_connect(address), "it is not known");
    let what = address.to_string();
    let learned = eventually("it is told", || {
        let told = events.wait(Duration::ZERO).expect("it can be read");
        told.into_iter().find(|event| event.process.is_none() && event.what == what)
    });
    assert_eq!((learned.action, learned.why), NO_ANSWER, "{address}");
}
