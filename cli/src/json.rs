//! Findings for machines.

use std::path::Path;

use bpf_wq::lint::{Finding, Step, Target};
use serde_json::{Value, json};

/// A report of one file: `kernel`, and a list of `findings`.
pub fn report(file: &Path, kernel: &Target, findings: &[Finding]) -> Value {
    json!({
        "file": file.to_string_lossy(),
        "kernel": kernel.version().to_string(),
        "running": kernel.is_running(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "symbol": finding.symbol,
        "fault": finding.fault.name(),
        "message": finding.fault.to_string(),
        "effect": finding.effect.name(),
        "sure": finding.is_sure(),
        "remedy": finding.remedy(),
        "history": finding.history.iter().map(step).collect::<Vec<_>>(),
    })
}

/// `effect` is null where the fault does no harm, `commit` where it is not known.
fn step(step: &Step) -> Value {
    json!({
        "since": step.since.to_string(),
        "effect": step.effect.map(|effect| effect.name()),
        "commit": step.commit,
    })
}
