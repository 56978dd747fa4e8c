//! The process between vmtest and QEMU. It settles what vmtest leaves open: the accelerator, a
//! console log that survives everything, a root that the guest cannot write, and that neither
//! QEMU nor a file outlives the runner, however the runner ends.
//!
//! vmtest starts it as its `qemu_command`, by a script ([`Post::new`]) that names the post's
//! directory; it reads the rest there.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::accel::Accel;

/// How often the guardian looks whether QEMU has ended. It is woken at once when the runner ends.
const LOOK: Duration = Duration::from_millis(50);

/// What the guardian has to know.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    accel: Accel,
    /// Where the console's log goes, and what QEMU says.
    guest: PathBuf,
}

/// The runner's side: a directory of its own for the guardian of one guest.
pub struct Post {
    dir: TempDir,
    leash: Option<UnixListener>,
}

impl Post {
    /// Makes the directory; `guest` is where the guest's logs go, `exe` the runner. Unix sockets
    /// live in it, whose paths are limited to 107 bytes: it is in the system's temporary directory.
    pub fn new(accel: Accel, guest: &Path, exe: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("xtask-guest-")
            .tempdir()
            .context("cannot make a directory for the guest's sockets")?;
        let leash = UnixListener::bind(dir.path().join("leash"))
            .context("cannot make the guardian's socket")?;
        let orders = Orders { accel, guest: guest.to_owned() };
        fs::write(dir.path().join("orders.json"), serde_json::to_vec(&orders)?)?;

        let quoted = exe.to_str().context("the runner's path is not UTF-8")?.replace('\'', r"'\''");
        let script = dir.path().join("qemu");
        fs::write(&script, format!("#!/bin/sh\nexec '{quoted}' guardian \"${{0%/*}}\" \"$@\"\n"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(Post { dir, leash: Some(leash) })
    }

    /// What vmtest is to run as QEMU.
    pub fn command(&self) -> PathBuf {
        self.dir.path().join("qemu")
    }

    /// The guest's console, a socket that any one client may use at a time.
    pub fn console(&self) -> PathBuf {
        console_socket(self.dir.path())
    }

    /// Ends the guest, whatever it is doing. It ends likewise when the runner does, and when the
    /// post is dropped: the guardian's connection, which nobody has accepted, is closed in each case.
    pub fn end_guest(&mut self) {
        self.leash = None;
    }

    /// Ends a guest that has run, and waits until nothing is left of it.
    pub fn end_guest_that_ran(&mut self) -> Result<()> {
        let leash = self.leash.take().context("the guest was ended before")?;
        let (mut guardian, _) = leash.accept().context("cannot reach the guardian")?;
        guardian.shutdown(Shutdown::Write).context("cannot reach the guardian")?;
        guardian.read(&mut [0]).context("cannot wait for the guardian")?;
        Ok(())
    }
}

/// The log of a guest's console, in the guest's directory.
pub fn console_log(guest: &Path) -> PathBuf {
    guest.join("console.log")
}

/// What QEMU wrote to its standard error, in the guest's directory.
pub fn qemu_log(guest: &Path) -> PathBuf {
    guest.join("qemu.log")
}

fn console_socket(dir: &Path) -> PathBuf {
    dir.join("console")
}

/// The guardian itself: runs QEMU until it ends or the runner lets go. Returns QEMU's exit code.
pub fn run(dir: &Path, args: &[String]) -> Result<i32> {
    // vmtest asks for the help text to see whether QEMU exists; `setup` has seen to that.
    if args == ["--help"] {
        return Ok(0);
    }
    // A session of its own: Ctrl-C at the terminal reaches the runner, which ends the guest.
    nix::unistd::setsid().context("cannot leave the terminal's session")?;
    let mut leash = UnixStream::connect(dir.join("leash"))
        .context("the runner is gone: its socket does not answer")?;
    leash.set_read_timeout(Some(LOOK))?;
    let orders: Orders = serde_json::from_slice(&fs::read(dir.join("orders.json"))?)?;

    let said = fs::File::create(qemu_log(&orders.guest)).context("cannot make QEMU's log")?;
    let own = rewrite(args, &orders, &console_socket(dir))?;
    let mut qemu = spawn_bound(Command::new(QEMU).args(&own).stdin(Stdio::null()).stderr(said))?;
    let code = wait(&mut qemu, &mut leash)?;
    for file in left_by_vmtest(args) {
        remove(&file)?;
    }
    if runner_is_gone(&mut leash) {
        fs::remove_dir_all(dir).context("cannot remove the guest's directory")?;
    }
    // The runner may wait for this process: its end closes the connection.
    std::mem::forget(leash);
    Ok(code)
}

/// The QEMU that guests run on: kernels of the matrix are x86-64.
pub const QEMU: &str = "qemu-system-x86_64";

/// Starts a process that the kernel kills when its parent ends.
pub fn spawn_bound(command: &mut Command) -> Result<Child> {
    let parent = nix::unistd::getpid();
    // SAFETY: prctl(2) and getppid(2) are async-signal-safe and touch no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(std::io::Error::other("the parent is gone"));
            }
            Ok(())
        });
    }
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().with_context(|| format!("cannot start {program}"))
}

fn wait(qemu: &mut Child, leash: &mut UnixStream) -> Result<i32> {
    loop {
        if runner_is_gone(leash) {
            qemu.kill().context("cannot kill QEMU")?;
        }
        if let Some(status) = qemu.try_wait().context("cannot wait for QEMU")? {
            // A signal's number in the shell's manner; vmtest only sees that QEMU has ended.
            return Ok(status.code().unwrap_or(128));
        }
    }
}

/// Waits up to [`LOOK`] for the runner to close its end, or to end.
fn runner_is_gone(leash: &mut UnixStream) -> bool {
    match leash.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// The sockets and the init script that vmtest makes, as its arguments for QEMU name them. vmtest
/// removes them too, unless it was killed.
fn left_by_vmtest(args: &[String]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (option, value) in args.iter().zip(args.iter().skip(1)) {
        let path = match option.as_str() {
            "-chardev" => value.strip_prefix("socket,path="),
            "-qmp" => value.strip_prefix("unix:"),
            "-append" => value.split(' ').find_map(|arg| arg.strip_prefix("init=")),
            _ => None,
        };
        files.extend(path.and_then(|p| p.split(',').next()).map(PathBuf::from));
    }
    files
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// vmtest's arguments with the accelerator, console and root that the orders name.
fn rewrite(args: &[String], orders: &Orders, console: &Path) -> Result<Vec<String>> {
    let mut own = Vec::new();
    let mut root_is_read_only = false;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            // vmtest decides by the existence of /dev/kvm.
            "-enable-kvm" => (),
            "-cpu" => _ = rest.next(),
            "-serial" => {
                rest.next();
                let (socket, log) =
                    (comma_doubled(console)?, comma_doubled(&console_log(&orders.guest))?);
                own.extend(["-chardev".into()]);
                own.push(format!(
                    "socket,id=console,path={socket},server=on,wait=off,logfile={log}"
                ));
                own.extend(["-serial".into(), "chardev:console".into()]);
            }
            "-virtfs" => {
                let mut value = rest.next().context("-virtfs without a value")?.clone();
                if value.contains("mount_tag=/dev/root") {
                    value.push_str(",readonly=on");
                    root_is_read_only = true;
                }
                own.extend([arg.clone(), value]);
            }
            _ => own.push(arg.clone()),
        }
    }
    if !root_is_read_only {
        bail!("vmtest's arguments for QEMU name no root to export read-only: {args:?}");
    }
    own.extend(orders.accel.qemu_args().iter().map(|arg| (*arg).to_owned()));
    Ok(own)
}

/// A path as a value of a QEMU option: a comma in it is doubled.
fn comma_doubled(path: &Path) -> Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(path.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    const VMTEST: &[&str] = &[
        "-serial",
        "mon:stdio",
        "-enable-kvm",
        "-cpu",
        "host",
        "-qmp",
        "unix:/tmp/qmp-1.sock,server=on,wait=off",
        "-chardev",
        "socket,path=/tmp/qga-1.sock,server=on,wait=off,id=qga0",
        "-virtfs",
        "local,id=root,path=/,mount_tag=/dev/root,security_model=none",
        "-append",
        "rw init=/tmp/vmtest-init1.sh panic=-1",
    ];

    fn rewritten(accel: Accel) -> String {
        let orders = Orders { accel, guest: "/guest,1".into() };
        rewrite(&args(VMTEST), &orders, Path::new("/run/console")).unwrap().join(" ")
    }

    #[test]
    fn tcg_runs_every_cpu_in_one_thread_and_drops_vmtests_kvm() {
        let line = rewritten(Accel::Tcg);
        assert!(line.contains("-accel tcg,thread=single -cpu max"), "{line}");
        assert!(!line.contains("-enable-kvm") && !line.contains("-cpu host"), "{line}");
    }

    #[test]
    fn the_root_is_exported_read_only_and_the_console_logged() {
        let line = rewritten(Accel::Kvm);
        assert!(line.contains("mount_tag=/dev/root,security_model=none,readonly=on"), "{line}");
        assert!(line.contains("logfile=/guest,,1/console.log"), "{line}");
        assert!(!line.contains("mon:stdio"), "{line}");
    }

    #[test]
    fn arguments_without_a_root_are_refused() {
        let orders = Orders { accel: Accel::Tcg, guest: "/guest".into() };
        assert!(rewrite(&args(&["-m", "2G"]), &orders, Path::new("/run/console")).is_err());
    }

    #[test]
    fn vmtests_sockets_and_script_are_known() {
        let files = left_by_vmtest(&args(VMTEST));
        let names = ["/tmp/qmp-1.sock", "/tmp/qga-1.sock", "/tmp/vmtest-init1.sh"];
        assert_eq!(files, names.map(PathBuf::from));
    }
}
