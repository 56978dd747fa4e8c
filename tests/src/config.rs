//! What the running kernel was built with.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::json;

use crate::event;

/// Whether the running kernel was built with an option, such as `CONFIG_HID_BPF`, be it as a
/// module; if not, the test is recorded as skipped, and has to return. Where nobody knows what
/// the kernel was built with, the test has to try.
#[must_use]
pub fn needs_config(option: &str, reason: &str) -> bool {
    let Some(config) = of_running_kernel() else { return true };
    if is_set(&config, option) {
        return true;
    }
    event(&json!({"skip": {"config": option, "reason": reason}}));
    false
}

/// The configuration, if it is known: the runner names a file for the kernels that it fetches, and
/// others may have it built in.
pub fn of_running_kernel() -> Option<String> {
    const BUILT_IN: &str = "/proc/config.gz";
    let named = env::var_os("XTASK_CONFIG");
    let path = PathBuf::from(named.clone().unwrap_or(BUILT_IN.into()));
    match read(&path) {
        Ok(config) => Some(config),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn read(path: &Path) -> io::Result<String> {
    if path.extension() != Some(OsStr::new("gz")) {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    GzDecoder::new(File::open(path)?).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether a configuration has an option, be it as a module.
pub fn is_set(config: &str, option: &str) -> bool {
    let mut values = config.lines().filter_map(|line| line.split_once('='));
    values.any(|(name, value)| name == option && matches!(value, "y" | "m"))
}
