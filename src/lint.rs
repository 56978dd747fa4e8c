//! Checks a BPF object file before anything of it is loaded.
//!
//! Some objects are refused by some kernels; some take the kernel down or lose work. Lint
//! reads the file alone, asks no kernel to load anything and needs no privilege. It tells of
//! each fault what the kernel does that is asked about, and what others do.
//!
//! ```no_run
//! use bpf_wq::lint::{self, Target};
//!
//! # fn main() -> bpf_wq::Result<()> {
//! let kernel = Target::named("6.12".parse()?);
//! for finding in lint::file("program.bpf.o", &kernel)? {
//!     println!("{finding}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it sees is what the file says: maps as they are declared, the functions that sections
//! name, and in code the maps, elements and callbacks that are in registers and come as arguments.
//! Those that come from the stack are not followed. All programs are taken to be loaded, also those
//! that are not by default, and all branches to be taken.
//!
//! As a step of loading, [`refuse_dangerous`] looks at what is really to be loaded, and refuses
//! what would do harm for certain.

mod arming;
mod ascii;
mod attach;
mod elf;
mod externs;
mod finding;
mod flow;
mod history;
mod kfuncs;
mod layout;
mod loading;
mod maps;
mod opened;
mod permits;
mod programs;
mod reach;
mod registers;
mod sleep;
mod target;
mod types;
mod version;

use std::fs;
use std::path::Path;

pub use finding::{Fault, Finding};
pub use history::{Effect, Step};
pub use loading::refuse_dangerous;
pub use sleep::sleeps;
pub use target::Target;
pub use version::Version;

use crate::error::{Error, Result};
use opened::Opened;

/// Checks the object in a file against a kernel. Nothing is loaded.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read, [`Error::Object`] if it is no BPF object.
pub fn file(path: impl AsRef<Path>, kernel: &Target) -> Result<Vec<Finding>> {
    let path = path.as_ref();
    let bytes = fs::read(path)
        .map_err(|source| Error::Io { what: format!("read {}", path.display()), source })?;
    object(&path.display().to_string(), &bytes, kernel)
}

/// Checks an object file's bytes against a kernel, such as those of a skeleton. `name` is for
/// errors. Nothing is loaded.
///
/// # Errors
///
/// [`Error::Object`] if they are no BPF object.
pub fn object(name: &str, bytes: &[u8], kernel: &Target) -> Result<Vec<Finding>> {
    let opened = Opened::new(name, bytes)?;
    let mut findings = Vec::new();
    maps::check(&opened, kernel, &mut findings);
    programs::check(&opened, kernel, &mut findings);
    arming::check(&opened, kernel, &mut findings);
    attach::check(&opened, kernel, &mut findings);
    externs::check(&opened, kernel, &mut findings);
    Ok(findings)
}
