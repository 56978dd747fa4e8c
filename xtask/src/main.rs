//! `cargo xtask`: see `cargo xtask --help`.

use std::process::ExitCode;

use xtask::failure::exit_of;

fn main() -> ExitCode {
    let exit = match xtask::cli::run() {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_of(&error) as u8
        }
    };
    ExitCode::from(exit)
}
