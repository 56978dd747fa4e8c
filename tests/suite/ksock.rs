//! Network I/O: what a program may do, and its callback not.

use std::net::{SocketAddr, UdpSocket};
use std::panic;
use std::thread;

use nix::errno::Errno::EOPNOTSUPP;
use serial_test::serial;

use crate::support::called::{Called, OK, code, put};
use crate::support::{DEADLINE, eventually, loopback, needs, rule};

const GROUP: &str = "Sleeping in a callback";

/// The kernel's own selftest `ksock_wq`. Here the program, which makes a socket in the same way,
/// has to send with it: it is the callback alone that may not.
#[test_log::test]
#[serial]
fn no_sockets() {
    let statement =
        "no network I/O: bpf_ksock_create, which a program may call, returns -EOPNOTSUPP";
    rule("C-ksock", GROUP, statement);
    if !needs((7, 3), "BPF programs have sockets since 7.3") {
        return;
    }
    with_loopback(|| {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        receiver.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        let called = Called::load("ksock", &["sends"]);
        put(&called.map("address"), 0, &ipv4(receiver.local_addr().expect("its address")));

        assert_eq!(called.call("sends"), [OK; 6]);
        let mut text = [0; 16];
        let size = receiver.recv(&mut text).expect("what the program sent");
        assert_eq!(&text[..size], b"sent");

        eventually("the callback runs", || (called.seen().runs == 1).then_some(()));
        assert_eq!(code(called.seen().err[0]), Err(EOPNOTSUPP));
        called.settle();
        assert_eq!(called.seen().entered, 1);
    });
}

/// Runs `act` in a thread with a network of its own.
fn with_loopback(act: impl FnOnce() + Send) {
    let body = || {
        loopback::enter();
        act();
    };
    if let Err(panic) = thread::scope(|scope| scope.spawn(body).join()) {
        panic::resume_unwind(panic);
    }
}

/// `union bpf_ksock_addr`: a `struct sockaddr_in`, and room for IPv6.
fn ipv4(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    bytes.extend(address.ip().octets());
    bytes.resize(28, 0);
    bytes
}
