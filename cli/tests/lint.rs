//! `bpf-wq lint` as people and machines see it. Needs clang, and no kernel.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use libbpf_cargo::SkeletonBuilder;
use serde_json::Value;

/// Compiles a BPF program of the repository.
fn compile(source: &str) -> PathBuf {
    let name = source.rsplit('/').next().expect("a name").replace(".bpf.c", ".bpf.o");
    let object = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let include = bpf_wq::include_dir();
    SkeletonBuilder::new()
        .source(Path::new("..").join(source))
        .clang_args(["-I".as_ref(), include.as_os_str()])
        .obj(&object)
        .build()
        .expect("clang compiles it");
    object
}

static TUTORIAL: LazyLock<PathBuf> = LazyLock::new(|| compile("bpf/tests/tutorial.bpf.c"));
static SIMPLE: LazyLock<PathBuf> = LazyLock::new(|| compile("bpf/simple.bpf.c"));

fn bpf_wq(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpf-wq"));
    command.args(arguments).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
    command.output().expect("it runs")
}

fn lint(object: &Path, more: &[&str]) -> Output {
    bpf_wq(&[&["lint", object.to_str().expect("UTF-8")], more].concat())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_good_object_is_clean() {
    for kernel in ["6.10", "6.12.107", "7.3"] {
        let output = lint(&SIMPLE, &["--kernel", kernel]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(text(&output.stdout).contains("nothing found for linux "), "{output:?}");
    }
}

#[test]
fn findings_are_a_table_for_people() {
    let output = lint(&TUTORIAL, &["--kernel", "7.0.13"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = text(&output.stdout);
    for part in [
        "on_unlink                 refused    the kernel has no do_unlinkat to attach to\n",
        "remedy     attach to filename_unlinkat here",
        "kernels    since 6.10 refused; since 6.10.3 no harm (f56f4d541eab); since 7.0 refused",
        ": 4 findings for linux 7.0.13\n",
    ] {
        assert!(table.contains(part), "{part:?} is not in:\n{table}");
    }
    assert!(!table.contains('\x1b'), "no colours but on a terminal:\n{table}");
}

#[test]
fn findings_are_json_for_machines() {
    let output = lint(&TUTORIAL, &["--kernel", "6.12", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["kernel"], "6.12");
    assert_eq!(report["running"], false);
    let findings = report["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 2, "{findings:#?}");
    for (finding, fault, effect) in [
        (&findings[0], "running-callback", "panic"),
        (&findings[1], "update-loses-work", "lost work"),
    ] {
        assert_eq!(finding["symbol"], "on_unlink");
        assert_eq!(finding["fault"], fault);
        assert_eq!(finding["effect"], effect);
        assert_eq!(finding["sure"], true);
        assert_eq!(finding["history"][0]["since"], "6.10");
    }
}

/// A pipe gets colours only by force.
#[test]
fn no_color_is_respected() {
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bpf-wq"));
        command.arg("lint").arg(&*TUTORIAL).args(["--kernel", "6.12"]);
        command.env_remove("NO_COLOR").envs(variables.iter().copied());
        let output = command.output().expect("it runs");
        text(&output.stdout).contains('\x1b')
    };
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn the_running_kernel_is_the_default() {
    let output = lint(&SIMPLE, &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["running"], true);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let kernel = report["kernel"].as_str().expect("a version");
    assert!(release.starts_with(kernel), "{kernel} in {release}");
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let text_file = Path::new("Cargo.toml");
    for (output, words) in [
        (lint(Path::new("/nonexistent.bpf.o"), &[]), "cannot read /nonexistent.bpf.o"),
        (lint(text_file, &["--kernel", "6.12"]), "Cargo.toml is no BPF object"),
        (lint(&SIMPLE, &["--kernel", "six"]), "\"six\" is no kernel version"),
        (bpf_wq(&["lint"]), "required"),
        (bpf_wq(&[]), "Usage"),
    ] {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{words:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
