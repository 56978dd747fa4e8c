//! How a run ends: the exit codes, and the errors that choose them.

use std::fmt;

/// What the runner's exit code says. Anything that is not listed here is not an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All that was asked for ran and passed.
    Passed = 0,
    /// A test failed, or no kernel ran it, or a guest's kernel reported a fault, died or hung.
    Failed = 1,
    /// The request cannot be carried out as written: a bad argument, an unmatched filter, an
    /// unknown key in a configuration file.
    Usage = 2,
    /// No verdict on the tests: a download, QEMU, or a guest's boot failed.
    Infrastructure = 3,
    /// Stopped by SIGINT, SIGTERM or SIGHUP.
    Interrupted = 130,
}

/// An error that ends the run with [`Exit::Usage`].
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that ends the run with [`Exit::Failed`].
#[derive(Debug)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// An error that ends the run with [`Exit::Interrupted`].
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Makes an error that ends the run with [`Exit::Usage`].
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Makes an error that ends the run with [`Exit::Failed`].
pub fn failed(message: impl Into<String>) -> anyhow::Error {
    Failed(message.into()).into()
}

/// The exit code that an error asks for: [`Exit::Infrastructure`] unless it says otherwise.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<Usage>() {
        Exit::Usage
    } else if error.is::<Failed>() {
        Exit::Failed
    } else if error.is::<Interrupted>() {
        Exit::Interrupted
    } else {
        Exit::Infrastructure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_keeps_its_exit_code_under_context() {
        let wrong = Err::<(), _>(usage("no such kernel")).context("choosing kernels");
        assert_eq!(exit_of(&wrong.unwrap_err()), Exit::Usage);
        assert_eq!(exit_of(&failed("a test failed")), Exit::Failed);
        assert_eq!(exit_of(&Interrupted.into()), Exit::Interrupted);
        assert_eq!(exit_of(&anyhow::anyhow!("disk full")), Exit::Infrastructure);
    }
}
