//! What `tests/suite/lifecycle.rs` is held against: the same program and the same death of its
//! loader, without what the library does.

use crate::alone::{expects, is_alone};
use crate::support::fuse::Page;
use crate::support::loader::{Ids, Loader};
use crate::support::teardown::wait_until_text_is_freed;
use crate::support::{eventually, loads, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "The lifecycle";

/// Hazard H1, as in `tests/danger/teardown.rs`.
#[test_log::test]
fn naive_and_killed() {
    const ID: &str = "L-naive-sigkill";
    let statement = "an fentry program arms the workqueue itself, and starts it; while its \
                     callback sleeps, its loader is killed: nothing is left";
    rule(ID, GROUP, statement);
    if !needs_bpf_wq()
        || !needs_config("CONFIG_FUSE_FS", "the callback waits for a file system")
        || !is_alone()
    {
        return;
    }
    loads("lifecycle");
    let page = Page::new(&42_u64.to_ne_bytes());
    let before = Ids::now();
    let mut loader = Loader::start(&["arms_itself"], "kill", &page);
    let ids = Ids::now().without(&before);
    loader.go_on();
    loader.expect("submitted");
    page.wait_for_reader();

    let report = ["Oops: int3", "bpf_wq_work", "Kernel panic - not syncing: Fatal exception"];
    let answer = "dies: the callback returns into text that was freed (Oops: int3), a panic";
    expects(ID, GROUP, statement, &report, answer);
    loader.kill();
    eventually("the programs go away", || ids.left().programs.is_empty().then_some(()));
    wait_until_text_is_freed();
    page.answer();
    drop(page);
}
