//! What the commands that boot guests do, on the workspace of the current directory.

mod runners;
mod torture;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::accel::{self, Accel};
use crate::batch::Share;
use crate::bench::{Measured, Run};
use crate::cli::{BenchOptions, OneKernel, Place, TestOptions};
use crate::config::{Matrix, Targets};
use crate::failure::{Exit, exit_of, failed, usage};
use crate::job::{Event, Filter, TestBinary, Work};
use crate::kernels::{self, Choice, Kernel};
use crate::libtest::Test;
use crate::mutate::Mutants;
use crate::report::{self, KernelReport, Verdict};
use crate::test::{self, Candidate, KernelWork, Plan};
use crate::ui::Ui;
use crate::vm::{self, End, Guest, News};
use crate::workspace::{Workspace, filter, guest_dir};
use crate::{batch, console, libtest, mutate, setup, terminal, verdict};

/// A kernel's name, and why it cannot be booted.
type Missing = (String, anyhow::Error);

/// A command's surroundings.
pub struct Session<'a> {
    /// Where it was called.
    pub workspace: Workspace,
    /// `kernels.toml`.
    pub matrix: Matrix,
    targets: Targets,
    place: &'a Place,
    ui: Ui,
}

impl<'a> Session<'a> {
    /// Reads the workspace's files.
    pub fn open(place: &'a Place) -> Result<Self> {
        let workspace = Workspace::find()?;
        let matrix = Matrix::load(&workspace.root)?;
        let targets = Targets::load(&workspace.root, &matrix)?;
        Ok(Session { workspace, matrix, targets, place, ui: Ui::default() })
    }

    /// Runs the workspace's tests, and prints and writes the reports.
    pub fn test(&self, options: &TestOptions) -> Result<Exit> {
        let filter = filter(&options.libtest)?;
        let choices = kernels::choose(&self.matrix, &options.kernels, options.modules.as_deref())?;
        self.workspace.check_tests(&options.tests)?;
        for choice in &choices {
            let wrong = || format!("kernels.toml: {}: tests", choice.name());
            self.workspace.check_tests(choice.tests()).with_context(wrong)?;
        }
        setup::ensure_tools()?;
        report::clear(&self.workspace.target)?;
        let binaries = self.workspace.build_tests(&options.tests)?;
        let chosen = libtest::chosen(&binaries, &filter)?;
        if chosen.iter().all(|test| test.is_ignored) {
            return Err(usage(format!(
                "no test was chosen by {:?}, or only tests marked #[ignore]: a run of none proves \
                 nothing; `cargo test -- --list` names them",
                options.libtest
            )));
        }
        let (choices, shares) = self.shares(choices, &binaries, &filter, &chosen)?;
        let host = match options.is_full() {
            true => self.workspace.test_host(),
            false => Ok(()),
        };
        match &host {
            Err(e) if exit_of(e) == Exit::Interrupted => return host.map(|()| Exit::Interrupted),
            Err(e) => self.ui.say(format!("{e:#}; the guests' tests go on")),
            Ok(()) => (),
        }

        let (candidates, mut missing) = self.candidates(&choices)?;
        if candidates.is_empty() {
            return Err(missing.remove(0).1);
        }
        let accel = self.choose_accel(&candidates[0].kernel)?;
        let jobs = match (options.shell_on_failure, options.jobs) {
            (true, _) => 1,
            (false, Some(jobs)) => jobs.into(),
            (false, None) => accel.guests_at_once(&candidates[0].config)?,
        };
        let deadline = Duration::from_secs(options.deadline);
        let shell_on_failure = options.shell_on_failure;
        let plan = Plan { accel, deadline, jobs, shell_on_failure };
        let work: Vec<KernelWork> =
            candidates.iter().map(|c| (c, &shares[&c.kernel.name])).collect();
        let mut reports = test::run(&work, &plan, &self.ui)?;
        for (name, e) in missing {
            reports.push(KernelReport::error(name, accel, format!("{e:#}")));
        }
        let part = !(options.tests.is_empty() && options.libtest.is_empty());
        for report in &mut reports {
            report.part = part;
            let pinned = self.matrix.find(&report.kernel);
            report.targets = pinned.map(|pinned| pinned.tests.clone()).unwrap_or_default();
        }
        // A part of the matrix, or of the tests, may well be one that skips.
        let never_ran = match options.is_full() {
            true => report::never_ran(&reports),
            false => vec![],
        };
        self.show(&reports, &never_ran)?;
        host?;
        Ok(report::exit(&reports, &never_ran))
    }

    /// Builds the mutants of `mutations.toml`, and looks whether their tests fail.
    pub fn mutate(&self, on: &OneKernel) -> Result<Exit> {
        let mutations = mutate::load(&self.workspace.root)?;
        let choice = self.choice(on)?;
        setup::ensure_tools()?;
        let candidate = self.candidate_on(&choice, on.cpus)?;
        let accel = self.choose_accel(&candidate.kernel)?;
        let jobs = accel.guests_at_once(&candidate.config)?;
        let run = |batches| -> Result<KernelReport> {
            let deadline = Duration::from_secs(on.deadline);
            let plan = Plan { accel, deadline, jobs, shell_on_failure: false };
            let share = Share { batches, ignored: vec![] };
            Ok(test::run(&[(&candidate, &share)], &plan, &self.ui)?.remove(0))
        };
        let mutants = Mutants::of(&self.workspace)?;
        self.ui.say("the tests as they are, which have to pass:");
        mutate::judge_originals(&run(vec![mutants.originals(&mutations)?])?)?;
        let mut batches = Vec::new();
        for (index, mutation) in mutations.iter().enumerate() {
            batches.push(mutants.build(index, mutation)?);
        }
        self.ui.say("the mutants, which have to fail:");
        let (table, survivors) = mutate::judge_mutants(&mutations, &run(batches)?);
        self.ui.say(table);
        match survivors {
            0 => Ok(Exit::Passed),
            n => Err(failed(format!("{n} of {} mutants were not caught", mutations.len()))),
        }
    }

    fn show(&self, reports: &[KernelReport], never_ran: &[String]) -> Result<()> {
        let target = &self.workspace.target;
        let own = reports.iter().filter(|report| self.matrix.find(&report.kernel).is_none());
        let newest = &self.matrix.newest().version;
        let verdicts: String = own.map(|report| verdict::text(report, newest)).collect();
        report::write(reports, never_ran, &verdicts, target)?;
        self.ui.say(report::details(reports) + &report::unproved(never_ran));
        self.ui.say(verdicts);
        self.ui.say(report::table(reports));
        self.ui.say(format!("reports: {}/kernel-report.{{json,xml,txt}}", target.display()));
        let unknown = reports.iter().filter(|r| r.outcome == Verdict::Error).count();
        if unknown > 0 {
            self.ui.say(format!("without a verdict: {unknown} of {} kernels", reports.len()));
        }
        self.ui.say(report::total(reports));
        Ok(())
    }

    /// The kernels that any of the chosen tests runs on, and what does, by their names.
    fn shares(
        &self,
        choices: Vec<Choice>,
        binaries: &[TestBinary],
        filter: &Filter,
        chosen: &[Test],
    ) -> Result<(Vec<Choice>, BTreeMap<String, Share>)> {
        let mut shares = BTreeMap::new();
        let mut with_tests = Vec::new();
        for choice in choices {
            let share = batch::share(binaries, filter, chosen, choice.tests());
            if share.batches.is_empty() {
                self.ui.say(format!("{}: none of these tests runs on it", choice.name()));
                continue;
            }
            shares.insert(choice.name(), share);
            with_tests.push(choice);
        }
        if with_tests.is_empty() {
            return Err(usage(
                "no kernel runs any of these tests: kernels.toml says which run on which",
            ));
        }
        Ok((with_tests, shares))
    }

    /// The kernels that can be booted, and why the others cannot.
    fn candidates(&self, choices: &[Choice]) -> Result<(Vec<Candidate>, Vec<Missing>)> {
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut missing: Vec<Missing> = Vec::new();
        for choice in choices {
            let name = choice.name();
            match self.candidate(choice) {
                Ok(new) if candidates.iter().any(|known| known.dir == new.dir) => {
                    return Err(usage(format!("two kernels are called {name}: rename one")));
                }
                Ok(candidate) => candidates.push(candidate),
                Err(e) if exit_of(&e) != Exit::Infrastructure => return Err(e),
                Err(e) => {
                    self.ui.say(format!("{name}: {e:#}"));
                    missing.push((name, e));
                }
            }
        }
        Ok((candidates, missing))
    }

    fn candidate(&self, choice: &Choice) -> Result<Candidate> {
        let mirror = self.place.mirror.as_deref();
        let kernel = kernels::ensure(choice, &self.matrix, &self.place.cache()?, mirror)?;
        let config = self.targets.vm(&kernel.name);
        let dir = guest_dir(&self.workspace.target, &kernel.name)?;
        Ok(Candidate { kernel, config, dir })
    }

    /// The same, with so many CPUs, if a number is named.
    fn candidate_on(&self, choice: &Choice, cpus: Option<u8>) -> Result<Candidate> {
        let mut candidate = self.candidate(choice)?;
        candidate.config.num_cpus = cpus.unwrap_or(candidate.config.num_cpus);
        Ok(candidate)
    }

    fn choose_accel(&self, kernel: &Kernel) -> Result<Accel> {
        let cache = self.place.cache()?;
        let (accel, why) = accel::choose(self.place.accel, &kernel.vmlinuz, cache.dir())?;
        self.ui.say(format!("accelerator: {why}"));
        Ok(accel)
    }

    /// Shows a demo at work in a guest.
    pub fn demo(&self, name: Option<String>, args: Vec<String>, on: &OneKernel) -> Result<Exit> {
        let Some(name) = name.or_else(|| self.workspace.settings.demo.clone()) else {
            return Err(usage("name a demo: Cargo.toml names none"));
        };
        let demo = self.workspace.demo(&name)?;
        let choice = self.choice(on)?;
        setup::ensure_tools()?;
        let program = self.workspace.build_demo(demo)?;
        let args = if args.is_empty() { demo.args.clone() } else { args };
        let candidate = self.candidate_on(&choice, on.cpus)?;
        let accel = self.choose_accel(&candidate.kernel)?;
        self.one_guest(&candidate, accel, on.deadline, &Work::Run { program, args })?;
        self.bring(&candidate.dir, &self.workspace.target.join("results").join(&name))?;
        Ok(Exit::Passed)
    }

    /// Measures in one guest after the other, and shows the report.
    pub fn bench(&self, options: &BenchOptions) -> Result<Exit> {
        let (name, bench) = self.workspace.bench()?;
        let words = bench.kernels(&self.matrix, &options.kernels);
        let choices = kernels::choose(&self.matrix, &words, options.modules.as_deref())?;
        setup::ensure_tools()?;
        let program = self.workspace.build_bench(name)?;
        let results = self.workspace.target.join("results").join(name);
        if results.exists() {
            fs::remove_dir_all(&results)
                .with_context(|| format!("cannot clear {}", results.display()))?;
        }
        let mut run = Run::begin()?;
        for choice in &choices {
            let candidate = self.candidate(choice)?;
            let accel = self.choose_accel(&candidate.kernel)?;
            for guest in &bench.guests {
                self.ui.say(format!("{}: {}", choice.name(), guest.name));
                let candidate = self.candidate_on(choice, guest.cpus)?;
                let accel = guest.accel.unwrap_or(accel);
                let args = [&guest.args[..], &options.args].concat();
                let work = Work::Run { program: program.clone(), args };
                let release = self.one_guest(&candidate, accel, options.deadline, &work)?;
                let of = Path::new(&choice.name()).join(&guest.name);
                self.bring(&candidate.dir, &results.join(&of))?;
                run.guests.push(Measured {
                    kernel: choice.name(),
                    release,
                    guest: guest.name.clone(),
                    cpus: candidate.config.num_cpus,
                    accel: accel.to_string(),
                    results: of,
                });
            }
        }
        run.report(&program, &bench.report, &results)?;
        Ok(Exit::Passed)
    }

    /// Copies what a program has left in a guest of this directory, and says so.
    fn bring(&self, guest: &Path, to: &Path) -> Result<()> {
        let from = vm::results(guest);
        for entry in fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let file = to.join(entry.file_name());
                fs::create_dir_all(to)
                    .and_then(|()| fs::copy(entry.path(), &file))
                    .with_context(|| format!("bringing {} out of the guest", file.display()))?;
                self.ui.say(format!("result: {}", file.display()));
            }
        }
        Ok(())
    }

    /// Gives the user a root shell in a guest.
    pub fn shell(&self, on: &OneKernel) -> Result<Exit> {
        let choice = self.choice(on)?;
        setup::ensure_tools()?;
        let candidate = self.candidate_on(&choice, on.cpus)?;
        let accel = self.choose_accel(&candidate.kernel)?;
        self.one_guest(&candidate, accel, on.deadline, &Work::Hold)?;
        Ok(Exit::Passed)
    }

    fn choice(&self, on: &OneKernel) -> Result<Choice> {
        let modules = on.modules.as_deref();
        Ok(match &on.kernel {
            Some(word) => {
                kernels::choose(&self.matrix, std::slice::from_ref(word), modules)?.remove(0)
            }
            None => Choice::Pinned(self.matrix.newest().clone()),
        })
    }

    /// Runs one guest for a person, and shows what it says as it says it. Gives the kernel's release.
    fn one_guest(
        &self,
        candidate: &Candidate,
        accel: Accel,
        deadline: u64,
        work: &Work,
    ) -> Result<String> {
        let Candidate { kernel, config, dir } = candidate;
        let deadline = Duration::from_secs(deadline);
        let guest = Guest { kernel, config, accel, deadline, dir: dir.clone() };
        let line = self.ui.guest(&kernel.name);
        let mut booted = String::new();
        let ran = guest.run(work, false, &mut |news| match news {
            News::Again(why) => self.ui.say(format!("{}: booting once more: {why}", kernel.name)),
            News::Line(text) => self.ui.say(text),
            News::Event(Event::Started { release }) => {
                booted.clone_from(release);
                line.shows(format!("Linux {release}"));
            }
            News::Event(_) => (),
            News::Held(console) => terminal::attach(console, &self.ui),
        })?;
        drop(line);
        let (success, how) = match ran.end {
            End::NoBoot { why, .. } => bail!("{}: {why}", kernel.name),
            // What a person does to the guest is no verdict.
            End::Marker { .. } if matches!(work, Work::Hold) => return Ok(booted),
            End::Marker { success, how } => (Some(success), how),
            End::NoMarker(why) => (None, why),
        };
        let log = guest.console_log();
        if let Some(quoted) = console::Scanner::new()?.scan(&log, success.is_some())? {
            return Err(failed(format!("the kernel reported a fault:\n{quoted}")));
        }
        match success {
            Some(true) => Ok(booted),
            Some(false) => Err(failed(format!("the program failed: {how}"))),
            None => Err(failed(format!("the guest ended without a verdict: {how}"))),
        }
    }
}
