//! A short torture with a seed of its own, in a guest of its own: it takes a CPU away, and all that
//! is left in the kernel counts.

use std::path::Path;
use std::process::Command;

use bpf_wq_tests::alone::is_alone;
use bpf_wq_tests::needs_bpf_wq;

/// It has passed on all kernels of the matrix.
const SEED: &str = "1";

const SECONDS: &str = "12";

#[test]
fn a_short_one() {
    if !needs_bpf_wq() || !is_alone() {
        return;
    }
    let results = std::env::temp_dir();
    let mut run = Command::new(Path::new(env!("CARGO_BIN_EXE_torture")));
    run.args(["run", "--seed", SEED, "--seconds", SECONDS]).env("XTASK_RESULTS", &results);
    let status = run.status().expect("it runs");
    assert!(status.success(), "{status}");
    let json = std::fs::read_to_string(results.join("torture.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    for what in ["/counts/lives", "/counts/work/done", "/counts/work/starts", "/pages"] {
        let count = report.pointer(what).and_then(serde_json::Value::as_u64);
        assert!(count.is_some_and(|count| count > 0), "{what}: {count:?}");
    }
}
