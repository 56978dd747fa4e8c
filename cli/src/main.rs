//! `bpf-wq`: what the library does, as a command.

mod json;
mod pins;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bpf_wq::lint::{self, Target, Version};
use clap::{Parser, Subcommand};

/// BPF workqueues, safe and portable.
#[derive(Parser)]
#[command(name = "bpf-wq", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a BPF object file against a kernel, without loading it.
    ///
    /// Exits with 0 if nothing was found, 1 if something was, and 2 if it could not be checked.
    Lint {
        /// The object file, as clang makes it.
        file: PathBuf,
        /// The kernel: 6.12 is the first release of that series, 6.12.107 a later one [default:
        /// the running kernel, with its BTF, which tells of all functions whether they can be
        /// attached to].
        #[arg(long, value_name = "VERSION")]
        kernel: Option<Version>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List what is pinned below a directory of a bpffs.
    ///
    /// Exits with 0, or with 2 if not all of it can be read.
    Pins {
        /// The directory.
        #[arg(default_value = "/sys/fs/bpf")]
        directory: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Detach what is pinned in a directory, wait until its work is done, and remove it.
    ///
    /// The directory is the one that the loader was given. Removes the pins of all builds, and
    /// what loaders left that died; nothing else.
    ///
    /// Exits with 0 if all work is done, 1 if some was lost, and 2 if it could not all be removed.
    Unpin {
        /// The directory.
        directory: PathBuf,
        /// How long to wait, for all of it.
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        deadline: u64,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Lint { file, kernel, json } => lint(&file, kernel, json),
        Command::Pins { directory, json } => pins(&directory, json),
        Command::Unpin { directory, deadline } => unpin(&directory, Duration::from_secs(deadline)),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("bpf-wq: {error}");
            ExitCode::from(2)
        }
    }
}

fn lint(file: &Path, kernel: Option<Version>, json: bool) -> Result<ExitCode, String> {
    let kernel = match kernel {
        Some(version) => Target::named(version),
        None => Target::running().map_err(|error| error.to_string())?,
    };
    let findings = lint::file(file, &kernel).map_err(|error| error.to_string())?;
    let out = &mut anstream::stdout().lock();
    let written = if json {
        writeln!(out, "{:#}", json::report(file, &kernel, &findings))
    } else {
        table::print(out, file, &kernel, &findings)
    };
    exit(written, u8::from(!findings.is_empty()))
}

fn pins(directory: &Path, json: bool) -> Result<ExitCode, String> {
    let (pins, unread) = pins::find(directory);
    unread.iter().for_each(|error| anstream::eprintln!("bpf-wq: {error}"));
    if pins.is_empty() && !unread.is_empty() {
        return Ok(ExitCode::from(2));
    }
    let out = &mut anstream::stdout().lock();
    let written = if json {
        writeln!(out, "{:#}", pins::report(&pins))
    } else {
        pins::print(out, directory, &pins)
    };
    exit(written, if unread.is_empty() { 0 } else { 2 })
}

fn unpin(directory: &Path, deadline: Duration) -> Result<ExitCode, String> {
    let cleared =
        bpf_wq::clear_pins(directory, None, deadline).map_err(|error| error.to_string())?;
    if cleared.is_empty() {
        pins::check_is_theirs(directory)?;
    }
    let written = pins::print_cleared(&mut anstream::stdout().lock(), directory, &cleared);
    exit(written, u8::from(pins::is_lost(&cleared)))
}

/// Whoever stops reading has seen enough.
fn exit(written: io::Result<()>, code: u8) -> Result<ExitCode, String> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(ExitCode::from(code)),
    }
}
