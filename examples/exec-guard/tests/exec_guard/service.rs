//! The service is slow, down, lying or flooded.

use std::net::{IpAddr, Ipv4Addr};

use bpf_wq_tests::eventually;
use exec_guard::subject::{Action, Subject, Why};
use serial_test::serial;

use crate::ip;
use crate::support::{Does, Guarded, Place, Server, check};

#[test]
#[serial]
fn no_service_is_waited_for_or_believed() {
    check(&[
        what_is_no_answer_is_not_believed,
        a_server_that_is_down_is_asked_again_when_the_policy_says_so,
        a_server_that_is_slow_holds_up_no_file,
        a_flood_is_decided_by_default_and_nothing_that_was_accepted_is_lost,
        // Its questions stay in the ring.
        without_an_agent_the_workqueue_gives_up,
    ]);
}

fn what_is_no_answer_is_not_believed(place: &Place) {
    let forged_first = ip("127.5.5.5");
    let lied_about = (1..=9).map(|n| ip(&format!("127.5.0.{n}")));
    // Right answers would be that they are listed.
    let lied_about: Vec<_> = lied_about.chain([forged_first]).collect();
    let server = Server::new(&lied_about);
    let policy = place.policy(server.address, |policy| {
        policy.connect.when_unreachable = Action::Deny;
        // Who lies does so in time, also where a machine stands still for seconds.
        policy.addresses.timeout_ms = 10_000;
    });
    let guarded = Guarded::start(place, &policy);
    let lies = [
        Does::Garbage,
        Does::OtherNumber,
        Does::OtherName,
        Does::OutOfRange,
        Does::OtherRecord,
        Does::Nothing,
        Does::Cut,
    ];
    for (n, does) in [Does::Fail].into_iter().chain(lies).chain([Does::Hold]).enumerate() {
        server.does(does);
        assert!(place.may_connect(lied_about[n]), "{does:?}: it is not known yet");
        eventually("the server is asked", || (server.asked() == n + 1).then_some(()));
        if does == Does::Fail {
            // To say that one has failed is no lie.
            eventually("it is told", || (guarded.agent().silent == 1).then_some(()));
        }
    }
    for address in &lied_about[..lies.len() + 2] {
        let verdict = guarded.learns(&Subject::address(*address));
        assert_eq!(verdict, (Action::Deny, Why::Unreachable), "{address}");
        assert!(!place.may_connect(*address), "{address}: as the policy says");
    }
    let numbers = guarded.agent();
    assert_eq!((numbers.lied, numbers.silent), (lies.len() as u64, 2), "{numbers:?}");
    guarded.leave();
    // Who forges an answer in time does not keep the right one out.
    let guarded = Guarded::start(place, &place.policy(server.address, |_| {}));
    server.does(Does::ForgedFirst);
    assert!(place.may_connect(forged_first));
    let verdict = guarded.learns(&Subject::address(forged_first));
    assert_eq!(verdict, (Action::Deny, Why::Bad));
    guarded.leave();
}

fn a_server_that_is_down_is_asked_again_when_the_policy_says_so(place: &Place) {
    let [logged, denied] =
        [["127.6.6.6", "127.6.6.7"], ["127.6.6.8", "127.6.6.9"]].map(|both| both.map(ip));
    let server = Server::new(&[logged[1], denied[1]]);
    let down = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let nobody = down.local_addr().expect("an address");
    drop(down);
    for (verdict, [lasting, address]) in [(Action::Log, logged), (Action::Deny, denied)] {
        let policy = |unreachable_ms| {
            place.policy(nobody, |policy| {
                policy.connect.when_unreachable = verdict;
                policy.questions.unreachable_ms = unreachable_ms;
            })
        };
        let guarded = Guarded::start(place, &policy(600_000));
        assert!(place.may_connect(lasting));
        assert_eq!(guarded.learns(&Subject::address(lasting)), (verdict, Why::Unreachable));
        assert_eq!(place.may_connect(lasting), verdict == Action::Log);
        assert_eq!(guarded.agent().silent, 1);
        guarded.leave();
        // A verdict of a second may be over before this machine sees it.
        let guarded = Guarded::start(place, &policy(1000));
        assert!(place.may_connect(address));
        eventually("its time is over", || (guarded.numbers().expired == 1).then_some(()));
        assert_eq!(guarded.agent().silent, 1);
        // The next agent knows where the server is.
        guarded.leave();
        let guarded = Guarded::start(place, &place.policy(server.address, |_| {}));
        assert!(!guarded.guard.is_new());
        assert!(place.may_connect(address));
        assert_eq!(guarded.learns(&Subject::address(address)), (Action::Deny, Why::Bad));
        guarded.leave();
    }
}

fn without_an_agent_the_workqueue_gives_up(place: &Place) {
    let [given_up, open] = ["127.7.7.7", "127.7.7.8"].map(ip);
    let policy = |tries| {
        place.policy("127.0.0.1:9".parse().expect("an address"), |policy| {
            policy.connect.when_unreachable = Action::Deny;
            policy.questions.again_ms = 100;
            policy.questions.tries = tries;
        })
    };
    let guarded = Guarded::without_agent(place, &policy(3));
    assert!(place.may_connect(given_up));
    assert_eq!(guarded.learns(&Subject::address(given_up)), (Action::Deny, Why::Unreachable));
    assert!(!place.may_connect(given_up));
    // It is counted after it is known.
    guarded.no_question_is_open();
    let numbers = guarded.numbers();
    assert_eq!((numbers.unreachable, numbers.learned), (1, 0), "{numbers:?}");
    // Once at first, after 100 ms, and after 200 more: less often if this machine stands still.
    assert!((1..=3).contains(&numbers.put), "{numbers:?}");
    guarded.leave();
    // All of that is seen of one that is not given up for 25 s. It is open until the guard ends.
    let guarded = Guarded::without_agent(place, &policy(8));
    assert!(place.may_connect(open));
    eventually("it is put again and again", || (guarded.numbers().put >= 3).then_some(()));
}

fn a_server_that_is_slow_holds_up_no_file(place: &Place) {
    let server = Server::new(&[]);
    let program = place.program("program", "/bin/true");
    let guarded = Guarded::start(place, &place.policy(server.address, |_| {}));
    server.does(Does::Hold);
    // More than there are threads that ask.
    let held: Vec<_> = (0..200).map(|n| Ipv4Addr::from(0x7f07_0100 + n).into()).collect();
    place.connect(&held);
    assert!(place.may_run(&program));
    let verdict = guarded.learns(&guarded.executed(&program));
    assert_eq!(verdict, (Action::Allow, Why::Answer));
    // Nothing else is answered.
    guarded.has_learned(1);
    server.does(Does::Answer);
    guarded.leave();
}

/// More than the queue's 1024, and the ring holds fewer.
const FLOOD: usize = 1300;

fn flood() -> Vec<IpAddr> {
    (0..FLOOD).map(|n| Ipv4Addr::from(0x7f08_0000 + n as u32).into()).collect()
}

fn a_flood_is_decided_by_default_and_nothing_that_was_accepted_is_lost(place: &Place) {
    let addresses = flood();
    let server = Server::new(&addresses);
    // None is given up, however slow this machine is.
    let policy = place.policy(server.address, |policy| policy.questions.tries = 8);
    let mut guarded = Guarded::without_agent(place, &policy);
    let connected = place.connect(&addresses);
    assert!(connected.allowed.iter().all(|allowed| *allowed), "it is the default");
    let numbers = guarded.numbers();
    assert_eq!(guarded.questions(), (1024, 1024), "open and accepted");
    assert_eq!(numbers.unknown, FLOOD as u64, "{numbers:?}");
    assert_eq!(numbers.queue_full, FLOOD as u64 - 1024, "{numbers:?}");
    eventually("the ring is full", || (guarded.numbers().agent_full > 0).then_some(()));
    assert_eq!(numbers.learned, 0);

    guarded.start_agent(&policy);
    guarded.no_question_is_open();
    let numbers = guarded.numbers();
    assert_eq!((numbers.learned, numbers.unreachable), (1024, 0), "{numbers:?}");
    // Those that were not accepted are unknown as before: they are asked for when they come again.
    let again = place.connect(&addresses);
    assert_eq!(again.allowed.iter().filter(|allowed| **allowed).count(), FLOOD - 1024);
    eventually("all are known", || (guarded.numbers().learned == FLOOD as u64).then_some(()));
    let last = place.connect(&addresses);
    assert!(last.allowed.iter().all(|allowed| !allowed));
    guarded.leave();
}
