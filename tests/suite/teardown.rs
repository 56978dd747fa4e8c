//! Programs that go away while a callback sleeps that a syscall program has set. What happens to one
//! that sets its own is hazard H1, in `tests/danger/teardown.rs`.

use rstest::rstest;
use serial_test::serial;

use crate::support::called::program_exists;
use crate::support::fuse::Page;
use crate::support::teardown::{Loaded, wait_until_text_is_freed};
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
