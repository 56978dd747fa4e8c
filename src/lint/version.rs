//! Kernel versions.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The version of a kernel, such as 6.12.107. Versions are ordered as they came out, except
/// that a fix may reach an older series later than a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number, 0 where none is written.
    pub patch: u32,
}

impl Version {
    /// A version by its three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// What a release begins with. Who builds a kernel appends what they like: `6.12.5_1`, or a
    /// fourth number.
    pub(crate) fn of_release(release: &str) -> Result<Self, Error> {
        let mut rest = release;
        let mut number = || {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            rest = after.strip_prefix('.').unwrap_or_default();
            digits.parse().ok()
        };
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self::new(major, minor, number().unwrap_or(0))),
            _ => Err(Error::Version { given: release.to_owned() }),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

/// Takes `6.12`, which means the first release of that series, `6.12.107`, and what
/// `uname -r` prints, such as `6.12.107+deb13-amd64`.
impl FromStr for Version {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let no_version = || Error::Version { given: given.to_owned() };
        let end = given.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(given.len());
        let (numbers, rest) = given.split_at(end);
        if !rest.is_empty() && !rest.starts_with(['-', '+']) {
            return Err(no_version());
        }
        let numbers: Result<Vec<u32>, _> = numbers.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([major, minor]) => Ok(Self::new(*major, *minor, 0)),
            Ok([major, minor, patch]) => Ok(Self::new(*major, *minor, *patch)),
            _ => Err(no_version()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        for (given, version) in [
            ("6.12", Version::new(6, 12, 0)),
            ("7.0.13", Version::new(7, 0, 13)),
            ("6.12.107+deb13-amd64", Version::new(6, 12, 107)),
            ("6.18.44-fc-v657", Version::new(6, 18, 44)),
            ("7.3-rc1", Version::new(7, 3, 0)),
        ] {
            assert_eq!(given.parse::<Version>().unwrap(), version, "{given}");
        }
    }

    #[test]
    fn reads_releases_of_any_builder() {
        for (release, version) in [
            ("6.12.107+deb13-amd64", Version::new(6, 12, 107)),
            ("6.18.20.1-microsoft-standard-WSL2", Version::new(6, 18, 20)),
            ("6.12.5_1", Version::new(6, 12, 5)),
            ("7.3-rc1", Version::new(7, 3, 0)),
            ("6.12", Version::new(6, 12, 0)),
        ] {
            assert_eq!(Version::of_release(release).unwrap(), version, "{release}");
        }
        for none in ["", "linux", "6", "6-rc1.2", "-6.12"] {
            let error = Version::of_release(none).unwrap_err();
            assert!(matches!(&error, Error::Version { given } if given == none), "{error}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for given in ["", "6", "6.", "6.12.", "v6.12", "6.12.1.2", "6.12 7", "6.99999999999", "-"] {
            let error = given.parse::<Version>().unwrap_err();
            assert!(matches!(&error, Error::Version { given: said } if said == given), "{error}");
        }
    }

    #[test]
    fn orders_and_prints() {
        assert!(Version::new(6, 9, 9) < Version::new(6, 10, 0));
        assert!(Version::new(6, 18, 1) < Version::new(6, 18, 2));
        assert_eq!(Version::new(6, 10, 0).to_string(), "6.10");
        assert_eq!(Version::new(6, 18, 2).to_string(), "6.18.2");
    }
}
