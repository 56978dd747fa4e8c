//! HID devices that a program makes, by `/dev/uhid`: the kernel takes them for real ones.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// For the kernel to take a device.
const PATIENCE: Duration = Duration::from_secs(60);

// The numbers and sizes of <linux/uhid.h>.
const DESTROY: u32 = 1;
const GET_REPORT: u32 = 9;
const GET_REPORT_REPLY: u32 = 10;
const CREATE2: u32 = 11;
const INPUT2: u32 = 12;
const SET_REPORT: u32 = 13;
const SET_REPORT_REPLY: u32 = 14;
const LONGEST_EVENT: usize = 4380;
const BUS_USB: u16 = 3;

static DEVICES: AtomicU32 = AtomicU32::new(0);

/// A device that is plugged in. Dropping this unplugs it.
#[derive(Debug)]
pub struct Device {
    uhid: File,
    hidraw: File,
    id: u32,
    name: String,
}

/// What the kernel wants of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    id: u32,
    /// The number of the report.
    pub report: u8,
    /// What the report is to be set to, with its number if it has one; else the kernel wants to
    /// know what it is.
    pub data: Option<Vec<u8>>,
}

impl Device {
    /// Plugs in a device with this report descriptor, and waits until reports of it arrive. `blank`
    /// is one that means nothing.
    ///
    /// # Errors
    ///
    /// If there is no `/dev/uhid`, or the kernel does not take the device.
    pub fn plug(descriptor: &[u8], blank: &[u8]) -> Result<Self> {
        let unique =
            format!("bpf-wq-{}-{}", std::process::id(), DEVICES.fetch_add(1, Ordering::Relaxed));
        let mut event = CREATE2.to_ne_bytes().to_vec();
        for (text, size) in [("bpf-wq test device", 128), ("", 64), (unique.as_str(), 64)] {
            let mut field = text.as_bytes().to_vec();
            field.resize(size, 0);
            event.extend(field);
        }
        event.extend(u16::try_from(descriptor.len())?.to_ne_bytes());
        event.extend(BUS_USB.to_ne_bytes());
        for number in [0x1209_u32, 1, 0, 0] {
            event.extend(number.to_ne_bytes());
        }
        event.extend(descriptor);
        let uhid = OpenOptions::new().read(true).write(true).open("/dev/uhid");
        let mut uhid = uhid.context("/dev/uhid: `modprobe uhid` brings it")?;
        uhid.write_all(&event).context("the kernel takes no such HID device")?;
        let (id, name, hidraw) = eventually("the kernel takes the device", || Ok(find(&unique)))?;
        let device = Self { uhid, hidraw, id, name };
        // Until its driver is ready, the kernel drops what the device sends, and says nothing.
        eventually("reports arrive", || {
            device.send(blank)?;
            device.report(Duration::ZERO)
        })?;
        while device.report(Duration::ZERO)?.is_some() {}
        Ok(device)
    }

    /// The kernel's number of it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it is called in `/sys/bus/hid/devices`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device sends this report.
    ///
    /// # Errors
    ///
    /// If it was unplugged.
    pub fn send(&self, report: &[u8]) -> Result<()> {
        let mut event = INPUT2.to_ne_bytes().to_vec();
        event.extend(u16::try_from(report.len())?.to_ne_bytes());
        event.extend(report);
        (&self.uhid).write_all(&event).context("a report")
    }

    /// The next report that programs of user space get, within a time limit.
    ///
    /// # Errors
    ///
    /// If it was unplugged, or its driver has changed since it was plugged in.
    pub fn report(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        read(&self.hidraw, limit).context("a report from hidraw")
    }

    /// What the kernel wants next, within a time limit.
    ///
    /// # Errors
    ///
    /// Of reading.
    pub fn request(&self, limit: Duration) -> Result<Option<Request>> {
        while let Some(event) = read(&self.uhid, limit).context("an event of uhid")? {
            let number = |at| u32::from_ne_bytes(event[at..at + 4].try_into().expect("4 bytes"));
            let data = match number(0) {
                GET_REPORT => None,
                SET_REPORT => {
                    let size = u16::from_ne_bytes(event[10..12].try_into().expect("2 bytes"));
                    Some(event[12..][..size.into()].to_vec())
                }
                _ => continue,
            };
            return Ok(Some(Request { id: number(4), report: event[8], data }));
        }
        Ok(None)
    }

    /// Answers a request: `data` is what the report is, and is not looked at if it was to be set.
    ///
    /// # Errors
    ///
    /// If it was unplugged.
    pub fn answer(&self, request: &Request, data: &[u8]) -> Result<()> {
        let kind = if request.data.is_some() { SET_REPORT_REPLY } else { GET_REPORT_REPLY };
        let mut event = kind.to_ne_bytes().to_vec();
        event.extend(request.id.to_ne_bytes());
        event.extend(0u16.to_ne_bytes());
        if request.data.is_none() {
            event.extend(u16::try_from(data.len())?.to_ne_bytes());
            event.extend(data);
        }
        (&self.uhid).write_all(&event).context("an answer")
    }

    /// Unplugs it. All else is an error then.
    ///
    /// # Errors
    ///
    /// If it was unplugged.
    pub fn unplug(&self) -> Result<()> {
        (&self.uhid).write_all(&DESTROY.to_ne_bytes()).context("unplugging")
    }
}

fn read(mut file: &File, limit: Duration) -> Result<Option<Vec<u8>>> {
    // Of more than some weeks, as long as poll() can wait.
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, limit)? == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; LONGEST_EVENT];
    let size = file.read(&mut bytes)?;
    bytes.truncate(size);
    Ok(Some(bytes))
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            bail!("{what}: not within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The device with this unique name, and its hidraw device, once it has both.
fn find(unique: &str) -> Option<(u32, String, File)> {
    let devices = fs::read_dir("/sys/bus/hid/devices").ok()?;
    devices.flatten().map(|entry| entry.path()).find_map(|path| {
        let info = fs::read_to_string(path.join("uevent")).ok()?;
        info.lines().find(|line| *line == format!("HID_UNIQ={unique}"))?;
        // BUS:VENDOR:PRODUCT.NUMBER
        let id = u32::from_str_radix(path.extension()?.to_str()?, 16).ok()?;
        let name = path.file_name()?.to_str()?.to_owned();
        let node = fs::read_dir(path.join("hidraw")).ok()?.next()?.ok()?.file_name();
        Some((id, name, File::open(Path::new("/dev").join(node)).ok()?))
    })
}
