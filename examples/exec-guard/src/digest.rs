//! Digests of files: that which IMA has, else that of what is in them.

use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
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

/// Of what is in a file. Takes as long as it takes to read it, or until it is over.
///
/// # Errors
///
/// The file cannot be read, or it is over.
pub fn of_contents(file: &mut File, is_over: &AtomicBool) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut bytes = vec![0; 1 << 16];
    loop {
        if is_over.load(Ordering::Relaxed) {
            bail!("it is over before the file was read");
        }
        match file.read(&mut bytes).context("cannot read the file")? {
            0 => break,
            length => hasher.update(&bytes[..length]),
        }
    }
    Ok(name("sha256", &hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_until_it_is_over() {
        let own = || File::open("/proc/self/exe").expect("this program");
        let digest = of_contents(&mut own(), &AtomicBool::new(false)).expect("it can be read");
        assert_eq!(digest.len(), "sha256:".len() + 64);
        of_contents(&mut own(), &AtomicBool::new(true)).expect_err("it is over");
    }
}
