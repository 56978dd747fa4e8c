//! An outside crate, built with the package of bpf-wq.

/// The program of examples/cmdlines.
pub const CMDLINES: &str = env!("CMDLINES");
