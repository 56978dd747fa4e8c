//! Tables of what was measured, for a page and for a terminal. Ratios come first.

use crate::Way;
use crate::aims::{self, condition, cpu_counts, latency_p50, rate};
use crate::distribution::Distribution;
use crate::results::{Cost, Job, Measured, OfKernel, Results};
use crate::runners::{Asked, Runner, Runners};
use crate::throughput::{SIZE_OF_WRITES, SIZES};

/// A head, and rows below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|word| (*word).to_owned()).collect(), rows: vec![] }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    /// With columns that are aligned: words to the left, numbers to the right.
    pub fn text(&self) -> String {
        let all = || [&self.head].into_iter().chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in all() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

/// What the executor is to reach, by kernel and clock.
pub fn aims(results: &Results) -> Table {
    let both = results.kernels.iter().flat_map(|kernel| {
        let counted = (format!("{}, instructions", kernel.kernel), aims::of(&kernel.counted));
        [counted, (format!("{}, time", kernel.kernel), aims::of(&kernel.timed))]
    });
    let columns: Vec<(String, Vec<aims::Aim>)> = both.filter(|(_, of)| !of.is_empty()).collect();
    let names = columns.iter().map(|(name, _)| name.as_str());
    let mut table =
        Table::new(&["the executor's", "aim"].into_iter().chain(names).collect::<Vec<_>>());
    // The one with the most CPUs has all.
    let longest = columns.iter().max_by_key(|(_, of)| of.len()).into_iter();
    for aim in longest.flat_map(|(_, of)| of) {
        let same = |(_, of): &(String, Vec<aims::Aim>)| {
            let found = of.iter().find(|other| other.what == aim.what);
            found.map_or("-".to_owned(), ToString::to_string)
        };
        let cells = [aim.what.clone(), aim.bound.to_string()];
        table.row(cells.into_iter().chain(columns.iter().map(same)).collect());
    }
    table
}

/// From submission to the first instruction: in microseconds, or in thousands of instructions.
pub fn latency(measured: &Measured) -> Table {
    let head = ["", "CPUs", "done on", "of the floor", "p50", "p99", "p99.9", "max"];
    let mut table = Table::new(&head);
    for latency in &measured.latency {
        let floor = latency_p50(measured, Way::Floor, latency.is_loaded);
        let mut cells = vec![
            latency.way.to_string(),
            condition(latency.is_loaded).into(),
            if latency.is_elsewhere { "another" } else { "the same" }.into(),
            ratio(Some(latency.ns.p50), floor),
        ];
        cells.extend(shown(&latency.ns).map(thousands));
        table.row(cells);
    }
    table
}

/// Thousands of jobs a second, or in a billion instructions, by CPUs.
pub fn throughput(measured: &Measured, job: Job) -> Table {
    let counts = cpu_counts(measured);
    let cpus = |count: &usize| format!("{count} CPU{}", if *count == 1 { "" } else { "s" });
    let columns: Vec<String> = counts.iter().map(cpus).collect();
    let ratios = columns.iter().map(|column| format!("of epoll's, {column}"));
    let rates = columns.iter().map(|column| format!("thousands, {column}"));
    let head: Vec<String> = [String::new()].into_iter().chain(ratios).chain(rates).collect();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for way in ways(measured) {
        let of = |way, count: &usize| rate(measured, way, *count, SIZE_OF_WRITES, job);
        let spread = |count: &usize| spread_of(measured, way, *count, SIZE_OF_WRITES, job);
        let ratios = counts.iter().map(|count| ratio(of(way, count), of(Way::Epoll, count)));
        let cells = [way.to_string()].into_iter().chain(ratios).chain(counts.iter().map(spread));
        table.row(cells.collect());
    }
    table
}

/// The same by their size.
pub fn sizes(measured: &Measured, cpus: usize) -> Table {
    let columns = SIZES.map(|bytes| format!("{bytes} bytes"));
    let ratios = columns.iter().map(|column| format!("of epoll's, {column}"));
    let rates = columns.iter().map(|column| format!("thousands, {column}"));
    let head: Vec<String> = [String::new()].into_iter().chain(ratios).chain(rates).collect();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for way in ways(measured) {
        let of = |way, bytes: &u32| rate(measured, way, cpus, *bytes, Job::Counts);
        let spread = |bytes: &u32| spread_of(measured, way, cpus, *bytes, Job::Counts);
        let ratios = SIZES.iter().map(|bytes| ratio(of(way, bytes), of(Way::Epoll, bytes)));
        let cells = [way.to_string()].into_iter().chain(ratios).chain(SIZES.iter().map(spread));
        table.row(cells.collect());
    }
    table
}

fn ways(measured: &Measured) -> Vec<Way> {
    let mut ways: Vec<Way> = measured.throughput.iter().map(|t| t.way).collect();
    ways.sort_unstable();
    ways.dedup();
    ways
}

/// The median of the rounds, and the least and the most.
fn spread_of(measured: &Measured, way: Way, cpus: usize, bytes: u32, job: Job) -> String {
    let mut of = measured.throughput.iter();
    let found = of.find(|t| (t.way, t.cpus, t.bytes, t.job) == (way, cpus, bytes, job));
    found.map_or("-".to_owned(), |t| {
        let thousand = |n: u64| (n + 500) / 1000;
        let Distribution { p50, min, max, .. } = t.per_second;
        format!("{} ({} to {})", thousand(p50), thousand(min), thousand(max))
    })
}

/// What a submission pays, in the unit of the clock.
pub fn cost(costs: &[Cost]) -> Table {
    let of_single = ["alone: of bare", "p50", "p99", "p99.9", "max"];
    let of_burst = ["of 64: of bare", "p50", "p99", "p99.9", "max"];
    let mut table = Table::new(&[&[""], &of_single[..], &of_burst].concat());
    let bare = costs.iter().find(|cost| cost.way == Way::Bare);
    for cost in costs {
        let name = match cost.way {
            Way::Bare => "bpf_wq_start",
            Way::Executor => "submit",
            _ => "bpf_ringbuf_output",
        };
        let mut cells = vec![name.to_owned()];
        cells.push(ratio(Some(cost.single.p50), bare.map(|bare| bare.single.p50)));
        cells.extend(shown(&cost.single).map(|n| n.to_string()));
        cells.push(ratio(Some(cost.burst.p50), bare.map(|bare| bare.burst.p50)));
        cells.extend(shown(&cost.burst).map(|n| n.to_string()));
        table.row(cells);
    }
    table
}

/// Memory of a job that can be pending, by kernel.
pub fn memory(results: &Results) -> Table {
    let kernels: Vec<&str> = results.kernels.iter().map(|k| k.kernel.as_str()).collect();
    let ratios = kernels.iter().map(|kernel| format!("of a ring's, {kernel}"));
    let bytes = kernels.iter().map(|kernel| format!("bytes, {kernel}"));
    let head: Vec<String> = [String::new()].into_iter().chain(ratios).chain(bytes).collect();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    let Some(first) = results.kernels.first() else { return table };
    for way in first.timed.memory.iter().map(|memory| memory.way) {
        let of = |kernel: &OfKernel, way| {
            kernel.timed.memory.iter().find(|memory| memory.way == way).map(|memory| memory.bytes)
        };
        let ratios = results.kernels.iter().map(|k| ratio(of(k, way), of(k, Way::Epoll)));
        let bytes = results.kernels.iter().map(|k| text(of(k, way)));
        let name = if way == Way::Epoll { "ring buffer".to_owned() } else { way.to_string() };
        table.row([name].into_iter().chain(ratios).chain(bytes).collect());
    }
    table
}

/// Submissions behind jobs that wait, in ns, and how fast those are done then.
pub fn deep(kernel: &OfKernel) -> Table {
    let head = ["pending", "submit: of 1 pending", "p50", "p99", "p99.9", "max", "thousand done/s"];
    let mut table = Table::new(&head);
    let deep = kernel.timed.growth.iter().flat_map(|growth| &growth.deep);
    let first = deep.clone().next().map(|first| first.submit_ns.p50);
    for row in deep {
        let mut cells = vec![row.pending.to_string(), ratio(Some(row.submit_ns.p50), first)];
        cells.extend(shown(&row.submit_ns).map(|n| n.to_string()));
        cells.push((row.drained_per_second / 1000).to_string());
        table.row(cells);
    }
    table
}

/// Jobs a second by workers and sleep.
pub fn wide(kernel: &OfKernel) -> Table {
    let head = ["workers", "sleep, ms", "of ideal", "slept, ms", "jobs/s", "jobs"];
    let mut table = Table::new(&head);
    for row in kernel.timed.growth.iter().flat_map(|growth| &growth.wide) {
        // As if workers did nothing but sleep, as long as they did.
        let ideal = match row.sleep_ms {
            0 => "-".to_owned(),
            _ => {
                let ideal = f64::from(row.workers) * 1e6 / row.slept_us.max(1) as f64;
                format!("{:.2}", row.per_second as f64 / ideal)
            }
        };
        table.row(vec![
            row.workers.to_string(),
            row.sleep_ms.to_string(),
            ideal,
            format!("{:.1}", row.slept_us as f64 / 1000.0),
            row.per_second.to_string(),
            row.jobs.to_string(),
        ]);
    }
    table
}

/// From the command to the verdict, in seconds.
pub fn runners(runners: &Runners) -> Table {
    let newest = runners.kernels.last().map_or("", String::as_str);
    let all = format!("{} kernels", runners.kernels.len());
    let of = |what: &str| format!("of cargo xtask's, {what}");
    let seconds = |what: &str| format!("seconds, {what}");
    let head = [of(newest), of(&all), seconds(newest), seconds(&all)];
    let names = head.iter().map(String::as_str);
    let head = [""].into_iter().chain(names).chain(["of a job that fails"]);
    let mut table = Table::new(&head.collect::<Vec<_>>());
    for runner in Runner::ALL {
        let p50 = |runner, asked| runners.of(runner, asked).0.map(|spread| spread.p50);
        let ratio = |asked| ratio(p50(runner, asked), p50(Runner::Xtask, asked));
        table.row(vec![
            runner.to_string(),
            ratio(Asked::One),
            ratio(Asked::Matrix),
            seconds_of(runners.of(runner, Asked::One)),
            seconds_of(runners.of(runner, Asked::Matrix)),
            runners.of_failing(runner).map_or("-".to_owned(), |verdict| verdict.to_string()),
        ]);
    }
    table
}

/// The median of right answers, the least and the most, and how many others there were.
fn seconds_of((right, others): (Option<Distribution>, usize)) -> String {
    let second = |ms: u64| format!("{:.1}", ms as f64 / 1000.0);
    let mut text = match right {
        None => "-".to_owned(),
        Some(spread) if spread.samples == 1 => second(spread.p50),
        Some(Distribution { p50, min, max, .. }) => {
            format!("{} ({} to {})", second(p50), second(min), second(max))
        }
    };
    if others > 0 {
        text += &format!(", and {others} without the right verdict");
    }
    text
}

fn shown(spread: &Distribution) -> [u64; 4] {
    [spread.p50, spread.p99, spread.p999, spread.max]
}

fn thousands(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1000.0)
}

fn text(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

fn ratio(of: Option<u64>, to: Option<u64>) -> String {
    match (of, to) {
        (Some(of), Some(to)) => format!("{:.2}", of as f64 / to.max(1) as f64),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runners::{Timed, Verdict};

    #[test]
    fn a_table_is_aligned_on_a_terminal_and_piped_on_a_page() {
        let mut table = Table::new(&["", "p50"]);
        table.row(vec!["executor".into(), "1".into()]);
        table.row(vec!["a".into(), "1000".into()]);
        assert_eq!(table.text(), "           p50\nexecutor     1\na         1000\n");
        assert_eq!(table.markdown(), "|  | p50 |\n|---|---|\n| executor | 1 |\n| a | 1000 |\n");
    }

    #[test]
    fn a_runner_without_the_right_verdict_has_no_time() {
        let timed = |runner, asked, ms, verdict| Timed { runner, asked, ms, verdict };
        let [ours, other, last] = Runner::ALL;
        let measured = Runners {
            command: String::new(),
            machine: String::new(),
            accel: "TCG".into(),
            kernels: vec!["6.12".into(), "7.3".into()],
            timed: vec![
                timed(ours, Asked::Failing, 1, Verdict::Failed),
                timed(other, Asked::Failing, 1, Verdict::Passed),
                timed(ours, Asked::One, 10_000, Verdict::Passed),
                timed(ours, Asked::One, 12_000, Verdict::Passed),
                timed(other, Asked::One, 15_000, Verdict::Passed),
                timed(other, Asked::One, 900_000, Verdict::None),
                timed(last, Asked::One, 1000, Verdict::Failed),
            ],
        };
        let table = runners(&measured);
        assert_eq!(table.head[1..3], ["of cargo xtask's, 7.3", "of cargo xtask's, 2 kernels"]);
        let rows: Vec<&[String]> = table.rows.iter().map(|row| &row[1..]).collect();
        assert_eq!(rows[0], ["1.00", "-", "10.0 (10.0 to 12.0)", "-", "failed"]);
        let other = "15.0, and 1 without the right verdict";
        assert_eq!(rows[1], ["1.50", "-", other, "-", "passed"]);
        assert_eq!(rows[2], ["-", "-", "-, and 1 without the right verdict", "-", "-"]);
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        assert_eq!(ratio(Some(3), Some(2)), "1.50");
        assert_eq!(ratio(None, Some(2)), "-");
        assert_eq!(ratio(Some(3), None), "-");
    }
}
