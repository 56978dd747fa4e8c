//! A network with nothing but `lo`.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::sched::{CloneFlags, unshare};

/// Gives this thread, and those that it makes, a network of its own, in which only `lo` is there,
/// and up. Guests have none.
pub fn enter() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: all of its bytes may be 0.
    let mut lo: libc::ifreq = unsafe { std::mem::zeroed() };
    lo.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    lo.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads `lo`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const lo) };
    assert_eq!(result, 0, "lo: {}", io::Error::last_os_error());
}
