//! The small job by which `cargo xtask bench --runners` compares runners: a removed file has its
//! callback run.

use std::env;
use std::mem::MaybeUninit;

use bench::runners::EXPECTED;
use bpf_wq::Simple;
use bpf_wq_tests::{DEADLINE, needs_bpf_wq};

#[test]
fn a_removed_file_runs_the_callback() {
    if !needs_bpf_wq() {
        return;
    }
    // Another one makes it fail: a runner has to say so.
    let expected = env::var(EXPECTED).map_or(42, |value| value.parse().expect("a number"));
    let mut storage = MaybeUninit::uninit();
    let mut simple = Simple::load(&mut storage).expect("it loads");
    simple.attach().expect("it is attached");
    simple.trigger().expect("a file is removed");
    assert_eq!(simple.wait(1, DEADLINE).expect("it is called").value, expected);
}
