//! Reads a guest's console log for what the kernel reports of itself. A log that cannot be read,
//! or that does not hold a boot, is a failure: silence is no proof.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;

/// How many lines are quoted from a report's first line on, if its end is not found before.
const QUOTED: usize = 60;

/// The last line of the kernel's own reports.
const REPORT_ENDS: &str = "---[ end ";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patterns {
    deny: Vec<String>,
    allow: Vec<Allow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    pattern: String,
    #[expect(dead_code, reason = "for the reader of the file, who must give it")]
    why: String,
}

/// The deny and the allow list of `console.toml`.
pub struct Scanner {
    deny: Vec<Regex>,
    allow: Vec<Regex>,
}

impl Scanner {
    /// Compiles the lists.
    pub fn new() -> Result<Self> {
        let lists: Patterns =
            toml::from_str(include_str!("console.toml")).context("console.toml")?;
        let compile = |p: &str| Regex::new(p).with_context(|| format!("console.toml: {p}"));
        Ok(Scanner {
            deny: lists.deny.iter().map(|p| compile(p)).collect::<Result<_>>()?,
            allow: lists.allow.iter().map(|a| compile(&a.pattern)).collect::<Result<_>>()?,
        })
    }

    /// The kernel's first report in the log, quoted with the lines behind it and the test that was
    /// running, or `None` for a clean log. A guest whose work is done has said so in the log, too:
    /// a log without that line has lost some, to a full disk for one.
    pub fn scan(&self, log: &Path, work_is_done: bool) -> Result<Option<String>> {
        let text = read(log)?;
        let cut = |lacks| format!("{} cannot be scanned: it lacks {lacks}", log.display());
        if !text.contains("Linux version ") {
            bail!(cut("the kernel's first line"));
        }
        if work_is_done && !is_whole(log) {
            bail!(cut("the guest's last line; is the disk full?"));
        }
        let lines: Vec<&str> = text.lines().collect();
        Ok(self.first_report(&lines))
    }

    /// The first report in these lines, quoted.
    pub fn first_report(&self, lines: &[&str]) -> Option<String> {
        let denied = |line: &&str| {
            let said = message(line);
            self.deny.iter().any(|r| r.is_match(said))
                && !self.allow.iter().any(|r| r.is_match(said))
        };
        let at = lines.iter().position(denied)?;
        let mut quoted = String::new();
        if let Some(test) = lines[..at].iter().rev().find_map(|l| message(l).strip_prefix(BEGIN)) {
            quoted.push_str(&format!("during {test}:\n"));
        }
        for line in lines[at..].iter().take(QUOTED) {
            quoted.push_str(line.trim_end());
            quoted.push('\n');
            if message(line).starts_with(REPORT_ENDS) {
                break;
            }
        }
        Some(quoted)
    }
}

/// What the guest writes to the kernel's log before a test, so that a report can be placed.
pub const BEGIN: &str = "xtask: begin ";

/// What the guest writes to the kernel's log when all its work is done.
pub const END: &str = "xtask: end";

/// Whether the log holds all that the kernel said until the work was done.
pub fn is_whole(log: &Path) -> bool {
    read(log).is_ok_and(|text| text.lines().any(|line| message(line) == END))
}

/// The end of a console log, for a guest of which nothing else is known.
pub fn last_lines(log: &Path, count: usize) -> String {
    match read(log) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        }
        Err(e) => format!("(no console: {e:#})"),
    }
}

/// The line that our PID 1 prints when it gives up.
pub fn refusal(log: &Path) -> Option<String> {
    let text = read(log).ok()?;
    let line = text.lines().rev().map(message).find(|l| l.starts_with("xtask-init: "))?;
    (!line.contains("root ready")).then(|| line.to_owned())
}

/// Whether our PID 1 ran at all.
pub fn init_ran(log: &Path) -> bool {
    read(log).is_ok_and(|text| text.contains("xtask-init: "))
}

/// The text of a console's log.
pub fn read(log: &Path) -> Result<String> {
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of the log without the kernel's time stamp (and the caller's id of
/// CONFIG_PRINTK_CALLER), nor what stands before it: the prompt of the shell that vmtest leaves on
/// the console has no newline behind it.
pub fn message(line: &str) -> &str {
    static STAMP: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\[ *\d+\.\d+\](\[ *[TC]\d+\])? ?").expect("a constant pattern")
    });
    match STAMP.find(line) {
        Some(stamp) => line[stamp.end()..].trim(),
        None => line.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Option<String> {
        Scanner::new().unwrap().first_report(lines)
    }

    #[test]
    fn a_report_is_quoted_with_the_test_that_ran() {
        let quoted = report(&[
            "[    1.0] xtask: begin suite::a",
            "[    2.0] xtask: begin suite::b",
            "[    2.1][   T45] WARNING: CPU: 0 PID: 1 at kernel/bpf/helpers.c:1",
            "[    2.1] Modules linked in:",
        ])
        .unwrap();
        assert!(quoted.starts_with("during suite::b:\n"), "{quoted}");
        assert!(quoted.contains("helpers.c:1") && quoted.contains("Modules linked"), "{quoted}");
    }

    #[test]
    fn every_kind_of_report_is_seen() {
        for line in [
            "WARNING: CPU: 1 PID: 1 at kernel/workqueue.c:10 x+0x1/0x2",
            "WARNING: possible circular locking dependency detected",
            "WARNING: suspicious RCU usage",
            "BUG: unable to handle page fault for address: ffff",
            "BUG: kernel NULL pointer dereference, address: 0",
            "BUG: KASAN: slab-use-after-free in x",
            "BUG: sleeping function called from invalid context at x.c:1",
            "kernel BUG at mm/slub.c:1!",
            "Oops: int3: 0000 [#1] SMP",
            "Oops: 0002 [#1] PREEMPT SMP",
            "Kernel panic - not syncing: Fatal exception in interrupt",
            "INFO: task kworker/0:1:10 blocked for more than 120 seconds.",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
            "general protection fault, probably for non-canonical address",
            "BUG kmalloc-64 (Not tainted): Poison overwritten",
            "divide error: 0000 [#1] PREEMPT SMP NOPTI",
            "int3: 0000 [#1] PREEMPT SMP NOPTI",
            "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1",
            "PANIC: double fault, error_code: 0x0",
            "unchecked MSR access error: RDMSR from 0x1",
        ] {
            assert!(report(&[&format!("[   12.345678] {line}")]).is_some(), "{line}");
        }
    }

    #[test]
    fn a_report_behind_a_prompt_is_seen() {
        assert!(
            report(&["\u{1b}[?2004hroot@(none):/# [    9.9] BUG: scheduling while atomic"])
                .is_some()
        );
    }

    #[test]
    fn ordinary_lines_are_no_report() {
        let boot = ["[    0.0] Linux version 6.12", "[    1.0] warning: fine", "Mem: BUG-free"];
        assert_eq!(report(&boot), None);
    }

    #[test]
    fn a_log_without_a_boot_cannot_be_scanned() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let scanner = Scanner::new().unwrap();
        assert!(scanner.scan(log.path(), false).is_err());
        assert!(scanner.scan(Path::new("/nonexistent/console.log"), false).is_err());
        fs::write(log.path(), "[    0.0] Linux version 6.12\r\n[    9.9] xtask: begin a\r\n")
            .unwrap();
        assert!(scanner.scan(log.path(), false).is_ok());
        assert!(scanner.scan(log.path(), true).is_err());
        fs::write(log.path(), "[    0.0] Linux version 6.12\r\n[    9.9] xtask: end\r\n").unwrap();
        assert_eq!(scanner.scan(log.path(), true).unwrap(), None);
    }
}
