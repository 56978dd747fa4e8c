//! PID 1 of the initramfs: mounts the host's files under an overlay and hands over.
//!
//! It loads the modules in `/modules/order`, mounts the 9p share `/dev/root` read-only with the
//! last `rootflags=` of the kernel's command line, puts an overlay in memory over it, and becomes
//! the program that `init=` names. It says `xtask-init: root ready` just before that. If it
//! cannot, it says why in one line and powers off.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Features that change what a rename or a file's number means are set, not left to the
/// kernel's configuration.
const OVERLAY: &str = "lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work,\
                       redirect_dir=on,index=off,metacopy=off,xino=off";

/// The other program that this one is.
const POWEROFF: &str = "poweroff";

fn main() {
    if std::env::args().next().is_some_and(|name| name.ends_with(POWEROFF)) {
        let Err(why) = power_off();
        say(&format!("cannot power off: {why}"));
        std::process::exit(1);
    }
    let why = match run() {
        Ok(never) => match never {},
        Err(why) => why,
    };
    say(&why);
    // Only a process without CAP_SYS_BOOT could see this fail; PID 1 has it.
    let _ = power_off();
}

fn power_off() -> Result<Infallible, Errno> {
    reboot(RebootMode::RB_POWER_OFF)
}

/// Returns only if it fails.
fn run() -> Result<Infallible, String> {
    mount_device("devtmpfs", "/dev")?;
    mount_device("proc", "/proc")?;
    load_modules()?;
    let cmdline = fs::read_to_string("/proc/cmdline").map_err(|e| format!("/proc/cmdline: {e}"))?;
    let flags = last(&cmdline, "rootflags=")
        .ok_or("no rootflags= on the command line: how to mount the host's files is not said")?;
    let init = last(&cmdline, "init=").ok_or("no init= on the command line: nothing to run")?;

    for directory in ["/host", "/memory", "/new"] {
        fs::create_dir(directory).map_err(|e| format!("making {directory}: {e}"))?;
    }
    mount_root(flags)?;
    attach("tmpfs", "/memory", "tmpfs", "mode=755")
        .map_err(|e| format!("mounting a tmpfs: {e}"))?;
    for directory in ["/memory/upper", "/memory/work"] {
        fs::create_dir(directory).map_err(|e| format!("making {directory}: {e}"))?;
    }
    attach("overlay", "/new", "overlay", OVERLAY).map_err(|e| match e {
        Errno::ENODEV => "this kernel has no overlay file system (CONFIG_OVERLAY_FS); if it is a module, name its directory with --modules".to_owned(),
        _ => format!("mounting the overlay: {e}"),
    })?;
    provide_poweroff()?;
    switch_root()?;
    if !fs::exists(init).unwrap_or(false) {
        return Err(format!(
            "init={init} is not among the host's files, or QEMU's user may not read it"
        ));
    }
    say("root ready");
    Err(format!("running {init}: {}", Command::new(init).exec()))
}

fn attach(source: &str, target: &str, kind: &str, data: &str) -> Result<(), Errno> {
    mount(Some(source), target, Some(kind), MsFlags::empty(), Some(data))
}

fn mount_device(kind: &str, target: &str) -> Result<(), String> {
    attach(kind, target, kind, "").map_err(|e| format!("mounting {kind} at {target}: {e}"))
}

fn load_modules() -> Result<(), String> {
    let order = match fs::read_to_string("/modules/order") {
        Ok(order) => order,
        Err(e) => return Err(format!("/modules/order: {e}")),
    };
    for path in order.lines() {
        let file = File::open(path).map_err(|e| format!("{path}: {e}"))?;
        match finit_module(&file, &CString::default(), ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(format!("loading {path}: {e}")),
        }
    }
    Ok(())
}

fn mount_root(flags: &str) -> Result<(), String> {
    mount(Some("/dev/root"), "/host", Some("9p"), MsFlags::MS_RDONLY, Some(flags)).map_err(|e| {
        let hint = match e {
            Errno::ENODEV => "this kernel has no 9p file system (CONFIG_9P_FS); if it is a module, name its directory with --modules",
            Errno::EINVAL => "either rootflags= is wrong or this kernel has no 9p over virtio (CONFIG_NET_9P_VIRTIO); if that is a module, name its directory with --modules",
            Errno::ENOENT => "QEMU shares no directory with the tag /dev/root",
            _ => "see the kernel's messages above",
        };
        format!("mounting the host's files over 9p with {flags}: {e}: {hint}")
    })
}

/// vmtest's init ends with poweroff(8), which a container's or a minimal system's files lack: then
/// this program is it.
fn provide_poweroff() -> Result<(), String> {
    let places = ["usr/sbin", "sbin", "usr/bin", "bin"];
    // Not through links, which would lead out of /new: a link is enough of a program.
    let has = |place| fs::symlink_metadata(format!("/new/{place}/{POWEROFF}")).is_ok();
    if !places.into_iter().any(has) {
        let to = format!("/new/usr/sbin/{POWEROFF}");
        fs::copy("/init", &to).map_err(|e| format!("making {to}: {e}"))?;
    }
    Ok(())
}

/// Makes `/new` the root, with our `/dev` in it. The host's `/proc` and `/sys` show through until
/// the next init mounts its own.
fn switch_root() -> Result<(), String> {
    let none = None::<&str>;
    mount(Some("/dev"), "/new/dev", none, MsFlags::MS_MOVE, none)
        .map_err(|e| format!("moving /dev: {e}"))?;
    std::env::set_current_dir("/new").map_err(|e| format!("entering /new: {e}"))?;
    mount(Some("/new"), "/", none, MsFlags::MS_MOVE, none)
        .map_err(|e| format!("moving the root: {e}"))?;
    chroot(".").map_err(|e| format!("changing the root: {e}"))?;
    std::env::set_current_dir("/").map_err(|e| format!("entering the root: {e}"))
}

/// The value of the last `key` on the command line: the user's arguments come after vmtest's.
fn last<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    cmdline.split_whitespace().filter_map(|word| word.strip_prefix(key)).next_back()
}

/// Writes one line to the kernel's log, which cannot be torn by the kernel's own lines; to the
/// console if there is no log.
fn say(what: &str) {
    let line = format!("<4>xtask-init: {what}\n");
    let logged = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut log| log.write_all(line.as_bytes()));
    if logged.is_err() {
        let _ = writeln!(io::stdout(), "xtask-init: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn the_last_value_counts_and_other_keys_do_not() {
        let line = "rootflags=a,b=c rdinit=/no init=/first xrootflags=n rootflags=d quiet\n";
        assert_eq!(last(line, "rootflags="), Some("d"));
        assert_eq!(last(line, "init="), Some("/first"));
        assert_eq!(last("rdinit=/x", "init="), None);
    }
}
