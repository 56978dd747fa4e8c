//! Findings for people.

use std::io::{self, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use bpf_wq::lint::{Effect, Finding, Step, Target, Version};

const BOLD: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// Prints a block for each finding, and how many there are.
pub fn print(
    out: &mut impl Write,
    file: &Path,
    kernel: &Target,
    findings: &[Finding],
) -> io::Result<()> {
    let symbols = findings.iter().map(|finding| finding.symbol.len()).max().unwrap_or(0);
    for finding in findings {
        let style = style(finding.effect);
        let (symbol, effect) = (&finding.symbol, finding.effect.name());
        writeln!(
            out,
            "{BOLD}{symbol:symbols$}{BOLD:#}  {style}{effect:9}{style:#}  {}",
            finding.fault
        )?;
        let indent = symbols + 2;
        writeln!(out, "{:indent$}{:9}  {}", "", "remedy", finding.remedy())?;
        if !finding.history.is_empty() {
            let history = kernels(&finding.history);
            writeln!(out, "{:indent$}{FAINT}{:9}  {history}{FAINT:#}", "", "kernels")?;
        }
    }
    let found = match findings.len() {
        0 => "nothing found".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    let running = if kernel.is_running() { ", which is running" } else { "" };
    writeln!(out, "{}: {found} for linux {}{running}", file.display(), kernel.version())
}

fn style(effect: Effect) -> Style {
    let colour = match effect {
        Effect::Oops | Effect::Hang | Effect::Panic => AnsiColor::BrightRed,
        Effect::LostWork | Effect::Refused => AnsiColor::Yellow,
        Effect::Absent => AnsiColor::Cyan,
    };
    colour.on_default().bold()
}

/// Such as `6.10 oops; 6.18.2 refused (5f8d41172931)`.
fn kernels(history: &[Step]) -> String {
    let step = |step: &Step| {
        let effect = step.effect.map_or("no harm", Effect::name);
        let commit = step.commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
        if step.since == Version::new(0, 0, 0) {
            return format!("at first {effect}{commit}");
        }
        format!("since {} {effect}{commit}", step.since)
    };
    history.iter().map(step).collect::<Vec<_>>().join("; ")
}
