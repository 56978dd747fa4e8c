//! Building kernels from a source that is no kernel's: a Makefile with the targets that the runner
//! makes. What is built and when, what is said if it fails, and that nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::mirror::{assert_only_locks, package, said, serve, tar, whole, xz};

#[path = "support/mirror.rs"]
mod mirror;

/// Kbuild as the runner sees it. This source knows no CONFIG_FORGOTTEN.
const MAKEFILE: &str = "
allnoconfig:
\t@grep -v FORGOTTEN $(KCONFIG_ALLCONFIG) > .config
include/config/kernel.release:
\t@mkdir -p $(@D) && echo 6.99.1-test > $@
bzImage:
\t@echo '  CC      kernel/fork.o'
\t@mkdir -p arch/x86/boot && echo the image > arch/x86/boot/$@
";

/// The same, whose compiler finds a mistake.
const MISTAKE: &str = "
bzImage:
\t@echo '  CC      kernel/fork.o'
\t@echo kernel/fork.c:12: error: a mistake; exit 1
";

/// The same, which says where it is, and never ends.
const ENDLESS: &str = "
bzImage:
\t@echo $$$$ > MARK.new && mv MARK.new MARK && exec sleep 1000
";

/// A workspace with one kernel, which is built, and a mirror with its source.
struct Workspace {
    dir: TempDir,
    url: String,
    requests: Receiver<()>,
}

impl Workspace {
    fn new(bz_image: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark").display().to_string();
        let end = MAKEFILE.find("bzImage:").unwrap();
        let makefile = match bz_image {
            "" => MAKEFILE.to_owned(),
            other => format!("{}{}", &MAKEFILE[..end], other.replace("MARK", &mark)),
        };
        let source = tar(&[("linux-source-6.99/Makefile", makefile.as_bytes())]);
        let path = "usr/src/linux-source-6.99.tar.xz";
        Self::of(dir, package(&[("usr/share/doc/x", b"x"), (path, &xz(&source))]))
    }

    fn of(dir: TempDir, deb: Vec<u8>) -> Self {
        let sha256: String = Sha256::digest(&deb).iter().map(|b| format!("{b:02x}")).collect();
        let bytes = deb.len();
        let (asked, requests) = mpsc::channel();
        let url = serve(move |_, _, _, stream| {
            asked.send(()).unwrap();
            whole(stream, &deb);
        });
        let workspace = Workspace { dir, url, requests };
        let package =
            "[package]\nname = \"x\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]";
        workspace.write("Cargo.toml", package);
        workspace.write("src/lib.rs", "");
        workspace.write("kernels/x.config", "# Why.\nCONFIG_A=y\n");
        workspace.write(
            "kernels.toml",
            &format!(
                "modules = [\"9p\"]\n[[kernel]]\nseries = \"6.99-x\"\nversion = \"6.99.1\"\n\
                 release = \"6.99.1-test\"\n[kernel.build]\nconfig = [\"kernels/x.config\"]\n\
                 options = [\"CONFIG_B=y\"]\n[kernel.build.source]\npath = \"pool/source.deb\"\n\
                 bytes = {bytes}\nsha256 = \"{sha256}\"\n"
            ),
        );
        // They are looked for, and this Makefile calls none of them.
        for tool in ["flex", "bison", "bc", "pahole", "python3"] {
            workspace.write(&format!("bin/{tool}"), "");
        }
        workspace
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir.path().join(file)).unwrap();
        assert!(text.contains(from), "no {from:?} in {file}");
        self.write(file, &text.replacen(from, to, 1));
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let bin = self.dir.path().join("bin").display().to_string();
        command
            .args(["--mirror", &self.url, "--cache"])
            .arg(self.cache())
            .arg("kernels")
            .args(words)
            .current_dir(self.dir.path())
            .env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()))
            // What kbuild would listen to.
            .env("MAKEFLAGS", "--dry-run")
            .env_remove("CARGO_TARGET_DIR")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn build(&self) -> Output {
        self.command(&["build"]).output().unwrap()
    }

    /// How often the source was fetched since this was last asked.
    fn fetched(&self) -> usize {
        self.requests.try_iter().count()
    }

    #[track_caller]
    fn assert_built(&self, output: &Output, config: &str) {
        assert!(output.status.success(), "{}", said(output));
        let entry = self.dir.path().join("target/kernels/6.99-x");
        let read = |file| fs::read_to_string(entry.join(file)).unwrap();
        assert_eq!((read("vmlinuz"), read("config")), ("the image\n".into(), config.into()));
        assert!(fs::metadata(entry.join("initramfs")).unwrap().len() > 100_000);
        // Beside the entry and its lock.
        let names = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        let mut left: Vec<_> = names(&self.cache()).collect();
        left.sort();
        assert_eq!(left, ["images", "kernels", "locks"]);
    }

    #[track_caller]
    fn assert_fails(&self, output: &Output, code: i32, says: &[&str]) {
        let said = said(output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        for words in says {
            assert!(said.contains(words), "no {words:?} in: {said}");
        }
        self.assert_nothing_left();
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert_only_locks(&self.cache());
        assert!(!self.dir.path().join("target").exists(), "target is left");
    }

    /// Starts a build of [`ENDLESS`]; gives it, and the process that its make has started.
    fn endless(&self) -> (Child, Pid) {
        let child = self.command(&["build"]).spawn().unwrap();
        let mark = self.dir.path().join("mark");
        let pid = eventually(|| fs::read_to_string(&mark).ok());
        (child, Pid::from_raw(pid.trim().parse().unwrap()))
    }
}

fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a process has ended; nobody may have waited for it.
fn ended(pid: Pid) {
    let stat = format!("/proc/{pid}/stat");
    eventually(|| match fs::read_to_string(&stat) {
        Ok(stat) => stat.contains(") Z ").then_some(()),
        Err(_) => Some(()),
    });
}

#[test]
fn a_kernel_is_built_once_for_a_source_and_options() {
    let workspace = Workspace::new("");
    workspace.assert_built(&workspace.build(), "CONFIG_A=y\nCONFIG_B=y\n");
    assert_eq!(workspace.fetched(), 1);
    workspace.edit("kernels/x.config", "Why.", "Therefore.");
    workspace.assert_built(&workspace.build(), "CONFIG_A=y\nCONFIG_B=y\n");
    assert_eq!(workspace.fetched(), 0, "a comment makes another kernel");
    workspace.edit("kernels/x.config", "CONFIG_A=y", "CONFIG_A=m");
    workspace.assert_built(&workspace.build(), "CONFIG_A=m\nCONFIG_B=y\n");
    workspace.edit("kernels.toml", "CONFIG_B=y", "CONFIG_B=m");
    workspace.assert_built(&workspace.build(), "CONFIG_A=m\nCONFIG_B=m\n");
    assert_eq!(workspace.fetched(), 2);
}

#[test]
fn a_build_that_fails_is_quoted() {
    let workspace = Workspace::new(MISTAKE);
    let output = workspace.build();
    let says = ["6.99.1-test", "bzImage` failed", "kernel/fork.c:12: error: a mistake", "Error 1"];
    workspace.assert_fails(&output, 3, &says);
    assert!(!said(&output).contains("CC "), "{}", said(&output));
}

#[rstest]
#[case::option("kernels/x.config", "A=y", "FORGOTTEN=y", "asks for CONFIG_FORGOTTEN=y")]
#[case::more_options("kernels.toml", "CONFIG_B", "CONFIG_FORGOTTEN", "asks for CONFIG_FORGOTTEN=y")]
#[case::no_option("kernels/x.config", "CONFIG_A", "A", "x.config: \"A=y\" is no option")]
#[case::release(
    "kernels.toml",
    "1-test",
    "1-other",
    "6.99.1-other, and it calls itself 6.99.1-test"
)]
#[case::no_file("kernels.toml", "x.config", "y.config", "kernels/y.config: No such file")]
#[case::no_config(
    "kernels.toml",
    "config = [\"kernels/x.config\"]\n",
    "",
    "missing field `config`"
)]
#[case::key("kernels.toml", "options", "option", "unknown field `option`")]
#[case::nothing("kernels.toml", "[kernel.build", "[extra", "unknown field `extra`")]
#[case::both(
    "kernels.toml",
    "[kernel.build]",
    "package = [{ path = \"x\", bytes = 1, sha256 = \"0\" }]\n[kernel.build]",
    "has packages, and a build"
)]
fn what_cannot_be_built_as_written_is_named(
    #[case] file: &str,
    #[case] from: &str,
    #[case] to: &str,
    #[case] says: &str,
) {
    let workspace = Workspace::new("");
    // So that what is refused at once leaves a cache to look at, too.
    fs::create_dir(workspace.cache()).unwrap();
    workspace.edit(file, from, to);
    workspace.assert_fails(&workspace.build(), 2, &[says]);
}

#[test]
fn a_kernel_of_nothing_is_refused() {
    let workspace = Workspace::new("");
    fs::create_dir(workspace.cache()).unwrap();
    let text = fs::read_to_string(workspace.dir.path().join("kernels.toml")).unwrap();
    workspace.write("kernels.toml", text.split("[kernel.build]").next().unwrap());
    workspace.assert_fails(&workspace.build(), 2, &["6.99-x has no package, and no build"]);
}

#[test]
fn a_package_without_a_source_is_named() {
    let workspace = Workspace::of(tempfile::tempdir().unwrap(), package(&[("x", &b"x"[..])]));
    let says = ["unpacking source.deb", "it holds no usr/src/*.tar.xz"];
    workspace.assert_fails(&workspace.build(), 3, &says);
}

#[rstest]
#[case(Signal::SIGINT)]
#[case(Signal::SIGTERM)]
fn an_interrupted_build_leaves_nothing(#[case] signal: Signal) {
    let workspace = Workspace::new(ENDLESS);
    let (child, started) = workspace.endless();
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    workspace.assert_fails(&child.wait_with_output().unwrap(), 130, &["interrupted"]);
    ended(started);
}

#[test]
fn a_runner_killed_in_a_build_takes_it_along_and_the_next_one_clears_up() {
    let workspace = Workspace::new(ENDLESS);
    let (mut child, started) = workspace.endless();
    child.kill().unwrap();
    child.wait().unwrap();
    ended(started);
    fs::remove_file(workspace.dir.path().join("mark")).unwrap();
    let (child, _) = workspace.endless();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    child.wait_with_output().unwrap();
    workspace.assert_nothing_left();
}

#[test]
fn two_at_once_build_it_once() {
    let workspace = Workspace::new("");
    let both = [(); 2].map(|()| workspace.command(&["build"]).spawn().unwrap());
    for child in both {
        workspace.assert_built(&child.wait_with_output().unwrap(), "CONFIG_A=y\nCONFIG_B=y\n");
    }
    assert_eq!(workspace.fetched(), 1);
}

#[test]
fn a_built_kernel_has_four_names_and_a_place_in_the_list() {
    let workspace = Workspace::new("");
    let list = |words: &[&str]| said(&workspace.command(words).output().unwrap());
    assert!(list(&[]).contains("1 MB, to build"), "{}", list(&[]));
    for word in ["6.99-x", "6.99.1", "6.99.1-test", "6.99"] {
        let output = workspace.command(&["build", word]).output().unwrap();
        workspace.assert_built(&output, "CONFIG_A=y\nCONFIG_B=y\n");
    }
    assert!(!list(&[]).contains("build"), "{}", list(&[]));
    assert!(list(&["--json"]).contains(r#""series":"6.99-x""#), "{}", list(&["--json"]));
    let output = workspace.command(&["build", "6"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("no kernel 6 is built: there are 6.99-x"), "{}", said(&output));
}
