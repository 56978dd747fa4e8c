//! Rules of declared kernel functions.

use std::collections::HashSet;

use libbpf_rs::btf::types::{Composite, FuncProto, Fwd};
use libbpf_rs::btf::{Btf, BtfKind, BtfType};

use super::elf::Extern;
use super::finding::{Fault, Finding};
use super::history::{
    ABSENT, CALLBACK_GETS_VALUE, CALLBACK_GETS_VALUE_COMMIT, Effect, FIRST, IMPLICIT_ARGS,
    IMPLICIT_ARGS_COMMIT, NO_WORKQUEUES, REFUSED, Step,
};
use super::opened::Opened;
use super::reach::without_suffix;
use super::target::{Target, set_callback_of};
use super::types::{DEEPEST, name_of, pointee, prototype, resolve};
use crate::kernel::SetCallback;

pub(crate) fn check(opened: &Opened, target: &Target, findings: &mut Vec<Finding>) {
    let externs = &opened.code.externs;
    if let Some(first) = externs.iter().find(|e| e.name.starts_with("bpf_wq_")) {
        let version = target.version();
        findings.extend(Finding::on(version, &first.name, Fault::NoWorkqueues, NO_WORKQUEUES));
    }
    // Kernel functions are declared by types alone.
    let Some(types) = opened.types() else { return };
    check_set_callback(&types, externs, target, findings);
    for function in externs {
        let Some(prototype) = prototype(&types, &function.name) else { continue };
        let Some(name) = forward_declared(&types, &prototype) else { continue };
        let is_strong = !function.is_weak;
        let history = if is_strong { REFUSED } else { ABSENT };
        let fault = Fault::ForwardDeclared { name, is_strong };
        findings.extend(Finding::on(target.version(), &function.name, fault, history));
    }
}

/// Which kernel's set_callback a declaration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Of(SetCallback),
    /// `struct bpf_prog_aux *` where `void *` was.
    Aux,
    None,
}

fn check_set_callback(
    types: &Btf<'_>,
    externs: &[Extern],
    target: &Target,
    findings: &mut Vec<Finding>,
) {
    let declared: Vec<(&Extern, Shape)> =
        externs.iter().filter_map(|function| Some((function, shape(types, function)?))).collect();
    let (strong, weak): (Vec<_>, Vec<_>) =
        declared.iter().copied().partition(|(function, _)| !function.is_weak);
    let mut add = |symbol: &str, fault: Fault, shapes: &[Shape]| {
        let is_there = |kernel: SetCallback| shapes.contains(&Shape::Of(kernel));
        if target.set_callback().is_some_and(|kernel| !is_there(kernel)) {
            let (symbol, history) = (symbol.to_owned(), history(is_there));
            findings.push(Finding { symbol, fault, effect: Effect::Refused, history });
        }
    };
    for (function, shape) in &strong {
        add(&function.name, Fault::SetCallback { is_strong: true }, &[*shape]);
    }
    if let (true, Some((first, _))) = (strong.is_empty(), weak.first()) {
        let shapes: Vec<Shape> = weak.iter().map(|(_, shape)| *shape).collect();
        add(&first.name, Fault::SetCallback { is_strong: false }, &shapes);
    }
    for (function, shape) in &weak {
        let since = Step::new(IMPLICIT_ARGS, Some(Effect::Refused), Some(IMPLICIT_ARGS_COMMIT));
        if *shape == Shape::Aux {
            let fault = Fault::SetCallbackWithAux;
            findings.extend(Finding::on(target.version(), &function.name, fault, &[since]));
        }
    }
}

/// What kernels do with an object that has these declarations only.
fn history(is_there: impl Fn(SetCallback) -> bool) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (since, commit) in [
        (FIRST, None),
        (CALLBACK_GETS_VALUE, Some(CALLBACK_GETS_VALUE_COMMIT)),
        (IMPLICIT_ARGS, Some(IMPLICIT_ARGS_COMMIT)),
    ] {
        let effect = (!set_callback_of(since).is_some_and(&is_there)).then_some(Effect::Refused);
        if steps.last().is_none_or(|last| last.effect != effect) {
            steps.push(Step::new(since, effect, commit));
        }
    }
    steps
}

/// What a declaration of set_callback is; `None` if it is of another function.
fn shape(types: &Btf<'_>, function: &Extern) -> Option<Shape> {
    let name = without_suffix(&function.name);
    let parameters = match name {
        "bpf_wq_set_callback" => 3,
        "bpf_wq_set_callback_impl" => 4,
        _ => return None,
    };
    let Some(prototype) = prototype(types, &function.name) else { return Some(Shape::None) };
    let pointee = |at: usize| pointee(types, prototype.get(at)?.ty);
    let gets = pointee(1)
        .and_then(|callback| FuncProto::try_from(callback).ok())
        .and_then(|callback| super::types::pointee(types, callback.get(2)?.ty));
    let aux = pointee(3);
    let is = |ty: &Option<BtfType<'_>>, kind| ty.as_ref().is_some_and(|ty| ty.kind() == kind);
    Some(match (parameters, prototype.len()) {
        (3, 3) if is(&gets, BtfKind::Void) => Shape::Of(SetCallback::ImplicitArgs),
        (4, 4) if is(&aux, BtfKind::Struct) => Shape::Aux,
        (4, 4) if is(&gets, BtfKind::Void) && is(&aux, BtfKind::Void) => {
            Shape::Of(SetCallback::Impl)
        }
        (4, 4) if is(&gets, BtfKind::Struct) && is(&aux, BtfKind::Void) => {
            Shape::Of(SetCallback::ImplWithWq)
        }
        _ => Shape::None,
    })
}

/// The first struct in a prototype that is not defined.
fn forward_declared(types: &Btf<'_>, prototype: &FuncProto<'_>) -> Option<String> {
    let mut seen = HashSet::new();
    let mut waiting: Vec<(BtfType<'_>, usize)> = vec![(**prototype, 0)];
    while let Some((ty, depth)) = waiting.pop() {
        if Fwd::try_from(ty).is_ok() {
            return Some(name_of(&ty));
        }
        // Members are not compared.
        if depth > DEEPEST
            || !seen.insert(u32::from(ty.type_id()))
            || Composite::try_from(ty).is_ok()
        {
            continue;
        }
        if let Ok(prototype) = FuncProto::try_from(ty) {
            let parameters = prototype.iter().filter_map(|parameter| resolve(types, parameter.ty));
            waiting.extend(parameters.map(|ty| (ty, depth + 1)));
        }
        let next = ty.next_type().and_then(|next| resolve(types, next.type_id()));
        waiting.extend(next.map(|ty| (ty, depth + 1)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::version::Version;
    use super::*;

    #[test]
    fn history_of_one_declaration() {
        let of = |declared| -> Vec<(Version, bool)> {
            let steps = history(|kernel| kernel == declared);
            steps.iter().map(|step| (step.since, step.effect.is_none())).collect()
        };
        assert_eq!(
            of(SetCallback::Impl),
            [(FIRST, false), (CALLBACK_GETS_VALUE, true), (IMPLICIT_ARGS, false)]
        );
        assert_eq!(of(SetCallback::ImplWithWq), [(FIRST, true), (CALLBACK_GETS_VALUE, false)]);
        assert_eq!(of(SetCallback::ImplicitArgs), [(FIRST, false), (IMPLICIT_ARGS, true)]);
    }
}
