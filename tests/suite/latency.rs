//! Claim S8: timers have microsecond latency, workqueues milliseconds. They do not.

use serial_test::serial;

use crate::support::called::{Called, OK, get, word};
use crate::support::{eventually, fact, needs_bpf_wq, rule};

/// Of each kind.
const SAMPLES: u64 = 400;

/// The claim's two latencies are 1000 apart.
const FAR_LESS_THAN_CLAIMED: u64 = 50;

/// The keys of map `delays`.
const TIMER: u32 = 0;
const WORK: u32 = 1;

/// How long after the start the callbacks began, in ns, sorted.
struct Delays(Vec<u64>);

impl Delays {
    fn of(called: &Called, which: u32) -> Self {
        let value = get(&called.map("delays"), which);
        assert_eq!(word(&value, 0), SAMPLES);
        let mut ns: Vec<u64> = (1..=SAMPLES as usize).map(|index| word(&value, index)).collect();
        ns.sort_unstable();
        Self(ns)
    }

    /// What so many of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> u64 {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    /// The median, what 99 of 100 do not exceed, and the longest, in the table of all kernels.
    fn record(&self, name: &str) {
        let [median, p99, most] = [50, 99, 100].map(|percent| self.percentile(percent) / 1000);
        fact(&format!("{name}: median, 99%, longest, us"), &format!("{median}, {p99}, {most}"));
    }
}

/// Both in turn, in one machine and by one clock; each has been measured before the next is
/// started. The medians, which one late sample in a noisy machine does not move.
#[test_log::test]
#[serial]
fn is_of_the_order_of_a_timer() {
    rule(
        "S8",
        "Latency",
        "a bpf_wq callback begins about as soon as a bpf_timer's of 0 ns: not 1000 times later \
         (medians, within a factor of 50)",
    );
    if !needs_bpf_wq() {
        return;
    }
    let called = Called::load("latency", &["arm", "start_timer", "start_work"]);
    assert_eq!(called.call("arm"), [OK; 4]);
    for sample in 1..=SAMPLES {
        for (which, program) in [(TIMER, "start_timer"), (WORK, "start_work")] {
            assert_eq!(called.call(program), [OK]);
            let map = called.map("delays");
            eventually("the callback runs", || {
                (word(&get(&map, which), 0) == sample).then_some(())
            });
        }
    }
    let [timer, work] = [TIMER, WORK].map(|which| Delays::of(&called, which));
    timer.record("bpf_timer");
    work.record("bpf_wq");
    assert!(
        work.percentile(50) < FAR_LESS_THAN_CLAIMED * timer.percentile(50),
        "medians in ns: bpf_wq {}, bpf_timer {}",
        work.percentile(50),
        timer.percentile(50)
    );
}
