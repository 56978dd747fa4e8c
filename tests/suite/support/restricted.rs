//! Threads that may do less than root.

use std::panic;
use std::thread;

use caps::{CapSet, Capability};

/// Runs `act` in a thread without the capabilities that BPF needs.
pub fn without_capabilities<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    in_thread(|| {
        for capability in [Capability::CAP_SYS_ADMIN, Capability::CAP_BPF, Capability::CAP_PERFMON]
        {
            caps::drop(None, CapSet::Effective, capability).expect("dropping a capability");
        }
        act()
    })
}

/// Runs `act` in a thread whose bpf(2) fails with `errno`, as under a sandbox or on a
/// locked-down host.
pub fn with_bpf_failing<T: Send>(errno: i32, act: impl FnOnce() -> T + Send) -> T {
    in_thread(|| {
        fail_bpf(errno);
        act()
    })
}

fn fail_bpf(errno: i32) {
    use libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JUMP, BPF_K, BPF_LD, BPF_RET, BPF_STMT, BPF_W,
        SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SYS_bpf,
    };

    let fail = SECCOMP_RET_ERRNO | u32::try_from(errno).expect("errno is positive");
    let bpf = u32::try_from(SYS_bpf).expect("a number of a system call");
    let word = |code: u32| u16::try_from(code).expect("codes have 16 bits");
    // SAFETY: these only fill in the structure.
    let mut filter = unsafe {
        [
            BPF_STMT(word(BPF_LD | BPF_W | BPF_ABS), 0),
            BPF_JUMP(word(BPF_JMP | BPF_JEQ | BPF_K), bpf, 0, 1),
            BPF_STMT(word(BPF_RET | BPF_K), fail),
            BPF_STMT(word(BPF_RET | BPF_K), SECCOMP_RET_ALLOW),
        ]
    };
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the filter, which lives until then. It is this
    // thread's alone, and the thread ends with the test.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(act).join() {
        Ok(result) => result,
        Err(panic) => panic::resume_unwind(panic),
    })
}
