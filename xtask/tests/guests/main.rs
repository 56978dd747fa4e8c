//! The runner's verdicts, on real guests that do what guests should not. Each test copies the
//! fixture's workspace, so that they can run side by side and leave nothing.

mod alone;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;

use crate::support::{Fixture, KERNEL, Run};

#[test]
fn tests_that_pass_fail_and_skip_are_told_apart() {
    let fixture = Fixture::new();
    fixture.test("mixed::", &[]).ends(
        1,
        &[
            "these are its last words",
            "killed by SIGABRT",
            "libtest did not say that the test passed",
            "which it can run on: it needs Linux 5.0",
            "needs Linux 99.0: it has not been written",
            "for want of CONFIG_BPF, which this kernel has",
            "needs CONFIG_HID_BPF: it is about mice [6.12]",
            "colour",
            "green",
        ],
    );
    let outcome = |name: &str| fixture.outcome(&format!("guest::mixed::{name}")).0;
    assert_eq!(outcome("passes"), "passed");
    assert_eq!(outcome("fails"), "failed");
    assert_eq!(outcome("dies_of_a_signal"), "failed");
    assert_eq!(outcome("exits_before_it_is_counted"), "failed");
    assert_eq!(outcome("needs_a_newer_kernel"), "skipped");
    assert_eq!(outcome("skips_what_it_should_run"), "failed");
    assert_eq!(outcome("skips_for_an_option_that_is_there"), "failed");
    let (skipped, test) = fixture.outcome("guest::mixed::needs_an_option_that_is_not_there");
    assert_eq!((skipped.as_str(), &test["missing"]), ("skipped", &"CONFIG_HID_BPF".into()));
    assert_eq!(outcome("is_ignored"), "skipped");
    let report = &fixture.report()[0];
    assert_eq!(report["outcome"], "failed");
    let counts = ["passed", "failed", "skipped"].map(|c| report[c].as_u64().unwrap());
    assert_eq!(counts, [1, 5, 3]);
    let junit = fs::read_to_string(fixture.path("target/kernel-report.xml")).unwrap();
    assert!(junit.contains(r#"tests="9" skipped="3" failures="5""#), "{junit}");
}

#[test]
fn a_clean_run_passes() {
    let fixture = Fixture::new();
    let run = fixture.test("alone", &["--rounds", "30"]);
    run.ends(0, &["passed"]);
    let report = &fixture.report()[0];
    assert_eq!(report["tests"][0]["facts"][0], serde_json::json!(["rounds", "30"]));
    assert_eq!(report["outcome"], "passed");
    // One guest in many dies before its command starts.
    let boots = if run.said.contains("booting once more") { 2 } else { 1 };
    assert_eq!(report["boots"], boots);
    assert!(report["release"].as_str().unwrap().starts_with("6.12."));
}

#[test]
fn a_kernel_that_panics_fails_the_test_that_ran() {
    let fixture = Fixture::new();
    fixture
        .test("panics_the_kernel", &[])
        .ends(1, &["ended without a verdict", "Kernel panic", "during guest::panics_the_kernel"]);
    assert_eq!(fixture.report()[0]["tests"][0]["outcome"], "failed");
}

#[test]
fn a_guest_that_hangs_ends_at_its_deadline() {
    let run = Fixture::new().test("hangs", &["--deadline", "120"]);
    run.ends(1, &["the deadline of 120 s passed", "guest::hangs was running"]);
}

#[test]
fn a_warning_of_the_kernel_fails_a_run_whose_tests_pass() {
    let fixture = Fixture::new();
    let run = fixture.test("makes_the_kernel_warn", &[]);
    run.ends(1, &["the kernel reported a fault", "WARNING: CPU: 0 PID: 1 at fixture.c:1"]);
    assert_eq!(fixture.report()[0]["passed"], 1);
}

#[test]
fn a_guest_that_ends_without_the_marker_fails() {
    let run = Fixture::new().test("kills_the_runner_in_the_guest", &[]);
    run.ends(1, &["ended without a verdict", "status 137"]);
}

#[test]
fn a_run_of_no_test_is_an_error() {
    Fixture::new()
        .test("no_test_has_this_name", &[])
        .ends(2, &["no test was chosen by [\"no_test_has_this_name\"]"]);
    Fixture::new().test("is_ignored", &[]).ends(2, &["only tests marked #[ignore]"]);
}

#[test]
fn a_guest_that_dies_before_its_command_is_booted_twice_and_says_why() {
    let fixture = Fixture::new().with_kernel_args("rdinit=/nowhere");
    fixture.test("alone", &[]).ends(3, &["booting once more", "Unable to mount root fs"]);
    assert_eq!(fixture.report()[0]["boots"], 2);
    assert_eq!(fixture.report()[0]["outcome"], "error");
}

/// The first QEMU gets a kernel argument that lets its guest die, or is none.
#[rstest]
#[case::a_guest_that_dies(r#"set -- "${@/panic=-1/panic=-1 rdinit=/nowhere}""#)]
#[case::a_qemu_that_does_not_come_up("exec sleep 1000")]
fn a_second_boot_that_succeeds_is_shown(#[case] first_qemu: &str) {
    let fixture = Fixture::new();
    let once = r#"#!/bin/bash
if [ "$1" != --version ] && mkdir "${0%/*}/tried" 2>/dev/null; then FIRST; fi
PATH=${PATH#*:} exec qemu-system-x86_64 "$@"
"#;
    let once = once.replace("FIRST", first_qemu);
    let tools = fixture.path("tools");
    fs::create_dir(&tools).unwrap();
    fs::write(tools.join("qemu-system-x86_64"), once).unwrap();
    fs::set_permissions(tools.join("qemu-system-x86_64"), Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let output = fixture
        .command(&["test", "-k", KERNEL, "--", "alone"])
        .env("PATH", path)
        .env("XTASK_ACCEL", "tcg")
        .output()
        .unwrap();
    Run::of(output).ends(0, &["booting once more", "the first boot: ", "(second boot)"]);
    assert_eq!(fixture.report()[0]["boots"], 2);
    assert_eq!(fixture.report()[0]["outcome"], "passed");
}

#[test]
fn two_kernels_have_a_row_each_in_the_order_asked_for() {
    let fixture = Fixture::new();
    fixture.xtask(&["test", "-k", "7.3", "-k", KERNEL, "--", "alone"]).ends(0, &[]);
    let report = fixture.report();
    let kernels = [&report[0]["kernel"], &report[1]["kernel"]];
    assert_eq!(kernels, ["7.3", KERNEL]);
    assert!(report[0]["release"].as_str().unwrap().starts_with("7.3."));
}

#[test]
fn a_kernel_that_cannot_be_fetched_does_not_stop_the_others() {
    let fixture = Fixture::new();
    // Another hash is another kernel, which is not in the cache.
    fixture.edit("kernels.toml", |text| text.replace("a54583c5", "00000000"));
    let args =
        ["test", "-k", "6.16", "-k", KERNEL, "--mirror", "http://127.0.0.1:9", "--", "alone"];
    fixture.xtask(&args).ends(3, &["6.16", "ERROR", "127.0.0.1:9"]);
    let report = fixture.report();
    assert_eq!([&report[0]["outcome"], &report[1]["outcome"]], ["passed", "error"]);
}

#[test]
fn an_image_by_its_path_says_what_it_lacks() {
    let fixture = Fixture::new();
    fixture.xtask(&["kernels", "fetch", "-k", KERNEL]).ends(0, &[]);
    // Debian's kernel has 9p as a module, and no modules are named.
    let run = fixture.xtask(&["test", "-k", "target/kernels/6.12/vmlinuz", "--", "alone"]);
    run.ends(3, &["CONFIG_9P_FS", "--modules"]);
}

#[test]
fn a_qemu_that_refuses_is_quoted() {
    let fixture = Fixture::new();
    fixture.edit("vmtest.toml", |text| text.replace("\"2G\"", "\"1000000G\""));
    fixture.test("alone", &[]).ends(3, &["QEMU said", "memory"]);
}

/// The console's log is on a disk too small for it: what it lacks could be a report.
#[test]
fn a_log_that_was_cut_fails_a_run_whose_tests_pass() {
    let fixture = Fixture::new();
    let guests = fixture.path("target/guests");
    fs::create_dir_all(&guests).unwrap();
    let run = fixture.command(&["test", "-k", KERNEL, "--", "makes_the_kernel_warn"]);
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    // Room for the copies of the runner and of the kernel's configuration, and 24 KiB for the rest.
    fixture.xtask(&["kernels", "fetch", "-k", KERNEL]).ends(0, &[]);
    let config = fixture.path("target/kernels").join(KERNEL).join("config");
    let copies = [Path::new(env!("CARGO_BIN_EXE_xtask")), &config];
    let pages = copies.map(|file| fs::metadata(file).unwrap().len().div_ceil(4096));
    let size = 4 * pages.iter().sum::<u64>() + 24;
    let mount = format!("mount -t tmpfs -o size={size}k tmpfs \"$0\" && exec \"$@\"");
    command
        .args(["--mount", "sh", "-c", &mount])
        .arg(&guests)
        .arg(run.get_program())
        .args(run.get_args());
    command.current_dir(fixture.dir.path()).env("CARGO_TARGET_DIR", fixture.path("target"));
    Run::of(command.output().unwrap()).ends(1, &["cannot be scanned", "is the disk full"]);
}

/// Cargo puts another file in its place when it builds the runner's own tests.
#[test]
fn a_runner_whose_file_is_removed_goes_on() {
    let fixture = Fixture::new();
    let exe = fixture.path("runner");
    // Written by this process, it might be open in one that another test starts, and could not run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_xtask")).arg(&exe).status().unwrap();
    assert!(copied.success());
    let run = fixture.command(&["test", "-k", KERNEL, "--", "alone"]);
    let mut command = Command::new(&exe);
    command.args(run.get_args()).current_dir(fixture.dir.path());
    command.env("CARGO_TARGET_DIR", fixture.path("target")).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fs::remove_file(&exe).unwrap();
    Run::of(child.wait_with_output().unwrap()).ends(0, &["1 passed"]);
}

#[test]
fn a_boot_that_the_init_refuses_is_not_tried_again() {
    let fixture = Fixture::new().with_kernel_args("rootflags=trans=nowhere");
    fixture.test("alone", &[]).ends(3, &["xtask-init: mounting the host's files over 9p"]);
    assert_eq!(fixture.report()[0]["boots"], 1);
}

#[test]
fn a_guest_can_remove_everything_and_changes_nothing() {
    let fixture = Fixture::new();
    let canary = tempfile::tempdir().unwrap();
    fs::write(canary.path().join("file"), "alive").unwrap();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let list = |dir: &Path| -> Vec<_> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect()
    };
    let before = (list(checkout), list(Path::new("/etc")));
    let output = fixture
        .command(&["test", "-k", KERNEL, "--", "removes_the_hosts_files"])
        .env("CANARY", canary.path())
        .env("CHECKOUT", checkout)
        .output()
        .unwrap();
    Run::of(output).ends(0, &["passed"]);
    assert_eq!(fs::read_to_string(canary.path().join("file")).unwrap(), "alive");
    assert_eq!((list(checkout), list(Path::new("/etc"))), before);
}

#[rstest]
#[case::by_itself(None, &["test", "-k", KERNEL, "--", "alone"])]
#[case::by_ctrl_c_in_a_test(Some(Signal::SIGINT), &["test", "-k", KERNEL, "--", "hangs"])]
#[case::killed_in_a_test(Some(Signal::SIGKILL), &["test", "-k", KERNEL, "--", "hangs"])]
#[case::terminated_in_a_shell(Some(Signal::SIGTERM), &["shell", "-k", KERNEL])]
fn a_runner_that_ends_leaves_nothing(#[case] signal: Option<Signal>, #[case] args: &[&str]) {
    let fixture = Fixture::new();
    let mut runner = Ended(fixture.command(args).stdin(Stdio::piped()).spawn().unwrap());
    // `wait` would close it, and a shell whose input ends is over.
    let _stdin = runner.0.stdin.take();
    let console = fixture.path("target/guests").join(KERNEL).join("console.log");
    let qemu = wait_for("QEMU", || qemu_with(&console));
    let log_has = |text: &str| {
        let log = fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(text).then_some(())
    };
    wait_for("the guest to boot", || log_has("Linux version"));
    let files = files_of(qemu);
    assert!(files.len() >= 5 && files.iter().filter(|f| f.exists()).count() >= 4, "{files:?}");
    if let Some(signal) = signal {
        wait_for("the work", || log_has("xtask: begin").or_else(|| log_has("xtask: end")));
        kill(Pid::from_raw(runner.0.id().try_into().unwrap()), signal).unwrap();
    }
    let status = runner.0.wait().unwrap();
    match signal {
        None => {
            assert_eq!(status.code(), Some(0));
            let left: Vec<_> = files.iter().filter(|file| file.exists()).collect();
            assert!(!qemu_lives(qemu) && left.is_empty(), "{left:?}");
        }
        Some(Signal::SIGKILL) => (),
        Some(_) => assert_eq!(status.code(), Some(130)),
    }
    wait_for("QEMU to be gone", || (!qemu_lives(qemu)).then_some(()));
    wait_for(&format!("{files:?} to be gone"), || {
        (!files.iter().any(|f| f.exists())).then_some(())
    });
}

/// Keeps a runner from outliving a test that failed.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Polls; gives what it waited for, or fails after a few minutes.
#[track_caller]
fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(180) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited three minutes for {what}");
}

fn cmdline(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

fn qemu_with(console: &Path) -> Option<i32> {
    let log = format!("logfile={}", console.display());
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        cmdline(pid).iter().any(|arg| arg.contains(&log)).then_some(pid)
    })
}

fn qemu_lives(pid: i32) -> bool {
    cmdline(pid).first().is_some_and(|program| program.contains("qemu-system"))
}

/// The sockets, the script and the directory that belong to a guest, by QEMU's arguments.
fn files_of(qemu: i32) -> Vec<PathBuf> {
    let args = cmdline(qemu);
    let mut files = Vec::new();
    for arg in &args {
        for key in ["path=", "unix:", "init="] {
            for part in arg.split([',', ' ']) {
                let path = part.strip_prefix(key).or_else(|| part.strip_prefix("socket,path="));
                files.extend(path.filter(|p| p.starts_with("/tmp/")).map(PathBuf::from));
            }
        }
    }
    files.retain(|f| !f.ends_with("share") && f.parent() != Some(Path::new("/")));
    let own: Vec<_> = files
        .iter()
        .filter(|f| f.ends_with("console"))
        .map(|f| f.parent().unwrap().to_owned())
        .collect();
    files.extend(own);
    files
}

#[test]
fn a_person_is_left_in_the_guest_of_a_test_that_failed() {
    let fixture = Fixture::new();
    let args = ["test", "-k", KERNEL, "--shell-on-failure", "--", "mixed::fails"];
    let run = fixture.xtask_with_input(&args, "echo I am in $(uname -r | cut -d. -f1,2)\nexit\n");
    run.ends(1, &["the guest is yours", "I am in 6.12"]);
}

#[test]
fn a_shell_is_roots_and_in_the_same_directory() {
    let fixture = Fixture::new();
    let run = fixture.xtask_with_input(&["shell", "-k", KERNEL], "echo $(id -u):$PWD\nexit\n");
    run.ends(0, &[&format!("0:{}", fixture.dir.path().display())]);
}

#[test]
fn a_demo_shows_what_the_example_prints() {
    let fixture = Fixture::new();
    fixture.xtask(&["demo", "hello", "-k", KERNEL]).ends(0, &["hello from 6.12."]);
    fixture.xtask(&["demo", "no_such"]).ends(2, &["no demo no_such", "fails, hello, fixture"]);
    fixture.xtask(&["demo"]).ends(2, &["Cargo.toml names none"]);
}

#[test]
fn a_demo_may_be_a_package_with_arguments() {
    let fixture = Fixture::new();
    fixture.xtask(&["demo", "fixture", "-k", KERNEL]).ends(0, &["an application is to show all"]);
    let result = fixture.path("target/results/fixture/told");
    assert_eq!(fs::read_to_string(&result).unwrap(), "show all");
    let args = ["demo", "fixture", "-k", KERNEL, "--", "--do", "this"];
    fixture
        .xtask(&args)
        .ends(0, &["an application is to --do this", &result.display().to_string()]);
    assert_eq!(fs::read_to_string(&result).unwrap(), "--do this");
    fixture.edit("Cargo.toml", |text| text.replace("demo = ", "demos = "));
    fixture.xtask(&["demo", "fixture"]).ends(2, &["[package.metadata.xtask]", "demos"]);
}

#[test]
fn a_demo_that_fails_fails() {
    let run = Fixture::new().xtask(&["demo", "fails", "-k", KERNEL]);
    run.ends(1, &["the program failed: exit status 7"]);
}

#[test]
fn a_bench_measures_in_each_guest_and_reports() {
    let fixture = Fixture::new();
    let says = [
        "6.12: one",
        "6.12: three",
        "an application is to measure --little",
        "an application is to report",
    ];
    fixture.xtask(&["bench", "-k", KERNEL, "--", "--little"]).ends(0, &says);
    let read =
        |file: &str| fs::read_to_string(fixture.path("target/results/fixture").join(file)).unwrap();
    assert_eq!([read("6.12/one/cpus"), read("6.12/three/cpus")], ["1", "3"]);
    let run: serde_json::Value = serde_json::from_str(&read("run.json")).unwrap();
    assert_eq!(run["command"], "cargo xtask bench -k 6.12 -- --little");
    let three = &run["guests"][1];
    assert_eq!((&three["guest"], &three["cpus"]), (&"three".into(), &3.into()));
    assert_eq!(three["results"], "6.12/three");
    assert!(three["release"].as_str().unwrap().starts_with("6.12."), "{three}");

    let failing = ["bench", "-k", KERNEL, "--", "--fail"];
    fixture.xtask(&failing).ends(1, &["the program failed: exit status 7"]);
    fixture.edit("Cargo.toml", |text| text.replace("cpus = 3", "cpus = 0"));
    fixture.xtask(&["bench"]).ends(2, &["guest three has no CPU"]);
}

#[test]
fn a_kernel_runs_only_the_targets_that_are_named_for_it() {
    let named = |targets: &str| {
        let fixture = Fixture::new();
        let series = format!("series = \"{KERNEL}\"\n");
        fixture.edit("kernels.toml", |text| {
            text.replace(&series, &format!("{series}tests = [{targets:?}]\n"))
        });
        fixture
    };
    let says = ["kernels.toml: 6.12: tests", "no test target peril runs in guests"];
    named("peril").xtask(&["test", "-k", KERNEL]).ends(2, &says);
    let fixture = named("danger");
    let says = ["6.12: none of these tests runs on it", "no kernel runs any of these tests"];
    fixture.xtask(&["test", "-k", KERNEL, "--test", "guest"]).ends(2, &says);
    let both = ["test", "-k", KERNEL, "--", "is_too_new", "passes"];
    fixture.xtask(&both).ends(0, &["total: 0 passed, 0 failed, 1 skipped"]);
    assert_eq!(fixture.report()[0]["targets"], serde_json::json!(["danger"]));
}

#[test]
fn wrong_use_is_told_from_failure() {
    let fixture = Fixture::new();
    fixture.xtask(&["test", "-k", "5.4"]).ends(2, &["5.4"]);
    fixture.xtask(&["test", "-k", KERNEL, "--", "--nocapture"]).ends(2, &["--nocapture"]);
    fixture.xtask(&["test", "--jobs", "0"]).ends(2, &["jobs"]);
    let says = ["no test target peril runs in guests: there are danger, guest"];
    fixture.xtask(&["test", "-k", KERNEL, "--test", "peril"]).ends(2, &says);
    fixture.edit("Cargo.toml", |text| text.replace("\"danger\"", "\"peril\""));
    let says = ["alone", "no test target peril runs in guests: there are danger, guest"];
    fixture.xtask(&["test", "-k", KERNEL]).ends(2, &says);
    for file in ["kernels.toml", "vmtest.toml"] {
        let fixture = Fixture::new();
        fixture.edit(file, |text| format!("colour = \"green\"\n{text}"));
        fixture.xtask(&["test", "-k", KERNEL]).ends(2, &[file, "colour"]);
    }
}
