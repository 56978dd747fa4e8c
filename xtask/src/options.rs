//! The options that a kernel is to be built with, and whether its configuration has them.

use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};

use crate::config::Build;
use crate::failure::usage;

/// Lines such as `CONFIG_HID_BPF=y`, each of another option.
#[derive(Debug)]
pub struct Options(Vec<String>);

impl Options {
    /// Reads the files that `build` names, and adds the options that it has itself.
    pub fn read(build: &Build, root: &Path) -> Result<Self> {
        let mut all = Options(Vec::new());
        for file in &build.config {
            let name = file.display();
            let text = fs::read_to_string(root.join(file))
                .map_err(|error| usage(format!("kernels.toml: config: {name}: {error}")))?;
            let of_file = Options::parse(&text).map_err(|e| usage(format!("{name}: {e:#}")))?;
            all = all.under(of_file);
        }
        let own = Options::parse(&build.options.join("\n"))
            .map_err(|wrong| usage(format!("kernels.toml: options: {wrong:#}")))?;
        Ok(all.under(own))
    }

    /// These, with those of `over` in place of what both name, and the rest of `over` behind them.
    fn under(self, over: Self) -> Self {
        let name = |line: &str| line.split_once('=').map(|(name, _)| name.to_owned());
        let replaced = |line: &String| over.0.iter().any(|other| name(other) == name(line));
        let kept = self.0.iter().filter(|line| !replaced(line));
        Options(kept.chain(&over.0).cloned().collect())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, _) = line
                .strip_prefix("CONFIG_")
                .and_then(|option| option.split_once('='))
                .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                .ok_or_else(|| anyhow!("{line:?} is no option, such as CONFIG_HID_BPF=y"))?;
            let same = format!("CONFIG_{name}=");
            if lines.iter().any(|other| other.starts_with(&same)) {
                return Err(anyhow!("CONFIG_{name} is there twice"));
            }
            lines.push(line.to_owned());
        }
        Ok(Options(lines))
    }

    /// What `KCONFIG_ALLCONFIG` takes. Comments are not in it: they make no other kernel.
    pub fn text(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Those that a `.config` does not have.
    pub fn missing(&self, config: &str) -> Vec<&str> {
        let has = |line: &str| match line.strip_suffix("=n") {
            Some(name) => !config.lines().any(|set| set.starts_with(&format!("{name}="))),
            None => config.lines().any(|set| set == line),
        };
        self.0.iter().map(String::as_str).filter(|line| !has(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn an_option_that_a_configuration_lacks_is_missing() {
        let text = "# why\n\nCONFIG_A=y\nCONFIG_B=y\n CONFIG_NAME=\"-x\"\nCONFIG_C=n\nCONFIG_D=n\n";
        let options = Options::parse(text).unwrap();
        let config = "CONFIG_A=y\nCONFIG_AB=y\nCONFIG_B=m\nCONFIG_NAME=\"-xy\"\nCONFIG_D=m\n";
        assert_eq!(options.missing(config), ["CONFIG_B=y", "CONFIG_NAME=\"-x\"", "CONFIG_D=n"]);
    }

    #[test]
    fn comments_make_no_other_kernel() {
        let text = |text| Options::parse(text).unwrap().text();
        assert_eq!(text("CONFIG_A=y\nCONFIG_B=1"), "CONFIG_A=y\nCONFIG_B=1\n");
        assert_eq!(text("# x\nCONFIG_A=y\n\nCONFIG_B=1 \n"), text("CONFIG_A=y\nCONFIG_B=1"));
    }

    #[test]
    fn a_later_file_has_the_last_word() {
        let parse = |text| Options::parse(text).unwrap();
        let both =
            parse("CONFIG_A=y\nCONFIG_B=1\nCONFIG_AB=y").under(parse("CONFIG_A=n\nCONFIG_C=y"));
        assert_eq!(both.text(), "CONFIG_B=1\nCONFIG_AB=y\nCONFIG_A=n\nCONFIG_C=y\n");
    }

    #[rstest]
    #[case("HID_BPF=y", "\"HID_BPF=y\" is no option")]
    #[case("CONFIG_HID_BPF", "is no option")]
    #[case("CONFIG_HID_BPF=", "is no option")]
    #[case("CONFIG_A=y\nCONFIG_AB=y\nCONFIG_A=m", "CONFIG_A is there twice")]
    fn what_is_no_option_is_named(#[case] text: &str, #[case] says: &str) {
        let error = Options::parse(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
