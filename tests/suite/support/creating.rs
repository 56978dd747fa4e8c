//! One map at a time, created without libbpf, which would hide what the kernel says.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys::{
    bpf_map, bpf_map__btf_key_type_id, bpf_map__btf_value_type_id, bpf_map__key_size,
    bpf_map__map_flags, bpf_map__max_entries, bpf_map__type, bpf_map__value_size, bpf_map_create,
    bpf_map_create_opts, bpf_object__btf_fd,
};
use libbpf_rs::{AsRawLibbpf as _, MapCore as _, OpenObject};

use super::loading::{choose, load, open};

/// Whether a map is created with the types of its key and value.
#[derive(Clone, Copy)]
pub enum Types {
    /// As libbpf does it.
    Given,
    /// As libbpf does it when the kernel has refused them.
    Withheld,
}

/// Creates one map of an object, and none of the others, without libbpf: it would create
/// a refused map a second time without its types, and only that answer would be seen.
pub fn create(object: &str, map: &str, types: Types) -> io::Result<OwnedFd> {
    let mut open = open(object);
    without_maps(&mut open);
    let found = open.maps().find(|m| m.name() == map);
    let raw: *const bpf_map = found.expect("the object has the map").as_libbpf_object().as_ptr();
    // SAFETY: the map belongs to the object, which lives until the end.
    let (kind, key_size, value_size, entries, flags, key_type, value_type) = unsafe {
        (
            bpf_map__type(raw),
            bpf_map__key_size(raw),
            bpf_map__value_size(raw),
            bpf_map__max_entries(raw),
            bpf_map__map_flags(raw),
            bpf_map__btf_key_type_id(raw),
            bpf_map__btf_value_type_id(raw),
        )
    };
    assert_ne!(value_type, 0, "{map} has no types");
    let object = load(open).expect("an object without maps and programs loads");
    let mut options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as u64,
        map_flags: flags,
        ..Default::default()
    };
    if let Types::Given = types {
        // SAFETY: the object is open.
        let fd = unsafe { bpf_object__btf_fd(object.as_libbpf_object().as_ptr()) };
        options.btf_fd = u32::try_from(fd).expect("the object's types are loaded");
        options.btf_key_type_id = key_type;
        options.btf_value_type_id = value_type;
    }
    let name = CString::new(&map[..map.len().min(15)]).expect("a name");
    // SAFETY: what it is given lives during the call.
    let fd = unsafe {
        bpf_map_create(kind, name.as_ptr(), key_size, value_size, entries, &raw const options)
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn without_maps(open: &mut OpenObject) {
    for mut map in open.maps_mut() {
        map.set_autocreate(false).expect("nothing is loaded yet");
    }
}

/// An object whose map `map` is the one that has been created, with `program` to be loaded.
pub fn with_map(object: &str, map: &str, fd: &OwnedFd, program: &str) -> OpenObject {
    let mut open = open(object);
    without_maps(&mut open);
    choose(&mut open, program);
    let mut found = open.maps_mut().find(|m| m.name() == map).expect("the object has the map");
    found.set_autocreate(true).expect("nothing is loaded yet");
    found.reuse_fd(fd.as_fd()).expect("the map is the one that the object describes");
    open
}
