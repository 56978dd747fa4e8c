//! Programs that go away while a callback sleeps that a sleepable program has set. What happens to
//! another that sets its own is hazard H1, in `tests/danger/teardown.rs`.

use rstest::rstest;
use serial_test::serial;

use crate::support::called::program_exists;
use crate::support::fuse::Page;
use crate::support::teardown::{Loaded, has_ended, wait_until_text_is_freed};
use crate::support::{eventually, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "What takes the kernel down";

/// Armed by a program that may sleep: its text outlives every callback.
#[rstest]
#[case::fentry("H1-fentry-armed", "fentry_only_starts", "an fentry program")]
#[case::xdp("H1-xdp-armed", "xdp_only_starts", "an XDP program")]
#[test_log::test]
#[serial]
fn armed_from_syscall(#[case] id: &str, #[case] program: &str, #[case] which: &str) {
    let how = "only starts what a syscall program has armed";
    rule(id, GROUP, &format!("{which} {how}; while its callback sleeps, its loader may exit"));
    if !needs_bpf_wq() || !needs_config("CONFIG_FUSE_FS", "the callback waits for a file system") {
        return;
    }
    let page = Page::new(&42_u64.to_ne_bytes());
    let loaded = Loaded::new(&["arm", program], Some(&page));
    loaded.run("arm");
    loaded.run(program);
    let arm = loaded.id("arm");
    goes_away_while_it_sleeps(loaded, program, &page);
    eventually("the arming program goes away", || (!program_exists(arm)).then_some(()));
}

/// The kernel frees the text of a sleepable program when no callback is under way.
#[test_log::test]
#[serial]
fn fentry_s_armed_by_itself() {
    let statement = "an fentry.s program sets its own callback; while its callback sleeps, its \
                     loader may exit";
    rule("H1-fentry.s", GROUP, statement);
    if !needs_bpf_wq() || !needs_config("CONFIG_FUSE_FS", "the callback waits for a file system") {
        return;
    }
    const PROGRAM: &str = "fentry_s_arms_itself";
    let page = Page::new(&42_u64.to_ne_bytes());
    let loaded = Loaded::new(&[PROGRAM], Some(&page));
    loaded.run(PROGRAM);
    goes_away_while_it_sleeps(loaded, PROGRAM, &page);
}

/// Closes everything while the callback of `program` waits for the page; it has to come to its end.
fn goes_away_while_it_sleeps(loaded: Loaded, program: &str, page: &Page) {
    page.wait_for_reader();
    let (text, pages) = (loaded.id(program), loaded.pages());
    drop(loaded);
    eventually("the program goes away", || (!program_exists(text)).then_some(()));
    wait_until_text_is_freed();
    assert!(!has_ended(&pages), "it did not wait for the answer");
    page.answer();
    eventually("the callback ends", || has_ended(&pages).then_some(()));
}
