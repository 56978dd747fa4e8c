//! The types of programs in `bpf/tests/program_types.h`, by their names there.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;

use libbpf_rs::libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};
use libbpf_rs::{Iter, Link, ProgramMut};

use crate::needs_config;

/// An Ethernet frame with nothing in it, and the smallest that all test runs take.
pub const FRAME: [u8; 64] = [0; 64];

/// Those that may use no workqueue before 7.0 (19bd300e22c2), by how their names begin.
const TRACING: &[&str] = &["kprobe", "uprobe", "tracepoint", "raw_tp", "perf_event"];

/// What a kernel has to be built with to run programs of some types, by how their names begin.
const OPTIONS: [(&str, &[&str]); 6] = [
    ("CONFIG_BPF_LSM", &["lsm"]),
    ("CONFIG_CGROUP_BPF", &["cgroup_", "lsm_cgroup", "sockops"]),
    ("CONFIG_LWTUNNEL_BPF", &["lwt_in", "lwt_out", "lwt_xmit"]),
    ("CONFIG_IPV6_SEG6_BPF", &["lwt_seg6local"]),
    ("CONFIG_NETFILTER_BPF_LINK", &["netfilter"]),
    ("CONFIG_BPF_EVENTS", TRACING),
];

fn is_of(name: &str, types: &[&str]) -> bool {
    types.iter().any(|kind| name.starts_with(kind))
}

/// Whether it may use no workqueue before 7.0.
pub fn is_tracing(name: &str) -> bool {
    is_of(name, TRACING)
}

/// Whether the kernel is built for all of these types; if not, the test is recorded as skipped.
#[must_use]
pub fn needs_their_config(names: &[&str]) -> bool {
    let mut options = names.iter().flat_map(|name| options_of(name));
    options.all(|option| needs_config(option, "programs of this type run only with it"))
}

/// What a kernel has to be built with to run programs of a type.
pub fn options_of(name: &str) -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(move |(_, types)| is_of(name, types)).map(|(option, _)| *option)
}

/// The types whose programs [`attach`] and [`cause`] let run.
pub const CAUSED: [&str; 25] = [
    "syscall",
    "fentry",
    "fentry_s",
    "fexit",
    "fexit_s",
    "fmod_ret",
    "tp_btf",
    "iter",
    "iter_s",
    "lsm",
    "lsm_s",
    "xdp",
    "tc",
    "action",
    "socket",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sockops",
    "cgroup_skb",
    "cgroup_sock",
    "cgroup_connect4",
    "kprobe",
    "tracepoint",
    "raw_tp",
];

/// Whether programs of this type are attached to a cgroup, and run for the processes in it.
pub fn is_of_cgroup(name: &str) -> bool {
    matches!(name, "sockops" | "cgroup_sock" | "cgroup_connect4")
}

/// Attaches a program of one of the types [`CAUSED`], unless only test runs run it. `cgroup` is the
/// directory of the one that those of a cgroup are for.
///
/// # Errors
///
/// What the kernel refuses.
pub fn attach(
    name: &str,
    program: &ProgramMut<'_>,
    cgroup: Option<&Path>,
) -> libbpf_rs::Result<Option<Link>> {
    match name {
        "syscall" | "xdp" | "tc" | "action" | "socket" | "cgroup_skb" | "lwt_in" | "lwt_out"
        | "lwt_xmit" => return Ok(None),
        "kprobe" => program.attach_kprobe(false, "vfs_unlink"),
        _ if is_of_cgroup(name) => {
            let directory = File::open(cgroup.expect("a cgroup"))?;
            program.attach_cgroup(directory.as_raw_fd())
        }
        _ => program.attach(),
    }
    .map(Some)
}

/// Lets the kernel run a program of one of the types [`CAUSED`] once, or oftener, after [`attach`].
///
/// # Errors
///
/// What the kernel refuses.
pub fn cause(name: &str, program: BorrowedFd<'_>, link: Option<&Link>) -> libbpf_rs::Result<()> {
    match name {
        "xdp" | "tc" | "action" | "socket" | "cgroup_skb" | "lwt_in" | "lwt_out" | "lwt_xmit" => {
            test_run(program, &FRAME)?;
        }
        // A test run calls what the others are attached to.
        "syscall" | "fentry" | "fentry_s" | "fexit" | "fexit_s" | "fmod_ret" => {
            test_run(program, &[])?
        }
        "iter" | "iter_s" => {
            let mut lines = Vec::new();
            Iter::new(link.expect("it is attached"))?.read_to_end(&mut lines)?;
        }
        "lsm" | "lsm_s" => _ = File::open("/proc/self/comm")?,
        "tp_btf" | "tracepoint" | "raw_tp" => fs::write("/proc/self/comm", "renamed")?,
        "kprobe" => tempfile::NamedTempFile::new().and_then(|file| file.close())?,
        "cgroup_sock" | "cgroup_connect4" => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(socket.local_addr()?)?;
        }
        "sockops" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(listener.local_addr()?)?;
        }
        other => panic!("{other} has no event"),
    }
    Ok(())
}

fn test_run(program: BorrowedFd<'_>, data: &[u8]) -> libbpf_rs::Result<()> {
    let mut options =
        bpf_test_run_opts { sz: size_of::<bpf_test_run_opts>() as u64, ..Default::default() };
    if !data.is_empty() {
        options.data_in = data.as_ptr().cast();
        options.data_size_in = data.len().try_into().expect("a frame is short");
    }
    // SAFETY: the kernel reads `data`, of this size, and writes no more than the options.
    let result = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    match result {
        0 => Ok(()),
        error => Err(libbpf_rs::Error::from_raw_os_error(-error)),
    }
}
