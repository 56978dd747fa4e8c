//! Which build of an object is pinned.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A build of a BPF object: the first 64 bits of the SHA-256 of its file.
///
/// Its text, of 16 hexadecimal digits, is a part of a pin's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Build(u64);

const PREFIX: &str = "build-";

impl Build {
    /// The build that this object file is.
    pub fn of(object: &[u8]) -> Self {
        let digest = Sha256::digest(object);
        Self(digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The name of its pin's directory.
    pub(crate) fn directory(self) -> String {
        format!("{PREFIX}{self}")
    }

    /// Of which build a directory is the pin, if it is one.
    pub(crate) fn of_directory(name: &str) -> Option<Self> {
        let build = Self(u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()?);
        (build.directory() == name).then_some(build)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_build() {
        // From sha256sum.
        let name = "build-e3b0c44298fc1c14";
        assert_eq!(Build::of(b"").directory(), name);
        assert_eq!(Build::of_directory(name), Some(Build::of(b"")));
        for other in ["build-", "build-e3b0c44298fc1c1", "build-E3B0C44298FC1C14", "new-1", "build"]
        {
            assert_eq!(Build::of_directory(other), None, "{other}");
        }
    }
}
