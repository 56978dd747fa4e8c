//! `cargo xtask torture`: one program of the workspace, for a given time, on several kernels.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Session;
use crate::cli::TortureOptions;
use crate::failure::{Exit, exit_of, usage};
use crate::job::Work;
use crate::kernels::{self, Choice};
use crate::workspace::guest_dir;
use crate::{accel, setup, vm};

/// What became of one kernel, for the program that makes a page of it.
#[derive(Debug, Serialize)]
struct Verdict {
    kernel: String,
    accelerator: String,
    passed: bool,
    /// Why it did not pass.
    reason: String,
    /// From the first boot to the verdict.
    seconds: u64,
}

impl Session<'_> {
    /// Runs the program that `[workspace.metadata.xtask] torture` names on each kernel, one after
    /// the other. What it leaves, and the verdict, are in results/NAME/KERNEL then.
    pub fn torture(&self, options: &TortureOptions) -> Result<Exit> {
        let Some(name) = &self.workspace.settings.torture else {
            return Err(usage("there is nothing to torture with: Cargo.toml names no program"));
        };
        let demo = self.workspace.demo(name)?;
        let choices = match &options.kernels[..] {
            [] => vec![Choice::Pinned(self.matrix.newest().clone())],
            words => kernels::choose(&self.matrix, words, options.modules.as_deref())?,
        };
        setup::ensure_tools()?;
        let program = self.workspace.build_demo(demo)?;
        let seconds = options.time.as_secs().max(1);
        let mut args = demo.args.clone();
        args.extend(["--seconds".to_owned(), seconds.to_string()]);
        args.extend(options.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));

        let mut verdicts = Vec::new();
        let mut worst = Exit::Passed;
        for choice in &choices {
            let begun = Instant::now();
            let work = Work::Run { program: program.clone(), args: args.clone() };
            let ran = self.candidate(choice).and_then(|candidate| {
                let accel = self.choose_accel(&candidate.kernel)?;
                self.one_guest(&candidate, accel, seconds + options.deadline, &work)
            });
            let (exit, reason) = match ran {
                Ok(_) => (Exit::Passed, String::new()),
                Err(error) => (exit_of(&error), format!("{error:#}")),
            };
            if exit == Exit::Interrupted {
                return Ok(exit);
            }
            if worst == Exit::Passed {
                worst = exit;
            }
            if !reason.is_empty() {
                self.ui.say(format!("{}: {reason}", choice.name()));
            }
            let to = self.workspace.target.join("results").join(name).join(choice.name());
            let verdict = self.verdict(choice, exit, reason, begun.elapsed())?;
            self.keep(choice, &verdict, &to)?;
            verdicts.push(verdict);
        }
        self.ui.say(table(&verdicts));
        Ok(worst)
    }

    fn verdict(
        &self,
        choice: &Choice,
        exit: Exit,
        reason: String,
        took: Duration,
    ) -> Result<Verdict> {
        let kernel = self.candidate(choice).map(|candidate| candidate.kernel);
        // Without a kernel nothing has run.
        let accelerator = match kernel {
            Ok(kernel) => {
                let cache = self.place.cache()?;
                accel::choose(self.place.accel, &kernel.vmlinuz, cache.dir())?.0.to_string()
            }
            Err(_) => String::new(),
        };
        let (kernel, passed) = (choice.name(), exit == Exit::Passed);
        Ok(Verdict { kernel, accelerator, passed, reason, seconds: took.as_secs() })
    }

    /// In place of what an earlier run has left.
    fn keep(&self, choice: &Choice, verdict: &Verdict, to: &Path) -> Result<()> {
        let explain = || format!("writing to {}", to.display());
        if to.exists() {
            fs::remove_dir_all(to).with_context(explain)?;
        }
        fs::create_dir_all(to).with_context(explain)?;
        let guest = guest_dir(&self.workspace.target, &choice.name())?;
        // Without a kernel there was no guest.
        if vm::results(&guest).exists() {
            self.bring(&guest, to)?;
        }
        let file = to.join("verdict.json");
        fs::write(&file, serde_json::to_string_pretty(verdict)? + "\n").with_context(explain)?;
        self.ui.say(format!("result: {}", file.display()));
        Ok(())
    }
}

fn table(verdicts: &[Verdict]) -> String {
    let mut lines = vec![format!("{:<12}{:<10}{:>8}", "kernel", "verdict", "seconds")];
    lines.extend(verdicts.iter().map(|verdict| {
        let outcome = if verdict.passed { "passed" } else { "failed" };
        // The rest has been said.
        let reason = verdict.reason.lines().next().unwrap_or_default();
        let line = format!("{:<12}{outcome:<10}{:>8}  {reason}", verdict.kernel, verdict.seconds);
        line.trim_end().to_owned()
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_a_kernel() {
        let verdict = |kernel: &str, reason: &str| Verdict {
            kernel: kernel.into(),
            accelerator: "TCG".into(),
            passed: reason.is_empty(),
            reason: reason.into(),
            seconds: 9,
        };
        let table = table(&[verdict("6.12", ""), verdict("7.3-debug", "the program\nfailed")]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert_eq!(lines[1], "6.12        passed           9");
        assert_eq!(lines[2], "7.3-debug   failed           9  the program");
    }
}
