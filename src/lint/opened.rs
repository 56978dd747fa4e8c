//! What libbpf makes of an object file: its maps, its programs and its types.

use libbpf_rs::btf::types::Int;
use libbpf_rs::btf::{Btf, TypeId};
use libbpf_rs::libbpf_sys::{
    BPF_MAP_TYPE_STRUCT_OPS, BPF_PROG_TYPE_STRUCT_OPS, bpf_map__btf_key_type_id,
    bpf_map__btf_value_type_id, bpf_map__fd, bpf_map__inner_map, bpf_map__map_flags,
    bpf_map__pin_path, bpf_map__type, bpf_program__flags, bpf_program__type,
};
use libbpf_rs::{AsRawLibbpf as _, ObjectBuilder, OpenMap, OpenObject};

use super::ascii::{self, in_ascii};
use super::elf::{self, Code, FunctionId};
use super::flow;
use super::layout::{self, Layout};
use super::registers::Call;
use super::types::resolve;
use crate::error::{Error, Result};
use crate::{errno, log};

/// `BPF_F_SLEEPABLE`.
const SLEEPABLE: u32 = 1 << 4;

pub(crate) struct Map {
    pub name: String,
    /// `BPF_MAP_TYPE_`.
    pub kind: u32,
    pub flags: u32,
    pub key: Key,
    pub has_value_type: bool,
    /// Whether other objects may have it too: it is pinned, or stands for one that exists.
    pub is_shared: bool,
    pub layout: Layout,
}

impl Map {
    /// Whether the value has a bpf_wq, good or bad.
    pub fn holds_wq(&self) -> bool {
        self.layout != Layout::None
    }
}

/// The type of a map's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Untyped,
    /// A number of 32 bits, as an array needs.
    Number,
    Other,
}

impl Key {
    fn of(types: &Btf<'_>, key: TypeId) -> Self {
        match resolve(types, key).map(Int::try_from) {
            Some(Ok(Int { bits: 32, offset: 0, .. })) => Self::Number,
            _ => Self::Other,
        }
    }
}

pub(crate) struct Program {
    pub name: String,
    /// As it is declared, such as `fentry.s/do_unlinkat`.
    pub section: String,
    /// `BPF_PROG_TYPE_`.
    pub kind: u32,
    pub may_sleep: bool,
    /// Unless the user says otherwise; those of struct_ops apart.
    pub autoload: bool,
    pub function: FunctionId,
    /// Of it, and of what it comes to.
    pub calls: Vec<Call>,
}

impl Program {
    /// How it is declared, without what it is attached to, such as `fentry.s`.
    pub fn declared(&self) -> &str {
        declared(&self.section)
    }
}

fn declared(section: &str) -> &str {
    section.split('/').next().unwrap_or_default()
}

/// An object that has been opened, and not loaded.
pub(crate) struct Opened {
    pub maps: Vec<Map>,
    pub programs: Vec<Program>,
    pub code: Code,
    object: OpenObject,
}

impl Opened {
    /// Opens an object file, of which `name` tells the user.
    pub fn new(name: &str, bytes: &[u8]) -> Result<Self> {
        let no_object =
            |why: String, log: String| Error::Object { name: name.to_owned(), why, log };
        let bytes = &in_ascii(bytes);
        let code = elf::read(bytes).map_err(|why| no_object(why, String::new()))?;
        let (object, log) = log::capture(|| ObjectBuilder::default().open_memory(bytes));
        let object = object.map_err(|error| no_object(errno::of(&error).to_string(), log))?;
        let mut opened = Self { maps: Vec::new(), programs: Vec::new(), code, object };
        opened.maps = opened.read_maps();
        opened.programs = read_programs(&opened.code, &opened.object).collect();
        Ok(opened)
    }

    /// Takes over what the user chose for the same object before loading it: which maps and
    /// programs there will be, and of what kind and with what flags.
    pub fn choose(&mut self, open: &OpenObject) {
        let mut has_struct_ops = false;
        for chosen in open.maps() {
            let (kind, flags) = kind_and_flags(&chosen);
            has_struct_ops |= kind == BPF_MAP_TYPE_STRUCT_OPS && chosen.autocreate();
            let name = ascii::name(chosen.name());
            if !chosen.autocreate() {
                let inner = format!("{name}{INNER}");
                self.maps.retain(|map| map.name != name && map.name != inner);
            } else if let Some(map) = self.maps.iter_mut().find(|map| map.name == name) {
                (map.kind, map.flags, map.is_shared) = (kind, flags, is_shared(&chosen));
            }
        }
        // Whether those of struct_ops are loaded is decided by the maps that name them.
        let is_loaded = |program: &Program| {
            program.autoload || has_struct_ops && program.kind == BPF_PROG_TYPE_STRUCT_OPS
        };
        self.programs = read_programs(&self.code, open).filter(is_loaded).collect();
    }

    /// As libbpf has it.
    pub fn object(&self) -> &OpenObject {
        &self.object
    }

    /// The object's own types; `None` if it has none.
    pub fn types(&self) -> Option<Btf<'_>> {
        // SAFETY: the object is open as long as the reference lives.
        let object = unsafe { self.object.as_libbpf_object().as_ref() };
        Btf::from_bpf_object(object).ok().flatten()
    }

    pub fn map(&self, name: &str) -> Option<&Map> {
        self.maps.iter().find(|map| map.name == name)
    }

    fn read_maps(&self) -> Vec<Map> {
        let types = self.types();
        let read = |map: OpenMap<'_>| {
            // SAFETY: the map belongs to the object, which is open.
            let inner = unsafe { bpf_map__inner_map(map.as_libbpf_object().as_ptr()).as_ref() };
            let outer = Map { is_shared: is_shared(&map), ..read_map(types.as_ref(), &map) };
            // What maps of maps hold is declared with them, and nowhere else.
            let inner = inner.map(|inner| {
                let name = format!("{}{INNER}", outer.name);
                Map { name, ..read_map(types.as_ref(), &OpenMap::new(inner)) }
            });
            [Some(outer), inner].into_iter().flatten()
        };
        self.object.maps().flat_map(read).collect()
    }
}

/// What libbpf, too, adds to an outer map's name for that of its inner maps.
pub(crate) const INNER: &str = ".inner";

fn read_map(types: Option<&Btf<'_>>, map: &OpenMap<'_>) -> Map {
    let (kind, flags) = kind_and_flags(map);
    let raw = map.as_libbpf_object().as_ptr();
    // SAFETY: the map belongs to an object that is open.
    let (key, value) = unsafe { (bpf_map__btf_key_type_id(raw), bpf_map__btf_value_type_id(raw)) };
    let layout = match types {
        Some(types) if value != 0 => layout::of(types, TypeId::from(value)),
        _ => Layout::None,
    };
    let key = match types {
        Some(types) if key != 0 => Key::of(types, TypeId::from(key)),
        _ => Key::Untyped,
    };
    let name = ascii::name(map.name());
    Map { name, kind, flags, key, has_value_type: value != 0, is_shared: false, layout }
}

fn kind_and_flags(map: &OpenMap<'_>) -> (u32, u32) {
    let raw = map.as_libbpf_object().as_ptr();
    // SAFETY: the map belongs to an object that is open.
    unsafe { (bpf_map__type(raw), bpf_map__map_flags(raw)) }
}

/// Not for inner maps, of which libbpf does not know the object.
fn is_shared(map: &OpenMap<'_>) -> bool {
    let raw = map.as_libbpf_object().as_ptr();
    // SAFETY: the map belongs to an object that is open.
    let (pin_path, fd) = unsafe { (bpf_map__pin_path(raw), bpf_map__fd(raw)) };
    // Before loading, there is a descriptor only of a map that existed.
    !pin_path.is_null() || fd >= 0
}

/// The programs of an opened object that this is the code of.
fn read_programs<'a>(
    code: &'a Code,
    object: &'a OpenObject,
) -> impl Iterator<Item = Program> + use<'a> {
    object.progs().filter_map(|program| {
        let name = ascii::name(program.name());
        let function = code.functions.iter().position(|f| f.name == name)?;
        let section = ascii::name(program.section());
        let raw = program.as_libbpf_object().as_ptr();
        // SAFETY: the program belongs to the object, which is open.
        let (kind, flags) = unsafe { (bpf_program__type(raw), bpf_program__flags(raw)) };
        // libbpf adds the flag to that of the section only when it loads.
        let declared = declared(&section);
        let may_sleep = flags & SLEEPABLE != 0 || declared == "syscall" || declared.ends_with(".s");
        let autoload = program.autoload();
        let calls = flow::calls(code, function);
        Some(Program { name, section, kind, may_sleep, autoload, function, calls })
    })
}
