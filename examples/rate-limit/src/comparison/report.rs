//! The comparison, as a person reads it, and as plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use figures::{Axis, Line, Scale, plot};
use serde::Serialize;

use super::cost::Cost;
use super::course::{Course, FLOOD, LATE, Sample};
use super::{Cleaning, Machine};

/// Everything, as the JSON file has it.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    costs: &'a [Cost],
    courses: &'a [Course],
}

/// Writes `rate-limit.json` into a directory, and the plots of what there is.
pub fn write(to: &Path, machine: &Machine, costs: &[Cost], courses: &[Course]) -> Result<()> {
    let json = to.join("rate-limit.json");
    let text = serde_json::to_string_pretty(&Report { machine, costs, courses })? + "\n";
    fs::write(&json, text).with_context(|| format!("cannot write {}", json.display()))?;
    let entries: fn(&Sample) -> f64 = |sample| sample.entries as f64;
    let kilobytes: fn(&Sample) -> f64 = |sample| sample.bytes as f64 / 1000.0;
    let killed = format!("Sources that are tracked, a process killed after {LATE:?}");
    for (file, title, y, is_killed, value) in [
        ("entries", "Sources that are tracked", "entries", false, entries),
        ("memory", "Memory of the sources that are tracked", "kB", false, kilobytes),
        ("killed", &killed, "entries", true, entries),
    ] {
        let line = |course: &Course| {
            let points = course.samples.iter().map(|sample| (sample.seconds, value(sample)));
            (course.cleaning.name(), points.collect())
        };
        let shown = courses.iter().filter(|course| course.is_killed == is_killed);
        let lines: Vec<Line<'_>> = shown.map(line).collect();
        if lines.is_empty() {
            continue;
        }
        let title = format!("{title}: a flood of {FLOOD:?}, Linux {}", machine.kernel);
        let x = Axis { name: "seconds", scale: Scale::Linear };
        let y = Axis { name: y, scale: Scale::Linear };
        plot(&to.join(format!("rate-limit-{file}.svg")), &title, x, y, &lines)?;
    }
    Ok(())
}

/// What a packet costs: first how much more than where nobody cleans up.
pub fn costs(costs: &[Cost]) -> Result<String> {
    let nobody = costs.iter().find(|cost| cost.cleaning == Cleaning::Nobody);
    let nobody = nobody.context("nothing to compare with")?;
    let mut table = String::from(
        "| cleaned up by | known source | new source | known: median | new: median | mean | p99 |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for cost in costs {
        writeln!(
            table,
            "| {} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} |",
            cost.cleaning.name(),
            cost.known / nobody.known,
            cost.new / nobody.new,
            cost.known,
            cost.new,
            cost.new_mean,
            cost.new_p99
        )?;
    }
    Ok(table)
}

/// What was kept, and lost.
pub fn courses(courses: &[Course]) -> Result<String> {
    let mut table = String::from(
        "| cleaned up by | spoofed | most entries | bytes an entry | most kB | left | known: lost of | late: lost of |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for course in courses {
        writeln!(
            table,
            "| {}{} | {} | {} | {} | {:.0} | {} | {} of {} | {} of {} |",
            course.cleaning.name(),
            if course.is_killed { ", killed" } else { "" },
            course.spoofed,
            course.most(|sample| sample.entries),
            course.entry_bytes,
            course.most(|sample| sample.bytes) as f64 / 1000.0,
            course.left(),
            course.known.lost,
            course.known.sent,
            course.late.lost,
            course.late.sent
        )?;
    }
    Ok(table)
}
