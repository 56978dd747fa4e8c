//! Rules of programs: their types, H1 and H5.

use libbpf_rs::libbpf_sys::{BPF_MAP_TYPE_ARRAY, BPF_PROG_TYPE_SYSCALL};

use super::elf::{Callee, FunctionId};
use super::finding::{Fault, Finding};
use super::history::{
    LOSES_WORK, REFUSED, SLEEPS, SLEEPS_IN_TRACING, Step, TRACING, UNDER_LOCK, at,
};
use super::opened::{Map, Opened, Program};
use super::permits::{self, LATE};
use super::reach;
use super::registers::{Call, Value};
use super::sleep::{self, Sleeper};
use super::target::Target;
use super::version::Version;

/// bpf_map_update_elem.
const UPDATE: Callee = Callee::Helper(2);
/// What the kernel takes to be compatible with the GPL, which it asks of who calls its functions.
const GPL: [&str; 6] =
    ["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"];

const WORKQUEUE: [&str; 4] =
    ["bpf_wq_init", "bpf_wq_set_callback", "bpf_wq_set_callback_impl", "bpf_wq_start"];

const BPF_NOEXIST: i64 = 1;
const BPF_EXIST: i64 = 2;
const BPF_F_LOCK: i64 = 4;

/// Whether this is the kernel's function of the name, however it is declared.
pub(crate) fn is_kernel_function(callee: &Callee, name: &str) -> bool {
    matches!(callee, Callee::Kernel(called) if reach::without_suffix(called) == name)
}

pub(crate) fn check(opened: &Opened, target: &Target, findings: &mut Vec<Finding>) {
    for program in &opened.programs {
        let mut add = |fault: Fault, history: &[Step]| {
            let found = Finding::on(target.version(), &program.name, fault, history);
            findings.extend(found);
        };
        if !GPL.contains(&opened.code.licence.as_str()) {
            let is_kernels =
                |call: &Call| WORKQUEUE.iter().any(|name| is_kernel_function(&call.callee, name));
            if program.calls.iter().any(is_kernels) {
                add(Fault::Licence { licence: opened.code.licence.clone() }, REFUSED);
            }
        }
        if LATE.contains(&program.kind) {
            let used = reach::maps(&opened.code, program.function);
            let first = used.filter_map(|name| opened.map(name)).find(|map| map.holds_wq());
            if let Some(Map { name: map, .. }) = first {
                let kind = program.declared().to_owned();
                add(Fault::ProgramType { kind, map: map.clone() }, TRACING);
            }
        }
        if let Some(tracepoint) = locked_tracepoint(&program.section) {
            if program.calls.iter().any(|call| is_kernel_function(&call.callee, "bpf_wq_start")) {
                add(Fault::StartsUnderLock { tracepoint: tracepoint.to_owned() }, UNDER_LOCK);
            }
        }
        if !program.may_sleep {
            for (fault, history) in callbacks(opened, program, target.version()) {
                add(fault, history);
            }
        }
        for (map, is_sure) in updated(opened, program) {
            add(Fault::UpdateLosesWork { map: map.to_owned(), is_sure }, LOSES_WORK);
        }
    }
}

/// The tracepoint of a program, if the kernel comes to it with the lock of a CPU's queue, of a task
/// that is woken, or of a pool of workers. Before 7.0 no other kind of program may start work there.
fn locked_tracepoint(section: &str) -> Option<&str> {
    const LOCKED: [&str; 9] = [
        "sched_switch",
        "sched_waking",
        "sched_wakeup",
        "sched_wakeup_new",
        "sched_migrate_task",
        "sched_pi_setprio",
        "sched_stat_runtime",
        "workqueue_queue_work",
        "workqueue_activate_work",
    ];
    section.strip_prefix("tp_btf/").filter(|name| LOCKED.contains(name))
}

/// Hazard H1: the callbacks that the program sets.
fn callbacks(
    opened: &Opened,
    program: &Program,
    version: Version,
) -> Vec<(Fault, &'static [Step])> {
    let mut callbacks = Vec::new();
    let mut is_unknown = false;
    for call in program.calls.iter().filter(|call| is_set_callback(&call.callee)) {
        let known = match &call.arguments[1] {
            Value::Function(callback) => vec![*callback],
            // The verifier refuses it.
            Value::Number(_) => continue,
            _ => reach::taken(&opened.code, call.function).collect(),
        };
        is_unknown |= known.is_empty();
        callbacks.extend(known);
    }
    callbacks.sort_unstable();
    callbacks.dedup();
    let running = if LATE.contains(&program.kind) { SLEEPS_IN_TRACING } else { SLEEPS };
    let mut faults: Vec<_> = callbacks
        .into_iter()
        .filter_map(|callback| {
            let name = opened.code.functions.get(callback)?.name.clone();
            Some(match worst_sleeper(opened, program, callback, version) {
                Some((Sleeper { call, is_known }, history)) => {
                    (Fault::SleepingCallback { callback: name, call, is_known }, history)
                }
                None => (Fault::RunningCallback { callback: Some(name) }, running),
            })
        })
        .collect();
    if is_unknown {
        faults.push((Fault::RunningCallback { callback: None }, running));
    }
    faults
}

pub(crate) fn is_set_callback(callee: &Callee) -> bool {
    is_kernel_function(callee, "bpf_wq_set_callback")
        || is_kernel_function(callee, "bpf_wq_set_callback_impl")
}

/// The one of the callback's calls by which it does most harm to a kernel of this version: any of
/// them may be in a branch that the kernel does not take. Of none that is surely one that sleeps,
/// the first.
fn worst_sleeper(
    opened: &Opened,
    program: &Program,
    callback: FunctionId,
    version: Version,
) -> Option<(Sleeper, &'static [Step])> {
    let mut worst: Option<(Sleeper, &[Step])> = None;
    for sleeper in sleep::sleepers(&opened.code, callback) {
        let history = permits::history(program.kind, &sleeper.call);
        let harm = |sleeper: &Sleeper, history| (sleeper.is_known, at(history, version));
        if worst
            .as_ref()
            .is_none_or(|(known, before)| harm(&sleeper, history) > harm(known, before))
        {
            worst = Some((sleeper, history));
        }
    }
    worst
}

/// Hazard H5: the maps of which the program replaces elements with a bpf_wq, each once, and
/// whether that is sure.
fn updated<'a>(opened: &'a Opened, program: &Program) -> Vec<(&'a str, bool)> {
    let mut maps: Vec<(&str, bool)> = Vec::new();
    for call in program.calls.iter().filter(|call| call.callee == UPDATE) {
        let [Value::Map(name), _, _, flags, _] = &call.arguments else { continue };
        let Some(map) = opened.map(name).filter(|map| map.holds_wq()) else { continue };
        if keeps_work(map, flags) {
            continue;
        }
        let is_sure = program.kind != BPF_PROG_TYPE_SYSCALL && is_there(map, flags);
        match maps.iter_mut().find(|(name, _)| *name == map.name) {
            Some((_, was_sure)) => *was_sure |= is_sure,
            None => maps.push((&map.name, is_sure)),
        }
    }
    maps
}

/// Whether the element is there already that an update with these flags writes.
fn is_there(map: &Map, flags: &Value) -> bool {
    let is_exist = matches!(flags, Value::Number(flags) if flags & BPF_EXIST != 0);
    is_exist || map.kind == BPF_MAP_TYPE_ARRAY && matches!(flags, Value::Number(_))
}

/// Rules 14 and 15.
fn keeps_work(map: &Map, flags: &Value) -> bool {
    match flags {
        Value::Number(flags) => {
            // An array has all its elements: there it only fails.
            let creates = flags & BPF_NOEXIST != 0;
            let locks = flags & BPF_F_LOCK != 0 && map.kind != BPF_MAP_TYPE_ARRAY;
            creates || locks
        }
        _ => false,
    }
}
