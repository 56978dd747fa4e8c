//! Kernel versions, as far as the runner has to compare them.

use anyhow::{Context, Result};

/// Whether a release, as `uname -r` prints it, is of this version (`MAJOR.MINOR`) or newer.
pub fn is_at_least(release: &str, version: &str) -> Result<bool> {
    Ok(major_minor(release)? >= major_minor(version)?)
}

fn major_minor(text: &str) -> Result<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
    .with_context(|| format!("not a kernel version: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_at_least("6.12.107+deb13-amd64", "6.9").unwrap());
        assert!(is_at_least("7.0.13", "6.19").unwrap());
        assert!(!is_at_least("6.1.0-50-amd64", "6.10").unwrap());
        assert!(is_at_least("6.12-rc1", "6.12").unwrap());
        assert!(is_at_least("6.12.1", "soon").is_err());
    }
}
