//! What a function comes to.

use std::collections::HashSet;

use super::elf::{Callee, Code, FunctionId, Loaded, Reference};

/// A kernel function's name without the `___suffix`, as libbpf looks for it.
pub(crate) fn without_suffix(name: &str) -> &str {
    name.split_once("___").map_or(name, |(name, _)| name)
}

/// The function, and every function that it calls or whose address it takes, so that
/// callbacks are among them.
pub(crate) fn functions(code: &Code, first: FunctionId) -> impl Iterator<Item = FunctionId> {
    let mut seen = HashSet::from([first]);
    let mut found = vec![first];
    let mut next = 0;
    while let Some(function) = found.get(next).copied() {
        next += 1;
        for reference in references(code, function) {
            let (Reference::Call(Callee::Function(other))
            | Reference::Load(Loaded::Function(other))) = reference
            else {
                continue;
            };
            if seen.insert(*other) {
                found.push(*other);
            }
        }
    }
    found.into_iter()
}

/// What the function itself calls.
pub(crate) fn callees(code: &Code, function: FunctionId) -> impl Iterator<Item = &Callee> {
    references(code, function).filter_map(|reference| match reference {
        Reference::Call(callee) => Some(callee),
        _ => None,
    })
}

/// The functions whose addresses the function itself takes.
pub(crate) fn taken(code: &Code, function: FunctionId) -> impl Iterator<Item = FunctionId> {
    references(code, function).filter_map(|reference| match reference {
        Reference::Load(Loaded::Function(taken)) => Some(*taken),
        _ => None,
    })
}

/// The maps whose addresses the function and what it comes to load.
pub(crate) fn maps(code: &Code, first: FunctionId) -> impl Iterator<Item = &str> {
    functions(code, first).flat_map(|function| references(code, function)).filter_map(|reference| {
        match reference {
            Reference::Load(Loaded::Map(map)) => Some(&**map),
            _ => None,
        }
    })
}

fn references(code: &Code, function: FunctionId) -> impl Iterator<Item = &Reference> {
    let function = code.functions.get(function);
    function.into_iter().flat_map(|f| &f.instructions).map(|instruction| &instruction.reference)
}
