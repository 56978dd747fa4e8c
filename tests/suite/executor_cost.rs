//! What a submission costs. Under `cargo xtask test --accel icount` a nanosecond is an
//! instruction.

use bench::cost::{BATCH, WAYS, measure};
use bench::results::Cost;
use serial_test::serial;

use crate::support::{fact, loads, needs_bpf_wq, rule};

const ROUNDS: u64 = 101;

#[test_log::test]
#[serial]
fn of_a_submission() {
    rule(
        "X-cost",
        "The executor",
        "all of three ways hand over each of 6565 pieces of work: a bare bpf_wq_start, an \
         executor's submit, a ring buffer's output",
    );
    if !needs_bpf_wq() {
        return;
    }
    loads("executor_cost");
    let costs = measure(ROUNDS).expect("all was handed over, and done once");
    assert_eq!(ROUNDS * (BATCH + 1), 6565);
    assert!(costs.iter().map(|cost| cost.way).eq(WAYS), "{costs:?}");
    let medians = |of: fn(&Cost) -> u64| {
        costs.iter().map(|cost| of(cost).to_string()).collect::<Vec<_>>().join(", ")
    };
    let burst = "handing over 64 by bpf_wq_start, submit, ring buffer: ns each";
    fact(burst, &medians(|cost| cost.burst.p50));
    fact("handing over one: ns", &medians(|cost| cost.single.p50));
}
