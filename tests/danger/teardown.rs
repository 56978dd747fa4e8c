//! Hazard H1: a program that goes away while the callback that it has set runs or sleeps.

use rstest::rstest;

use crate::alone::{expects, is_alone};
use crate::support::called::{get, program_exists, word};
use crate::support::fuse::Page;
use crate::support::teardown::{Loaded, wait_until_text_is_freed};
use crate::support::{eventually, needs, needs_bpf_wq, needs_config, rule};

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
    if !needs_bpf_wq()
        || !may_sleep(id)
        || !needs_config("CONFIG_FUSE_FS", "the callback waits for a file system")
        || !is_alone()
    {
        return;
    }
    let page = Page::new(&42_u64.to_ne_bytes());
    let loaded = Loaded::new(&[program], Some(&page));
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

/// It sleeps nowhere: where the kernel may preempt itself, what runs holds up no grace period either.
#[test_log::test]
fn armed_by_itself_and_running() {
    const ID: &str = "H1-running";
    const STATEMENT: &str =
        "an XDP program sets its own callback; while its callback runs, its loader may exit";
    const PROGRAM: &str = "xdp_arms_itself_to_run_long";
    rule(ID, GROUP, STATEMENT);
    if !needs_bpf_wq()
        || !needs_config("CONFIG_PREEMPT_RCU", "elsewhere a grace period waits for what runs")
        || !is_alone()
    {
        return;
    }
    let loaded = Loaded::new(&[PROGRAM], None);
    let (text, pages) = (loaded.id(PROGRAM), loaded.pages());
    loaded.run(PROGRAM);
    let has_begun = || word(&get(&pages, 0), 2) == 1;
    eventually("the callback begins", || has_begun().then_some(()));

    let report = ["Oops: int3", "bpf_wq_work", "Kernel panic - not syncing: Fatal exception"];
    let answer = "dies: the text is freed under the callback (Oops: int3), a panic";
    expects(ID, GROUP, STATEMENT, &report, answer);
    drop(loaded);
    eventually("the program goes away", || (!program_exists(text)).then_some(()));
    wait_until_text_is_freed();
    eventually("the kernel dies", || None::<()>);
}

/// Since 6.16 the callbacks of network programs may (ee971630f20f).
fn may_sleep(id: &str) -> bool {
    id != "H1-xdp" || needs((6, 16), "no XDP program's callback sleeps before ee971630f20f")
}
