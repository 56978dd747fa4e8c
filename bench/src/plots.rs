//! The page's plots.

use std::path::Path;

use anyhow::Result;
use figures::{Axis, Line, Scale, plot};

use crate::Way;
use crate::aims::{condition, cpu_counts};
use crate::results::{Job, OfKernel, Results};
use crate::throughput::SIZE_OF_WRITES;

fn axis(name: &str, scale: Scale) -> Axis<'_> {
    Axis { name, scale }
}

/// A plot's file in the directory of the page, and its words for who does not see it.
pub struct Plot {
    /// Its name.
    pub file: String,
    /// What it shows.
    pub alt: String,
}

/// Writes all of which something was measured, into the page's directory. Those of all kernels have
/// none.
pub fn write(results: &Results, dir: &Path) -> Result<()> {
    for kernel in &results.kernels {
        for is_loaded in [false, true] {
            latency(kernel, is_loaded, dir)?;
        }
        throughput(kernel, dir)?;
        sleep(kernel, dir)?;
    }
    pending(results, dir)
}

/// See [`write`].
pub fn of_latency(kernel: &OfKernel, is_loaded: bool) -> Plot {
    let (name, condition) = (&kernel.kernel, condition(is_loaded));
    Plot {
        file: format!("performance-latency-{name}-{}.svg", condition.replace(' ', "-")),
        alt: format!("Linux {name}, {condition}: how many in a thousand begin later than that"),
    }
}

/// See [`write`].
pub fn of_throughput(kernel: &OfKernel) -> Plot {
    let name = &kernel.kernel;
    Plot {
        file: format!("performance-throughput-{name}.svg"),
        alt: format!("Linux {name}: jobs a second by the number of CPUs"),
    }
}

/// See [`write`].
pub fn of_sleep(kernel: &OfKernel) -> Plot {
    let name = &kernel.kernel;
    Plot {
        file: format!("performance-sleep-{name}.svg"),
        alt: format!("Linux {name}: jobs a second by the number of workers, for each sleep"),
    }
}

/// See [`write`].
pub fn of_pending() -> Plot {
    Plot {
        file: "performance-pending.svg".to_owned(),
        alt: "What a submission takes, by the number of jobs that wait".to_owned(),
    }
}

fn latency(kernel: &OfKernel, is_loaded: bool, dir: &Path) -> Result<()> {
    let Plot { file, .. } = of_latency(kernel, is_loaded);
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for of in &kernel.timed.latency {
        if of.is_loaded == is_loaded && !of.is_elsewhere {
            let ns = &of.ns;
            let points =
                [(1.0, ns.min), (2.0, ns.p50), (10.0, ns.p90), (100.0, ns.p99), (1000.0, ns.p999)];
            let points = points.map(|(one_in, ns)| (one_in, ns as f64 / 1000.0));
            lines.push((of.way.to_string(), points.to_vec()));
        }
    }
    let title = format!("Linux {}, {}, same CPU", kernel.kernel, condition(is_loaded));
    let x = axis("one in so many begins later (1: the soonest)", Scale::Log);
    draw(&dir.join(file), &title, x, axis("microseconds", Scale::Log), &lines)
}

fn throughput(kernel: &OfKernel, dir: &Path) -> Result<()> {
    let Plot { file, .. } = of_throughput(kernel);
    let ways = [Way::Bare, Way::Executor, Way::Timer, Way::TaskWork, Way::Epoll, Way::Busy];
    let line = |way: Way| {
        let points = cpu_counts(&kernel.timed).into_iter().filter_map(|cpus| {
            let (bytes, job) = (SIZE_OF_WRITES, Job::Counts);
            let rate = crate::aims::rate(&kernel.timed, way, cpus, bytes, job)?;
            Some((cpus as f64, rate as f64))
        });
        (way.to_string(), points.collect::<Vec<_>>())
    };
    let lines: Vec<_> =
        ways.into_iter().map(line).filter(|(_, points)| !points.is_empty()).collect();
    let title = format!("Linux {}, jobs of {SIZE_OF_WRITES} bytes that count", kernel.kernel);
    let y = axis("jobs a second", Scale::Linear);
    draw(&dir.join(file), &title, axis("CPUs", Scale::Linear), y, &lines)
}

fn sleep(kernel: &OfKernel, dir: &Path) -> Result<()> {
    let Plot { file, .. } = of_sleep(kernel);
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in kernel.timed.growth.iter().flat_map(|growth| &growth.wide) {
        let name = format!("{} ms", row.sleep_ms);
        let point = (f64::from(row.workers), row.per_second.max(1) as f64);
        match lines.iter_mut().find(|(other, _)| *other == name) {
            Some((_, points)) => points.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    let title = format!("Linux {}, handlers that sleep", kernel.kernel);
    let y = axis("jobs a second", Scale::Log);
    draw(&dir.join(file), &title, axis("workers", Scale::Log), y, &lines)
}

fn pending(results: &Results, dir: &Path) -> Result<()> {
    let line = |kernel: &OfKernel| {
        let deep = kernel.timed.growth.iter().flat_map(|growth| &growth.deep);
        let point = |row: &crate::results::Deep| (row.pending as f64, row.submit_ns.p50 as f64);
        (format!("Linux {}", kernel.kernel), deep.map(point).collect::<Vec<_>>())
    };
    let lines: Vec<_> =
        results.kernels.iter().map(line).filter(|(_, points)| !points.is_empty()).collect();
    let (x, y) = (axis("jobs that wait", Scale::Log), axis("ns a submission", Scale::Linear));
    draw(&dir.join(of_pending().file), "A submission behind others", x, y, &lines)
}

/// Nothing, if nothing was measured.
fn draw(
    path: &Path,
    title: &str,
    x: Axis<'_>,
    y: Axis<'_>,
    lines: &[(String, Vec<(f64, f64)>)],
) -> Result<()> {
    let lines: Vec<Line<'_>> =
        lines.iter().map(|(name, points)| (name.as_str(), points.clone())).collect();
    if lines.is_empty() { Ok(()) } else { plot(path, title, x, y, &lines) }
}
