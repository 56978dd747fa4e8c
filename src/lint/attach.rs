//! Whether there is what a program is attached to.

use super::finding::{Fault, Finding};
use super::history::{Effect, NEW_NAME, OLD_NAME, RENAMED, Step};
use super::opened::Opened;
use super::target::{Symbol, Target};

pub(crate) fn check(opened: &Opened, target: &Target, findings: &mut Vec<Finding>) {
    for program in &opened.programs {
        let Some(wanted) = Wanted::read(&program.section) else { continue };
        let renamed = renamed(wanted.name);
        let history = renamed.map_or(&[][..], |(_, history)| history);
        let instead = renamed.map(|(instead, _)| instead);
        let fault = Fault::NoAttachTarget { function: wanted.name.to_owned(), instead };
        if !target.is_running() {
            findings.extend(Finding::on(target.version(), &program.name, fault, history));
        } else if wanted.is_there(target) == Some(false) {
            let (symbol, history) = (program.name.clone(), history.to_vec());
            findings.push(Finding { symbol, fault, effect: Effect::Refused, history });
        }
    }
}

/// The function's other name, and what kernels do with this one.
fn renamed(name: &str) -> Option<(&'static str, &'static [Step])> {
    RENAMED.iter().find_map(|(old, new)| match name {
        _ if name == *old => Some((*new, OLD_NAME)),
        _ if name == *new => Some((*old, NEW_NAME)),
        _ => None,
    })
}

/// What a program's section names.
struct Wanted<'a> {
    name: &'a str,
    way: Way,
}

/// How a program is attached to it.
enum Way {
    /// To a function of the kernel's BTF, whose name begins with this.
    Function(&'static str),
    /// To a typedef of the kernel's BTF, whose name begins with this.
    Typedef(&'static str),
    /// To any symbol.
    Symbol,
}

impl<'a> Wanted<'a> {
    /// `None` if the section names nothing that could be looked for.
    fn read(section: &'a str) -> Option<Self> {
        let (kind, name) = section.split_once('/')?;
        let way = match kind.strip_suffix(".s").unwrap_or(kind) {
            "fentry" | "fexit" | "fmod_ret" => Way::Function(""),
            "lsm" | "lsm_cgroup" => Way::Function("bpf_lsm_"),
            "iter" => Way::Function("bpf_iter_"),
            "tp_btf" => Way::Typedef("btf_trace_"),
            "kprobe" | "kretprobe" => Way::Symbol,
            _ => return None,
        };
        // A place in a function is written with a +, and a function of a module with a colon.
        let name = name.split('+').next()?;
        (!name.is_empty() && !name.contains([':', '*', '?'])).then_some(Self { name, way })
    }

    /// Whether the running kernel has it; `None` if that cannot be found out.
    fn is_there(&self, target: &Target) -> Option<bool> {
        match self.way {
            Way::Function(prefix) => {
                let name = format!("{prefix}{}", self.name);
                if target.has_function(&name)? {
                    return Some(true);
                }
                // The types of modules are not read.
                (target.symbol(&name)? != Symbol::InModule).then_some(false)
            }
            Way::Typedef(prefix) => {
                let name = format!("{prefix}{}", self.name);
                // A module's tracepoint: libbpf does not look there either.
                target.has_typedef(&name)
            }
            // BTF has most of them, and is quicker to look into.
            Way::Symbol if target.has_function(self.name) == Some(true) => Some(true),
            Way::Symbol => Some(target.symbol(self.name)? != Symbol::Nowhere),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sections() {
        let name = |section| Wanted::read(section).map(|wanted| wanted.name);
        assert_eq!(name("fentry/do_unlinkat"), Some("do_unlinkat"));
        assert_eq!(name("fentry.s/do_unlinkat"), Some("do_unlinkat"));
        assert_eq!(name("kprobe/do_unlinkat+0x8"), Some("do_unlinkat"));
        for section in ["fentry", "fentry/", "fentry/mod:f", "xdp", "uprobe/f", "tracepoint/a/b"] {
            assert_eq!(name(section), None, "{section}");
        }
    }
}
