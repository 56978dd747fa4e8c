//! Lint as a step of loading: what would do harm is not loaded.

use libbpf_rs::libbpf_sys::{bpf_insn, bpf_map__is_internal};
use libbpf_rs::{AsRawLibbpf as _, OpenMap, OpenObject};

use super::arming;
use super::ascii;
use super::finding::Finding;
use super::history::Effect;
use super::maps;
use super::opened::Opened;
use super::programs;
use super::target::Target;
use crate::error::{Error, Result};

/// Refuses an opened object that would do harm on this kernel: an oops, a hang, a panic or lost work.
/// What the kernel itself would only refuse is left to it: it knows better why. Nothing is loaded.
///
/// `bytes` are the object file's, from which `open` was made; `name` is for errors. What the user
/// chose for `open` counts: programs that are not to be loaded and maps that are not to be
/// created do no harm, and another type, other flags or another map in one's place are taken as
/// they are now.
///
/// A finding refuses only if lint is sure of it ([`Finding::is_sure`]), and one about a map that
/// gives an oops only if a program calls `bpf_wq_init` on the map, or on one that lint cannot
/// tell: others may be in programs that are as they should be, which have to load. Those that
/// [`object`](super::object) tells of besides are for people to judge.
///
/// # Errors
///
/// [`Error::Dangerous`] with what was found; [`Error::OtherObject`] if `bytes` are not those of
/// `open`; [`Error::Object`] if they are no BPF object.
pub fn refuse_dangerous(
    name: &str,
    bytes: &[u8],
    open: &OpenObject,
    kernel: &Target,
) -> Result<()> {
    let mut opened = Opened::new(name, bytes)?;
    if let Some(why) = difference(&opened, open) {
        return Err(Error::OtherObject { name: name.to_owned(), why });
    }
    opened.choose(open);
    let mut findings = Vec::new();
    maps::check(&opened, kernel, &mut findings);
    programs::check(&opened, kernel, &mut findings);
    arming::check(&opened, kernel, &mut findings);
    findings.retain(|finding| is_dangerous(&opened, finding));
    if findings.is_empty() {
        return Ok(());
    }
    Err(Error::Dangerous { name: name.to_owned(), kernel: kernel.version(), findings })
}

fn is_dangerous(opened: &Opened, finding: &Finding) -> bool {
    finding.is_sure()
        && match finding.effect {
            Effect::Absent | Effect::Refused => false,
            Effect::Oops => maps::may_be_initialised(opened, &finding.symbol),
            Effect::LostWork | Effect::Hang | Effect::Panic => true,
        }
}

/// How the object that the bytes are of differs from the opened one: in its maps, its programs,
/// or their instructions.
fn difference(opened: &Opened, open: &OpenObject) -> Option<String> {
    let (ours, theirs) = (maps_of(opened.object()), maps_of(open));
    if let Some(name) = only_in_one(&ours, &theirs) {
        return Some(format!("only one of them has a map {name}"));
    }
    let (ours, theirs) = (programs_of(opened.object()), programs_of(open));
    let names = |programs: &[(String, &[bpf_insn])]| -> Vec<String> {
        programs.iter().map(|(name, _)| name.clone()).collect()
    };
    if let Some(name) = only_in_one(&names(&ours), &names(&theirs)) {
        return Some(format!("only one of them has a program {name}"));
    }
    let differs = |(name, ours): &&(String, &[bpf_insn])| {
        theirs.iter().any(|(other, theirs)| other == name && !are_equal(ours, theirs))
    };
    let (name, _) = ours.iter().find(differs)?;
    Some(format!("the instructions of {name} differ"))
}

/// Those that the file declares. The names of the others begin with that of the object.
fn maps_of(object: &OpenObject) -> Vec<String> {
    let is_declared = |map: &OpenMap<'_>| {
        // SAFETY: the map belongs to the object, which is open.
        !unsafe { bpf_map__is_internal(map.as_libbpf_object().as_ptr()) }
    };
    object.maps().filter(is_declared).map(|map| ascii::name(map.name())).collect()
}

/// Before loading, instructions are as they are in the file.
fn programs_of(object: &OpenObject) -> Vec<(String, &[bpf_insn])> {
    object.progs().map(|program| (ascii::name(program.name()), program.insns())).collect()
}

fn only_in_one<'a>(ours: &'a [String], theirs: &'a [String]) -> Option<&'a String> {
    let missing = |all: &'a [String], from: &[String]| all.iter().find(|name| !from.contains(name));
    missing(ours, theirs).or_else(|| missing(theirs, ours))
}

fn are_equal(ours: &[bpf_insn], theirs: &[bpf_insn]) -> bool {
    let fields = |i: &bpf_insn| (i.code, i.dst_reg(), i.src_reg(), i.off, i.imm);
    ours.iter().map(fields).eq(theirs.iter().map(fields))
}
