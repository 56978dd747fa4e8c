//! The types of programs in `bpf/tests/program_types.h`, by their names there.

mod clock;
mod sockets;

use std::env;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::thread;

use libbpf_rs::libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};
use libbpf_rs::{Iter, Link, NetfilterOpts, ProgramMut, UprobeOpts};

use crate::needs_config;

/// An Ethernet frame with nothing in it, and the smallest that all test runs take.
pub const FRAME: [u8; 64] = [0; 64];

/// Those that may use no workqueue before 7.0 (19bd300e22c2), by how their names begin.
const TRACING: &[&str] = &["kprobe", "uprobe", "tracepoint", "raw_tp", "perf_event"];

/// What a kernel has to be built with to run programs of some types, by how their names begin.
const OPTIONS: [(&str, &[&str]); 10] = [
    ("CONFIG_BPF_LSM", &["lsm"]),
    ("CONFIG_CGROUP_BPF", &["cgroup_", "lsm_cgroup", "sockops"]),
    ("CONFIG_LWTUNNEL_BPF", &["lwt_in", "lwt_out", "lwt_xmit"]),
    ("CONFIG_IPV6_SEG6_BPF", &["lwt_seg6local"]),
    ("CONFIG_NETFILTER_BPF_LINK", &["netfilter"]),
    ("CONFIG_BPF_EVENTS", TRACING),
    ("CONFIG_FPROBE", &["kprobe_multi"]),
    ("CONFIG_UPROBE_EVENTS", &["uprobe"]),
    ("CONFIG_SECURITY_NETWORK", &["lsm_cgroup"]),
    ("CONFIG_BPF_STREAM_PARSER", &["sk_skb", "sk_msg"]),
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
pub const CAUSED: [&str; 41] = [
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
    "lsm_cgroup",
    "xdp",
    "tc",
    "action",
    "socket",
    "sk_skb",
    "sk_msg",
    "sk_lookup",
    "sk_reuseport",
    "netfilter",
    "flow_dissector",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sockops",
    "cgroup_skb",
    "cgroup_sock",
    "cgroup_connect4",
    "cgroup_dev",
    "cgroup_sysctl",
    "cgroup_getsockopt",
    "cgroup_setsockopt",
    "kprobe",
    "kprobe_multi",
    "uprobe",
    "uprobe_s",
    "tracepoint",
    "raw_tp",
    "raw_tp_w",
    "perf_event",
];

/// Whether programs of this type are attached to a cgroup, and run for the processes in it.
pub fn is_of_cgroup(name: &str) -> bool {
    matches!(
        name,
        "lsm_cgroup"
            | "sockops"
            | "cgroup_sock"
            | "cgroup_connect4"
            | "cgroup_dev"
            | "cgroup_sysctl"
            | "cgroup_getsockopt"
            | "cgroup_setsockopt"
    )
}

/// Whether programs of one of the types [`CAUSED`] run without being attached: in test runs, or for
/// a socket that is made for them.
pub fn needs_no_link(name: &str) -> bool {
    matches!(
        name,
        "syscall"
            | "tc"
            | "action"
            | "socket"
            | "sk_reuseport"
            | "flow_dissector"
            | "cgroup_skb"
            | "lwt_in"
            | "lwt_out"
            | "lwt_xmit"
    )
}

/// Attaches a program of one of the types [`CAUSED`] that have to be. `cgroup` is the directory of the
/// one that those of a cgroup are for. Those of a network are attached to that of this thread.
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
        // [`cause`] has a test run for it: an interface is for who has one.
        "xdp" => return Ok(None),
        _ if needs_no_link(name) => return Ok(None),
        "kprobe" => program.attach_kprobe(false, "vfs_unlink"),
        "kprobe_multi" => program.attach_kprobe_multi(false, vec!["vfs_unlink"]),
        "uprobe" | "uprobe_s" => {
            let options = UprobeOpts { func_name: Some(PROBED.to_owned()), ..Default::default() };
            program.attach_uprobe_with_opts(EVERY_PROCESS, env::current_exe()?, 0, options)
        }
        "perf_event" => clock::attach(program),
        "sk_skb" | "sk_msg" => sockets::attach_to_map(program),
        "sk_lookup" => program.attach_netns(File::open("/proc/thread-self/ns/net")?.as_raw_fd()),
        "netfilter" => program.attach_netfilter_with_opts(NetfilterOpts {
            protocol_family: libc::NFPROTO_IPV4,
            hooknum: libc::NF_INET_LOCAL_IN,
            ..Default::default()
        }),
        _ if is_of_cgroup(name) => {
            let directory = File::open(cgroup.expect("a cgroup"))?;
            program.attach_cgroup(directory.as_raw_fd())
        }
        _ => program.attach(),
    }
    .map(Some)
}

/// Lets the kernel run a program of one of the types [`CAUSED`] once, or oftener, after [`attach`].
/// That of a clock runs when its time has come, which may be a little later.
///
/// # Errors
///
/// What the kernel refuses.
pub fn cause(name: &str, program: BorrowedFd<'_>, link: Option<&Link>) -> libbpf_rs::Result<()> {
    match name {
        "xdp" | "tc" | "action" | "socket" | "flow_dissector" | "cgroup_skb" | "lwt_in"
        | "lwt_out" | "lwt_xmit" => test_run(program, &FRAME)?,
        // A test run calls what the others are attached to.
        "syscall" | "fentry" | "fentry_s" | "fexit" | "fexit_s" | "fmod_ret" => {
            test_run(program, &[])?
        }
        "iter" | "iter_s" => {
            let mut lines = Vec::new();
            Iter::new(link.expect("it is attached"))?.read_to_end(&mut lines)?;
        }
        "lsm" | "lsm_s" => _ = File::open("/proc/self/comm")?,
        "tp_btf" | "tracepoint" | "raw_tp" | "raw_tp_w" => fs::write("/proc/self/comm", "renamed")?,
        "kprobe" | "kprobe_multi" => {
            tempfile::NamedTempFile::new().and_then(|file| file.close())?
        }
        "uprobe" | "uprobe_s" => bpf_wq_tests_probed(),
        "perf_event" => thread::sleep(clock::PERIOD),
        "lsm_cgroup" => _ = UdpSocket::bind("127.0.0.1:0")?,
        "sk_skb" => sockets::receive_in_map(link.expect("it is attached"))?,
        "sk_msg" => sockets::send_in_map(link.expect("it is attached"))?,
        "sk_lookup" | "netfilter" => sockets::send_to_itself(&UdpSocket::bind("127.0.0.1:0")?)?,
        "sk_reuseport" => sockets::receive_in_group(program)?,
        "cgroup_sock" | "cgroup_connect4" => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(socket.local_addr()?)?;
        }
        "cgroup_dev" => _ = File::open("/dev/null")?,
        "cgroup_sysctl" => _ = fs::read("/proc/sys/kernel/ostype")?,
        "cgroup_getsockopt" => _ = UdpSocket::bind("127.0.0.1:0")?.broadcast()?,
        "cgroup_setsockopt" => UdpSocket::bind("127.0.0.1:0")?.set_broadcast(true)?,
        "sockops" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(listener.local_addr()?)?;
        }
        other => panic!("{other} has no event"),
    }
    Ok(())
}

/// As libbpf says it.
const EVERY_PROCESS: i32 = -1;

/// The symbol of the function below.
const PROBED: &str = "bpf_wq_tests_probed";

/// What uprobes are attached to, in the program that this is part of.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bpf_wq_tests_probed() {
    // A function without any instruction might share its address with others.
    std::hint::black_box(PROBED);
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
