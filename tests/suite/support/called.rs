//! Objects whose programs are called, not attached: see `bpf/tests/rules.h`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr;
use std::sync::Mutex;
use std::thread;

use libbpf_rs::{
    MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel, libbpf_sys,
    set_print,
};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::{eventually, loads};

/// What a call into the kernel returned.
pub type Code = Result<(), Errno>;

/// 0.
pub const OK: Code = Ok(());

/// ENOTSUPP: the kernel's own, which no header of user space names.
pub const ENOTSUPP: i32 = 524;

/// In place of a result that a program did not write.
const UNWRITTEN: i32 = i32::MIN;

/// `struct seen` of `bpf/tests/rules.h`: what callbacks did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    pub entered: u64,
    pub runs: u64,
    pub others: u64,
    inside: u64,
    pub most: u64,
    pub cpu: u64,
    pub pid: u64,
    pub key: u64,
    pub data: u64,
    pub err: [i64; 3],
    timed_out: u64,
}

/// A loaded object.
pub struct Called {
    object: Object,
}

impl Called {
    /// Loads, of an object of `bpf/tests/`, the programs named.
    #[track_caller]
    pub fn load(name: &str, programs: &[&str]) -> Self {
        let open = open(name, programs);
        Self { object: open.load().unwrap_or_else(|error| panic!("{name}: {error:#}")) }
    }

    /// Calls a program, which writes `N` results.
    #[track_caller]
    pub fn call<const N: usize>(&self, program: &str) -> [Code; N] {
        call(self.program(program).as_fd(), program)
    }

    /// Calls a program in a thread that runs on this CPU alone.
    pub fn call_on<const N: usize>(&self, cpu: usize, program: &str) -> [Code; N] {
        let fd = self.program(program);
        on_cpu(cpu, || call(fd.as_fd(), program))
    }

    /// A program's descriptor, open as long as the caller has it.
    #[track_caller]
    pub fn program(&self, name: &str) -> OwnedFd {
        let program = self.object.progs().find(|program| program.name() == name);
        let program = program.unwrap_or_else(|| panic!("no program {name}"));
        program.as_fd().try_clone_to_owned().expect("a descriptor")
    }

    /// The object, for what is to be attached.
    pub fn object_mut(&mut self) -> &mut Object {
        &mut self.object
    }

    /// A map, open as long as the caller has it.
    #[track_caller]
    pub fn map(&self, name: &str) -> MapHandle {
        let map = self.object.maps().find(|map| map.name() == name);
        let map = map.unwrap_or_else(|| panic!("no map {name}"));
        MapHandle::try_from(&map).expect("a descriptor")
    }

    /// What callbacks did until now.
    #[track_caller]
    pub fn seen(&self) -> Seen {
        seen(&self.map("seen"))
    }

    /// Closes the gate: whoever comes to it waits.
    pub fn close_gate(&self) {
        self.set_gate(1);
    }

    /// Opens the gate.
    pub fn open_gate(&self) {
        self.set_gate(0);
    }

    fn set_gate(&self, closed: u32) {
        put(&self.map("gate"), 0, &closed.to_ne_bytes());
    }

    /// Waits until each CPU has run what was started before.
    ///
    /// A CPU's work begins in the order in which it was queued, and no callback here
    /// sleeps: what was to run has run when something queued behind it has.
    #[track_caller]
    pub fn settle(&self) {
        let barriers = self.map("barriers");
        for cpu in cpus() {
            let count = || word(&get(&barriers, cpu as u32), 0);
            let before = count();
            assert_eq!(self.call_on(cpu, "behind"), [OK]);
            eventually("the barrier runs", || (count() > before).then_some(()));
        }
    }

    /// Calls a program, which waits at the gate or whose callback does. Once `arrived`
    /// says that it is there, `act` is run, and the gate is opened.
    ///
    /// `act` is run by this thread on another CPU. It may not make a thread, or map memory: the
    /// callback may have stopped the caller, which ends meanwhile, with the lock of our memory
    /// held.
    #[track_caller]
    pub fn while_waiting<const N: usize>(
        &self,
        cpu: Option<usize>,
        program: &str,
        arrived: impl Fn(&Seen) -> bool,
        act: impl FnOnce(),
    ) -> [Code; N] {
        let busy = cpu.unwrap_or_else(|| cpus()[0]);
        let free = cpus().into_iter().find(|cpu| *cpu != busy).expect("a second CPU");
        // Whoever waits at the gate does not give up its CPU, on a kernel that does not preempt
        // itself: a thread that happens to be queued there could not open the gate.
        let _pinned = Pinned::to(free);
        self.close_gate();
        let fd = self.program(program);
        let codes = thread::scope(|scope| {
            let caller = scope.spawn(|| on_cpu(busy, || call(fd.as_fd(), program)));
            // Opens the gate also where `act` panics.
            let gate = Open(self);
            eventually("it waits at the gate", || arrived(&self.seen()).then_some(()));
            act();
            drop(gate);
            caller.join().expect("the program returns")
        });
        eventually("the gate is left", || (self.seen().inside == 0).then_some(()));
        assert_eq!(self.seen().timed_out, 0, "the gate was opened too late");
        codes
    }
}

/// Opens the gate at the end of a scope.
struct Open<'called>(&'called Called);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open_gate();
    }
}

/// Calls a program by its descriptor.
#[track_caller]
pub fn call<const N: usize>(program: BorrowedFd<'_>, name: &str) -> [Code; N] {
    let mut results = [UNWRITTEN; N];
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        // A program without a context is given none.
        ctx_in: if N == 0 { ptr::null_mut() } else { results.as_mut_ptr().cast() },
        ctx_size_in: size_of_val(&results) as u32,
        ..Default::default()
    };
    // SAFETY: the kernel reads and writes `results`, of this size, and nothing else.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut opts) };
    assert_eq!(result, 0, "{name}: {}", io::Error::last_os_error());
    results.map(|result| {
        assert_ne!(result, UNWRITTEN, "{name} did not come so far");
        code(result.into())
    })
}

/// What a call into the kernel returned.
pub fn code(returned: i64) -> Code {
    match i32::try_from(returned) {
        Ok(0) => OK,
        Ok(negative @ ..0) => Err(Errno::from_raw(-negative)),
        _ => panic!("{returned} is neither 0 nor a negative errno"),
    }
}

/// What callbacks did until now.
#[track_caller]
pub fn seen(map: &MapHandle) -> Seen {
    let value = get(map, 0);
    let at = |index| word(&value, index);
    Seen {
        entered: at(0),
        runs: at(1),
        others: at(2),
        inside: at(3),
        most: at(4),
        cpu: at(5),
        pid: at(6),
        key: at(7),
        data: at(8),
        err: [9, 10, 11].map(|index| at(index) as i64),
        timed_out: at(12),
    }
}

/// The `index`th 64-bit word of a value.
pub fn word(value: &[u8], index: usize) -> u64 {
    let bytes = value[8 * index..].first_chunk().expect("the value is longer");
    u64::from_ne_bytes(*bytes)
}

/// The value of an element that must be there.
#[track_caller]
pub fn get(map: &MapHandle, key: u32) -> Vec<u8> {
    let value = map.lookup(&key.to_ne_bytes(), MapFlags::ANY).expect("the map can be read");
    value.unwrap_or_else(|| panic!("no element {key}"))
}

/// Writes an element.
#[track_caller]
pub fn put(map: &MapHandle, key: u32, value: &[u8]) {
    map.update(&key.to_ne_bytes(), value, MapFlags::ANY).expect("the map can be written");
}

/// The errno of a failed libbpf call, which libbpf-rs shows in words only.
#[track_caller]
pub fn errno<T>(result: libbpf_rs::Result<T>) -> i32 {
    let error = result.err().expect("this should have been refused");
    let words = format!("{error:#}");
    words
        .rsplit_once("(os error ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("{words}: no errno"))
}

/// The CPUs that this thread may run on.
pub fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("the set of CPUs");
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// Keeps the current thread, and those that it makes, on one CPU for a scope.
struct Pinned(CpuSet);

impl Pinned {
    fn to(cpu: usize) -> Self {
        let before = sched_getaffinity(Pid::from_raw(0)).expect("the set of CPUs");
        pin(cpu);
        Pinned(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.0).expect("the CPUs as before");
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("pinning to a CPU");
}

/// Runs `act` in a thread that runs on this CPU alone.
pub fn on_cpu<T: Send>(cpu: usize, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let body = || {
            pin(cpu);
            act()
        };
        match scope.spawn(body).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn open(name: &str, programs: &[&str]) -> OpenObject {
    loads(name);
    let path = Path::new(env!("OUT_DIR")).join(format!("{name}.bpf.o"));
    let mut open = ObjectBuilder::default().open_file(&path).expect("the object opens");
    let mut found = 0;
    for mut program in open.progs_mut() {
        let wanted = program
            .name()
            .to_str()
            .is_some_and(|name| name == "behind" || programs.contains(&name));
        program.set_autoload(wanted);
        found += usize::from(wanted);
    }
    assert_eq!(found, programs.len() + 1, "{name} lacks one of {programs:?}");
    open
}

/// What libbpf and the verifier say when they refuse this program.
#[track_caller]
pub fn refusal(name: &str, program: &str) -> String {
    static SAID: Mutex<String> = Mutex::new(String::new());
    let open = open(name, &[program]);
    SAID.lock().unwrap().clear();
    let previous = set_print(Some((PrintLevel::Info, |_, message| {
        SAID.lock().unwrap().push_str(&message);
    })));
    let loaded = open.load();
    set_print(previous);
    assert!(loaded.is_err(), "{program} should have been refused");
    std::mem::take(&mut *SAID.lock().unwrap())
}

/// What the kernel says of a program.
pub fn program_info(program: BorrowedFd<'_>) -> libbpf_sys::bpf_prog_info {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `size` bytes.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            program.as_raw_fd(),
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    assert_eq!(result, 0, "bpf_obj_get_info_by_fd");
    info
}

/// Whether a program of this id is loaded.
pub fn program_exists(id: u32) -> bool {
    // SAFETY: takes a number, and returns a descriptor or a negative errno.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) };
    if fd < 0 {
        assert_eq!(fd, -libc::ENOENT, "bpf_prog_get_fd_by_id");
        return false;
    }
    // SAFETY: the descriptor is new, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}
