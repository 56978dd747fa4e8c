//! The outside crate at work.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// More than anything here takes, also in an emulated machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process that is not left behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended, as it should have.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The lines that it writes. Once the receiver is dropped, one more is read.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (says, said) = mpsc::channel();
    let lines = BufReader::new(from).lines().map_while(Result::ok);
    thread::spawn(move || lines.into_iter().try_for_each(|line| says.send(line)));
    said
}

/// On a kernel without bpf_wq it says so.
#[test]
fn prints_command_lines_until_nobody_reads_on() {
    let program = Command::new(packaged::CMDLINES)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut program = Running(program);
    let said = lines(program.0.stderr.take().expect("piped"));
    let first = said.recv_timeout(DEADLINE).expect("it says something");
    if uname_is_before_6_10() {
        assert!(first.contains("has no bpf_wq: needs linux 6.10 or later"), "{first}");
        assert_eq!(program.0.wait().expect("it ends").code(), Some(1));
        return;
    }
    assert_eq!(first, "ready");

    // It has to be there until its memory is read.
    let sleeper = Command::new("sleep").arg("3599.5").spawn().expect("it starts");
    let sleeper = Running(sleeper);
    let printed = lines(program.0.stdout.take().expect("piped"));
    // Others may start processes, too.
    while printed.recv_timeout(DEADLINE).expect("it prints that line") != "sleep 3599.5" {}
    drop((sleeper, printed));

    let status = loop {
        match program.0.try_wait().expect("it is our child") {
            Some(status) => break status,
            // Something to print.
            None => _ = Command::new("true").status().expect("it runs"),
        }
    };
    assert!(status.success(), "{status}");
    let [counters, end] = [(); 2].map(|()| said.recv_timeout(DEADLINE).expect("it says so"));
    assert!(counters.starts_with("in flight "), "{counters}");
    assert_eq!(end, "all work is done");
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
