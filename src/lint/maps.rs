//! Rules of maps (H2, rules 27 to 30).

use libbpf_rs::libbpf_sys::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_CGROUP_STORAGE, BPF_MAP_TYPE_CGRP_STORAGE, BPF_MAP_TYPE_HASH,
    BPF_MAP_TYPE_INODE_STORAGE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH,
    BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE, BPF_MAP_TYPE_PERCPU_HASH,
    BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_TASK_STORAGE,
};

use super::finding::{Fault, Finding};
use super::history::{NO_RECORD, PLAIN_MAP, REFUSED, RHASH, Step, UNTYPED_KEY};
use super::layout::Layout;
use super::opened::{INNER, Key, Map, Opened};
use super::programs;
use super::registers::{Call, Value};
use super::target::Target;

/// Newer than libbpf's own list.
const BPF_MAP_TYPE_RHASH: u32 = 35;

const BPF_F_RDONLY_PROG: u32 = 1 << 7;
const BPF_F_WRONLY_PROG: u32 = 1 << 8;

/// Kinds that cannot be created without the types of key and value.
const NEED_TYPES: &[u32] = &[
    BPF_MAP_TYPE_CGRP_STORAGE,
    BPF_MAP_TYPE_CGROUP_STORAGE,
    BPF_MAP_TYPE_INODE_STORAGE,
    BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    BPF_MAP_TYPE_SK_STORAGE,
    BPF_MAP_TYPE_TASK_STORAGE,
];

pub(crate) fn check(opened: &Opened, target: &Target, findings: &mut Vec<Finding>) {
    let mut add = |map: &Map, fault: Fault, history: &[Step]| {
        findings.extend(Finding::on(target.version(), &map.name, fault, history));
    };
    for map in &opened.maps {
        if let Layout::Bad(fault) = &map.layout {
            add(map, fault.clone(), NO_RECORD);
        }
        if !map.holds_wq() {
            continue;
        }
        if let Some(history) = history_of_kind(map.kind) {
            add(map, Fault::MapKind { kind: kind_name(map.kind) }, history);
        }
        // Of a map that is refused, libbpf makes another without types: hence the oops.
        for (flag, name) in
            [(BPF_F_RDONLY_PROG, "BPF_F_RDONLY_PROG"), (BPF_F_WRONLY_PROG, "BPF_F_WRONLY_PROG")]
        {
            if map.flags & flag != 0 {
                add(map, Fault::MapFlag { flag: name }, NO_RECORD);
            }
        }
    }
    for map in initialised(opened) {
        if !map.has_value_type {
            add(map, Fault::NoValueType, NO_RECORD);
        } else if map.key == Key::Untyped {
            let is_array = map.kind == BPF_MAP_TYPE_ARRAY;
            add(map, Fault::NoKeyType, if is_array { NO_RECORD } else { UNTYPED_KEY });
        } else if map.kind == BPF_MAP_TYPE_ARRAY && map.key != Key::Number {
            add(map, Fault::KeyOfArray, NO_RECORD);
        } else if !map.holds_wq() {
            add(map, Fault::NoWorkqueueInValue, PLAIN_MAP);
        }
    }
}

/// What kernels do with a bpf_wq in a map of this kind; `None` if all take it.
fn history_of_kind(kind: u32) -> Option<&'static [Step]> {
    match kind {
        BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_HASH | BPF_MAP_TYPE_LRU_HASH => None,
        BPF_MAP_TYPE_RHASH => Some(RHASH),
        kind if NEED_TYPES.contains(&kind) => Some(REFUSED),
        // libbpf creates it without types in the end.
        _ => Some(NO_RECORD),
    }
}

fn kind_name(kind: u32) -> String {
    let name = match kind {
        BPF_MAP_TYPE_RHASH => "RHASH",
        BPF_MAP_TYPE_PERCPU_ARRAY => "PERCPU_ARRAY",
        BPF_MAP_TYPE_PERCPU_HASH => "PERCPU_HASH",
        BPF_MAP_TYPE_LRU_PERCPU_HASH => "LRU_PERCPU_HASH",
        BPF_MAP_TYPE_TASK_STORAGE => "TASK_STORAGE",
        BPF_MAP_TYPE_SK_STORAGE => "SK_STORAGE",
        BPF_MAP_TYPE_INODE_STORAGE => "INODE_STORAGE",
        BPF_MAP_TYPE_CGRP_STORAGE => "CGRP_STORAGE",
        _ => return kind.to_string(),
    };
    name.to_owned()
}

/// The maps that programs give to bpf_wq_init, each once.
fn initialised(opened: &Opened) -> Vec<&Map> {
    let mut maps: Vec<&Map> = Vec::new();
    for name in given_to_init(opened).flatten() {
        if maps.iter().all(|map| map.name != name) {
            maps.extend(opened.map(&name));
        }
    }
    maps
}

/// Whether a program gives the map to bpf_wq_init, or something that could be it.
pub(crate) fn may_be_initialised(opened: &Opened, name: &str) -> bool {
    given_to_init(opened).any(|given| given.is_none_or(|given| given == name))
}

/// The maps that programs give to bpf_wq_init; `None` where that cannot be told.
fn given_to_init(opened: &Opened) -> impl Iterator<Item = Option<String>> {
    let calls = opened.programs.iter().flat_map(|program| &program.calls);
    let inits = calls.filter(|call| programs::is_kernel_function(&call.callee, "bpf_wq_init"));
    inits.filter_map(|Call { arguments: [_, map, ..], .. }| match map {
        Value::Map(name) => Some(Some(name.to_string())),
        // An element of a map of maps.
        Value::Element(outer) => Some(Some(format!("{outer}{INNER}"))),
        Value::Unknown => Some(None),
        // The verifier refuses it.
        Value::Number(_) | Value::Function(_) => None,
    })
}
