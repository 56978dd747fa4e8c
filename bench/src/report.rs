//! What was measured, for a terminal.

use crate::aims::cpu_counts;
use crate::results::{Job, Results};
use crate::runners::Runners;
use crate::tables::{self, Table};
use crate::throughput::SIZE_OF_WRITES;

/// Tables, ratios first.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    let mut show = |title: String, table: Table| {
        if !table.is_empty() {
            text += &format!("\n{title}\n\n{}", table.text());
        }
    };
    show("aims".into(), tables::aims(results));
    for kernel in &results.kernels {
        let release = &kernel.release;
        for (of, unit, second) in [
            (&kernel.counted, "instructions", "billion instructions"),
            (&kernel.timed, "ns", "second"),
        ] {
            let thousands = if unit == "ns" { "us" } else { "thousand instructions" };
            let title = format!("{release}: submission to first instruction, {thousands}");
            show(title, tables::latency(of));
            show(format!("{release}: a submission, {unit}"), tables::cost(&of.cost));
            for (job, name) in [(Job::Counts, "that count"), (Job::Writes, "that write to a map")] {
                let title =
                    format!("{release}: jobs a {second}, of {SIZE_OF_WRITES} bytes, {name}");
                show(title, tables::throughput(of, job));
            }
            for cpus in cpu_counts(of) {
                let title = format!("{release}: jobs a {second} by size, on CPUs: {cpus}");
                show(title, tables::sizes(of, cpus));
            }
        }
        show(format!("{release}: submissions behind others, ns"), tables::deep(kernel));
        show(format!("{release}: workers whose handlers sleep"), tables::wide(kernel));
    }
    show("memory of a job of 16 bytes".into(), tables::memory(results));
    text + &results.runners.as_ref().map(of_runners).unwrap_or_default()
}

/// What `--runners` has measured.
pub fn of_runners(runners: &Runners) -> String {
    format!("\nfrom the command to the verdict\n\n{}", tables::runners(runners).text())
}
