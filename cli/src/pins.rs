//! Pins, for people and machines.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anstyle::Style;
use bpf_wq::{Cleared, Counters, Pin, pins};
use serde_json::{Value, json};

const BOLD: Style = Style::new().bold();

/// The pins in a directory and all below it, and what could not be read of that.
pub fn find(directory: &Path) -> (Vec<Pin>, Vec<String>) {
    let mut found = Vec::new();
    let mut unread = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(at) = waiting.pop() {
        match look(&at) {
            Ok((pins, below)) => {
                found.extend(pins);
                waiting.extend(below);
            }
            // Somebody has removed it meanwhile.
            Err(_) if at != directory && !at.exists() => {}
            Err(error) => unread.push(error),
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    (found, unread)
}

/// Fails if what was meant may be elsewhere: in the directory above, or in one below.
pub fn check_is_theirs(directory: &Path) -> Result<(), String> {
    let directory = fs::canonicalize(directory).map_err(|error| error.to_string())?;
    let above = directory.parent().and_then(|above| pins(above).ok());
    let is_pin = above.is_some_and(|pins| pins.iter().any(|pin| pin.path == directory));
    let (below, _) = find(&directory);
    let place = match below.first() {
        _ if is_pin => directory.parent(),
        Some(pin) => pin.path.parent(),
        None => None,
    };
    match place {
        Some(place) => {
            let (directory, place) = (directory.display(), place.display());
            Err(format!("{directory} holds no pins: give the directory that does, {place}"))
        }
        None => Ok(()),
    }
}

/// The pins in a directory, and the other directories there.
fn look(at: &Path) -> Result<(Vec<Pin>, Vec<PathBuf>), String> {
    let found = pins(at).map_err(|error| error.to_string())?;
    let read = |error: io::Error| format!("cannot read {}: {error}", at.display());
    let mut below = Vec::new();
    for entry in fs::read_dir(at).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        if entry.file_type().map_err(read)?.is_dir() && found.iter().all(|pin| pin.path != path) {
            below.push(path);
        }
    }
    Ok((found, below))
}

/// Prints a block for each pin, and how many there are.
pub fn print(out: &mut impl Write, directory: &Path, pins: &[Pin]) -> io::Result<()> {
    for pin in pins {
        let parts = [
            count(pin.maps.len(), "map"),
            count(pin.programs.len(), "program"),
            count(pin.links.len(), "link"),
        ];
        let (path, state) = (pin.path.display(), pin.state);
        writeln!(out, "{BOLD}{path}{BOLD:#}  {state}  {}", parts.join(", "))?;
        for (name, counters) in &pin.counters {
            writeln!(out, "    {name}  {counters}")?;
        }
        for path in &pin.unknown {
            writeln!(out, "    {} is no part of it", path.display())?;
        }
    }
    let found = if pins.is_empty() { "no pins".to_owned() } else { count(pins.len(), "pin") };
    writeln!(out, "{}: {found}", directory.display())
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A list of the pins.
pub fn report(pins: &[Pin]) -> Value {
    pins.iter().map(pin).collect()
}

/// `build` is null of a pin that is not whole yet.
fn pin(pin: &Pin) -> Value {
    json!({
        "path": pin.path.to_string_lossy(),
        "build": pin.build.map(|build| build.to_string()),
        "state": pin.state.to_string(),
        "maps": pin.maps,
        "programs": pin.programs,
        "links": pin.links,
        "queues": pin.counters.iter().map(queue).collect::<Vec<_>>(),
        "unknown": pin.unknown.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
    })
}

fn queue((name, counters): &(String, Counters)) -> Value {
    json!({
        "name": name,
        "in_flight": counters.in_flight,
        "running": counters.running,
        "longest": counters.longest,
        "accepted": counters.accepted,
        "refused": counters.refused,
        "done": counters.done,
        "failed": counters.failed,
        "retried": counters.retried,
        "cancelled": counters.cancelled,
    })
}

/// Prints a line for each pin that was removed.
pub fn print_cleared(
    out: &mut impl Write,
    directory: &Path,
    cleared: &[Cleared],
) -> io::Result<()> {
    for Cleared { name, drained } in cleared {
        writeln!(out, "removed {}: {drained}", directory.join(name).display())?;
    }
    if cleared.is_empty() {
        writeln!(out, "{}: no pins", directory.display())?;
    }
    Ok(())
}

/// Whether work was lost in removing these.
pub fn is_lost(cleared: &[Cleared]) -> bool {
    cleared.iter().any(|cleared| !cleared.drained.is_complete())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpf_wq::Drained;

    #[test]
    fn lost_work_is_told() {
        let cleared = |name: &str, left: &[(String, u64)]| Cleared {
            name: name.to_owned(),
            drained: Drained { left: left.to_vec() },
        };
        let mut removed = vec![cleared("new-1", &[])];
        assert!(!is_lost(&removed));
        removed.push(cleared("new-2", &[("jobs".to_owned(), 5)]));
        assert!(is_lost(&removed));
        let mut out = Vec::new();
        print_cleared(&mut out, Path::new("/at"), &removed).expect("memory");
        let said = "removed /at/new-1: all work is done\nremoved /at/new-2: not done: 5 of jobs\n";
        assert_eq!(String::from_utf8(out).expect("UTF-8"), said);
    }
}
