//! The HID devices of this machine.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const DEVICES: &str = "/sys/bus/hid/devices";

/// How a descriptor begins that is a keyboard's: usage page 1, usage 6, an application's collection.
const KEYBOARD: [u8; 6] = [0x05, 0x01, 0x09, 0x06, 0xa1, 0x01];

/// A HID device, which may be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's number of it, which no other gets until the machine is started again.
    pub id: u32,
    /// What it is called in `/sys/bus/hid/devices`, such as `0003:1209:0001.0007`.
    pub name: String,
    path: PathBuf,
}

impl Device {
    /// By its name, by the number at the end of that, or by its `/dev/hidrawN`.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn find(text: &str) -> Result<Self> {
        let found = match text.strip_prefix("/dev/") {
            Some(hidraw) => fs::canonicalize(format!("/sys/class/hidraw/{hidraw}/device"))
                .ok()
                .and_then(|path| Self::of(&path)),
            None => Self::all()?
                .into_iter()
                .find(|device| device.name == text || device.name.rsplit('.').next() == Some(text)),
        };
        found.with_context(|| {
            format!("there is no HID device {text}: `hid list` lists those that are there")
        })
    }

    /// All that are there.
    ///
    /// # Errors
    ///
    /// If the kernel's list cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        let entries = match fs::read_dir(DEVICES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(DEVICES)?,
        };
        let mut all: Vec<_> =
            entries.flatten().filter_map(|entry| Self::of(&entry.path())).collect();
        all.sort_by_key(|device| device.id);
        Ok(all)
    }

    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let id = u32::from_str_radix(name.rsplit_once('.')?.1, 16).ok()?;
        Some(Self { id, path: Path::new(DEVICES).join(&name), name })
    }

    /// Whether it is there.
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Keeps other processes from the same until it is dropped, or this process has ended: two would
    /// change each other's text, and the first to end would stop both.
    ///
    /// # Errors
    ///
    /// If another process has it, or it is gone.
    pub fn claim(&self) -> Result<Flock<File>> {
        let directory = File::open(&self.path).with_context(|| format!("{} is gone", self.name))?;
        let locked = Flock::lock(directory, FlockArg::LockExclusiveNonblock);
        locked.map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => anyhow!("another process has {}: end it first", self.name),
            errno => anyhow!("cannot lock {}: {errno}", self.path.display()),
        })
    }

    /// Fails if it does not say that it is a keyboard.
    ///
    /// # Errors
    ///
    /// If it is none, or gone.
    pub fn must_be_keyboard(&self) -> Result<()> {
        let descriptor = fs::read(self.path.join("report_descriptor"))
            .with_context(|| format!("{} is gone", self.name))?;
        if !descriptor.windows(KEYBOARD.len()).any(|bytes| bytes == KEYBOARD) {
            bail!("{} is no keyboard: another number may be, `hid list` has names", self.name);
        }
        Ok(())
    }

    /// What its maker calls it.
    pub fn label(&self) -> String {
        let info = fs::read_to_string(self.path.join("uevent")).unwrap_or_default();
        let label = info.lines().find_map(|line| line.strip_prefix("HID_NAME="));
        label.unwrap_or_default().to_owned()
    }

    /// Where its keys can be read, once its driver has seen to that. It is another one each time
    /// that a driver takes the device.
    pub fn event_node(&self) -> Option<PathBuf> {
        let inputs = fs::read_dir(self.path.join("input")).ok()?;
        let entries = inputs.flatten().filter_map(|input| fs::read_dir(input.path()).ok());
        let names = entries.flat_map(Iterator::flatten).map(|entry| entry.file_name());
        let node = names.into_iter().find(|name| name.to_string_lossy().starts_with("event"))?;
        Some(Path::new("/dev/input").join(node))
    }
}
