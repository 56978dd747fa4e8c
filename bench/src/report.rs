//! What was measured, for a terminal.

use crate::results::{Job, Results};
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
        show(format!("{release}: submission to first instruction, us"), tables::latency(kernel));
        for (job, name) in [(Job::Counts, "that count"), (Job::Writes, "that write to a map")] {
            let title = format!("{release}: jobs a second, of {SIZE_OF_WRITES} bytes, {name}");
            show(title, tables::throughput(kernel, job));
        }
        for cpus in crate::aims::cpu_counts(&kernel.timed) {
            let title = format!("{release}: jobs a second by size, {cpus} CPUs");
            show(title, tables::sizes(kernel, cpus));
        }
        show(format!("{release}: a submission, instructions"), tables::cost(&kernel.counted.cost));
        show(format!("{release}: a submission, ns"), tables::cost(&kernel.timed.cost));
        show(format!("{release}: submissions behind others, ns"), tables::deep(kernel));
        show(format!("{release}: workers whose handlers sleep"), tables::wide(kernel));
    }
    show("memory of a job of 16 bytes".into(), tables::memory(results));
    show("from start to verdict, seconds".into(), tables::runners(results));
    text
}
