//! Which calls sleep.

use super::elf::{Callee, Code, FunctionId};
use super::kfuncs::{DO_NOT_SLEEP, SLEEP};
use super::reach;

/// Helpers that may sleep, by number.
const HELPERS: &[(u32, &str)] = &[
    (148, "bpf_copy_from_user"),
    (161, "bpf_ima_inode_hash"),
    (166, "bpf_sys_bpf"),
    (191, "bpf_copy_from_user_task"),
    (193, "bpf_ima_file_hash"),
];

/// Whether a kernel function that BPF programs may call sleeps, as [`object`](super::object) takes
/// it: `None` of one that lint does not know, which may be newer than 7.3 or a module's.
pub fn sleeps(function: &str) -> Option<bool> {
    let is_in = |functions: &[&str]| functions.binary_search(&function).is_ok();
    if is_in(SLEEP) { Some(true) } else { is_in(DO_NOT_SLEEP).then_some(false) }
}

/// A call that sleeps, or of which that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sleeper {
    pub call: String,
    pub is_known: bool,
}

/// The calls that sleep, or may, in the function and in what it calls.
pub(crate) fn sleepers(code: &Code, function: FunctionId) -> impl Iterator<Item = Sleeper> {
    reach::functions(code, function)
        .flat_map(|function| reach::callees(code, function))
        .filter_map(of)
}

fn of(callee: &Callee) -> Option<Sleeper> {
    let (call, is_known) = match callee {
        Callee::Helper(number) => {
            let (_, name) = HELPERS.iter().find(|(helper, _)| helper == number)?;
            ((*name).to_owned(), true)
        }
        Callee::Kernel(name) => {
            let name = reach::without_suffix(name);
            match sleeps(name) {
                Some(false) => return None,
                known => (name.to_owned(), known.is_some()),
            }
        }
        Callee::Function(_) => return None,
        Callee::Unknown => ("a function that cannot be told from the code".to_owned(), false),
    };
    Some(Sleeper { call, is_known })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_known(name: &str) -> Option<bool> {
        of(&Callee::Kernel(name.to_owned())).map(|sleeper| sleeper.is_known)
    }

    #[test]
    fn tells_calls_apart() {
        assert_eq!(is_known("bpf_copy_from_user_str"), Some(true));
        assert_eq!(is_known("bpf_copy_from_user_str___mine"), Some(true));
        assert_eq!(is_known("bpf_crypto_ctx_create"), Some(true));
        assert_eq!(is_known("bpf_crypto_ctx_release"), None);
        assert_eq!(is_known("bpf_wq_start"), None);
        assert_eq!(is_known("a_function_of_a_module"), Some(false));
        assert!(of(&Callee::Helper(148)).is_some_and(|sleeper| sleeper.is_known));
        assert_eq!(of(&Callee::Helper(1)), None);
    }

    #[test]
    fn finds_each_of_the_lists() {
        assert!(SLEEP.iter().all(|function| sleeps(function) == Some(true)));
        assert!(DO_NOT_SLEEP.iter().all(|function| sleeps(function) == Some(false)));
    }
}
