//! The error numbers that this crate tells apart, and how to get at them.

use std::io;

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const EOPNOTSUPP: i32 = 95;
pub(crate) const ESHUTDOWN: i32 = 108;

/// libbpf-rs keeps the errno of a failed call, but shows it in words only.
pub(crate) fn of(error: &libbpf_rs::Error) -> io::Error {
    let words = format!("{error:#}");
    words
        .rsplit_once("(os error ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(number, _)| number.parse().ok())
        .map_or_else(|| io::Error::other(words.clone()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number_below_any_context() {
        use libbpf_rs::ErrorExt as _;
        let error = libbpf_rs::Error::from_raw_os_error(ENOSYS);
        assert_eq!(of(&error).raw_os_error(), Some(ENOSYS));
        let error = libbpf_rs::Error::from_raw_os_error(EPERM).context("failed to load");
        assert_eq!(of(&error).raw_os_error(), Some(EPERM));
    }
}
