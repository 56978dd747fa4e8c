//! The tools that a run needs, and how to get them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::failure;

/// How to tell that a tool is there.
enum Sign {
    /// One of these programs is in the path.
    Program(&'static [&'static str]),
    /// `pkg-config` finds the library, or this header is in the compiler's usual place.
    Library(&'static str, &'static str),
    /// One of these files is there.
    File(&'static [&'static str]),
}

struct Tool {
    what: &'static str,
    sign: Sign,
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        what: "QEMU",
        sign: Sign::Program(&["qemu-system-x86_64"]),
        apt: "qemu-system-x86",
        dnf: "qemu-system-x86-core",
        pacman: "qemu-system-x86",
    },
    Tool {
        what: "QEMU's guest agent",
        sign: Sign::Program(&["qemu-ga"]),
        apt: "qemu-guest-agent",
        dnf: "qemu-guest-agent",
        pacman: "qemu-guest-agent",
    },
    Tool {
        what: "iproute2",
        sign: Sign::Program(&["ip"]),
        apt: "iproute2",
        dnf: "iproute",
        pacman: "iproute2",
    },
    Tool {
        what: "clang",
        sign: Sign::Program(&["clang"]),
        apt: "clang",
        dnf: "clang",
        pacman: "clang",
    },
    Tool {
        what: "clang-format",
        sign: Sign::Program(&["clang-format"]),
        apt: "clang-format",
        dnf: "clang-tools-extra",
        pacman: "clang",
    },
    Tool {
        what: "gcc",
        sign: Sign::Program(&["gcc", "cc"]),
        apt: "gcc",
        dnf: "gcc",
        pacman: "gcc",
    },
    Tool { what: "make", sign: Sign::Program(&["make"]), apt: "make", dnf: "make", pacman: "make" },
    Tool {
        what: "pkg-config",
        sign: Sign::Program(&["pkg-config", "pkgconf"]),
        apt: "pkg-config",
        dnf: "pkgconf-pkg-config",
        pacman: "pkgconf",
    },
    Tool {
        what: "libelf's header",
        sign: Sign::Library("libelf", "libelf.h"),
        apt: "libelf-dev",
        dnf: "elfutils-libelf-devel",
        pacman: "libelf",
    },
    Tool {
        what: "zlib's header",
        sign: Sign::Library("zlib", "zlib.h"),
        apt: "zlib1g-dev",
        dnf: "zlib-devel",
        pacman: "zlib",
    },
    Tool {
        what: "the static C library",
        sign: Sign::File(&[
            "/usr/lib/x86_64-linux-gnu/libc.a",
            "/usr/lib64/libc.a",
            "/usr/lib/libc.a",
        ]),
        apt: "libc6-dev",
        dnf: "glibc-static",
        pacman: "glibc",
    },
];

/// For a kernel that is built.
const BUILD_TOOLS: &[Tool] = &[
    Tool { what: "flex", sign: Sign::Program(&["flex"]), apt: "flex", dnf: "flex", pacman: "flex" },
    Tool {
        what: "bison",
        sign: Sign::Program(&["bison"]),
        apt: "bison",
        dnf: "bison",
        pacman: "bison",
    },
    Tool { what: "bc", sign: Sign::Program(&["bc"]), apt: "bc", dnf: "bc", pacman: "bc" },
    Tool {
        what: "pahole",
        sign: Sign::Program(&["pahole"]),
        apt: "pahole",
        dnf: "dwarves",
        pacman: "pahole",
    },
];

impl Tool {
    fn is_there(&self) -> bool {
        match &self.sign {
            Sign::Program(names) => names.iter().any(|name| in_path(name)),
            Sign::Library(package, header) => {
                let found = Command::new("pkg-config").args(["--exists", package]).status();
                found.is_ok_and(|status| status.success())
                    || Path::new("/usr/include").join(header).exists()
            }
            Sign::File(paths) => paths.iter().any(|path| Path::new(path).exists()),
        }
    }
}

/// Makes sure that all tools are there. On a machine with apt it installs what is missing, with
/// sudo when it does not run as root; elsewhere it says which packages have it.
pub fn ensure_tools() -> Result<()> {
    ensure(TOOLS)
}

/// As [`ensure_tools`], for what a kernel is built with beside them.
pub fn ensure_build_tools() -> Result<()> {
    ensure(BUILD_TOOLS)
}

fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|tool| tool.what).collect();
    let names = names.join(", ");
    if !in_path("apt-get") {
        return Err(failure::usage(elsewhere(&names, &missing)));
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.apt).collect();
    let by_hand = || format!("install by hand, as root: apt-get install {}", packages.join(" "));
    eprintln!("missing: {names}; installing {}", packages.join(" "));
    let root = as_root().with_context(by_hand)?;
    if apt(root, &["update"]).is_err() {
        // An unreachable third-party source fails the whole update; what is wanted may be there.
        eprintln!("apt-get update failed; trying to install with the lists that are there");
    }
    let install = ["install", "-y", "--no-install-recommends"];
    apt(root, &[&install[..], &packages].concat()).with_context(by_hand)?;
    let still: Vec<&str> =
        missing.iter().filter(|tool| !tool.is_there()).map(|tool| tool.what).collect();
    if !still.is_empty() {
        bail!("{} was installed, but there is still no {}", packages.join(" "), still.join(", "));
    }
    Ok(())
}

fn elsewhere(names: &str, missing: &[&Tool]) -> String {
    let list = |package: fn(&Tool) -> &'static str| {
        missing.iter().map(|tool| package(tool)).collect::<Vec<_>>().join(" ")
    };
    format!(
        "missing: {names}; install\n  Debian: apt-get install {}\n  Fedora: dnf install {}\n  Arch: pacman -S {}",
        list(|tool| tool.apt),
        list(|tool| tool.dnf),
        list(|tool| tool.pacman)
    )
}

/// What comes before a command to run it as root.
fn as_root() -> Result<&'static [&'static str]> {
    match (nix::unistd::geteuid().is_root(), in_path("sudo")) {
        (true, _) => Ok(&["env"]),
        // sudo drops the environment, and may refuse to keep it.
        (false, true) => Ok(&["sudo", "env"]),
        (false, false) => bail!("this is not root, and there is no sudo"),
    }
}

fn apt(root: &[&str], arguments: &[&str]) -> Result<()> {
    let status = Command::new(root[0])
        .args(&root[1..])
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"])
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        // Standard output is for results: apt's lines are progress.
        .stdout(std::io::stderr())
        .status()
        .context("running apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}

/// Debian keeps system tools out of an ordinary user's path.
fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|directory| directory.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_for_each_distribution() {
        let missing: Vec<&Tool> = TOOLS
            .iter()
            .filter(|tool| tool.what.contains("QEMU") || tool.apt == "libelf-dev")
            .collect();
        let text = elsewhere("QEMU", &missing);
        for line in [
            "apt-get install qemu-system-x86 qemu-guest-agent libelf-dev",
            "dnf install qemu-system-x86-core qemu-guest-agent elfutils-libelf-devel",
            "pacman -S qemu-system-x86 qemu-guest-agent libelf",
        ] {
            assert!(text.contains(line), "no {line:?} in: {text}");
        }
    }

    #[test]
    fn a_tool_is_seen_by_what_it_brings() {
        assert!(in_path("sh") && !in_path("no-such-tool"));
        let tool = |sign| Tool { what: "", sign, apt: "", dnf: "", pacman: "" };
        assert!(tool(Sign::Program(&["no-such-tool", "sh"])).is_there());
        assert!(tool(Sign::File(&["/nowhere", "/proc/version"])).is_there());
        assert!(!tool(Sign::File(&["/nowhere"])).is_there());
        assert!(!tool(Sign::Library("no-such-library", "no-such.h")).is_there());
    }
}
