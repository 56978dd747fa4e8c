//! A network of two ends, each in a network namespace of its own, which is gone when the process is.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{self, Command};

use anyhow::{Context as _, Result, bail};
use etherparse::PacketBuilder;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};

/// The interface that is limited.
pub const LIMITED: &str = "limited";

const OUTSIDE: &str = "outside";
const LIMITED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What packets are sent to.
const V4: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// The end that is limited; this thread, and those that it starts, are in its namespace.
pub struct Network {
    packets: OwnedFd,
}

impl Network {
    /// Makes it, with veth; the thread stays in it. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub fn join() -> Result<Self> {
        let outside = new_namespace()?;
        let inside = new_namespace()?;
        let there = format!("/proc/{}/fd/{}", process::id(), outside.as_raw_fd());
        ip(&format!(
            "link add {LIMITED} address {} type veth peer name {OUTSIDE} address {} netns {there}",
            mac(LIMITED_MAC),
            mac(OUTSIDE_MAC)
        ))?;
        ip(&format!("address add {V4}/8 dev {LIMITED}"))?;
        // Without `nodad` the address could be used only after a second.
        ip(&format!("address add {V6}/64 dev {LIMITED} nodad"))?;
        ip(&format!("link set {LIMITED} up"))?;
        setns(&outside, CloneFlags::CLONE_NEWNET).context("cannot go to the other end")?;
        // Without an address of its own this end sends nothing by itself.
        let packets =
            ip(&format!("link set {OUTSIDE} addrgenmode none up")).and_then(|()| packet_socket());
        setns(&inside, CloneFlags::CLONE_NEWNET).context("cannot come back")?;
        Ok(Self { packets: packets? })
    }

    /// A receiver of this end, at a port.
    pub fn receiver(&self, of: IpAddr, port: u16) -> Result<UdpSocket> {
        let address: IpAddr = if of.is_ipv4() { V4.into() } else { V6.into() };
        let socket = UdpSocket::bind(SocketAddr::new(address, port)).context("cannot receive")?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Sends a packet from the other end that says that it comes from this address.
    pub fn send(&self, source: IpAddr, port: u16) -> Result<()> {
        let packet = PacketBuilder::ethernet2(OUTSIDE_MAC, LIMITED_MAC);
        let packet = match source {
            IpAddr::V4(source) => packet.ipv4(source.octets(), V4.octets(), 64),
            IpAddr::V6(source) => packet.ipv6(source.octets(), V6.octets(), 64),
        };
        let mut bytes = Vec::with_capacity(64);
        packet.udp(1, port).write(&mut bytes, &[0])?;
        loop {
            match socket::send(self.packets.as_raw_fd(), &bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                // As many as fit are on their way.
                Err(Errno::ENOBUFS) => std::thread::yield_now(),
                Err(errno) => return Err(errno).context("cannot send"),
            }
        }
    }

    /// Takes the interface away.
    pub fn remove(&self) -> Result<()> {
        ip(&format!("link delete {LIMITED}"))
    }
}

/// How many packets have come.
pub fn received(socket: &UdpSocket) -> Result<u64> {
    let mut count = 0;
    loop {
        match socket.recv(&mut [0; 16]) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

fn new_namespace() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace: run as root")?;
    Ok(File::open("/proc/thread-self/ns/net")?)
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// In the namespace of this thread.
fn ip(arguments: &str) -> Result<()> {
    let run = Command::new("ip").args(arguments.split(' ')).output();
    let run = run.context("cannot run ip: install iproute2")?;
    if !run.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&run.stderr).trim());
    }
    Ok(())
}

/// One that sends through the other end.
fn packet_socket() -> Result<OwnedFd> {
    let socket = socket::socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .context("cannot make a packet socket")?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(if_nametoindex(OUTSIDE)?)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is one of the socket's family, and of this length.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(bound).context("cannot bind a packet socket")?;
    Ok(socket)
}
