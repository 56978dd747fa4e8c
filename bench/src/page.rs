//! `docs/performance.md`, made from a run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::Way;
use crate::aims::{latency_p50, rate};
use crate::plots::{self, Plot};
use crate::results::{Job, OfKernel, Results};
use crate::runners::Runners;
use crate::tables::{self, Table};
use crate::throughput::SIZE_OF_WRITES;

/// The page, in the directory of documents.
pub const PAGE: &str = "performance.md";

/// What it is made from.
pub const DATA: &str = "performance.json";

/// Writes the page, its plots, and what they are made from.
///
/// # Errors
///
/// If something cannot be written.
pub fn write(results: &Results, docs: &Path) -> Result<()> {
    let put = |name: &str, text: String| {
        let path = docs.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put(DATA, serde_json::to_string_pretty(results)? + "\n")?;
    put(PAGE, markdown(results)?)?;
    plots::write(results, docs)
}

/// The page.
///
/// # Errors
///
/// None that is known of.
pub fn markdown(results: &Results) -> Result<String> {
    let mut page = include_str!("page/head.md").to_owned();
    how(&mut page, results)?;
    section(&mut page, include_str!("page/aims.md"), &[tables::aims(results)])?;
    page += include_str!("page/limits.md");
    for kernel in &results.kernels {
        limit(&mut page, kernel)?;
    }
    page += include_str!("page/work.md");

    page += include_str!("page/latency.md");
    for kernel in &results.kernels {
        let plots = [false, true].map(|is_loaded| plots::of_latency(kernel, is_loaded));
        of_kernel(&mut page, kernel, &[tables::latency(&kernel.timed)], &plots)?;
        let counted = tables::latency(&kernel.counted);
        part(&mut page, "In thousands of instructions of all CPUs:", &counted)?;
        claim(&mut page, kernel)?;
    }

    page += include_str!("page/throughput.md");
    for kernel in &results.kernels {
        let [counts, writes] =
            [Job::Counts, Job::Writes].map(|job| tables::throughput(&kernel.timed, job));
        let plots = [plots::of_throughput(kernel)];
        of_kernel(&mut page, kernel, &[counts], &plots)?;
        part(&mut page, &format!("Jobs of {SIZE_OF_WRITES} bytes that write to a map:"), &writes)?;
        part(
            &mut page,
            "Jobs that count, by their size, on 2 CPUs:",
            &tables::sizes(&kernel.timed, 2),
        )?;
        let [counts, writes] =
            [Job::Counts, Job::Writes].map(|job| tables::throughput(&kernel.counted, job));
        part(&mut page, "In a billion instructions of all CPUs, jobs that count:", &counts)?;
        part(&mut page, "And jobs that write to a map:", &writes)?;
    }

    page += include_str!("page/cost.md");
    for kernel in &results.kernels {
        let (counted, timed) = (&kernel.counted.cost, &kernel.timed.cost);
        of_kernel(&mut page, kernel, &[tables::cost(counted)], &[])?;
        part(&mut page, "The same in nanoseconds:", &tables::cost(timed))?;
    }
    section(&mut page, include_str!("page/memory.md"), &[tables::memory(results)])?;

    page += include_str!("page/growth.md");
    picture(&mut page, &plots::of_pending())?;
    for kernel in &results.kernels {
        let growth = [tables::deep(kernel)];
        of_kernel(&mut page, kernel, &growth, &[])?;
        part(&mut page, "Workers whose handlers sleep:", &tables::wide(kernel))?;
        picture(&mut page, &plots::of_sleep(kernel))?;
    }
    runner(&mut page, results.runners.as_ref())?;
    Ok(page)
}

/// How soon there is a verdict.
fn runner(page: &mut String, runners: Option<&Runners>) -> Result<()> {
    page.push_str(include_str!("page/runners.md"));
    let Some(runners) = runners else {
        page.push_str("\nIt was not measured.\n");
        return Ok(());
    };
    let Runners { command, machine, accel, kernels, .. } = runners;
    let kernels = kernels.join(", ");
    writeln!(page, "\n    {command}\n\non {machine}, by {accel}, on the kernels {kernels}:")?;
    section(page, "", &[tables::runners(runners)])
}

/// The command, the machine and the guests.
fn how(page: &mut String, results: &Results) -> Result<()> {
    let run = &results.run;
    writeln!(page, "\n    {}\n\non {}, in these guests:\n", run.command, run.machine)?;
    writeln!(page, "| kernel | guest | CPUs | accelerator |\n|---|---|---|---|")?;
    for guest in &run.guests {
        let (release, name) = (&guest.release, &guest.guest);
        writeln!(page, "| {release} | {name} | {} | {} |", guest.cpus, guest.accel)?;
    }
    let is_emulated = run.guests.iter().any(|guest| guest.accel == "TCG");
    if is_emulated {
        page.push_str(include_str!("page/emulated.md"));
    }
    Ok(())
}

fn section(page: &mut String, text: &str, of: &[Table]) -> Result<()> {
    page.push_str(text);
    of.iter().try_for_each(|table| Ok(writeln!(page, "\n{}", table.markdown().trim_end())?))
}

fn of_kernel(page: &mut String, kernel: &OfKernel, of: &[Table], plots: &[Plot]) -> Result<()> {
    section(page, &format!("\n### Linux {}\n", kernel.release), of)?;
    plots.iter().try_for_each(|plot| picture(page, plot))
}

fn part(page: &mut String, title: &str, table: &Table) -> Result<()> {
    if table.is_empty() {
        return Ok(());
    }
    Ok(writeln!(page, "\n{title}\n\n{}", table.markdown().trim_end())?)
}

fn picture(page: &mut String, plot: &Plot) -> Result<()> {
    Ok(writeln!(page, "\n![{}]({})", plot.alt, plot.file)?)
}

/// Why no way can be twice as fast as a ring buffer, in instructions of a job.
fn limit(page: &mut String, kernel: &OfKernel) -> Result<()> {
    let counted = &kernel.counted;
    let rate = |way| rate(counted, way, 2, SIZE_OF_WRITES, Job::Counts);
    let output = counted.cost.iter().find(|cost| cost.way == Way::Epoll);
    if let (Some(ring), Some(executor), Some(output)) =
        (rate(Way::Epoll), rate(Way::Executor), output)
    {
        let each = |rate: u64| 1_000_000_000 / rate.max(1);
        writeln!(
            page,
            "\nOn {}, a job takes {} instructions by the ring buffer, half of which are {}, and its output \
             alone {}; by the executor it takes {}.",
            kernel.kernel,
            each(ring),
            each(ring) / 2,
            output.burst.p50,
            each(executor)
        )?;
    }
    Ok(())
}

/// What has become of claim S8: that timers take microseconds, and workqueues milliseconds.
fn claim(page: &mut String, kernel: &OfKernel) -> Result<()> {
    let mut ratios = Vec::new();
    for (is_loaded, how) in [(false, "on idle CPUs"), (true, "under load")] {
        for (measured, unit) in [(&kernel.counted, "instructions"), (&kernel.timed, "time")] {
            let of = |way| latency_p50(measured, way, is_loaded);
            if let (Some(work), Some(timer)) = (of(Way::Bare), of(Way::Timer)) {
                let ratio = work as f64 / timer.max(1) as f64;
                ratios.push(format!("{ratio:.2} in {unit} {how}"));
            }
        }
    }
    if ratios.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\nClaim S8 is that timers have microsecond latency and workqueues milliseconds: a factor of \
         1000. The median of a bare bpf_wq, as a multiple of a bpf_timer's: {}.",
        ratios.join(", ")
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::results::json;
    use crate::runners::Runner;

    fn docs() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
    }

    #[test]
    fn the_documents_are_what_their_data_makes() {
        let results: Results = json(&docs().join(DATA)).expect("the data are there");
        let again = tempfile::tempdir().expect("a directory");
        write(&results, again.path()).expect("it is written");
        let mut made = 0;
        for entry in fs::read_dir(again.path()).expect("it is there") {
            let path = entry.expect("it is there").path();
            let name = path.file_name().expect("a name");
            let read = |path: &Path| fs::read_to_string(path).expect("it can be read");
            let is_same = read(&path) == read(&docs().join(name));
            assert!(is_same, "{name:?} differs: `cargo run -p bench -- page` writes it anew");
            made += 1;
        }
        assert!(made > 2, "{made} files");
    }

    #[test]
    fn every_way_and_guest_of_the_data_is_on_the_page() {
        let results: Results = json(&docs().join(DATA)).expect("the data are there");
        let page = markdown(&results).expect("it is made");
        let kernel = results.kernels.last().expect("a kernel");
        for latency in &kernel.timed.latency {
            assert!(page.contains(&format!("| {} |", latency.way)), "{}", latency.way);
        }
        for guest in &results.run.guests {
            assert!(page.contains(&format!("| {} | {} |", guest.release, guest.guest)));
        }
        assert!(page.contains(&results.run.command) && page.contains(&results.run.machine));
        assert_eq!(page.contains("It was not measured"), results.runners.is_none());
        for runner in Runner::ALL {
            let is_there = page.contains(&format!("| {runner} |"));
            assert_eq!(is_there, results.runners.is_some(), "{runner}");
        }
        let is_emulated = results.run.guests.iter().any(|guest| guest.accel == "TCG");
        assert_eq!(page.contains("absolute times do not"), is_emulated);
    }
}
