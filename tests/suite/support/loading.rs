//! One BPF function at a time: whether the kernel takes it, and in which words not.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use libbpf_rs::{Object, ObjectBuilder, OpenObject, PrintLevel};

use super::{loads, needs_fix, version};

static LIBBPF_SAID: Mutex<String> = Mutex::new(String::new());

/// How a kernel receives a program.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// The verifier accepts it.
    Loads,
    /// bpf(2) fails with this errno, and the log has these words.
    Refused(&'static str, &'static str),
}

/// Verdicts, each with the first version that gives it, oldest first.
pub type History = &'static [((u32, u32), Verdict)];

/// Since the first kernel that has workqueues.
pub const FROM_THE_FIRST: (u32, u32) = (6, 10);

/// A program that was not loaded.
pub struct Refusal {
    /// By name, as libbpf prints it.
    pub errno: String,
    /// libbpf's words, with the verifier's log.
    pub log: String,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.errno, self.log)
    }
}

/// What `history` says about the running kernel.
pub fn on_this_kernel(history: History) -> Verdict {
    let known = history.iter().rev().find(|(first, _)| version() >= *first);
    known.unwrap_or_else(|| panic!("nothing is said about {:?}", version())).1
}

/// Asserts that `result` is `verdict`, to the word.
#[track_caller]
pub fn assert_verdict<T>(result: &Result<T, Refusal>, verdict: Verdict) {
    match (result, verdict) {
        (Ok(_), Verdict::Loads) => {}
        (Ok(_), Verdict::Refused(errno, words)) => {
            panic!("it loads, and should have been refused: {errno}, {words}")
        }
        (Err(refusal), Verdict::Loads) => panic!("refused: {refusal:?}"),
        (Err(refusal), Verdict::Refused(errno, words)) => {
            assert!(refusal.log.contains(words), "not {words:?}, but {refusal:?}");
            assert_eq!(refusal.errno, errno, "{refusal:?}");
        }
    }
}

/// Opens an object of `bpf/tests/`, with none of its programs to be loaded.
pub fn open(object: &str) -> OpenObject {
    loads(object);
    let path = Path::new(env!("OUT_DIR")).join(format!("{object}.bpf.o"));
    let mut open = ObjectBuilder::default()
        .open_file(&path)
        .unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    for mut program in open.progs_mut() {
        program.set_autoload(false);
    }
    open
}

/// Loads what is left of an object, or returns why not.
pub fn load(open: OpenObject) -> Result<Object, Refusal> {
    LIBBPF_SAID.lock().unwrap().clear();
    let previous = libbpf_rs::set_print(Some((PrintLevel::Info, |_, message| {
        LIBBPF_SAID.lock().unwrap().push_str(&message);
    })));
    let loaded = open.load();
    libbpf_rs::set_print(previous);
    loaded.map_err(|error| {
        let log = format!("{}{error:#}", LIBBPF_SAID.lock().unwrap());
        let errno =
            log.split("BPF program load failed: ").nth(1).and_then(|rest| rest.lines().next());
        Refusal { errno: errno.unwrap_or("no program was refused").to_owned(), log }
    })
}

/// Loads one program of an object of `bpf/tests/` by its name, and no other.
pub fn load_alone(object: &str, program: &str) -> Result<Object, Refusal> {
    let mut open = open(object);
    choose(&mut open, program);
    load(open)
}

/// Makes `program` one of those to be loaded.
#[track_caller]
pub fn choose(open: &mut OpenObject, program: &str) {
    let mut programs = open.progs_mut();
    let mut found = programs.find(|p| p.name() == program);
    found.as_mut().unwrap_or_else(|| panic!("no program {program}")).set_autoload(true);
}

/// Whether the kernel looks at a map's record before it looks into it: the verifier of an
/// older one has an oops if bpf_wq_init is given a map that has no valid bpf_wq, and that
/// is tried in a machine of its own.
#[must_use]
pub fn needs_checked_records() -> bool {
    let reason = "before 6.18.2 and 6.19 (5f8d41172931) the verifier has an oops here";
    needs_fix((6, 19), &[(6, 18, 2)], reason)
}
