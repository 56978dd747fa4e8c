//! KVM or emulation, decided by running a guest: where /dev/kvm exists, even where a virtual CPU
//! can be made, an ordinary guest may still hang (nested virtualization without support for it).

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::GuestConfig;
use crate::guardian::{QEMU, spawn_bound};

/// How long the probe guest has until the kernel's first line. With working KVM it takes less
/// than one second.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Where the outcome is kept, in the cache.
const PROBE_FILE: &str = "kvm-probe.json";

/// What executes a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor, through /dev/kvm.
    Kvm,
    /// QEMU's emulation.
    Tcg,
    /// QEMU's emulation, with a clock that counts instructions: each takes a nanosecond.
    Icount,
}

impl Accel {
    /// QEMU's arguments for it. One thread emulates all CPUs: with a thread each, QEMU 7.2 let two
    /// boots of about 43 die in `sched_clock_cpu`, and it is no slower.
    pub fn qemu_args(self) -> &'static [&'static str] {
        match self {
            Accel::Kvm => &["-enable-kvm", "-cpu", "host"],
            Accel::Tcg => &["-accel", "tcg,thread=single", "-cpu", "max"],
            Accel::Icount => {
                &["-accel", "tcg,thread=single", "-cpu", "max", "-icount", "shift=0,sleep=off"]
            }
        }
    }

    /// How many guests this machine carries: as the cores keep busy, and as memory has room for.
    pub fn guests_at_once(self, guest: &GuestConfig) -> Result<usize> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let by_cores = match self {
            Accel::Kvm => cores / usize::from(guest.num_cpus),
            // All CPUs of a guest are one thread.
            Accel::Tcg | Accel::Icount => cores,
        };
        let room = available_memory()? / guest.memory_bytes()?;
        Ok(by_cores.min(usize::try_from(room)?).max(1))
    }
}

fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.context("no MemAvailable in /proc/meminfo")? * 1024)
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "KVM",
            Accel::Tcg => "TCG",
            Accel::Icount => "icount",
        })
    }
}

/// The outcome of the probe, kept until the next boot of this machine.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Probed {
    boot: String,
    qemu: String,
    works: bool,
}

/// Chooses the accelerator, and says why in one line. `kernel` is what the probe boots.
pub fn choose(wanted: Option<Accel>, kernel: &Path, cache: &Path) -> Result<(Accel, String)> {
    let device = fs::File::options().read(true).write(true).open("/dev/kvm");
    match (wanted, device) {
        (Some(accel @ (Accel::Tcg | Accel::Icount)), _) => {
            Ok((accel, format!("{accel}, as asked")))
        }
        (Some(Accel::Kvm), Err(e)) => {
            bail!("KVM was asked for, and /dev/kvm cannot be opened: {e}")
        }
        (None, Err(e)) => {
            let advice = match e.kind() {
                ErrorKind::PermissionDenied => "; members of the group kvm may",
                _ => "",
            };
            Ok((Accel::Tcg, format!("TCG (/dev/kvm cannot be opened: {e}{advice})")))
        }
        (wanted, Ok(_)) => {
            let limit = PROBE_LIMIT.as_secs();
            let why = format!("a probe guest under KVM printed nothing within {limit} s");
            match (probe_once(kernel, cache)?, wanted) {
                (true, _) => Ok((Accel::Kvm, "KVM (a probe guest ran under it)".into())),
                (false, Some(Accel::Kvm)) => bail!("KVM was asked for, but {why}"),
                (false, _) => {
                    let file = cache.join(PROBE_FILE);
                    let again = format!("kept until reboot in {}", file.display());
                    Ok((Accel::Tcg, format!("TCG (/dev/kvm exists, but {why}; {again})")))
                }
            }
        }
    }
}

fn probe_once(kernel: &Path, cache: &Path) -> Result<bool> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let version = Command::new(QEMU).arg("--version").output();
    let qemu = String::from_utf8_lossy(&version.context("cannot run QEMU")?.stdout).into_owned();
    let file = cache.join(PROBE_FILE);
    if let Ok(bytes) = fs::read(&file) {
        // A file of another version of the runner is no answer.
        if let Ok(known) = serde_json::from_slice::<Probed>(&bytes) {
            if known.boot == boot && known.qemu == qemu {
                return Ok(known.works);
            }
        }
    }
    let works = boots(Command::new(QEMU).args(Accel::Kvm.qemu_args()), kernel, PROBE_LIMIT)?;
    let known = serde_json::to_vec(&Probed { boot, qemu, works })?;
    let mut new = tempfile::NamedTempFile::new_in(cache)?;
    std::io::Write::write_all(&mut new, &known)?;
    new.persist(&file).context("cannot keep the outcome of the KVM probe")?;
    Ok(works)
}

/// Whether a kernel gets as far as its first line in time.
fn boots(qemu: &mut Command, kernel: &Path, limit: Duration) -> Result<bool> {
    qemu.args(["-m", "512M", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append", "earlyprintk=serial,0,115200 console=ttyS0 panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = spawn_bound(qemu)?;
    let lines = BufReader::new(child.stdout.take().context("QEMU's output")?).split(b'\n');
    let (found, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(|l| l.ok()) {
            if String::from_utf8_lossy(&line).contains("Linux version") {
                // The receiver may have given up in the meantime.
                _ = found.send(());
            }
        }
    });
    let works = seen.recv_timeout(limit).is_ok();
    child.kill().context("cannot end the probe guest")?;
    child.wait()?;
    Ok(works)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a QEMU that does this counts as one that boots. It is no file of its own: a process
    /// that another test starts meanwhile would have that open for writing, and it could not run.
    fn a_qemu_that(does: &str, limit: Duration) -> bool {
        let mut qemu = Command::new("sh");
        boots(qemu.args(["-c", does]), Path::new("/vmlinuz"), limit).unwrap()
    }

    #[test]
    fn a_guest_that_prints_the_kernels_first_line_boots() {
        let does = "echo '[    0.0] Linux version 6.12'; exec sleep 60";
        assert!(a_qemu_that(does, Duration::from_secs(60)));
    }

    #[test]
    fn a_guest_that_hangs_behind_the_firmware_does_not() {
        let does = "echo 'Probing EDD (edd=off to disable)... ok'; exec sleep 60";
        assert!(!a_qemu_that(does, Duration::from_millis(300)));
    }

    #[test]
    fn a_qemu_that_fails_at_once_does_not() {
        assert!(!a_qemu_that("exit 1", Duration::from_secs(60)));
    }

    #[test]
    fn tcg_can_be_asked_for_where_kvm_exists() {
        let nowhere = Path::new("/nonexistent");
        let (accel, why) = choose(Some(Accel::Tcg), nowhere, nowhere).unwrap();
        assert_eq!((accel, why.as_str()), (Accel::Tcg, "TCG, as asked"));
    }
}
