//! Digests of files: that which IMA has, else that of what is in them.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use bytemuck::{Pod, Zeroable};
use sha2::{Digest as _, Sha256};

/// `struct digest`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Measured {
    algorithm: u32,
    bytes: [u8; 64],
}

/// `HASH_ALGO_SHA256`.
const KERNEL_SHA256: u32 = 4;

impl Measured {
    /// What IMA has found, as the database calls it. With another algorithm it is of no use.
    pub(crate) fn name(&self) -> Option<String> {
        (self.algorithm == KERNEL_SHA256).then(|| name("sha256", &self.bytes[..32]))
    }
}

fn name(algorithm: &str, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{algorithm}:{hex}")
}

/// Of what is in a file.
pub fn of_contents(file: &mut File) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut bytes = vec![0; 1 << 16];
    loop {
        match file.read(&mut bytes).context("cannot read the file")? {
            0 => break,
            length => hasher.update(&bytes[..length]),
        }
    }
    Ok(name("sha256", &hasher.finalize()))
}
