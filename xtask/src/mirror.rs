//! Where packages come from: a mirror that the user names, else the machine's own.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::failure;

const NAME_ONE: &str = "name a Debian mirror once with --mirror URL or XTASK_MIRROR";

/// The mirrors to try, in order, each ending in a slash.
pub fn candidates(named: Option<&str>) -> Result<Vec<String>> {
    let variable = std::env::var("XTASK_MIRROR").ok().filter(|value| !value.is_empty());
    if let Some(url) = named.map(str::to_owned).or(variable) {
        if !is_http(&url) {
            return Err(failure::usage(format!(
                "{url:?} is not a mirror: an http:// or https:// URL is needed"
            )));
        }
        return Ok(vec![with_slash(&url)]);
    }
    // Without --no-release-info apt names only sources whose indexes it has already fetched, and
    // a fresh container has none.
    let output = Command::new("apt-get")
        .args(["indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)"])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("no mirror to fetch kernels from: this machine has no apt; {NAME_ONE}")
        }
        Err(error) => bail!("running apt-get indextargets: {error}; {NAME_ONE}"),
    };
    if !output.status.success() {
        bail!(
            "apt-get indextargets failed: {}; {NAME_ONE}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mirrors = from_apt(&String::from_utf8_lossy(&output.stdout), |list| {
        fs::read_to_string(list).unwrap_or_default()
    });
    if mirrors.is_empty() {
        bail!("apt knows no http or https source on this machine; {NAME_ONE}");
    }
    Ok(mirrors)
}

/// What to add to an error about a mirror.
pub fn advice() -> &'static str {
    NAME_ONE
}

/// Reads lines of `URI RELEASE`. The security archive holds no backports, so it comes last.
/// Debian's cloud images name `mirror+file:` lists of mirrors: `list` reads one.
fn from_apt(lines: &str, list: impl Fn(&str) -> String) -> Vec<String> {
    let mut mirrors: Vec<(bool, String)> = Vec::new();
    for line in lines.lines() {
        let (uri, release) = line.split_once(' ').unwrap_or((line, ""));
        let late = release.contains("security");
        let uris = match uri.strip_prefix("mirror+file:") {
            Some(path) => list(path.trim_end_matches('/'))
                .lines()
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect(),
            None => vec![uri.to_owned()],
        };
        for uri in uris.iter().filter(|uri| is_http(uri)) {
            let mirror = (late, with_slash(uri));
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    mirrors.sort_by_key(|(late, _)| *late);
    mirrors.into_iter().map(|(_, uri)| uri).collect()
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

fn with_slash(url: &str) -> String {
    format!("{}/", url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_sources_come_once_and_the_security_archive_last() {
        let lines = "http://a.test/debian-security/ trixie-security\n\
                     http://a.test/debian/ trixie\n\
                     http://a.test/debian/ trixie-updates\n\
                     cdrom://[Debian]/ trixie\n";
        assert_eq!(
            from_apt(lines, |_| unreachable!()),
            ["http://a.test/debian/", "http://a.test/debian-security/"]
        );
    }

    #[test]
    fn a_list_of_mirrors_is_read() {
        let lines = "mirror+file:/etc/apt/mirrors/debian.list/ trixie\n";
        let list = |path: &str| {
            assert_eq!(path, "/etc/apt/mirrors/debian.list");
            "https://b.test/debian\tpriority:1\n\n".to_owned()
        };
        assert_eq!(from_apt(lines, list), ["https://b.test/debian/"]);
    }

    #[test]
    fn a_named_mirror_is_the_only_one_and_must_be_http() {
        assert_eq!(candidates(Some("http://c.test/x")).unwrap(), ["http://c.test/x/"]);
        let error = candidates(Some("/srv/debian")).unwrap_err();
        assert_eq!(failure::exit_of(&error), failure::Exit::Usage);
    }
}
