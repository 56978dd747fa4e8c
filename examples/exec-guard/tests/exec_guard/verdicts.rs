//! What is known, what is not, and what becomes of both.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use bpf_wq_tests::eventually;
use exec_guard::database::Known;
use exec_guard::policy::{AddressRule, FileRule, Revoke, Rule};
use exec_guard::subject::{Action, Subject, Why};
use serial_test::serial;

use crate::ip;
use crate::support::{Does, Guarded, Place, Server, check};

#[test]
#[serial]
fn all_is_decided_by_what_is_known_of_it() {
    check(&[
        what_is_known_is_decided_at_once,
        what_is_not_known_is_decided_by_default_until_it_is,
        addresses_are_asked_for_of_both_families,
        an_answer_holds_for_its_time_only,
        nobody_waits_for_the_answer,
        opened_files_are_asked_for_by_their_name,
        a_file_that_is_changed_is_asked_for_again,
    ]);
}

fn what_is_known_is_decided_at_once(place: &Place) {
    let [denied, allowed, logged] =
        ["denied", "allowed", "logged"].map(|name| place.program(name, "/bin/true"));
    let policy = place.policy("127.0.0.1:9".parse().expect("an address"), |policy| {
        policy.exec.unknown = Action::Deny;
        policy.connect.unknown = Action::Deny;
        for (path, verdict) in
            [(&denied, Rule::Deny), (&allowed, Rule::Allow), (&logged, Rule::Log)]
        {
            policy.file_rules.push(FileRule { path: path.clone(), verdict });
        }
        for (address, verdict) in
            [("127.0.0.9", Action::Deny), ("::1", Action::Allow), ("127.0.0.8", Action::Log)]
        {
            policy.address_rules.push(AddressRule { address: ip(address), verdict });
        }
    });
    // Nobody is there to be asked.
    let guarded = Guarded::without_agent(place, &policy);
    assert!(!place.may_run(&denied));
    assert!(place.may_run(&allowed));
    assert!(place.may_run(&logged));
    let connected = place.connect(&["127.0.0.9", "::1", "127.0.0.8"].map(ip));
    assert_eq!(connected.allowed, [false, true, true]);
    let numbers = guarded.numbers();
    assert_eq!((numbers.allowed, numbers.denied, numbers.logged), (2, 2, 2), "{numbers:?}");
    assert_eq!((numbers.unknown, numbers.put), (0, 0), "{numbers:?}");
    guarded.leave();
}

fn what_is_not_known_is_decided_by_default_until_it_is(place: &Place) {
    let server = Server::new(&[]);
    for (default, unlisted) in [(Action::Allow, Action::Deny), (Action::Deny, Action::Allow)] {
        let [good, bad, other] = ["good", "bad", "other"].map(|name| {
            let path = place.program(&format!("{name}-{default:?}"), "/bin/true");
            match name {
                "good" => place.know(&path, Known::Good),
                "bad" => place.know(&path, Known::Bad),
                _ => {}
            }
            path
        });
        let policy = place.policy(server.address, |policy| {
            policy.exec.unknown = default;
            policy.exec.unlisted = unlisted;
            policy.exec.revoke = Revoke::Leave;
        });
        let guarded = Guarded::start(place, &policy);
        for (path, action, why) in [
            (&good, Action::Allow, Why::Answer),
            (&bad, Action::Deny, Why::Bad),
            (&other, unlisted, Why::Answer),
        ] {
            assert_eq!(place.may_run(path), default == Action::Allow);
            let subject = guarded.executed(path);
            assert_eq!(guarded.learns(&subject), (action, why), "{}", path.display());
            assert_eq!(place.may_run(path), action == Action::Allow);
        }
        let numbers = guarded.has_learned(3);
        assert_eq!(numbers.unknown, 3, "{numbers:?}");
        guarded.leave();
    }
}

fn addresses_are_asked_for_of_both_families(place: &Place) {
    let server = Server::new(&["127.9.9.9", "2001:db8::bad"].map(ip));
    let guarded = Guarded::start(place, &place.policy(server.address, |_| {}));
    for (address, is_listed) in [
        ("127.9.9.9", true),
        ("127.9.9.8", false),
        ("2001:db8::bad", true),
        ("2001:db8::900d", false),
        ("::ffff:127.9.9.9", true),
    ] {
        let address = ip(address);
        place.connect(&[address]);
        let expected =
            if is_listed { (Action::Deny, Why::Bad) } else { (Action::Allow, Why::Answer) };
        assert_eq!(guarded.learns(&Subject::address(address)), expected, "{address}");
        assert_eq!(place.may_connect(address), !is_listed, "{address}");
    }
    guarded.leave();
}

fn an_answer_holds_for_its_time_only(place: &Place) {
    let program = place.program("program", "/bin/true");
    let address = ip("127.3.3.3");
    // The server says that its answers hold for a second.
    let server = Server::with_ttl(&[address], 1);
    let policy = place.policy(server.address, |policy| policy.files.ttl_ms = 500);
    let guarded = Guarded::start(place, &policy);
    assert!(place.may_run(&program));
    assert!(place.may_connect(address));
    // This machine may be so slow that they are known and forgotten by now.
    let numbers = eventually("both are forgotten", || {
        let now = guarded.numbers();
        // The latter is counted after it is known.
        (now.expired == 2 && now.learned == 2).then_some(now)
    });
    assert_eq!(numbers.unknown, 2, "{numbers:?}");
    assert_eq!((numbers.created, numbers.removed), (2, 2), "{numbers:?}");
    assert_eq!(server.asked(), 1);
    assert!(place.may_run(&program));
    assert!(place.may_connect(address), "it is unknown again, though it is bad");
    eventually("both are asked for again", || (guarded.numbers().learned == 4).then_some(()));
    assert_eq!((guarded.numbers().unknown, server.asked()), (4, 2));
    guarded.leave();
}

fn nobody_waits_for_the_answer(place: &Place) {
    let address = ip("127.4.4.4");
    let server = Server::new(&[address]);
    let [program, library] = ["program", "library"].map(|name| {
        let path = place.program(name, "/bin/true");
        place.know(&path, Known::Bad);
        path
    });
    let policy = place.policy(server.address, |policy| {
        policy.exec.revoke = Revoke::Leave;
        policy.file_rules.push(FileRule { path: library.clone(), verdict: Rule::Ask });
    });
    let mut guarded = Guarded::without_agent(place, &policy);
    // All return before there is an agent, and so before anybody is asked.
    assert!(place.may_run(&program));
    assert!(place.may_open(&library));
    server.does(Does::Hold);
    let connected = place.connect(&[address]);
    assert_eq!((connected.allowed[0], server.asked()), (true, 0));
    guarded.start_agent(&policy);
    eventually("the server is asked", || (server.asked() == 1).then_some(()));
    // And this one while the server is asked, and holds its answer.
    assert!(place.may_connect(address));
    let asked = Subject::address(address);
    assert_eq!(guarded.guard.verdict(&asked).expect("the map can be read"), None);
    server.does(Does::Answer);
    assert_eq!(guarded.learns(&asked), (Action::Deny, Why::Bad));
    assert!(!place.may_connect(address));
    for file in [guarded.executed(&program), guarded.opened(&library)] {
        assert_eq!(guarded.learns(&file), (Action::Deny, Why::Bad));
    }
    assert!(!place.may_run(&program));
    assert!(!place.may_open(&library));
    guarded.leave();
}

fn opened_files_are_asked_for_by_their_name(place: &Place) {
    let server = Server::new(&[]);
    let [library, other, unwatched] = ["library", "other", "unwatched"].map(|name| {
        let path = place.program(name, "/bin/true");
        if name != "library" {
            place.know(&path, Known::Bad);
        }
        path
    });
    let policy = place.policy(server.address, |policy| {
        policy.file_rules.push(FileRule { path: library.clone(), verdict: Rule::Ask });
    });
    let guarded = Guarded::start(place, &policy);
    assert!(place.may_open(&library));
    let first = guarded.opened(&library);
    assert_eq!(guarded.learns(&first), (Action::Allow, Why::Answer));
    fs::rename(&other, &library).expect("it is replaced");
    assert!(place.may_open(&library), "another file is not known");
    let second = guarded.opened(&library);
    assert_eq!(guarded.learns(&second), (Action::Deny, Why::Bad));
    assert!(!place.may_open(&library));
    assert!(place.may_open(&unwatched));
    let numbers = guarded.has_learned(2);
    assert_eq!(numbers.unknown, 2, "{numbers:?}");
    guarded.leave();
}

fn a_file_that_is_changed_is_asked_for_again(place: &Place) {
    let server = Server::new(&[]);
    let [program, other] = ["program", "other"].map(|name| place.program(name, "/bin/true"));
    place.know(&other, Known::Bad);
    let guarded = Guarded::start(place, &place.policy(server.address, |_| {}));
    let learned = |expected, times| {
        assert!(place.may_run(&program), "it is not known");
        let subject = guarded.executed(&program);
        assert_eq!(guarded.learns(&subject), (expected, Why::Answer));
        assert_eq!(guarded.numbers().unknown, times);
    };
    learned(Action::Allow, 1);
    let mut file = OpenOptions::new().append(true).open(&program).expect("it is ours");
    file.write_all(b"more").expect("it is written");
    drop(file);
    learned(Action::Allow, 2);
    fs::rename(&other, &program).expect("it is replaced");
    // It is stopped, or has ended before.
    let mut child = place.start(&program, &[]).expect("it is not known");
    child.wait().expect("our child");
    let subject = guarded.executed(&program);
    assert_eq!(guarded.learns(&subject), (Action::Deny, Why::Bad));
    assert!(!place.may_run(&program));
    guarded.leave();
}
