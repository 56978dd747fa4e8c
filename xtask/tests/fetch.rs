//! Fetching kernels from a mirror that misbehaves: what is made of it, what is said, and that
//! nothing is left behind. The mirror is a server in this process.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use object::write;
use rstest::rstest;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::mirror::{assert_only_locks, package, part, said, serve, whole, xz};

#[path = "support/mirror.rs"]
mod mirror;

const RELEASE: &str = "6.99.1-test";
const DEB: &str = "pool/kernel.deb";

/// A module as far as the runner looks into it.
fn module(depends: &str) -> Vec<u8> {
    let (format, architecture) = (object::BinaryFormat::Elf, object::Architecture::X86_64);
    let mut file = write::Object::new(format, architecture, object::Endianness::Little);
    let section = file.add_section(vec![], b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
    let info = format!("license=GPL\0depends={depends}\0name=x\0");
    file.append_section_data(section, info.as_bytes(), 1);
    file.write().unwrap()
}

/// A kernel package with these files under the modules' directory.
fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all: Vec<(String, &[u8])> = vec![
        (format!("boot/vmlinuz-{RELEASE}"), b"the image"),
        (format!("boot/config-{RELEASE}"), b"CONFIG_X=y\n"),
    ];
    for (path, content) in files {
        all.push((format!("usr/lib/modules/{RELEASE}/{path}"), content));
    }
    package(&all)
}

/// A package that is right, and too large for one write to a socket: noise does not compress.
fn good_deb() -> Vec<u8> {
    let mut noise = Vec::new();
    let mut block = Sha256::digest(b"noise");
    while noise.len() < 3 << 20 {
        noise.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    deb(&[
        ("modules.builtin", b"kernel/drivers/virtio/virtio_pci.ko\n"),
        ("kernel/fs/9p/9p.ko.xz", &xz(&module("9pnet,netfs"))),
        ("kernel/fs/netfs/netfs.ko", &module("")),
        ("kernel/net/9p/9pnet.ko.xz", &xz(&module(""))),
        ("kernel/net/9p/9pnet_virtio.ko.xz", &xz(&module("9pnet"))),
        ("kernel/other.ko", &noise),
    ])
}

/// A workspace with a matrix of one kernel, whose package is `deb`, and a cache.
struct Workspace {
    dir: TempDir,
}

impl Workspace {
    fn new(deb: &[u8]) -> Self {
        let sha256: String = Sha256::digest(deb).iter().map(|b| format!("{b:02x}")).collect();
        Self::pinned(deb.len(), &sha256)
    }

    fn pinned(bytes: usize, sha256: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: String| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let package =
            "[package]\nname = \"x\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]";
        write("Cargo.toml", package.to_owned());
        write("src/lib.rs", String::new());
        write(
            "kernels.toml",
            format!(
                "modules = [\"virtio_pci\", \"9p\", \"9pnet_virtio\"]\n[[kernel]]\nseries = \"6.99\"\n\
                 version = \"6.99.1\"\nrelease = \"{RELEASE}\"\n[[kernel.package]]\n\
                 path = \"{DEB}\"\nbytes = {bytes}\nsha256 = \"{sha256}\"\n"
            ),
        );
        write(
            "vmtest.toml",
            "[[target]]\nname = \"6.99\"\nkernel = \"target/kernels/6.99/vmlinuz\"\n\
             command = \"true\"\n[target.vm]\nmemory = \"1G\"\nnum_cpus = 1\n\
             extra_args = [\"-initrd\", \"target/kernels/6.99/initramfs\"]\n"
                .to_owned(),
        );
        Workspace { dir }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn command(&self, mirror: &str, cache: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["kernels", "fetch", "--mirror", mirror, "--cache"]).arg(cache);
        command.current_dir(self.dir.path()).env_remove("CARGO_TARGET_DIR");
        command
    }

    fn fetch(&self, mirror: &str) -> Output {
        self.command(mirror, &self.cache()).output().unwrap()
    }

    fn entry(&self) -> PathBuf {
        self.dir.path().join("target/kernels/6.99")
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert_only_locks(&self.cache());
        assert!(!self.dir.path().join("target").exists(), "target is left");
    }

    #[track_caller]
    fn assert_fails(&self, output: &Output, says: &[&str]) {
        let said = said(output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        for words in says {
            assert!(said.contains(words), "no {words:?} in: {said}");
        }
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        self.assert_nothing_left();
    }

    #[track_caller]
    fn assert_fetched(&self, output: &Output) {
        assert!(output.status.success(), "{}", said(output));
        assert_eq!(fs::read(self.entry().join("vmlinuz")).unwrap(), b"the image");
        assert_eq!(fs::read(self.entry().join("config")).unwrap(), b"CONFIG_X=y\n");
        let archive = fs::read(self.entry().join("modules.cpio")).unwrap();
        let order =
            "/modules/9pnet.ko\n/modules/netfs.ko\n/modules/9p.ko\n/modules/9pnet_virtio.ko\n";
        let archive = String::from_utf8_lossy(&archive);
        assert!(archive.contains(order), "the modules are not in the order of their needs");
        assert!(!archive.contains("other.ko"));
        let initramfs = fs::metadata(self.entry().join("initramfs")).unwrap().len();
        assert!(initramfs > 100_000, "an initramfs of {initramfs} bytes has no init");
    }
}

#[test]
fn a_kernel_is_fetched_once() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    let (asked, requests) = mpsc::channel();
    let url = serve(move |_, first, _, stream| {
        asked.send(first.to_owned()).unwrap();
        whole(stream, &deb);
    });
    workspace.assert_fetched(&workspace.fetch(&url));
    workspace.assert_fetched(&workspace.fetch(&url));
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [format!("GET /{DEB} HTTP/1.1")]);
}

#[test]
fn two_at_once_fetch_it_once() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    let (asked, requests) = mpsc::channel();
    let url = serve(move |_, _, _, stream| {
        asked.send(()).unwrap();
        whole(stream, &deb);
    });
    let start = || {
        let mut command = workspace.command(&url, &workspace.cache());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both: [Child; 2] = [start(), start()];
    for child in both {
        workspace.assert_fetched(&child.wait_with_output().unwrap());
    }
    assert_eq!(requests.try_iter().count(), 1);
}

#[test]
fn a_broken_transfer_is_resumed() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    let (asked, starts) = mpsc::channel();
    let (first, second) = (deb.len() / 3, deb.len() / 3 * 2);
    let url = serve(move |number, _, start, stream| {
        asked.send(start).unwrap();
        part(stream, &deb, start, [first, second, deb.len()][number]);
    });
    workspace.assert_fetched(&workspace.fetch(&url));
    assert_eq!(starts.try_iter().collect::<Vec<_>>(), [0, first as u64, second as u64]);
}

#[test]
fn a_server_that_ignores_the_range_is_asked_from_the_start() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    let url = serve(move |number, _, _, stream| {
        let until = if number == 0 { deb.len() / 2 } else { deb.len() };
        part(stream, &deb, 0, until);
    });
    workspace.assert_fetched(&workspace.fetch(&url));
}

#[test]
fn a_file_that_changed_between_the_parts_is_fetched_again() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    let other = vec![0; deb.len()];
    let url = serve(move |number, _, start, stream| match number {
        0 => part(stream, &other, 0, other.len() / 2),
        _ => part(stream, &deb, start, deb.len()),
    });
    workspace.assert_fetched(&workspace.fetch(&url));
}

#[test]
fn a_transfer_that_always_breaks_ends() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    // Nothing after the first half, on every attempt.
    let url = serve(move |_, _, start, stream| part(stream, &deb, start, deb.len() / 2));
    workspace.assert_fails(&workspace.fetch(&url), &["cannot fetch kernel.deb", "5 attempts"]);
}

#[rstest]
#[case::hash("has SHA-256", |deb: &mut Vec<u8>| deb[70] ^= 1)]
#[case::size("bytes, but kernels.toml pins", |deb: &mut Vec<u8>| deb.push(0))]
fn another_file_than_the_pinned_one_is_not_used(
    #[case] says: &str,
    #[case] change: fn(&mut Vec<u8>),
) {
    let mut deb = good_deb();
    let workspace = Workspace::new(&deb);
    change(&mut deb);
    let url = serve(move |_, _, _, stream| whole(stream, &deb));
    workspace.assert_fails(&workspace.fetch(&url), &[says, "it is not used", DEB]);
}

#[test]
fn a_mirror_without_the_file_is_named() {
    let workspace = Workspace::new(&good_deb());
    let url = serve(|_, _, _, stream| {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let output = workspace.fetch(&url);
    workspace.assert_fails(&output, &["404", &url, DEB, "--mirror"]);
}

#[test]
fn a_mirror_that_refuses_the_connection_is_named() {
    let workspace = Workspace::new(&good_deb());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    workspace.assert_fails(&workspace.fetch(&url), &["refused", &url, "--mirror"]);
}

#[test]
fn a_machine_without_apt_must_name_a_mirror() {
    let workspace = Workspace::new(&good_deb());
    // A path with all that the runner needs, but apt.
    let bin = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for directory in std::env::split_paths(&path).filter(|directory| directory.is_dir()) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let to = bin.path().join(entry.file_name());
            if !entry.file_name().to_string_lossy().starts_with("apt") && !to.exists() {
                std::os::unix::fs::symlink(entry.path(), to).unwrap();
            }
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["kernels", "fetch", "--cache"]).arg(workspace.cache());
    command.current_dir(workspace.dir.path()).env("PATH", bin.path());
    command.env_remove("XTASK_MIRROR").env_remove("CARGO_TARGET_DIR");
    let output = command.output().unwrap();
    workspace.assert_fails(&output, &["no mirror", "no apt", "--mirror", "XTASK_MIRROR"]);
}

#[test]
fn a_kernel_without_9p_is_named() {
    let deb = deb(&[("modules.builtin", b"kernel/drivers/virtio/virtio_pci.ko\n")]);
    let workspace = Workspace::new(&deb);
    let url = serve(move |_, _, _, stream| whole(stream, &deb));
    let output = workspace.fetch(&url);
    workspace.assert_fails(&output, &[RELEASE, "no module 9p", "cloud", "CONFIG_9P_FS"]);
}

/// The first disk is too small for the package, the second for what is in it: 32 MB of zeros.
#[rstest]
#[case::before_the_transfer("1m", "MB are needed", good_deb())]
#[case::while_it_unpacks("4m", "unpacking", deb(&[("modules.builtin", b""), ("kernel/zeros.ko", &[0; 32 << 20])]))]
fn a_full_disk_is_named(#[case] size: &str, #[case] says: &str, #[case] deb: Vec<u8>) {
    let workspace = Workspace::new(&deb);
    let url = serve(move |_, _, _, stream| whole(stream, &deb));
    let cache = workspace.cache();
    fs::create_dir(&cache).unwrap();
    let fetch = workspace.command(&url, &cache);
    // A file system of our own, in a name space of our own: it needs root, or a system that lets
    // users have theirs. What is left in it is listed before it goes.
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c"]).arg(format!(
        "mount -t tmpfs -o size={size} tmpfs \"$0\" && \"$@\"; code=$?; find \"$0\" -size +0 -type f; exit $code"
    ));
    command.arg(&cache).arg(fetch.get_program()).args(fetch.get_args());
    command.current_dir(workspace.dir.path()).env_remove("CARGO_TARGET_DIR");
    let output = command.output().unwrap();
    workspace.assert_fails(&output, &["is full", says, "--cache", cache.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "files are left");
}

#[test]
fn a_runner_killed_in_a_transfer_leaves_nothing() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    let (sent, half) = mpsc::channel();
    let url = serve(move |_, _, start, stream| {
        part(stream, &deb, start, deb.len() / 2);
        sent.send(()).unwrap();
        // The other half never comes; the connection stays until the test is over.
        std::mem::forget(stream.try_clone().unwrap());
    });
    let mut child = workspace.command(&url, &workspace.cache());
    let mut child = child.stderr(Stdio::null()).spawn().unwrap();
    half.recv_timeout(Duration::from_secs(60)).unwrap();
    // Half of the package has been sent; wait until it is on the disk too.
    let descriptors = format!("/proc/{}/fd", child.id());
    let deadline = Instant::now() + Duration::from_secs(30);
    let arrived = || {
        let files =
            fs::read_dir(&descriptors).unwrap().filter_map(|fd| fs::metadata(fd.ok()?.path()).ok());
        files.filter(|file| file.is_file()).any(|file| file.len() > 1 << 20)
    };
    while !arrived() {
        assert!(Instant::now() < deadline, "the download does not get on");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    workspace.assert_nothing_left();
}

#[rstest]
#[case::matrix("kernels.toml", "bytes = ", "bites = 1\nbytes = ")]
#[case::targets("vmtest.toml", "num_cpus", "cpus = 1\nnum_cpus")]
fn an_unknown_key_is_named_with_its_line(#[case] file: &str, #[case] from: &str, #[case] to: &str) {
    let workspace = Workspace::new(&good_deb());
    let path = workspace.dir.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().position(|line| line.starts_with(from)).unwrap() + 1;
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    let output = workspace.fetch("http://127.0.0.1:1");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let key = to.split_whitespace().next().unwrap();
    for words in [file, &format!("line {line}"), &format!("unknown field `{key}`")] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
}

#[test]
fn targets_and_kernels_must_agree() {
    let workspace = Workspace::new(&good_deb());
    let path = workspace.dir.path().join("vmtest.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("6.99", "6.98")).unwrap();
    let output = workspace.fetch("http://127.0.0.1:1");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("vmtest.toml has no target 6.99"), "{}", said(&output));
}

#[test]
fn a_word_that_names_no_kernel_is_refused() {
    let workspace = Workspace::new(&good_deb());
    let mut command = workspace.command("http://127.0.0.1:1", &workspace.cache());
    let output = command.args(["-k", "6.9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(
        said.contains("no kernel and no file \"6.9\"") && said.contains("there are 6.99"),
        "{said}"
    );
}

#[test]
fn the_list_says_what_is_cached() {
    let deb = good_deb();
    let workspace = Workspace::new(&deb);
    let list = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["kernels", "--json", "--cache"]).arg(workspace.cache());
        let output = command.current_dir(workspace.dir.path()).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let row = |cached: bool| {
        serde_json::json!([
            {"series": "6.99", "version": "6.99.1", "release": RELEASE, "cached": cached}
        ])
    };
    assert_eq!(list(), row(false));
    let url = serve(move |_, _, _, stream| whole(stream, &deb));
    workspace.assert_fetched(&workspace.fetch(&url));
    assert_eq!(list(), row(true));
}
