//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::accel::{self, Accel};
use crate::cache::Cache;
use crate::config::{Matrix, Targets};
use crate::failure::{Exit, exit_of, failed, usage};
use crate::job::{Event, Work};
use crate::kernels::{self, Choice, Kernel};
use crate::report::{KernelReport, Verdict};
use crate::test::{self, Candidate, Plan};
use crate::ui::Ui;
use crate::vm::{End, Guest, News};
use crate::workspace::{Workspace, filter, guest_dir};
use crate::{console, guardian, guest, interrupt, libtest, report, setup, terminal};

const EXIT_CODES: &str = "\
Exit codes:
  0    everything ran and passed
  1    a test failed, or a guest's kernel reported a fault, died or hung
  2    the request cannot be carried out as written
  3    no verdict: a download, QEMU, or a guest's boot failed
  130  interrupted";

/// Runs this workspace's programs and tests in virtual machines, on real Linux kernels.
///
/// A kernel K is a series (6.12), a version (6.12.107), a release as uname prints it, or the path
/// of a bzImage. Kernels come from the machine's Debian mirror, are checked against kernels.toml,
/// and are kept in a cache. A guest sees this machine's files and can change none of them.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Place {
    /// Where kernels are kept [default: xtask in the user's cache directory]
    #[arg(long, global = true, value_name = "DIR", env = "XTASK_CACHE")]
    cache: Option<PathBuf>,
    /// The Debian mirror to fetch kernels from [default: the one that apt uses]
    #[arg(long, global = true, value_name = "URL", env = "XTASK_MIRROR")]
    mirror: Option<String>,
    /// How guests run [default: KVM if a probe guest runs under it, else TCG]
    #[arg(long, global = true, value_enum, env = "XTASK_ACCEL")]
    accel: Option<Accel>,
}

#[derive(Args)]
struct OneKernel {
    /// The kernel [default: the newest of kernels.toml]
    #[arg(short = 'k', long = "kernel", value_name = "K")]
    kernel: Option<String>,
    /// The directory of a bzImage's modules (lib/modules/RELEASE), if it has any
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// From a guest's boot to its verdict, or to a shell's prompt
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    deadline: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Run an example of the workspace in a guest and show what it prints
    Demo {
        /// The example [default: what Cargo.toml names]
        name: Option<String>,
        #[command(flatten)]
        on: OneKernel,
    },
    /// Run all tests as root on every kernel, or on the kernels named
    ///
    /// Without -k, the tests of the host (doc tests, and those of the runner) run first. Reports
    /// are written to kernel-report.json, .xml (JUnit) and .txt in the target directory.
    Test {
        /// A kernel; may be given several times [default: all of kernels.toml]
        #[arg(short = 'k', long = "kernel", value_name = "K")]
        kernels: Vec<String>,
        /// The directory of a bzImage's modules (lib/modules/RELEASE), if it has any
        #[arg(long, value_name = "DIR", requires = "kernels")]
        modules: Option<PathBuf>,
        /// From a guest's boot to its verdict
        #[arg(long, value_name = "SECONDS", default_value_t = 900)]
        deadline: u64,
        /// Guests side by side [default: as the cores carry]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        jobs: Option<u16>,
        /// After a failure, leave a person in the guest (one guest at a time)
        #[arg(long)]
        shell_on_failure: bool,
        /// Which tests, in libtest's words: names, --exact, --skip NAME, --ignored, --include-ignored
        #[arg(last = true, value_name = "LIBTEST ARGUMENTS")]
        libtest: Vec<String>,
    },
    /// Open a root shell in a guest; it ends with the shell
    Shell {
        #[command(flatten)]
        on: OneKernel,
    },
    /// List the kernels of kernels.toml, or fetch them
    Kernels {
        /// The matrix as JSON, for a CI workflow
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        command: Option<KernelsCommand>,
    },
    /// Install what this machine lacks; demo, test and shell do it by themselves
    Setup,
    #[command(hide = true, disable_help_flag = true)]
    Guardian {
        dir: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        qemu: Vec<String>,
    },
    #[command(hide = true)]
    Guest { share: PathBuf },
}

#[derive(Subcommand)]
enum KernelsCommand {
    /// Fetch all kernels, or those named, and build the tests: all that plain `vmtest` needs
    Fetch {
        /// A kernel; may be given several times [default: all of kernels.toml]
        #[arg(short = 'k', long = "kernel", value_name = "K")]
        kernels: Vec<String>,
    },
}

/// Parses the command line and does what it says. Returns the exit code.
pub fn run() -> Result<u8> {
    let cli = Cli::parse();
    set_environment(&cli.place)?;
    let place = &cli.place;
    let exit = match cli.command {
        Command::Guardian { dir, qemu } => return Ok(u8::try_from(guardian::run(&dir, &qemu)?)?),
        Command::Guest { share } => return Ok(u8::try_from(guest::run(&share)?)?),
        command => {
            interrupt::handle()?;
            run_on_host(command, place)?
        }
    };
    Ok(exit as u8)
}

fn run_on_host(command: Command, place: &Place) -> Result<Exit> {
    Ok(match command {
        Command::Guardian { .. } | Command::Guest { .. } => unreachable!("done by the caller"),
        Command::Setup => setup::ensure_tools().map(|()| Exit::Passed)?,
        Command::Kernels { json, command: None } => {
            let workspace = Workspace::find()?;
            kernels::list(&Matrix::load(&workspace.root)?, &place.cache()?, json)?;
            Exit::Passed
        }
        Command::Kernels { json: _, command: Some(KernelsCommand::Fetch { kernels: words }) } => {
            let workspace = Workspace::find()?;
            setup::ensure_tools()?;
            let matrix = Matrix::load(&workspace.root)?;
            Targets::load(&workspace.root, &matrix)?;
            kernels::fetch(&matrix, &words, &place.cache()?, place.mirror.as_deref())?;
            // A guest of plain vmtest runs `cargo test` on what the host has built.
            workspace.build_tests()?;
            Exit::Passed
        }
        Command::Demo { name, on } => {
            let workspace = Workspace::find()?;
            let Some(name) = name.or_else(|| workspace.settings.demo.clone()) else {
                return Err(usage("name an example: Cargo.toml names no demo"));
            };
            workspace.check_example(&name)?;
            let choice = on.choice(&workspace)?;
            setup::ensure_tools()?;
            let program = workspace.build_example(&name)?;
            let work = Work::Run { program, args: vec![] };
            one_guest(&workspace, place, &choice, on.deadline, work)?
        }
        Command::Shell { on } => {
            let workspace = Workspace::find()?;
            let choice = on.choice(&workspace)?;
            setup::ensure_tools()?;
            one_guest(&workspace, place, &choice, on.deadline, Work::Hold)?
        }
        Command::Test { kernels, modules, deadline, jobs, shell_on_failure, libtest } => {
            let workspace = Workspace::find()?;
            let filter = filter(&libtest)?;
            let matrix = Matrix::load(&workspace.root)?;
            let targets = Targets::load(&workspace.root, &matrix)?;
            let choices = kernels::choose(&matrix, &kernels, modules.as_deref())?;
            setup::ensure_tools()?;
            report::clear(&workspace.target)?;
            let binaries = workspace.build_tests()?;
            if libtest::chosen(&binaries, &filter)?.iter().all(|test| test.is_ignored) {
                return Err(usage(format!(
                    "no test was chosen by {libtest:?}, or only tests marked #[ignore]: a run of \
                     none proves nothing; `cargo test -- --list` names them"
                )));
            }
            let host = if kernels.is_empty() && libtest.is_empty() {
                workspace.test_host()
            } else {
                Ok(())
            };
            if let Err(e) = &host {
                if exit_of(e) == Exit::Interrupted {
                    return host.map(|()| Exit::Interrupted);
                }
                eprintln!("{e:#}; the guests' tests go on");
            }
            let ui = Ui::default();
            let mut candidates: Vec<Candidate> = Vec::new();
            let mut missing = Vec::new();
            for choice in &choices {
                match candidate(&workspace, place, &matrix, &targets, choice) {
                    Ok(new) if candidates.iter().any(|known| known.dir == new.dir) => {
                        let name = choice.name();
                        return Err(usage(format!("two kernels are called {name}: rename one")));
                    }
                    Ok(candidate) => candidates.push(candidate),
                    Err(e) if exit_of(&e) != Exit::Infrastructure => return Err(e),
                    Err(e) => {
                        ui.say(format!("{}: {e:#}; the other kernels go on", choice.name()));
                        missing.push((choice.name(), e));
                    }
                }
            }
            if candidates.is_empty() {
                return Err(missing.remove(0).1);
            }
            let accel = choose_accel(place, &candidates[0].kernel, &ui)?;
            let jobs = match (shell_on_failure, jobs) {
                (true, _) => 1,
                (false, Some(jobs)) => jobs.into(),
                (false, None) => accel.guests_at_once(&candidates[0].config)?,
            };
            let deadline = Duration::from_secs(deadline);
            let plan = Plan { binaries, filter, accel, deadline, jobs, shell_on_failure };
            let mut reports = test::run(&candidates, &plan, &ui)?;
            for (name, e) in missing {
                reports.push(KernelReport::error(name, accel, format!("{e:#}")));
            }
            report::write(&reports, &workspace.target)?;
            println!("{}", report::details(&reports));
            println!("{}", report::table(&reports));
            println!("reports: {}/kernel-report.{{json,xml,txt}}", workspace.target.display());
            let unknown = reports.iter().filter(|r| r.outcome == Verdict::Error).count();
            if unknown > 0 {
                println!("without a verdict: {unknown} of {} kernels", reports.len());
            }
            println!("{}", report::total(&reports));
            host?;
            report::exit(&reports)
        }
    })
}

impl Place {
    fn cache(&self) -> Result<Cache> {
        Cache::open(self.cache.as_deref())
    }
}

/// What guests, and runners in the tests of the host, take from the environment.
fn set_environment(place: &Place) -> Result<()> {
    // The guest's init gets this PATH from vmtest; it needs qemu-ga, which Debian has in /usr/sbin,
    // where a user's PATH does not look.
    let path = std::env::var("PATH").unwrap_or_default();
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")) };
    let mut said = Vec::new();
    if let Some(cache) = &place.cache {
        let cache = std::path::absolute(cache).context("cannot tell the current directory")?;
        said.push(("XTASK_CACHE", cache.into_os_string()));
    }
    said.extend(place.mirror.as_ref().map(|mirror| ("XTASK_MIRROR", mirror.into())));
    said.extend(place.accel.map(|accel| ("XTASK_ACCEL", accel.to_string().to_lowercase().into())));
    for (name, value) in said {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

fn candidate(
    workspace: &Workspace,
    place: &Place,
    matrix: &Matrix,
    targets: &Targets,
    choice: &Choice,
) -> Result<Candidate> {
    let kernel = kernels::ensure(choice, matrix, &place.cache()?, place.mirror.as_deref())?;
    let config = targets.vm(&kernel.name);
    let dir = guest_dir(&workspace.target, &kernel.name)?;
    Ok(Candidate { kernel, config, dir })
}

fn choose_accel(place: &Place, kernel: &Kernel, ui: &Ui) -> Result<Accel> {
    let cache = place.cache()?;
    let (accel, why) = accel::choose(place.accel, &kernel.vmlinuz, cache.dir())?;
    ui.say(format!("accelerator: {why}"));
    Ok(accel)
}

impl OneKernel {
    fn choice(&self, workspace: &Workspace) -> Result<Choice> {
        let matrix = Matrix::load(&workspace.root)?;
        let modules = self.modules.as_deref();
        Ok(match &self.kernel {
            Some(word) => kernels::choose(&matrix, std::slice::from_ref(word), modules)?.remove(0),
            None => Choice::Pinned(matrix.newest().clone()),
        })
    }
}

/// Runs one guest for a person, and shows what it says as it says it.
fn one_guest(
    workspace: &Workspace,
    place: &Place,
    choice: &Choice,
    deadline: u64,
    work: Work,
) -> Result<Exit> {
    let matrix = Matrix::load(&workspace.root)?;
    let targets = Targets::load(&workspace.root, &matrix)?;
    let ui = Ui::default();
    let Candidate { kernel, config, dir } = candidate(workspace, place, &matrix, &targets, choice)?;
    let accel = choose_accel(place, &kernel, &ui)?;
    let deadline = Duration::from_secs(deadline);
    let guest = Guest { kernel: &kernel, config: &config, accel, deadline, dir };

    let line = ui.guest(&kernel.name);
    let end = guest
        .run(&work, false, &mut |news| match news {
            News::Again(why) => ui.say(format!("{}: booting once more: {why}", kernel.name)),
            News::Line(text) => ui.say(text),
            News::Event(Event::Started { release }) => line.shows(format!("Linux {release}")),
            News::Event(_) => (),
            News::Held(console) => terminal::attach(console, &ui),
        })?
        .end;
    drop(line);
    if let End::NoBoot { why, .. } = end {
        bail!("{}: {why}", kernel.name);
    }
    let scanner = console::Scanner::new()?;
    match (&end, &work) {
        // What a person does to the guest is no verdict.
        (End::Marker { .. }, Work::Hold) => return Ok(Exit::Passed),
        _ => {
            let is_done = matches!(end, End::Marker { .. });
            if let Some(quoted) = scanner.scan(&guest.console_log(), is_done)? {
                return Err(failed(format!("the kernel reported a fault:\n{quoted}")));
            }
        }
    }
    match end {
        End::Marker { success: true, .. } => Ok(Exit::Passed),
        End::Marker { success: false, how } => Err(failed(format!("the program failed: {how}"))),
        End::NoMarker(why) => Err(failed(format!("the guest ended without a verdict: {why}"))),
        End::NoBoot { .. } => unreachable!("told above"),
    }
}
