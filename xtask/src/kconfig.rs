//! What a guest knows of its kernel: its release, and the options that it was built with.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What a kernel says of its configuration, if it was built to.
const OF_KERNEL: &str = "/proc/config.gz";

/// The running kernel.
pub struct Running {
    /// As `uname -r` prints it.
    pub release: String,
    /// Its configuration, if it is known.
    pub config: Option<Config>,
    /// The file that the host has it in, for the tests.
    pub config_file: Option<PathBuf>,
}

/// A kernel's `.config`.
pub struct Config(String);

impl Running {
    /// Asks the kernel, and reads `config_file` if the host has given it.
    pub fn find(config_file: &Path) -> Result<Self> {
        let config_file = config_file.exists().then(|| config_file.to_owned());
        let config = match &config_file {
            Some(file) => Some(fs::read_to_string(file).context("cannot read the configuration")?),
            None => of_kernel(Path::new(OF_KERNEL))?,
        };
        Ok(Running { release: release()?, config: config.map(Config), config_file })
    }
}

/// As `uname -r` prints it.
pub fn release() -> Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}

fn of_kernel(file: &Path) -> Result<Option<String>> {
    let packed = match File::open(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        packed => packed.with_context(|| format!("cannot open {}", file.display()))?,
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Some(text))
}

impl Config {
    /// Whether an option (`CONFIG_…`) is built in or a module.
    pub fn is_set(&self, option: &str) -> bool {
        let value = |line: &str| line.strip_prefix(option)?.strip_prefix('=').map(str::to_owned);
        self.0.lines().find_map(value).is_some_and(|value| value == "y" || value == "m")
    }
}

#[cfg(test)]
impl From<&str> for Config {
    fn from(text: &str) -> Self {
        Config(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_option_is_set_if_it_is_built_in_or_a_module() {
        let config: Config = "# CONFIG_A is not set\nCONFIG_AB=y\nCONFIG_C=m\nCONFIG_D=n\n".into();
        assert!(config.is_set("CONFIG_AB") && config.is_set("CONFIG_C"));
        for unset in ["CONFIG_A", "CONFIG_D", "CONFIG_E", "CONFIG", "AB"] {
            assert!(!config.is_set(unset), "{unset}");
        }
    }

    #[test]
    fn a_kernel_may_say_its_configuration_itself() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut packed = flate2::write::GzEncoder::new(file.as_file(), flate2::Compression::fast());
        packed.write_all(b"CONFIG_A=y\n").unwrap();
        packed.finish().unwrap();
        assert_eq!(of_kernel(file.path()).unwrap().as_deref(), Some("CONFIG_A=y\n"));
        assert_eq!(of_kernel(Path::new("/nonexistent/config.gz")).unwrap(), None);
        fs::write(file.path(), "no gzip").unwrap();
        assert!(of_kernel(file.path()).is_err());
    }

    #[test]
    fn a_file_of_the_host_is_what_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "CONFIG_OF_NO_KERNEL=y\n").unwrap();
        let running = Running::find(file.path()).unwrap();
        assert!(running.config.unwrap().is_set("CONFIG_OF_NO_KERNEL"));
        assert_eq!(running.config_file.as_deref(), Some(file.path()));
    }
}
