//! The outside crate at work.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// On a kernel without bpf_wq it says so.
#[test]
fn prints_a_command_line() {
    let mut program = Command::new(packaged::CMDLINES)
        .arg("1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(program.stderr.take().expect("piped")).lines();
    let first = said.next().expect("it says something").expect("text");
    if uname_is_before_6_10() {
        assert!(first.contains("has no bpf_wq: needs linux 6.10 or later"), "{first}");
        assert_eq!(program.wait().expect("it ends").code(), Some(1));
        return;
    }
    assert_eq!(first, "ready");

    // It has to be there until its memory is read.
    let mut sleeper = Command::new("sleep").arg("3599.5").spawn().expect("it starts");
    let mut printed = BufReader::new(program.stdout.take().expect("piped")).lines();
    let line = printed.next().expect("a line").expect("text");
    sleeper.kill().expect("it is our child");
    sleeper.wait().expect("it ends");
    assert_eq!(line, "sleep 3599.5");

    let rest: Vec<_> = said.map(|line| line.expect("text")).collect();
    assert!(rest[0].starts_with("in flight "), "{rest:?}");
    assert_eq!(rest[1], "all work is done");
    assert!(program.wait().expect("it ends").success());
}

/// The README's section is this crate, to the letter.
#[test]
fn is_what_the_readme_shows() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
    let readme = read("README.md");
    for file in ["Cargo.toml", "build.rs", "src/cmdlines.bpf.c", "src/main.rs"] {
        let content = read(&format!("examples/cmdlines/{file}"));
        assert!(readme.contains(&format!("\n{content}```\n")), "{file} is not in README.md");
    }
}

fn uname_is_before_6_10() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>());
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        panic!("{release} is no version");
    };
    (major, minor) < (6, 10)
}
