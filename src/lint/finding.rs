//! What lint finds: a symbol, what is wrong with it, what kernels do, and the remedy.

use std::fmt;

use super::history::{Effect, Step, at};
use super::version::Version;

/// Something in an object that a kernel takes badly.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The map, program or declared kernel function that it is about.
    pub symbol: String,
    /// What is wrong with it.
    pub fault: Fault,
    /// What the kernel does that was asked about.
    pub effect: Effect,
    /// What other kernels do, oldest first.
    pub history: Vec<Step>,
}

impl Finding {
    /// A finding, if the fault does harm on a kernel of this version.
    pub(crate) fn on(
        version: Version,
        symbol: &str,
        fault: Fault,
        history: &[Step],
    ) -> Option<Self> {
        let effect = at(history, version)?;
        Some(Self { symbol: symbol.to_owned(), fault, effect, history: history.to_vec() })
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        self.fault.remedy()
    }

    /// Whether this is a fault for certain. It is not where an update may create an element that is
    /// not there, or is made by a program that user space runs when it likes.
    pub fn is_sure(&self) -> bool {
        match self.fault {
            Fault::UpdateLosesWork { is_sure, .. } => is_sure,
            _ => true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}): {}", self.symbol, self.fault, self.effect, self.remedy())
    }
}

/// What is wrong with a symbol, with the hazard (H) or the rule of `docs/compatibility.md` that
/// says so.
///
/// A kernel has an oops over a map (H2) when a program is loaded that calls `bpf_wq_init` on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The kernel has no bpf_wq: it is older than 6.10.
    NoWorkqueues,
    /// The map's value has more than one bpf_wq (H2, rule 30).
    SeveralWorkqueues {
        /// How many.
        count: usize,
    },
    /// The map's value has an array of them, or one in an array (H2, rule 30).
    ArrayOfWorkqueues {
        /// How many.
        length: usize,
    },
    /// The bpf_wq is at an offset that is no multiple of 8 (H2, rule 30).
    Misaligned {
        /// In bytes from the value's beginning.
        offset: u64,
    },
    /// The bpf_wq is in a union, where the kernel does not look for it (H2, rule 30).
    InUnion,
    /// A struct is called bpf_wq, and is not the kernel's (H2, rule 30).
    WrongSize {
        /// In bytes; the kernel's has 16.
        size: usize,
    },
    /// The value is a bpf_wq, and not a struct that has one (H2, rule 30).
    ValueIsWorkqueue,
    /// `bpf_wq_init` is given a map of whose value the type is not known (H2).
    NoValueType,
    /// `bpf_wq_init` is given a map of whose key the type is not known: the kernel does not take
    /// the value's type alone, but for hashes on 7.0 and 7.1, and libbpf creates the map without
    /// (H2).
    NoKeyType,
    /// `bpf_wq_init` is given an array whose key is no integer of 32 bits: the kernel does not take
    /// the types, and libbpf creates the map without (H2).
    KeyOfArray,
    /// `bpf_wq_init` is given a map whose value has no bpf_wq (H2).
    NoWorkqueueInValue,
    /// A map of this kind cannot hold a bpf_wq (rules 27 and 28).
    MapKind {
        /// As in `BPF_MAP_TYPE_`, or the number.
        kind: String,
    },
    /// A map that programs may only read, or only write, cannot hold a bpf_wq (rule 29).
    MapFlag {
        /// `BPF_F_RDONLY_PROG` or `BPF_F_WRONLY_PROG`.
        flag: &'static str,
    },
    /// The object's licence is not compatible with the GPL, and the program calls functions of the
    /// kernel (rule V14).
    Licence {
        /// As the object says it.
        licence: String,
    },
    /// A program of this type may not refer to a map that holds a bpf_wq.
    ProgramType {
        /// As it is declared, such as `kprobe`.
        kind: String,
        /// The map.
        map: String,
    },
    /// A program that may not sleep itself sets a callback that sleeps (H1): its text is freed
    /// under the callback.
    SleepingCallback {
        /// The callback.
        callback: String,
        /// What it calls, in the end.
        call: String,
        /// Whether that call is known to sleep; lint does not know all kernel functions.
        is_known: bool,
    },
    /// A program that may not sleep itself sets a callback (H1). Also one that does not sleep may be
    /// preempted, or run long, and its text is freed under it.
    RunningCallback {
        /// The callback; `None` if it cannot be told from the code.
        callback: Option<String>,
    },
    /// A program starts work where the kernel holds a lock that the start takes (rule 9-sched).
    /// Found at tracepoints of the scheduler and of workqueues; a function that the kernel calls
    /// under such a lock is not known for it.
    StartsUnderLock {
        /// Where it is attached.
        tracepoint: String,
    },
    /// No `bpf_wq_set_callback` that the object declares is the kernel's.
    SetCallback {
        /// Whether the object cannot be loaded without this one.
        is_strong: bool,
    },
    /// `bpf_wq_set_callback_impl` with `struct bpf_prog_aux *`: resolved, and then refused.
    SetCallbackWithAux,
    /// A kernel function is declared with a struct that is not defined: libbpf takes it for
    /// another function.
    ForwardDeclared {
        /// The struct or union.
        name: String,
        /// Whether the object cannot be loaded without the function.
        is_strong: bool,
    },
    /// What the program is attached to is not in this kernel: a function, an LSM hook, an iterator,
    /// a tracepoint, a system call, or any function of a pattern. Found in the running kernel only,
    /// but for functions that are known to have been renamed.
    ///
    /// Not looked for: what is in user space (uprobe, USDT), and another BPF program (freplace). Of
    /// a tracepoint the group is not looked at; an event that a user has made is taken to be there
    /// in a group such as kprobes, and to be missing in one of the user's own.
    NoAttachTarget {
        /// Its name, without that of its group.
        target: String,
        /// Its other name, where it is known.
        instead: Option<&'static str>,
    },
    /// A program starts the map's work, and no program sets a callback there: `bpf_wq_start`
    /// returns -EINVAL, and nothing runs (rules 1 and 4). Not found where another object may do so,
    /// as the map is pinned or stands for one that exists.
    NotArmed {
        /// One that starts it.
        program: String,
    },
    /// A program replaces an element while its work may be pending (H5).
    UpdateLosesWork {
        /// The map.
        map: String,
        /// Whether the element is there, and the program runs by itself. An update of a hash may
        /// create the element, and user space runs a `SEC("syscall")` program when it likes.
        is_sure: bool,
    },
}

impl Fault {
    /// A short name that does not change, for machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoWorkqueues => "no-workqueues",
            Self::SeveralWorkqueues { .. } => "several-workqueues",
            Self::ArrayOfWorkqueues { .. } => "array-of-workqueues",
            Self::Misaligned { .. } => "misaligned",
            Self::InUnion => "in-union",
            Self::WrongSize { .. } => "wrong-size",
            Self::ValueIsWorkqueue => "value-is-workqueue",
            Self::NoValueType => "no-value-type",
            Self::NoKeyType => "no-key-type",
            Self::KeyOfArray => "key-of-array",
            Self::NoWorkqueueInValue => "no-workqueue-in-value",
            Self::MapKind { .. } => "map-kind",
            Self::MapFlag { .. } => "map-flag",
            Self::Licence { .. } => "licence",
            Self::ProgramType { .. } => "program-type",
            Self::SleepingCallback { .. } => "sleeping-callback",
            Self::RunningCallback { .. } => "running-callback",
            Self::StartsUnderLock { .. } => "starts-under-lock",
            Self::SetCallback { .. } => "set-callback",
            Self::SetCallbackWithAux => "set-callback-with-aux",
            Self::ForwardDeclared { .. } => "forward-declared",
            Self::NoAttachTarget { .. } => "no-attach-target",
            Self::NotArmed { .. } => "not-armed",
            Self::UpdateLosesWork { .. } => "update-loses-work",
        }
    }

    fn remedy(&self) -> String {
        const ARM: &str = "set the callback in a SEC(\"syscall\") program that is run once, and only call bpf_wq_start in this one";
        match self {
            Self::NoWorkqueues => "run on linux 6.10 or later".to_owned(),
            Self::SeveralWorkqueues { .. } | Self::ArrayOfWorkqueues { .. } => {
                "give each bpf_wq an element of its own, or a map of its own".to_owned()
            }
            Self::Misaligned { .. } => "do not pack the struct".to_owned(),
            Self::InUnion => "take the bpf_wq out of the union".to_owned(),
            Self::WrongSize { .. } => "use the struct bpf_wq of <bpf_wq/wq.bpf.h>".to_owned(),
            Self::ValueIsWorkqueue => {
                "make the value a struct that has the bpf_wq as a member".to_owned()
            }
            Self::NoValueType => {
                "declare the map with __type(value, …), not with __uint(value_size, …)".to_owned()
            }
            Self::NoKeyType => {
                "declare the map with __type(key, …), not with __uint(key_size, …)".to_owned()
            }
            Self::KeyOfArray => "declare the array with __type(key, __u32)".to_owned(),
            Self::NoWorkqueueInValue => "give bpf_wq_init the map that holds the bpf_wq".to_owned(),
            Self::MapKind { .. } => {
                "use BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH or BPF_MAP_TYPE_LRU_HASH".to_owned()
            }
            Self::MapFlag { flag } => format!("declare the map without {flag}"),
            Self::Licence { .. } => {
                "declare char LICENSE[] SEC(\"license\") = \"GPL\", or \"Dual BSD/GPL\"".to_owned()
            }
            Self::ProgramType { .. } => {
                "use fentry or tp_btf, or run on linux 7.0 or later".to_owned()
            }
            Self::SleepingCallback { .. } | Self::RunningCallback { .. } => ARM.to_owned(),
            Self::StartsUnderLock { .. } => {
                "start it elsewhere, such as in the function that wakes the task, or run on linux 7.0 or later".to_owned()
            }
            Self::SetCallback { .. } | Self::SetCallbackWithAux => {
                "include <bpf_wq/wq.bpf.h> in place of this declaration".to_owned()
            }
            Self::ForwardDeclared { name, .. } => format!(
                "define it: struct {name} {{ int one_member_that_you_use; }} __attribute__((preserve_access_index))"
            ),
            Self::NoAttachTarget { instead: Some(name), .. } => format!(
                "attach to {name} here: leave the function out of SEC(), and set it before loading"
            ),
            Self::NoAttachTarget { instead: None, .. } => {
                "attach to one that this kernel has".to_owned()
            }
            Self::NotArmed { .. } => {
                "call bpf_wq_init and bpf_wq_set_callback in a SEC(\"syscall\") program that is run once"
                    .to_owned()
            }
            Self::UpdateLosesWork { .. } => {
                "look the element up and change it in place; create it with BPF_NOEXIST".to_owned()
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkqueues => write!(f, "the kernel has no bpf_wq"),
            Self::SeveralWorkqueues { count } => write!(f, "the value has {count} bpf_wq"),
            Self::ArrayOfWorkqueues { length } => {
                write!(f, "the value has an array of {length} bpf_wq")
            }
            Self::Misaligned { offset } => {
                write!(f, "the bpf_wq is at offset {offset}, which is no multiple of 8")
            }
            Self::InUnion => write!(f, "the bpf_wq is in a union"),
            Self::WrongSize { size } => {
                write!(f, "struct bpf_wq has {size} bytes, the kernel's has 16")
            }
            Self::ValueIsWorkqueue => write!(f, "the value is a bpf_wq itself"),
            Self::NoValueType => {
                write!(f, "bpf_wq_init is given this map, whose value has no type")
            }
            Self::NoKeyType => write!(f, "bpf_wq_init is given this map, whose key has no type"),
            Self::KeyOfArray => {
                write!(f, "bpf_wq_init is given this array, whose key is no integer of 32 bits")
            }
            Self::NoWorkqueueInValue => {
                write!(f, "bpf_wq_init is given this map, whose value has no bpf_wq")
            }
            Self::MapKind { kind } => write!(f, "a map of type {kind} cannot hold a bpf_wq"),
            Self::MapFlag { flag } => write!(f, "a map with {flag} cannot hold a bpf_wq"),
            Self::Licence { licence } => write!(
                f,
                "it calls functions of the kernel, which are for the GPL, and the licence is {licence:?}"
            ),
            Self::ProgramType { kind, map } => {
                write!(f, "a program of the type {kind} may not use {map}, which holds a bpf_wq")
            }
            Self::SleepingCallback { callback, call, is_known } => {
                let sleeps = if *is_known { "sleeps" } else { "may sleep" };
                write!(
                    f,
                    "the program may not sleep, and its callback {callback} {sleeps} in {call}: where that is not refused, its text is freed under the callback"
                )
            }
            Self::RunningCallback { callback } => {
                let callback = callback.as_deref().unwrap_or("that cannot be told from the code");
                write!(
                    f,
                    "the program may not sleep, and sets the callback {callback}: if the program goes away while it runs, its text is freed under it"
                )
            }
            Self::StartsUnderLock { tracepoint } => {
                write!(f, "at {tracepoint} the kernel holds a lock that bpf_wq_start waits for")
            }
            Self::SetCallback { is_strong } => {
                let how = if *is_strong { "strong" } else { "weak, and the only one" };
                write!(f, "the declaration is not this kernel's, and it is {how}")
            }
            Self::SetCallbackWithAux => {
                write!(f, "the declaration has struct bpf_prog_aux *, which no program may pass")
            }
            Self::ForwardDeclared { name, .. } => {
                write!(f, "the declaration names {name}, which is not defined")
            }
            Self::NoAttachTarget { target, .. } => {
                write!(f, "the kernel has no {target} to attach to")
            }
            Self::NotArmed { program } => write!(
                f,
                "{program} starts its work, and no program that is loaded sets a callback: bpf_wq_start is -EINVAL"
            ),
            Self::UpdateLosesWork { map, is_sure } => {
                let cancels = if *is_sure { "cancels" } else { "may cancel" };
                write!(f, "an update of {map} {cancels} the work of the element that it replaces")
            }
        }
    }
}
