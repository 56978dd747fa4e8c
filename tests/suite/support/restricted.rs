//! Threads that may do less than root.

use std::panic;
use std::thread;

use caps::{CapSet, Capability};

use super::needs_config;

/// Runs `act` in a thread without the capabilities that BPF needs.
pub fn without_capabilities<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    without(&[Capability::CAP_SYS_ADMIN, Capability::CAP_BPF, Capability::CAP_PERFMON], act)
}

/// Runs `act` in a thread that may not do with files what their modes forbid.
pub fn without_access<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    without(&[Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH], act)
}

fn without<T: Send>(capabilities: &[Capability], act: impl FnOnce() -> T + Send) -> T {
    in_thread(|| {
        for capability in capabilities {
            caps::drop(None, CapSet::Effective, *capability).expect("dropping a capability");
        }
        act()
    })
}

/// For a thread whose system calls fail, or are its end.
pub fn needs_seccomp() -> bool {
    needs_config("CONFIG_SECCOMP_FILTER", "the test has system calls fail")
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
    let errno = u32::try_from(errno).expect("errno is positive");
    filter(libc::SYS_bpf, None, libc::SECCOMP_RET_ERRNO | errno);
}

/// From now on, this thread's process is killed when the thread makes this system call, with this
/// first argument.
pub fn die_at(call: libc::c_long, first_argument: Option<u32>) {
    filter(call, first_argument, libc::SECCOMP_RET_KILL_PROCESS);
}

fn filter(call: libc::c_long, first_argument: Option<u32>, verdict: u32) {
    use libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JUMP, BPF_K, BPF_LD, BPF_RET, BPF_STMT, BPF_W,
        SECCOMP_RET_ALLOW,
    };

    let word = |code: u32| u16::try_from(code).expect("codes have 16 bits");
    let call = u32::try_from(call).expect("a number of a system call");
    let mut tests = vec![(std::mem::offset_of!(libc::seccomp_data, nr), call)];
    let first = std::mem::offset_of!(libc::seccomp_data, args);
    tests.extend(first_argument.map(|argument| (first, argument)));
    let mut filter = Vec::new();
    for (i, (at, value)) in tests.iter().enumerate() {
        // Over the tests that follow, and the verdict.
        let to_allow = 2 * (tests.len() - i - 1) + 1;
        // SAFETY: these only fill in the structure.
        filter.extend(unsafe {
            [
                BPF_STMT(word(BPF_LD | BPF_W | BPF_ABS), *at as u32),
                BPF_JUMP(word(BPF_JMP | BPF_JEQ | BPF_K), *value, 0, to_allow as u8),
            ]
        });
    }
    // SAFETY: as above.
    filter.extend(unsafe {
        [
            BPF_STMT(word(BPF_RET | BPF_K), verdict),
            BPF_STMT(word(BPF_RET | BPF_K), SECCOMP_RET_ALLOW),
        ]
    });
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
