//! The code of a BPF object file: functions, instructions and what they refer to.
//!
//! libbpf shows the instructions of a program, but not its relocations, and these say which
//! kernel function, map or subprogram an instruction means.

use std::collections::HashMap;
use std::rc::Rc;

use object::elf::{EM_BPF, SHN_UNDEF, STB_WEAK, STT_FUNC, STT_NOTYPE, STT_OBJECT, STT_SECTION};
use object::read::elf::{ElfFile64, FileHeader as _, Sym as _};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex,
    SectionKind, SymbolIndex,
};

/// Bytes of an instruction.
const SIZE: u64 = 8;

/// `call`, and what of it needs no relocation, by its source register.
pub(crate) const CALL: u8 = 0x85;
const TO_HELPER: usize = 0;
const TO_FUNCTION: usize = 1;

/// `rN = 64 bits`, which takes two instructions.
pub(crate) const LOAD_64: u8 = 0x18;

/// A function by its place in [`Code::functions`].
pub(crate) type FunctionId = usize;

/// What a call calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callee {
    /// By number.
    Helper(u32),
    /// A kernel function, by its name in the object, which may have a `___suffix`.
    Kernel(String),
    Function(FunctionId),
    Unknown,
}

/// What 64 bits that are loaded stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loaded {
    Number(i64),
    Map(Rc<str>),
    Function(FunctionId),
    /// The address of something else.
    Other,
}

/// What an instruction refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Call(Callee),
    Load(Loaded),
    None,
}

#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub code: u8,
    pub dst: usize,
    pub src: usize,
    pub offset: i16,
    pub number: i32,
    pub reference: Reference,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub name: String,
    pub instructions: Vec<Instruction>,
}

/// A kernel function that the object declares.
#[derive(Debug)]
pub(crate) struct Extern {
    pub name: String,
    pub is_weak: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Code {
    pub functions: Vec<Function>,
    pub externs: Vec<Extern>,
    /// As the object says it, and empty if it says none.
    pub licence: String,
}

/// Where a symbol is.
type Place = (SectionIndex, u64);

/// What is where, as relocations need it.
struct Places {
    functions: HashMap<Place, FunctionId>,
    maps: HashMap<Place, Rc<str>>,
}

/// Reads an object file, or tells why it cannot be one of BPF.
pub(crate) fn read(bytes: &[u8]) -> Result<Code, String> {
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|error| error.to_string())?;
    let endian = file.endian();
    if file.elf_header().e_machine(endian) != EM_BPF {
        return Err("an ELF file, but not for BPF".to_owned());
    }
    let native = if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big };
    if endian != native {
        return Err("written for a machine of the other byte order".to_owned());
    }

    let mut code = Code { licence: licence(&file), ..Code::default() };
    let mut places = Places { functions: HashMap::new(), maps: HashMap::new() };
    let mut bodies = Vec::new();
    for symbol in file.symbols() {
        let name = symbol.name().map_err(|error| error.to_string())?;
        let raw = symbol.elf_symbol();
        let kind = raw.st_type();
        if raw.st_shndx(endian) == SHN_UNDEF {
            if kind == STT_NOTYPE && !name.is_empty() {
                let is_weak = raw.st_bind() == STB_WEAK;
                code.externs.push(Extern { name: name.to_owned(), is_weak });
            }
            continue;
        }
        let Some(section) = symbol.section_index() else { continue };
        let place = (section, symbol.address());
        match kind {
            STT_FUNC => {
                places.functions.insert(place, bodies.len());
                bodies.push((name.to_owned(), place, symbol.size()));
            }
            STT_OBJECT if is_maps(&file, section) => {
                places.maps.insert(place, name.into());
            }
            _ => {}
        }
    }
    for (name, place, size) in bodies {
        let instructions = instructions(&file, place, size, &places)?;
        code.functions.push(Function { name, instructions });
    }
    Ok(code)
}

fn licence(file: &ElfFile64<'_, Endianness>) -> String {
    let section = file.section_by_name("license").and_then(|section| section.data().ok());
    let text = section.unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn is_maps(file: &ElfFile64<'_, Endianness>, section: SectionIndex) -> bool {
    file.section_by_index(section).is_ok_and(|section| section.name() == Ok(".maps"))
}

fn instructions(
    file: &ElfFile64<'_, Endianness>,
    (index, start): Place,
    size: u64,
    places: &Places,
) -> Result<Vec<Instruction>, String> {
    let section = file.section_by_index(index).map_err(|error| error.to_string())?;
    if section.kind() != SectionKind::Text {
        return Err("a function outside of any code".to_owned());
    }
    let data = section.data().map_err(|error| error.to_string())?;
    let body = usize::try_from(start)
        .ok()
        .zip(usize::try_from(size).ok())
        .and_then(|(start, size)| data.get(start..start.checked_add(size)?))
        .filter(|body| body.len() % SIZE as usize == 0)
        .ok_or("a function that is not in its section")?;
    let relocations: HashMap<u64, SymbolIndex> = section
        .relocations()
        .filter_map(|(at, relocation)| match relocation.target() {
            RelocationTarget::Symbol(symbol) => Some((at, symbol)),
            _ => None,
        })
        .collect();

    let mut result: Vec<Instruction> = Vec::new();
    let mut words = body.chunks_exact(SIZE as usize).map(decode);
    while let Some(mut instruction) = words.next() {
        let at = start + result.len() as u64 * SIZE;
        let symbol = match relocations.get(&at) {
            Some(index) => Some(Symbol::read(file, *index)?),
            None => None,
        };
        let mut second_half = None;
        if instruction.code == CALL {
            let callee = callee(&instruction, symbol, (index, at), places);
            instruction.reference = Reference::Call(callee);
        } else if instruction.code == LOAD_64 {
            let half = words.next().ok_or("half an instruction at a function's end")?;
            let loaded = loaded(&instruction, half.number, symbol, places);
            instruction.reference = Reference::Load(loaded);
            second_half = Some(half);
        }
        result.push(instruction);
        result.extend(second_half);
    }
    Ok(result)
}

fn decode(word: &[u8]) -> Instruction {
    let byte = |i: usize| word.get(i).copied().unwrap_or(0);
    let (low, high) = (usize::from(byte(1) & 15), usize::from(byte(1) >> 4));
    let (dst, src) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    Instruction {
        code: byte(0),
        dst,
        src,
        offset: i16::from_ne_bytes([byte(2), byte(3)]),
        number: i32::from_ne_bytes([byte(4), byte(5), byte(6), byte(7)]),
        reference: Reference::None,
    }
}

/// What a relocation points to.
enum Symbol {
    /// Not in this object.
    Undefined(String),
    Named(Place),
    Section(SectionIndex),
    Other,
}

impl Symbol {
    fn read(file: &ElfFile64<'_, Endianness>, index: SymbolIndex) -> Result<Self, String> {
        let symbol = file.symbol_by_index(index).map_err(|error| error.to_string())?;
        let raw = symbol.elf_symbol();
        if raw.st_shndx(file.endian()) == SHN_UNDEF {
            let name = symbol.name().map_err(|error| error.to_string())?;
            return Ok(Self::Undefined(name.to_owned()));
        }
        Ok(match symbol.section_index() {
            Some(section) if raw.st_type() == STT_SECTION => Self::Section(section),
            Some(section) => Self::Named((section, symbol.address())),
            None => Self::Other,
        })
    }
}

fn callee(
    instruction: &Instruction,
    symbol: Option<Symbol>,
    (section, at): Place,
    places: &Places,
) -> Callee {
    // A call's number counts instructions from the next one.
    let away = (i64::from(instruction.number) + 1).wrapping_mul(SIZE as i64);
    let place = match symbol {
        Some(Symbol::Undefined(name)) => return Callee::Kernel(name),
        Some(Symbol::Named((section, start))) => (section, start.wrapping_add_signed(away)),
        Some(Symbol::Section(section)) => (section, 0_u64.wrapping_add_signed(away)),
        Some(Symbol::Other) => return Callee::Unknown,
        None if instruction.src == TO_HELPER => {
            return Callee::Helper(instruction.number as u32);
        }
        None if instruction.src == TO_FUNCTION => (section, at.wrapping_add_signed(away)),
        None => return Callee::Unknown,
    };
    places.functions.get(&place).map_or(Callee::Unknown, |function| Callee::Function(*function))
}

fn loaded(instruction: &Instruction, high: i32, symbol: Option<Symbol>, places: &Places) -> Loaded {
    let away = i64::from(instruction.number);
    let place = match symbol {
        None => {
            return Loaded::Number(i64::from(high) << 32 | i64::from(instruction.number as u32));
        }
        Some(Symbol::Named((section, start))) => (section, start.wrapping_add_signed(away)),
        Some(Symbol::Section(section)) => (section, 0_u64.wrapping_add_signed(away)),
        Some(Symbol::Undefined(_) | Symbol::Other) => return Loaded::Other,
    };
    if let Some(function) = places.functions.get(&place) {
        return Loaded::Function(*function);
    }
    places.maps.get(&place).map_or(Loaded::Other, |map| Loaded::Map(map.clone()))
}
