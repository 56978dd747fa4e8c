//! What lint says of attach targets, and what the running kernel does with each.

use std::collections::BTreeSet;
use std::path::Path;

use bpf_wq::lint::{self, Target};
use serial_test::serial;

use crate::support::loading::{load_alone, open};
use crate::support::needs_config;

const OBJECT: &str = "lint_targets";

/// The programs that lint finds nothing for to attach to.
fn without_target() -> BTreeSet<String> {
    let path = Path::new(env!("OUT_DIR")).join(format!("{OBJECT}.bpf.o"));
    let findings = lint::file(path, &Target::running().expect("a kernel")).expect("it is read");
    let faults: BTreeSet<_> = findings.iter().map(|finding| finding.fault.name()).collect();
    assert_eq!(faults, BTreeSet::from(["no-attach-target"]));
    findings.into_iter().map(|finding| finding.symbol).collect()
}

/// Whether the kernel takes a program, and attaches it.
fn attaches(program: &str) -> Result<(), String> {
    let object = load_alone(OBJECT, program).map_err(|refusal| format!("{refusal:?}"))?;
    let found = object.progs_mut().find(|found| found.name() == program).expect("it is there");
    found.attach().map(drop).map_err(|error| format!("{error:#}"))
}

/// The names of the programs say it, too.
#[test_log::test]
#[serial]
fn lint_says_what_the_kernel_does() {
    if !needs_config("CONFIG_BPF_LSM", "LSM programs run only with it")
        || !needs_config("CONFIG_FTRACE_SYSCALLS", "it makes the tracepoints of system calls")
        || !needs_config("CONFIG_FPROBE", "kprobe.multi is attached only with it")
    {
        return;
    }
    let missing = without_target();
    let open = open(OBJECT);
    let programs = open.progs().map(|program| program.name().to_str().unwrap().to_owned());
    let programs: Vec<_> = programs.collect();
    assert!(programs.len() > 25, "{programs:?}");
    for program in programs {
        let is_there = program.starts_with("has_");
        assert_eq!(missing.contains(&program), !is_there, "lint on {program}: {missing:?}");
        let attached = attaches(&program);
        println!("{program}: {attached:?}");
        assert_eq!(attached.is_ok(), is_there, "{program}: {attached:?}");
    }
}
