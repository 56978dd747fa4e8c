//! Whether what is started was armed.

use std::collections::HashSet;

use super::finding::{Fault, Finding};
use super::history::NOT_ARMED;
use super::opened::{Opened, Program};
use super::programs::{is_kernel_function, is_set_callback};
use super::reach;
use super::registers::Value;
use super::target::Target;

pub(crate) fn check(opened: &Opened, target: &Target, findings: &mut Vec<Finding>) {
    let armed: HashSet<&str> =
        opened.programs.iter().flat_map(|program| armed_by(opened, program)).collect();
    let mut reported = HashSet::new();
    for program in &opened.programs {
        for map in started_by(program) {
            // Another object may arm a map that it shares with this one.
            let is_ours = opened.map(map).is_some_and(|map| map.holds_wq() && !map.is_shared);
            if !is_ours || armed.contains(map) || !reported.insert(map) {
                continue;
            }
            let fault = Fault::NotArmed { program: program.name.clone() };
            findings.extend(Finding::on(target.version(), map, fault, NOT_ARMED));
        }
    }
}

/// The maps whose callbacks the program may set. Where it is not known of which an element is, all
/// count that the program refers to.
fn armed_by<'a>(opened: &'a Opened, program: &Program) -> HashSet<&'a str> {
    let mut armed = HashSet::new();
    for call in program.calls.iter().filter(|call| is_set_callback(&call.callee)) {
        match &call.arguments[0] {
            Value::Element(name) => {
                armed.extend(opened.map(name).map(|map| map.name.as_str()));
            }
            _ => armed.extend(reach::maps(&opened.code, program.function)),
        }
    }
    armed
}

/// The maps of which the program starts work, as far as that can be told.
fn started_by(program: &Program) -> impl Iterator<Item = &str> {
    program.calls.iter().filter_map(|call| match &call.arguments {
        [Value::Element(map), ..] if is_kernel_function(&call.callee, "bpf_wq_start") => {
            Some(&**map)
        }
        _ => None,
    })
}
