//! Hazard H1: what goes away while its callback sleeps.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;

use libbpf_rs::{Link, MapCore as _, MapFlags, Object, ProgramInput};
use rstest::rstest;

use crate::alone::{expects, is_alone};
use crate::support::called::{program_exists, program_info};
use crate::support::fuse::Page;
use crate::support::loading::{choose, load, open};
use crate::support::{eventually, needs, needs_bpf_wq, rule};

const GROUP: &str = "What takes the kernel down";

const STATEMENT: &str = "while its callback sleeps, its loader may exit";

/// What is freed is the text that the callback returns into. No kernel has a fix.
#[rstest]
#[case::fentry("H1-fentry", "fentry_arms_itself", "an fentry program")]
#[case::xdp("H1-xdp", "xdp_arms_itself", "an XDP program")]
#[test_log::test]
fn armed_by_itself(#[case] id: &str, #[case] program: &str, #[case] which: &str) {
    let statement = format!("{which} sets its own callback; {STATEMENT}");
    rule(id, GROUP, &statement);
    if !needs_bpf_wq() || !may_sleep(id) || !is_alone() {
        return;
    }
    let page = Page::new(&42_u64.to_ne_bytes());
    let mut loaded = Loaded::new(&[program], &page);
    let text = loaded.id(program);
    loaded.run(program);
    page.wait_for_reader();

    let report = ["Oops: int3", "bpf_wq_work", "Kernel panic - not syncing: Fatal exception"];
    let answer = "dies: the callback returns into text that was freed (Oops: int3), a panic";
    expects(id, GROUP, &statement, &report, answer);
    drop(loaded);
    eventually("the program goes away", || (!program_exists(text)).then_some(()));
    wait_until_text_is_freed();
    page.answer();
    drop(page);
}

/// Armed by a program that may sleep: its text outlives every callback.
#[rstest]
#[case::fentry("H1-fentry-armed", "fentry_only_starts", "an fentry program")]
#[case::xdp("H1-xdp-armed", "xdp_only_starts", "an XDP program")]
#[test_log::test]
fn armed_from_syscall(#[case] id: &str, #[case] program: &str, #[case] which: &str) {
    let how = "only starts what a syscall program has armed";
    rule(id, GROUP, &format!("{which} {how}; {STATEMENT}"));
    if !needs_bpf_wq() || !is_alone() {
        return;
    }
    let page = Page::new(&42_u64.to_ne_bytes());
    let mut loaded = Loaded::new(&["arm", program], &page);
    loaded.run("arm");
    loaded.run(program);
    page.wait_for_reader();
    let (arm, text) = (loaded.id("arm"), loaded.id(program));
    drop(loaded);
    eventually("the program goes away", || (!program_exists(text)).then_some(()));
    wait_until_text_is_freed();
    page.answer();
    eventually("the arming program goes away", || (!program_exists(arm)).then_some(()));
    drop(page);
}

/// Since 6.16 the callbacks of network programs may (ee971630f20f).
fn may_sleep(id: &str) -> bool {
    id != "H1-xdp" || needs((6, 16), "no XDP program's callback sleeps before ee971630f20f")
}

struct Loaded {
    object: Object,
    links: Vec<Link>,
}

impl Loaded {
    /// Loads these programs, whose callback waits for the page.
    fn new(programs: &[&str], page: &Page) -> Self {
        let mut open = open("teardown");
        programs.iter().for_each(|program| choose(&mut open, program));
        let object = load(open).expect("it loads");
        let pages = object.maps().find(|map| map.name() == "pages").expect("map pages");
        let value = [page.pid() as u64, page.address()].map(u64::to_ne_bytes).concat();
        pages.update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY).expect("the page is named");
        Self { object, links: vec![] }
    }

    fn id(&self, program: &str) -> u32 {
        let found = self.object.progs().find(|p| p.name() == program).expect("the program");
        program_info(found.as_fd()).id
    }

    /// Runs a program once, and asserts that it returns 0, or what lets a frame pass.
    fn run(&mut self, program: &str) {
        let found = self.object.progs_mut().find(|p| p.name() == program).expect("the program");
        let frame = [0; 64];
        let mut input = ProgramInput::default();
        let mut expected = 0;
        if program.starts_with("fentry") {
            self.links.push(found.attach().expect("it is attached"));
        } else if program.starts_with("xdp") {
            input.data_in = Some(&frame);
            expected = 2;
        }
        let output = found.test_run(input).expect("the program runs");
        assert_eq!(output.return_value, expected, "{program}");
    }
}

/// The text of a program that is gone is freed by a worker, a grace period later.
fn wait_until_text_is_freed() {
    for _ in 0..3 {
        fs::write("/sys/module/rcutree/parameters/do_rcu_barrier", "1").expect("rcu_barrier");
        for _ in 0..20 {
            // SAFETY: takes numbers only.
            let result = unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) };
            assert_eq!(result, 0, "membarrier: {}", io::Error::last_os_error());
        }
    }
}
