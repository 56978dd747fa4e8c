//! Sockets whose data programs see.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, MapType, ProgramMut};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};

/// Attaches a program to a map of sockets, which is there as long as the link.
pub fn attach_to_map(program: &ProgramMut<'_>) -> libbpf_rs::Result<Link> {
    let options =
        bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as u64, ..Default::default() };
    let map = MapHandle::create(MapType::Sockmap, Some("sockets"), 4, 4, 1, &options)?;
    // libbpf-rs attaches to such maps without a link. This makes one, to whatever the descriptor is
    // of: the kernel looks at the type of the program.
    program.attach_cgroup(map.as_fd().as_raw_fd())
}

/// A datagram arrives at a socket in the map that a program is attached to.
pub fn receive_in_map(link: &Link) -> libbpf_rs::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    put(link, &socket)?;
    Ok(send_to_itself(&socket)?)
}

/// A connection in the map that a program is attached to is written to.
pub fn send_in_map(link: &Link) -> libbpf_rs::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    put(link, &socket)?;
    Ok(socket.write_all(b"data")?)
}

fn put(link: &Link, socket: &impl AsFd) -> libbpf_rs::Result<()> {
    let LinkTypeInfo::SockMap(info) = link.info()?.info else {
        return Err(io::Error::other("this link is of no map of sockets").into());
    };
    let map = MapHandle::from_map_id(info.map_id)?;
    let fd = socket.as_fd().as_raw_fd();
    map.update(&0_u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
}

/// A datagram arrives at a socket of a group for which a program chooses.
pub fn receive_in_group(program: BorrowedFd<'_>) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    let program = program.as_raw_fd();
    // SAFETY: the kernel reads a number, of this size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_EBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    send_to_itself(&UdpSocket::from(socket))
}

/// It is on its way through the whole network, unless something drops it.
pub fn send_to_itself(socket: &UdpSocket) -> io::Result<()> {
    socket.send_to(b"data", socket.local_addr()?).map(drop)
}
