//! Copies of the kernel's BTF in which something is different.
//!
//! The ids of all types stay as they are, so that what libbpf looks up in a copy means
//! the same to the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use bpf_wq::BTF_PATH;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::NamedTempFile;

/// Kinds of types, by the kernel's number.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
}

/// Raw BTF, as the kernel shows it.
pub struct RawBtf {
    bytes: Vec<u8>,
    /// Where the record of each type is, by its id.
    types: Vec<usize>,
    strings: Range<usize>,
}

impl RawBtf {
    /// Reads the running kernel's.
    pub fn of_kernel() -> Self {
        let bytes = fs::read(BTF_PATH).unwrap_or_else(|error| panic!("{BTF_PATH}: {error}"));
        let mut btf = Self { bytes, types: vec![usize::MAX], strings: 0..0 };
        assert_eq!(btf.bytes[..2], 0xeb9f_u16.to_ne_bytes(), "{BTF_PATH} is no BTF");
        let header = btf.word(4);
        let (types, types_len) = (header + btf.word(8), btf.word(12));
        let strings = header + btf.word(16);
        btf.strings = strings..strings + btf.word(20);
        assert_eq!(btf.strings.end, btf.bytes.len(), "the strings are not at the end");
        let mut at = types;
        while at < types + types_len {
            btf.types.push(at);
            at += 12 + btf.size_of_rest(at);
        }
        btf
    }

    /// The functions that BPF programs may call, without a `___suffix`.
    pub fn kernel_functions(&self) -> BTreeSet<&str> {
        let records = self.types.iter().skip(1).copied();
        let is_tag = |at: &usize| self.kind(*at) == kind::DECL_TAG && self.name(*at) == "bpf_kfunc";
        let names = records.filter(is_tag).map(|at| self.name(self.refers_to(at)));
        names.map(|name| name.split("___").next().unwrap_or(name)).collect()
    }

    /// Renames everything called `from`.
    pub fn rename(&mut self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let needle = format!("\0{from}\0");
        let strings = &self.bytes[self.strings.clone()];
        let at = strings
            .windows(needle.len())
            .position(|window| window == needle.as_bytes())
            .unwrap_or_else(|| panic!("no string {from} in BTF"));
        let at = self.strings.start + at + 1;
        self.bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }

    /// Gives the members called `from`, of whatever struct, the name `to`.
    pub fn rename_members(&mut self, from: &str, to: &str) {
        let name = self.add_string(to);
        let mut renamed = 0;
        for id in 1..self.types.len() {
            let at = self.types[id];
            if !matches!(self.kind(at), kind::STRUCT | kind::UNION) {
                continue;
            }
            for member in 0..self.vlen(at) {
                let at = at + 12 + 12 * member;
                if self.name(at) == from {
                    self.set_word(at, name);
                    renamed += 1;
                }
            }
        }
        assert_ne!(renamed, 0, "no member {from} in BTF");
    }

    /// Makes the third parameter of the callback of bpf_wq_set_callback_impl what it
    /// was in 6.10.0: a `struct bpf_wq *`, like the function's own first parameter.
    pub fn give_callback_of_6_10_0(&mut self) {
        let function = (1..self.types.len())
            .map(|id| self.types[id])
            .find(|at| self.kind(*at) == kind::FUNC && self.name(*at) == "bpf_wq_set_callback_impl")
            .expect("bpf_wq_set_callback_impl is in BTF");
        let prototype = self.refers_to(function);
        let pointer_to_wq = self.word(parameter(prototype, 0) + 4);
        let pointer_to_callback = self.types[self.word(parameter(prototype, 1) + 4)];
        assert_eq!(self.kind(pointer_to_callback), kind::PTR);
        let callback = self.refers_to(pointer_to_callback);
        assert_eq!((self.kind(callback), self.vlen(callback)), (kind::FUNC_PROTO, 3));
        self.set_word(parameter(callback, 2) + 4, pointer_to_wq);
    }

    /// Writes the copy to a file.
    pub fn into_file(self) -> NamedTempFile {
        let file = NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), self.bytes).expect("writing BTF");
        file
    }

    fn add_string(&mut self, string: &str) -> usize {
        let offset = self.strings.len();
        self.bytes.extend_from_slice(string.as_bytes());
        self.bytes.push(0);
        self.strings.end = self.bytes.len();
        self.set_word(20, self.strings.len());
        offset
    }

    fn size_of_rest(&self, at: usize) -> usize {
        let vlen = self.vlen(at);
        match self.kind(at) {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * vlen,
            kind::ENUM | kind::FUNC_PROTO => 8 * vlen,
            _ => 0,
        }
    }

    fn word(&self, at: usize) -> usize {
        let bytes = self.bytes[at..].first_chunk().expect("BTF ends too early");
        u32::from_ne_bytes(*bytes) as usize
    }

    fn set_word(&mut self, at: usize, value: usize) {
        let value = u32::try_from(value).expect("fits in BTF");
        self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn kind(&self, at: usize) -> u32 {
        (self.word(at + 4) as u32 >> 24) & 0x1f
    }

    fn vlen(&self, at: usize) -> usize {
        self.word(at + 4) & 0xffff
    }

    /// The record of the type that the one at `at` refers to.
    fn refers_to(&self, at: usize) -> usize {
        self.types[self.word(at + 8)]
    }

    fn name(&self, at: usize) -> &str {
        let rest = &self.bytes[self.strings.start + self.word(at)..];
        let end = rest.iter().position(|byte| *byte == 0).expect("strings end with a zero");
        std::str::from_utf8(&rest[..end]).expect("names are ASCII")
    }
}

fn parameter(prototype: usize, index: usize) -> usize {
    prototype + 12 + 8 * index
}

/// Runs `act` in a thread that sees `btf` where the kernel shows its own. Nobody else
/// does: the thread has a mount namespace to itself.
pub fn with_btf_at_its_place<T: Send>(btf: &Path, act: impl FnOnce() -> T + Send) -> T {
    let none = None::<&str>;
    let body = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("privacy");
        mount(Some(btf), BTF_PATH, none, MsFlags::MS_BIND, none).expect("a bind mount");
        act()
    };
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
