//! Whether there is what a program is attached to.

use std::cell::OnceCell;

use super::finding::{Fault, Finding};
use super::history::{Effect, NEW_NAME, OLD_NAME, RENAMED, Step};
use super::opened::Opened;
use super::target::{Symbol, Symbols, Target};

pub(crate) fn check(opened: &Opened, target: &Target, findings: &mut Vec<Finding>) {
    let names = Names { target, symbols: OnceCell::new() };
    for program in &opened.programs {
        let Some(wanted) = Wanted::read(&program.section) else { continue };
        let renamed = wanted.is_function().then(|| renamed(wanted.name)).flatten();
        let history = renamed.map_or(&[][..], |(_, history)| history);
        let instead = renamed.map(|(instead, _)| instead);
        let fault = Fault::NoAttachTarget { target: wanted.name.to_owned(), instead };
        if !target.is_running() {
            findings.extend(Finding::on(target.version(), &program.name, fault, history));
        } else if wanted.is_there(&names) == Some(false) {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To a function of the kernel's BTF, whose name begins with this.
    Function(&'static str),
    /// To a tracepoint, of any group: BTF does not say of which it is.
    Tracepoint,
    /// To the function of a system call.
    Syscall,
    /// To any symbol.
    Symbol,
    /// To all functions that a pattern matches.
    Pattern,
}

impl<'a> Wanted<'a> {
    /// `None` if the section names nothing that could be looked for.
    fn read(section: &'a str) -> Option<Self> {
        let (kind, name) = section.split_once('/')?;
        let (way, name) = match kind.strip_suffix(".s").unwrap_or(kind) {
            "fentry" | "fexit" | "fmod_ret" | "fsession" => (Way::Function(""), name),
            "lsm" | "lsm_cgroup" => (Way::Function("bpf_lsm_"), name),
            "iter" => (Way::Function("bpf_iter_"), name),
            "tp_btf" | "raw_tp" | "raw_tp.w" | "raw_tracepoint" | "raw_tracepoint.w" => {
                (Way::Tracepoint, name)
            }
            "tp" | "tracepoint" => match name.split_once('/')? {
                ("syscalls", name) => {
                    let call =
                        name.strip_prefix("sys_enter_").or_else(|| name.strip_prefix("sys_exit_"));
                    (Way::Syscall, call?)
                }
                // Those of ftrace are none that BTF has, and users make the others.
                ("ftrace" | "kprobes" | "uprobes" | "eprobes" | "fprobes" | "synthetic", _) => {
                    return None;
                }
                (_, name) => (Way::Tracepoint, name),
            },
            "ksyscall" | "kretsyscall" => (Way::Syscall, name),
            "kprobe" | "kretprobe" => (Way::Symbol, name),
            "kprobe.multi" | "kretprobe.multi" | "kprobe.session" => (Way::Pattern, name),
            _ => return None,
        };
        // A place in a function is written with a +, and a function of a module with a colon.
        let name = name.split('+').next()?;
        let is_name = way == Way::Pattern || !name.contains(['*', '?']);
        (!name.is_empty() && !name.contains(':') && is_name).then_some(Self { name, way })
    }

    /// Whether the kernels' histories may know it.
    fn is_function(&self) -> bool {
        matches!(self.way, Way::Function("") | Way::Symbol | Way::Pattern)
    }

    /// Whether the running kernel has it; `None` if that cannot be found out.
    fn is_there(&self, names: &Names<'_>) -> Option<bool> {
        let name = self.name;
        match self.way {
            Way::Function(prefix) => {
                let name = format!("{prefix}{name}");
                let is_there = names.target.has_function(|function| function == name)?;
                names.unless_of_module(is_there, &name)
            }
            Way::Tracepoint => {
                let is_there = names.target.has_typedef(&format!("btf_trace_{name}"))?;
                names.unless_of_module(is_there, &format!("__traceiter_{name}"))
            }
            Way::Syscall => names.has_any(|symbol| is_of_syscall(symbol, name)),
            Way::Symbol => names.has_any(|symbol| symbol == name),
            Way::Pattern => names.has_any(|symbol| matches(name.as_bytes(), symbol.as_bytes())),
        }
    }
}

/// What the running kernel has, by name.
struct Names<'a> {
    target: &'a Target,
    symbols: OnceCell<Option<Symbols>>,
}

impl Names<'_> {
    /// Where there is such a symbol; `None` if that cannot be found out.
    fn place(&self, is_it: impl Fn(&str) -> bool) -> Option<Symbol> {
        let symbols = self.symbols.get_or_init(|| self.target.symbols());
        symbols.as_ref().map(|symbols| symbols.place(is_it))
    }

    /// Whether there is such a symbol. BTF has most of them, and is quicker to look into.
    fn has_any(&self, is_it: impl Fn(&str) -> bool) -> Option<bool> {
        if self.target.has_function(&is_it) == Some(true) {
            return Some(true);
        }
        Some(self.place(is_it)? != Symbol::Nowhere)
    }

    /// Whether something is there, of which the kernel's own BTF says `is_there`. The BTF of
    /// modules is not read: of what has a symbol in one it is not known.
    fn unless_of_module(&self, is_there: bool, symbol: &str) -> Option<bool> {
        if is_there {
            return Some(true);
        }
        (self.place(|found| found == symbol)? != Symbol::InModule).then_some(false)
    }
}

/// Whether this is a function of a system call: `__x64_sys_` and its name, or, by the architecture,
/// another word than x64, or none. A tracepoint of the same call is there where such a one is.
fn is_of_syscall(symbol: &str, call: &str) -> bool {
    let before = symbol.strip_suffix(call);
    before.is_some_and(|b| b == "sys_" || b.starts_with("__") && b.ends_with("_sys_"))
}

/// Whether a name is of a pattern: * stands for any characters, ? for one, as libbpf has it.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        ([b'?', pattern @ ..], [_, name @ ..]) => matches(pattern, name),
        ([wanted, pattern @ ..], [found, name @ ..]) => wanted == found && matches(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sections() {
        let read = |section| Wanted::read(section).map(|wanted| (wanted.name, wanted.way));
        for (section, name, way) in [
            ("fentry/do_unlinkat", "do_unlinkat", Way::Function("")),
            ("fentry.s/do_unlinkat", "do_unlinkat", Way::Function("")),
            ("lsm_cgroup/socket_bind", "socket_bind", Way::Function("bpf_lsm_")),
            ("iter.s/task", "task", Way::Function("bpf_iter_")),
            ("kprobe/do_unlinkat+0x8", "do_unlinkat", Way::Symbol),
            ("kretprobe.multi/do_*at?", "do_*at?", Way::Pattern),
            ("raw_tp.w/nbd_send_request", "nbd_send_request", Way::Tracepoint),
            ("raw_tracepoint/sys_enter", "sys_enter", Way::Tracepoint),
            ("tp/sched/sched_switch", "sched_switch", Way::Tracepoint),
            ("tracepoint/syscalls/sys_exit_read", "read", Way::Syscall),
            ("ksyscall/read", "read", Way::Syscall),
        ] {
            assert_eq!(read(section), Some((name, way)), "{section}");
        }
        for section in [
            "fentry",
            "fentry/",
            "fentry/mod:f",
            "kprobe/do_*",
            "xdp",
            "uprobe/f",
            "tracepoint/kprobes/mine",
            "tracepoint/a",
            "struct_ops/f",
        ] {
            assert_eq!(read(section), None, "{section}");
        }
    }

    #[test]
    fn matches_patterns() {
        for (pattern, name, is_match) in [
            ("vfs_read", "vfs_read", true),
            ("vfs_read", "vfs_readv", false),
            ("vfs_*", "vfs_read", true),
            ("vfs_*", "do_vfs_read", false),
            ("*_re*d", "vfs_read", true),
            ("*_re*d", "vfs_reader", false),
            ("vfs_rea?", "vfs_read", true),
            ("vfs_read?", "vfs_read", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn knows_the_functions_of_system_calls() {
        for symbol in ["__x64_sys_read", "__arm64_sys_read", "__do_sys_read", "sys_read"] {
            assert!(is_of_syscall(symbol, "read"), "{symbol}");
        }
        for symbol in ["__x64_sys_pread", "do_sys_read", "ksys_read", "vfs_read", "read"] {
            assert!(!is_of_syscall(symbol, "read"), "{symbol}");
        }
    }
}
