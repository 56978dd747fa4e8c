//! A HID device whose events a workqueue multiplies.

use std::os::fd::AsFd as _;

use libbpf_rs::{Link, MapCore as _, MapHandle, Object};
use serial_test::serial;
use uhid::Device;

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
    let device = Device::plug(DESCRIPTOR, &[2, 0, 0, 0]).expect("a HID device");
    device.send(&[1, 10, 11, 12]).expect("it is there");
    assert_eq!(report(&device), [1, 10, 11, 12], "no program is attached");

    let (object, link) = attached(device.id());
    let state = map(&object, "seen");
    for run in 1..=3 {
        device.send(&[1, 40, 41, 42]).expect("it is there");
        assert_eq!(report(&device), [1, 45, 41, 42], "the program did not change it");
        assert_eq!(report(&device), [2, 20, 30, 40], "the callback injected another");
        eventually("the callback ends", || (seen(&state).runs == run).then_some(()));
        let seen = seen(&state);
        assert_eq!(seen.key, u64::from(device.id()));
        assert_eq!((code(seen.err[0]), code(seen.err[1])), (OK, OK));
    }
    drop(link);
    device.send(&[1, 50, 51, 52]).expect("it is there");
    assert_eq!(report(&device), [1, 50, 51, 52], "the program is no longer attached");
    assert_eq!(seen(&state).entered, 3);
}

/// The next report that programs of user space get.
#[track_caller]
fn report(device: &Device) -> Vec<u8> {
    let report = device.report(DEADLINE).expect("it is there");
    report.unwrap_or_else(|| panic!("no report within {DEADLINE:?}"))
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
