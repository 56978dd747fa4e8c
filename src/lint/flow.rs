//! The calls that a program comes to, with what is known of their arguments, also in functions that
//! get them from the one that calls.

use super::elf::{Callee, Code, FunctionId};
use super::reach;
use super::registers::{self, Arguments, Call, Value};

/// bpf_for_each_map_elem.
const FOR_EACH: Callee = Callee::Helper(164);

/// So often a function is looked at with other arguments, and then with unknown ones: a file may
/// be made to have no end of them.
const MOST: usize = 64;

/// Every call of the program and of what it comes to, its callbacks among that.
pub(crate) fn calls(code: &Code, program: FunctionId) -> Vec<Call> {
    let mut entries = vec![(program, Arguments::default())];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some((function, arguments)) = entries.get(next).cloned() {
        next += 1;
        let Some(body) = code.functions.get(function) else { continue };
        let calls = registers::calls(function, body, &arguments);
        let mut entered: Vec<_> = calls.iter().filter_map(entry).collect();
        // Callbacks of whatever else.
        for taken in reach::taken(code, function) {
            if entered.iter().all(|(function, _)| *function != taken) {
                entered.push((taken, Arguments::default()));
            }
        }
        for (function, arguments) in entered {
            let times = entries.iter().filter(|(other, _)| *other == function).count();
            let arguments = if times < MOST { arguments } else { Arguments::default() };
            if !entries.contains(&(function, arguments.clone())) {
                entries.push((function, arguments));
            }
        }
        found.extend(calls);
    }
    found
}

/// The function that a call comes to, and what it gets.
fn entry(call: &Call) -> Option<(FunctionId, Arguments)> {
    let Call { callee, arguments: [first, second, ..], .. } = call;
    match (callee, second) {
        (Callee::Function(function), _) => {
            // Which numbers come, only the calls of one function tell.
            let known = |value: &Value| match value {
                Value::Number(_) => Value::Unknown,
                value => value.clone(),
            };
            Some((*function, call.arguments.each_ref().map(known)))
        }
        (callee, Value::Function(callback)) if *callee == FOR_EACH => {
            let element = match first {
                Value::Map(map) => Value::Element(map.clone()),
                _ => Value::Unknown,
            };
            let [_, key, _, context, unused] = Arguments::default();
            Some((*callback, [first.clone(), key, element, context, unused]))
        }
        _ => None,
    }
}
