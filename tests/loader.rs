//! A process that loads `bpf/tests/lifecycle.bpf.c`, lets its programs start callbacks that
//! sleep, and goes away: `tests/suite/lifecycle.rs` starts it. It says a word when it is done with
//! a step, and reads a line before the next.

use std::env;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::process;
use std::ptr::{self, NonNull};

use bpf_wq_tests::loopback;
use libbpf_rs::skel::{OpenSkel as _, Skel as _};
use libbpf_rs::{AsRawLibbpf as _, Link, ProgramMut, libbpf_sys};

#[path = "suite/support/lifecycle.rs"]
mod lifecycle;

/// Of `lo`, in every network.
const LO: i32 = 1;

fn main() {
    let args: Vec<String> = env::args().collect();
    let [_, programs, end, holder, address] = &args[..] else {
        panic!("started by hand: {args:?}, not PROGRAM,... END HOLDER ADDRESS");
    };
    let holder = holder.parse().expect("a process's id");
    let address = address.parse().expect("an address");
    let mut storage = MaybeUninit::uninit();
    let programs: Vec<&str> = programs.split(',').collect();
    let open = lifecycle::open(&mut storage, &programs, holder, address);
    if programs == ["arms_itself"] {
        // As lint refuses it: not by the library.
        let mut skel = open.load().expect("it loads");
        skel.attach().expect("it attaches");
        say("attached");
        wait();
        remove_a_file();
        end_as("kill", skel);
        return;
    }
    let loaded = bpf_wq::load(open, lifecycle::OBJECT).expect("it loads");
    let mut armed = loaded.arm().expect("it arms");
    armed.attach().expect("it attaches");
    if programs.iter().any(|program| matches!(*program, "xdp" | "tc")) {
        loopback::enter();
    }
    for program in &programs {
        let link = match *program {
            "xdp" => armed.skel_mut().progs.xdp.attach_xdp(LO).expect("it attaches"),
            "tc" => attach_tcx(&armed.skel_mut().progs.tc),
            _ => continue,
        };
        armed.keep(program, link);
    }
    say("attached");
    wait();
    for program in &programs {
        match *program {
            "fentry" | "kprobe" | "lsm" => remove_a_file(),
            "tp_btf" | "tracepoint" => fs::write("/proc/self/comm", "renamed").expect("a name"),
            "xdp" | "tc" => send_a_frame(),
            other => panic!("{other} has no event"),
        }
    }
    end_as(end, armed);
}

/// Ends as the test says, with `all` that was loaded.
fn end_as<T>(end: &str, all: T) {
    if end == "drop at once" {
        drop(all);
        say("dropped");
        wait();
        return;
    }
    say("submitted");
    match end {
        "kill" => wait(),
        "exit" => {
            wait();
            process::exit(0);
        }
        "panic" => {
            wait();
            panic!("as it should");
        }
        "drop" => {
            wait();
            drop(all);
            say("dropped");
            wait();
            return;
        }
        other => panic!("{other} is no end"),
    }
    unreachable!("it was to be killed");
}

fn say(word: &str) {
    println!("{word}");
}

/// Until the test says something, or is gone.
fn wait() {
    io::stdin().read_line(&mut String::new()).expect("a line");
}

fn remove_a_file() {
    tempfile::NamedTempFile::new().and_then(tempfile::NamedTempFile::close).expect("a file");
}

fn send_a_frame() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = socket.local_addr().expect("its address");
    let sent = socket.send_to(&process::id().to_ne_bytes(), to).expect("it sends");
    assert_eq!(sent, size_of::<u32>());
}

/// Which libbpf-rs has no function for.
fn attach_tcx(program: &ProgramMut<'_>) -> Link {
    let raw = program.as_libbpf_object().as_ptr();
    // SAFETY: the program is loaded, and without options the kernel's own are taken.
    let link = unsafe { libbpf_sys::bpf_program__attach_tcx(raw, LO, ptr::null()) };
    let link = NonNull::new(link).unwrap_or_else(|| panic!("tcx: {}", io::Error::last_os_error()));
    // SAFETY: the link is new, and nobody else's.
    unsafe { Link::from_ptr(link) }
}
