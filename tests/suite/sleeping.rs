//! Claim S7: the callback of a bpf_timer cannot sleep, allocate or wait for a device. That of a
//! bpf_wq can, and does.

use std::ffi::c_void;
use std::fs;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use libbpf_rs::MapCore as _;
use nix::errno::Errno::{self, EFAULT};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::time::{ClockId, clock_gettime};
use rstest::rstest;
use serial_test::serial;

use crate::support::called::{Called, Code, OK, code, get, put, word};
use crate::support::fuse::Page;
use crate::support::loading::Verdict::{Loads, Refused};
use crate::support::loading::{
    FROM_THE_FIRST, History, assert_verdict, load_alone, on_this_kernel,
};
use crate::support::running::run;
use crate::support::{answer, eventually, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "Sleeping in a callback";

/// What the served page begins with.
const CONTENT: &[u8; 32] = b"to read this takes until it came";

/// An Ethernet frame with nothing in it.
const FRAME: [u8; 64] = [0; 64];

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).expect("not 0");

/// How long the answer is withheld.
const WITHHELD: Duration = Duration::from_millis(500);

/// `struct sleep` of `bpf/tests/sleeping.bpf.c`.
#[derive(Debug)]
struct Sleep {
    address: u64,
    start_called: u64,
    start_returned: u64,
    start: Code,
    kworker: u64,
    began: u64,
    ended: u64,
    err: Code,
    data: Vec<u8>,
}

fn sleep(called: &Called) -> Sleep {
    let value = get(&called.map("sleeps"), 0);
    let at = |index| word(&value, index);
    Sleep {
        address: at(1),
        start_called: at(2),
        start_returned: at(3),
        start: code(at(4) as i64),
        kworker: at(5),
        began: at(6),
        ended: at(7),
        err: code(at(8) as i64),
        data: value[9 * 8..].to_vec(),
    }
}

/// Waits until the callback ends.
#[track_caller]
fn ended(called: &Called) -> Sleep {
    eventually("the callback ends", || Some(sleep(called)).filter(|sleep| sleep.ended != 0))
}

/// Says what the next callback is to read.
fn is_to_read(called: &Called, pid: i32, address: u64) {
    let map = called.map("sleeps");
    let mut value = vec![0; map.value_size() as usize];
    value[..8].copy_from_slice(&(pid as u64).to_ne_bytes());
    value[8..16].copy_from_slice(&address.to_ne_bytes());
    put(&map, 0, &value);
}

/// CLOCK_MONOTONIC in ns, as bpf_ktime_get_ns().
fn now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the time")).as_nanos() as u64
}

/// The kernel's stack of the thread that runs the callback.
fn stack(sleep: &Sleep) -> String {
    let path = format!("/proc/{}/stack", sleep.kworker);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test_log::test]
#[serial]
fn timer_may_not_sleep() {
    rule("S7-timer", GROUP, "a bpf_timer callback that reads another process's memory is refused");
    if needs_bpf_wq() {
        const WORDS: History = &[
            (FROM_THE_FIRST, Refused("-EINVAL", "helper call might sleep in a non-sleepable prog")),
            (
                (7, 1),
                Refused(
                    "-EINVAL",
                    "sleepable helper bpf_copy_from_user_task#191 in non-sleepable prog",
                ),
            ),
        ];
        let verdict = on_this_kernel(WORDS);
        assert_verdict(&load_alone("sleeping", "by_timer"), verdict);
        if let Refused(errno, words) = verdict {
            answer(&format!("yes: {errno}, {words}"));
        }
    }
}

/// The program that is refused above, but for the object that calls the function.
#[test_log::test]
#[serial]
fn workqueue_may_sleep() {
    rule("S7-wq", GROUP, "the same function as a bpf_wq callback is accepted");
    if needs_bpf_wq() {
        assert_verdict(&load_alone("sleeping", "by_workqueue"), Loads);
    }
}

/// The page comes from a FUSE server, in place of a slow device. The program that arms is a
/// SEC("syscall") one, as its text stays while the callback sleeps.
#[rstest]
#[case::from_fentry("S7-fentry", "from_fentry", "an fentry program", &[])]
#[case::from_xdp("S7-xdp", "from_xdp", "an XDP program", &FRAME)]
#[case::from_tc("S7-tc", "from_tc", "a tc program", &FRAME)]
#[test_log::test]
#[serial]
fn waits_for_a_device(
    #[case] id: &str,
    #[case] program: &str,
    #[case] which: &str,
    #[case] frame: &[u8],
) {
    let statement = "a callback that waits for a file system has its data, long after";
    rule(id, GROUP, &format!("{statement} {which} has started it and returned"));
    if !needs_bpf_wq() || !needs_config("CONFIG_FUSE_FS", "the test is the file system") {
        return;
    }
    let page = Page::new(CONTENT);
    let mut called = Called::load("sleeping", &["arm", program]);
    assert_eq!(called.call("arm"), [OK, OK]);
    is_to_read(&called, page.pid(), page.address());

    run(called.object_mut(), program, frame);
    page.wait_for_reader();

    let asleep = sleep(&called);
    assert_eq!(asleep.start, OK);
    // How long it took says nothing: its thread may have been stopped meanwhile.
    assert_ne!(asleep.start_returned, 0, "start waited: {asleep:?}");
    let waits = |stack: &str| {
        ["request_wait_answer", "bpf_copy_from_user_task", "bpf_wq_work"]
            .iter()
            .all(|function| stack.contains(function))
    };
    // It asks before it goes to sleep.
    eventually("the kworker waits for the server", || waits(&stack(&asleep)).then_some(()));
    println!("kworker {}:\n{}", asleep.kworker, stack(&asleep));
    let began = Instant::now();
    while began.elapsed() < WITHHELD {
        let stack = stack(&asleep);
        assert!(waits(&stack), "it does not wait for the server:\n{stack}");
        assert_eq!(sleep(&called).ended, 0, "it did not wait for the answer");
    }

    let answered = now();
    page.answer();
    let awake = ended(&called);
    assert_eq!(awake.err, OK);
    assert_eq!(awake.data, CONTENT);
    assert!(awake.ended > answered, "it ended before the answer: {awake:?}, {answered}");
    let withheld = WITHHELD.as_nanos() as u64;
    assert!(awake.ended - awake.start_returned >= withheld, "{awake:?}");
    println!(
        "start took {} us; the callback took {} us, and ended {} us after the answer",
        (awake.start_returned - awake.start_called) / 1000,
        (awake.ended - awake.began) / 1000,
        (awake.ended - answered) / 1000
    );
}

/// bpf_arena_alloc_pages allocates as only those may who may sleep.
#[test_log::test]
#[serial]
fn allocates() {
    rule("S7-alloc", GROUP, "a callback allocates a page of an arena, which user space then reads");
    if !needs_bpf_wq() {
        return;
    }
    let mut called = Called::load("sleeping", &["arm_allocating", "from_fentry"]);
    assert_eq!(called.call("arm_allocating"), [OK, OK]);
    run(called.object_mut(), "from_fentry", &[]);
    let done = ended(&called);
    assert_eq!(done.err, OK);
    // WRITTEN of `bpf/tests/sleeping.bpf.c`.
    assert_eq!(read_word(done.address), Ok(0x57_5061_7265));
    // Of the pages beside it, nobody has allocated any.
    assert_eq!(read_word(done.address + PAGE.get() as u64), Err(EFAULT));
}

/// Reads this process's own memory, which need not be there.
fn read_word(address: u64) -> Result<u64, Errno> {
    let (mut reader, writer) = UnixStream::pair().expect("a pair of sockets");
    let mut bytes = [0; 8];
    // SAFETY: the kernel finds out whether there is memory.
    let result = unsafe { libc::write(writer.as_raw_fd(), address as *const _, bytes.len()) };
    Errno::result(result)?;
    reader.read_exact(&mut bytes).expect("as much as was written");
    Ok(u64::from_ne_bytes(bytes))
}

/// Hazard H3: the fault may not be retried there, as userfaultfd would have it.
#[test_log::test]
#[serial]
fn does_not_wait_for_userfaultfd() {
    rule("H3", GROUP, "bpf_copy_from_user_task of a page that userfaultfd holds: -EFAULT at once");
    if !needs_bpf_wq() || !needs_config("CONFIG_USERFAULTFD", "it is about userfaultfd") {
        return;
    }
    let mut called = Called::load("sleeping", &["arm", "from_fentry"]);
    assert_eq!(called.call("arm"), [OK, OK]);
    let missing = Missing::new();
    is_to_read(&called, std::process::id() as i32, missing.at.as_ptr() as u64);
    run(called.object_mut(), "from_fentry", &[]);
    let done = ended(&called);
    assert_eq!(done.err, Err(EFAULT));
}

/// A page that is not there until userfaultfd is told to bring it, which nobody does.
struct Missing {
    at: NonNull<c_void>,
    _userfaultfd: OwnedFd,
}

impl Missing {
    fn new() -> Self {
        const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
        const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
        const MODE_MISSING: u64 = 1;
        // SAFETY: it is a new mapping, where the kernel finds room for it.
        let at = unsafe {
            mmap_anonymous(None, PAGE, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE).expect("memory")
        };
        // SAFETY: returns a new descriptor, or -1.
        let userfaultfd = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
            OwnedFd::from_raw_fd(Errno::result(fd).expect("userfaultfd") as i32)
        };
        // struct uffdio_api: the version, features asked for, and what there is.
        let mut api = [0xaa_u64, 0, 0];
        // struct uffdio_register: the range, the mode, and what there is.
        let mut range = [at.as_ptr() as u64, PAGE.get() as u64, MODE_MISSING, 0];
        for (request, argument) in [(UFFDIO_API, api.as_mut_slice()), (UFFDIO_REGISTER, &mut range)]
        {
            // SAFETY: the arguments are as large as the structures that the kernel reads and
            // writes.
            let result =
                unsafe { libc::ioctl(userfaultfd.as_raw_fd(), request, argument.as_mut_ptr()) };
            Errno::result(result).unwrap_or_else(|errno| panic!("{request:#x}: {errno}"));
        }
        Self { at, _userfaultfd: userfaultfd }
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made above, and nobody refers to it.
        unsafe { munmap(self.at, PAGE.get()) }.expect("the page is unmapped");
    }
}

/// Hazard H4: a kworker has no memory of user space, and keeps that of the process which ran
/// before it on its CPU. That need not be the one the address is meant for: here it is, sooner
/// or later, as nothing else runs.
#[test_log::test]
#[serial]
fn borrows_the_memory_of_whoever_ran_before() {
    rule(
        "H4",
        GROUP,
        "bpf_copy_from_user in a callback reads the memory of a process that ran there before \
         (here the test's), or is -EFAULT, as for an address that nobody has",
    );
    if !needs_bpf_wq() {
        return;
    }
    let mut called = Called::load("sleeping", &["arm_reading_own", "from_fentry"]);
    assert_eq!(called.call("arm_reading_own"), [OK, OK]);
    let (mut read, mut refused) = (0, 0);
    // On the stack, which is there: a page of the binary that nobody has touched is -EFAULT for ever.
    let own = *CONTENT;
    eventually("the callback reads this process's memory", || {
        let done = reads_own(&mut called, own.as_ptr() as u64);
        match done.err {
            Ok(()) => read += 1,
            Err(errno) => {
                assert_eq!(errno, EFAULT);
                refused += 1;
            }
        }
        (done.err == OK && done.data == CONTENT).then_some(())
    });
    println!("read {read} times, -EFAULT {refused} times");
    // Nobody may map the first pages.
    assert_eq!(reads_own(&mut called, 64).err, Err(EFAULT));
}

/// Runs the callback, which reads at `address`.
#[track_caller]
fn reads_own(called: &mut Called, address: u64) -> Sleep {
    is_to_read(called, 0, address);
    run(called.object_mut(), "from_fentry", &[]);
    ended(called)
}
