//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::accel::Accel;
use crate::cache::Cache;
use crate::compatibility::Documents;
use crate::config::Matrix;
use crate::failure::Exit;
use crate::session::Session;
use crate::workspace::Workspace;
use crate::{guardian, guest, interrupt, kernels_command, setup};

const EXIT_CODES: &str = "\
Exit codes:
  0    everything ran and passed
  1    a test failed or no kernel ran it, or a guest's kernel reported a fault, died or hung
  2    the request cannot be carried out as written
  3    no verdict: a download, QEMU, or a guest's boot failed
  130  interrupted";

/// The environment variable in which a test finds how often it is to repeat itself.
const ROUNDS: &str = "XTASK_ROUNDS";

/// Runs this workspace's programs and tests in virtual machines, on real Linux kernels.
///
/// A kernel K is a series (6.12), a version (6.12.107), a release as uname prints it, or the path
/// of a bzImage. Kernels, or the sources that some are built from, come from the machine's Debian
/// mirror, are checked against kernels.toml, and are kept in a cache. A guest sees this machine's files and can change none of them.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

/// Where kernels come from and go to, and how they run.
#[derive(Args)]
pub struct Place {
    /// Where kernels are kept [default: xtask in the user's cache directory]
    #[arg(long, global = true, value_name = "DIR", env = "XTASK_CACHE")]
    pub cache: Option<PathBuf>,
    /// The Debian mirror to fetch kernels from [default: the one that apt uses]
    #[arg(long, global = true, value_name = "URL", env = "XTASK_MIRROR")]
    pub mirror: Option<String>,
    /// How guests run [default: KVM if a probe guest runs under it, else TCG]
    #[arg(long, global = true, value_enum, env = "XTASK_ACCEL")]
    pub accel: Option<Accel>,
}

/// The kernel of a command that boots one.
#[derive(Args)]
pub struct OneKernel {
    /// The kernel [default: the newest of kernels.toml]
    #[arg(short = 'k', long = "kernel", value_name = "K")]
    pub kernel: Option<String>,
    /// The directory of a bzImage's modules (lib/modules/RELEASE), if it has any
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// From a guest's boot to its verdict, or to a shell's prompt
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub deadline: u64,
    /// The guest's processors [default: as vmtest.toml says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub cpus: Option<u8>,
}

/// What `bench` is to do.
#[derive(Args)]
pub struct BenchOptions {
    /// A kernel; may be given several times [default: the newest, and those that the package names]
    #[arg(short = 'k', long = "kernel", value_name = "K")]
    pub kernels: Vec<String>,
    /// The directory of a bzImage's modules (lib/modules/RELEASE), if it has any
    #[arg(long, value_name = "DIR", requires = "kernels")]
    pub modules: Option<PathBuf>,
    /// From a guest's boot to the end of what it measures
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub deadline: u64,
    /// Instead, compare this runner's time to a verdict with that of others, on this machine
    ///
    /// On the newest kernel, and on all default ones that packages hold. It installs the others
    /// into the target directory, and what they need on the machine.
    #[arg(long, conflicts_with_all = ["kernels", "modules", "deadline", "args"])]
    pub runners: bool,
    /// More arguments of what measures, in each guest
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub args: Vec<String>,
}

/// What `test` is to do.
#[derive(Args)]
pub struct TestOptions {
    /// A kernel; may be given several times [default: the default ones of kernels.toml]
    #[arg(short = 'k', long = "kernel", value_name = "K")]
    pub kernels: Vec<String>,
    /// Only the test targets of this name; may be given several times
    #[arg(long = "test", value_name = "NAME")]
    pub tests: Vec<String>,
    /// The directory of a bzImage's modules (lib/modules/RELEASE), if it has any
    #[arg(long, value_name = "DIR", requires = "kernels")]
    pub modules: Option<PathBuf>,
    /// From a guest's boot to its verdict
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub deadline: u64,
    /// Guests side by side [default: as the cores carry]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// How often each test that can fail by chance repeats itself [default: as the test says]
    #[arg(long, value_name = "N", env = ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// After a failure, leave a person in the guest (one guest at a time)
    #[arg(long)]
    pub shell_on_failure: bool,
    /// Which tests, in libtest's words: names, --exact, --skip NAME, --ignored, --include-ignored
    #[arg(last = true, value_name = "LIBTEST ARGUMENTS")]
    pub libtest: Vec<String>,
}

/// What `torture` is to do.
#[derive(Args)]
pub struct TortureOptions {
    /// A kernel; may be given several times [default: the newest of kernels.toml]
    #[arg(short = 'k', long = "kernel", value_name = "K")]
    pub kernels: Vec<String>,
    /// The directory of a bzImage's modules (lib/modules/RELEASE), if it has any
    #[arg(long, value_name = "DIR", requires = "kernels")]
    pub modules: Option<PathBuf>,
    /// For how long, on each kernel: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub time: std::time::Duration,
    /// What all that it does follows from [default: a new one, which it prints]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// For a guest's boot, and from the end of the time to its verdict
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub deadline: u64,
}

impl TestOptions {
    /// Whether nothing is left out: no kernel, no target and no test was named.
    pub fn is_full(&self) -> bool {
        self.kernels.is_empty() && self.tests.is_empty() && self.libtest.is_empty()
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run an example or an application of the workspace in a guest and show what it prints
    ///
    /// An application is a package whose Cargo.toml has the arguments of its demo. What it writes
    /// into the directory that XTASK_RESULTS names is in results/NAME in the target directory then.
    Demo {
        /// Its name [default: what Cargo.toml names]
        name: Option<String>,
        /// Its arguments [default: an application's are those that its Cargo.toml names]
        #[arg(last = true, requires = "name", value_name = "ARGUMENTS")]
        args: Vec<String>,
        #[command(flatten)]
        on: OneKernel,
    },
    /// Run all tests as root on every kernel, or on the kernels named
    ///
    /// Without -k, --test or names of tests, the tests of the host (doc tests, and those of the
    /// runner) run first, and a test that skips itself on every kernel fails the run. Reports are
    /// written to kernel-report.json, .xml (JUnit) and .txt in the target directory.
    ///
    /// A test that takes the kernel down has a guest of its own. A kernel that is named by its path
    /// gets a verdict: which rules hold, which differ from what is known, and which cannot be
    /// tried, by the option that it was built without.
    Test(TestOptions),
    /// Measure, in guests of several kernels and sizes, one after the other, and report
    ///
    /// A package whose Cargo.toml has [package.metadata.xtask.bench] measures: it names the guests.
    /// What is measured is in results/NAME in the target directory, with run.json, which says how.
    /// It exits with 0 if all was measured, whatever the numbers are.
    Bench(BenchOptions),
    /// Let the workspace's torture have a kernel for a while, or several, one after the other
    ///
    /// The same seed has the same operations again. What it leaves, and a verdict, are in
    /// results/torture/KERNEL in the target directory then.
    Torture(TortureOptions),
    /// Open a root shell in a guest; it ends with the shell
    Shell {
        #[command(flatten)]
        on: OneKernel,
    },
    /// List the kernels of kernels.toml, fetch or build them
    Kernels {
        /// The default kernels as JSON, for a CI workflow
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        command: Option<KernelsCommand>,
    },
    /// Write docs/compatibility.md and .html, the rules by kernels, from the report of a full run
    Compatibility {
        /// Only compare them with what is there
        #[arg(long)]
        check: bool,
        /// Reports that hold all kernels together [default: kernel-report.json of the last run]
        #[arg(value_name = "REPORT.json")]
        reports: Vec<PathBuf>,
    },
    /// Make tests expect what is not so, one by one, as mutations.toml says: each has to fail
    Mutate {
        #[command(flatten)]
        on: OneKernel,
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
        /// A kernel; may be given several times [default: the default ones of kernels.toml]
        #[arg(short = 'k', long = "kernel", value_name = "K")]
        kernels: Vec<String>,
    },
    /// Build the kernels that no package has, unless they are in the cache
    ///
    /// Those of kernels.toml that name a source package and a file of options. All other commands
    /// build what they need by themselves. It takes minutes, and 3.5 GB on the cache's disk until
    /// it is done.
    Build {
        /// A kernel, or the first two parts of a version (7.3) [default: all default ones]
        #[arg(value_name = "K")]
        kernels: Vec<String>,
    },
}

/// Parses the command line and does what it says. Returns the exit code.
pub fn run() -> Result<u8> {
    let cli = Cli::parse();
    let rounds = match &cli.command {
        Command::Test(options) => options.rounds,
        _ => None,
    };
    set_environment(&cli.place, rounds)?;
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
        Command::Compatibility { check, mut reports } => {
            let workspace = Workspace::find()?;
            if reports.is_empty() {
                reports.push(workspace.target.join("kernel-report.json"));
            }
            let matrix = Matrix::load(&workspace.root)?;
            let documents = Documents {
                dir: workspace.root.join("docs"),
                subject: workspace.settings.subject.unwrap_or_else(|| "the kernel".into()),
            };
            documents.make(&reports, &matrix, check)?;
            Exit::Passed
        }
        Command::Setup => setup::ensure_tools().map(|()| Exit::Passed)?,
        Command::Kernels { json, command: None } => {
            let workspace = Workspace::find()?;
            kernels_command::list(&Matrix::load(&workspace.root)?, &place.cache()?, json)?;
            Exit::Passed
        }
        Command::Kernels { json: _, command: Some(KernelsCommand::Fetch { kernels: words }) } => {
            let session = Session::open(place)?;
            setup::ensure_tools()?;
            kernels_command::fetch(
                &session.matrix,
                &words,
                &place.cache()?,
                place.mirror.as_deref(),
            )?;
            // A guest of plain vmtest runs `cargo test` on what the host has built.
            session.workspace.build_tests(&[])?;
            Exit::Passed
        }
        Command::Kernels { json: _, command: Some(KernelsCommand::Build { kernels: words }) } => {
            let workspace = Workspace::find()?;
            let matrix = Matrix::load(&workspace.root)?;
            setup::ensure_tools()?;
            kernels_command::build(&matrix, &words, &place.cache()?, place.mirror.as_deref())?;
            Exit::Passed
        }
        Command::Demo { name, args, on } => Session::open(place)?.demo(name, args, &on)?,
        Command::Bench(options) if options.runners => Session::open(place)?.bench_runners()?,
        Command::Bench(options) => Session::open(place)?.bench(&options)?,
        Command::Mutate { on } => Session::open(place)?.mutate(&on)?,
        Command::Shell { on } => Session::open(place)?.shell(&on)?,
        Command::Torture(options) => Session::open(place)?.torture(&options)?,
        Command::Test(options) => Session::open(place)?.test(&options)?,
    })
}

impl Place {
    /// The cache that it names.
    pub fn cache(&self) -> Result<Cache> {
        Cache::open(self.cache.as_deref())
    }
}

/// What guests, and runners in the tests of the host, take from the environment: vmtest gives a
/// guest all of it.
fn set_environment(place: &Place, rounds: Option<u32>) -> Result<()> {
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
    said.extend(rounds.map(|rounds| (ROUNDS, rounds.to_string().into())));
    for (name, value) in said {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_full_unless_something_is_named() {
        let is_full = |words: &[&str]| {
            let args = [&["xtask", "test"], words].concat();
            let Command::Test(options) = Cli::try_parse_from(args).unwrap().command else {
                panic!("{words:?}");
            };
            options.is_full()
        };
        assert!(is_full(&[]) && is_full(&["--jobs", "2"]));
        for part in [&["-k", "6.12"][..], &["--test", "danger"], &["--", "name"]] {
            assert!(!is_full(part), "{part:?}");
        }
    }
}
