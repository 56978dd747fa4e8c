//! A HID device whose events a workqueue multiplies.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use libbpf_rs::{Link, MapCore as _, MapHandle, Object};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serial_test::serial;

use crate::support::called::{OK, call, code, put, seen};
use crate::support::loading::{choose, load, open};
use crate::support::{DEADLINE, eventually, needs, needs_bpf_wq, needs_config, rule};

const GROUP: &str = "Sleeping in a callback";

/// A device that nobody knows, with two input reports of three bytes.
const DESCRIPTOR: &[u8] = &[
    0x06, 0x00, 0xff, // usage page: vendor defined
    0x09, 0x01, // usage 1
    0xa1, 0x01, // collection: application
    0x15, 0x00, // logical minimum 0
    0x26, 0xff, 0x00, // logical maximum 255
    0x75, 0x08, // report size: 8 bits
    0x95, 0x03, // report count: 3
    0x85, 0x01, // report 1
    0x09, 0x01, // usage 1
    0x81, 0x02, // input
    0x85, 0x02, // report 2
    0x09, 0x01, // usage 1
    0x81, 0x02, // input
    0xc0, // end of the collection
];

/// The kernel's own selftest `hid_bpf`: `test_multiply_events_wq`. There the program that sees
/// the event arms the workqueue too; its text could then be freed under the callback, which
/// sleeps. Here it only starts what a `SEC("syscall")` program has armed.
#[test_log::test]
#[serial]
fn injects_a_report() {
    let statement = "hid_bpf_input_report injects a report, started by a struct_ops program";
    rule("C-hid", GROUP, statement);
    if !needs_bpf_wq()
        || !needs((6, 11), "HID-BPF is struct_ops since 6.11 (ebc0d8093e8c)")
        || !needs_config("CONFIG_HID_BPF", "without it HID devices have no BPF programs")
        || !needs_config("CONFIG_UHID", "the device is one that the test makes")
    {
        return;
    }
    let mut device = Device::new();
    device.sends([1, 10, 11, 12]);
    assert_eq!(device.report(), [1, 10, 11, 12], "no program is attached");

    let (object, link) = attached(device.id);
    let state = map(&object, "seen");
    for run in 1..=3 {
        device.sends([1, 40, 41, 42]);
        assert_eq!(device.report(), [1, 45, 41, 42], "the program did not change it");
        assert_eq!(device.report(), [2, 20, 30, 40], "the callback injected another");
        eventually("the callback ends", || (seen(&state).runs == run).then_some(()));
        let seen = seen(&state);
        assert_eq!(seen.key, u64::from(device.id));
        assert_eq!((code(seen.err[0]), code(seen.err[1])), (OK, OK));
    }
    drop(link);
    device.sends([1, 50, 51, 52]);
    assert_eq!(device.report(), [1, 50, 51, 52], "the program is no longer attached");
    assert_eq!(seen(&state).entered, 3);
}

/// The object whose program sees the events of a device, its workqueue armed.
fn attached(device: u32) -> (Object, Link) {
    let mut open = open("hid");
    choose(&mut open, "arm");
    let mut ops = open.maps_mut().find(|map| map.name() == "one_more").expect("the struct_ops map");
    // hid_id is the first member.
    let value = ops.initial_value_mut().expect("the struct_ops map has a value");
    value[..4].copy_from_slice(&device.to_ne_bytes());
    let mut object = load(open).expect("it loads");
    let value = [u64::from(device).to_ne_bytes(), [0; 8], [0; 8]].concat();
    put(&map(&object, "array"), 0, &value);
    let arm = object.progs_mut().find(|program| program.name() == "arm").expect("the program");
    assert_eq!(call(arm.as_fd(), "arm"), [OK, OK]);
    let mut ops = object.maps_mut().find(|map| map.name() == "one_more").expect("the map");
    let link = ops.attach_struct_ops().expect("the program is attached to the device");
    (object, link)
}

fn map(object: &Object, name: &str) -> MapHandle {
    let found = object.maps().find(|map| map.name() == name).expect("the map");
    MapHandle::try_from(&found).expect("a descriptor")
}

/// A device that the kernel takes for a real one; dropping this unplugs it.
struct Device {
    uhid: File,
    hidraw: File,
    id: u32,
}

impl Device {
    fn new() -> Self {
        // The numbers and sizes of <linux/uhid.h>.
        const CREATE2: u32 = 11;
        const BUS_USB: u16 = 3;
        let unique = format!("bpf-wq-{}", std::process::id());
        let mut event = CREATE2.to_ne_bytes().to_vec();
        for (text, size) in [("bpf-wq test device", 128), ("", 64), (unique.as_str(), 64)] {
            let mut field = text.as_bytes().to_vec();
            field.resize(size, 0);
            event.extend(field);
        }
        event.extend((DESCRIPTOR.len() as u16).to_ne_bytes());
        event.extend(BUS_USB.to_ne_bytes());
        for number in [0x1209_u32, 1, 0, 0] {
            event.extend(number.to_ne_bytes());
        }
        event.extend(DESCRIPTOR);
        let mut uhid = OpenOptions::new().read(true).write(true).open("/dev/uhid").expect(
            "/dev/uhid, which the module uhid brings: `test_modules` of kernels.toml has it loaded",
        );
        uhid.write_all(&event).expect("a HID device");
        let (id, hidraw) = eventually("the kernel takes the device", || find(&unique));
        let mut device = Self { uhid, hidraw, id };
        // Until its driver is ready, the kernel drops what the device sends, and says nothing.
        eventually("reports arrive", || {
            device.sends([2, 0, 0, 0]);
            device.has_report(PollTimeout::ZERO).then_some(())
        });
        while device.has_report(PollTimeout::ZERO) {
            device.report();
        }
        device
    }

    /// The device sends this report.
    fn sends(&mut self, report: [u8; 4]) {
        const INPUT2: u32 = 12;
        let mut event = INPUT2.to_ne_bytes().to_vec();
        event.extend((report.len() as u16).to_ne_bytes());
        event.extend(report);
        self.uhid.write_all(&event).expect("a report");
    }

    fn has_report(&self, limit: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.hidraw.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, limit).expect("poll") == 1
    }

    /// The next report that programs of user space get.
    #[track_caller]
    fn report(&mut self) -> Vec<u8> {
        let limit = PollTimeout::try_from(DEADLINE).expect("a time limit");
        assert!(self.has_report(limit), "no report within {DEADLINE:?}");
        let mut report = [0; 64];
        let size = self.hidraw.read(&mut report).expect("a report");
        report[..size].to_vec()
    }
}

/// The number of the device with this unique name, and its hidraw device, once it has both.
fn find(unique: &str) -> Option<(u32, File)> {
    let devices = fs::read_dir("/sys/bus/hid/devices").ok()?;
    devices.flatten().map(|entry| entry.path()).find_map(|path| {
        let info = fs::read_to_string(path.join("uevent")).ok()?;
        info.lines().find(|line| *line == format!("HID_UNIQ={unique}"))?;
        // BUS:VENDOR:PRODUCT.NUMBER
        let id = u32::from_str_radix(path.extension()?.to_str()?, 16).ok()?;
        let node = fs::read_dir(path.join("hidraw")).ok()?.next()?.ok()?.file_name();
        Some((id, File::open(Path::new("/dev").join(node)).ok()?))
    })
}
