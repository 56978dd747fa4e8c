//! A file's names, in ASCII.
//!
//! libbpf puts names into its messages, and libbpf-rs aborts the process when a message is not
//! UTF-8. No name that the kernel takes has another character, so in a copy of the file that is
//! only read, those are replaced.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

use object::elf::SHT_STRTAB;
use object::read::elf::{ElfFile64, SectionHeader as _};
use object::{Endianness, Object as _, ObjectSection as _};

/// The file with all names in ASCII; as it is, if it is no ELF file.
pub(crate) fn in_ascii(bytes: &[u8]) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    for range in names(bytes) {
        for byte in copy.get_mut(range).unwrap_or_default() {
            if !byte.is_ascii() {
                *byte = b'?';
            }
        }
    }
    copy
}

/// One name in ASCII.
pub(crate) fn name(name: &OsStr) -> String {
    let to_char = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { '?' };
    name.as_bytes().iter().map(to_char).collect()
}

/// Where names are: in string tables, and in the strings of BTF.
fn names(bytes: &[u8]) -> Vec<Range<usize>> {
    let Ok(file) = ElfFile64::<Endianness>::parse(bytes) else { return Vec::new() };
    let mut ranges = Vec::new();
    for section in file.sections() {
        let Some(range) = section.file_range().and_then(|(start, size)| range(start, size)) else {
            continue;
        };
        if section.elf_section_header().sh_type(file.endian()) == SHT_STRTAB {
            ranges.push(range);
        } else if section.name_bytes() == Ok(b".BTF") {
            ranges.extend(strings_of_btf(bytes.get(range.clone()), range.start));
        }
    }
    ranges
}

/// BTF begins with its version and flags, the header's length, and where its types and its
/// strings are, each by its offset from the header's end and its length.
fn strings_of_btf(section: Option<&[u8]>, start: usize) -> Option<Range<usize>> {
    let word = |at: usize| {
        let word = section?.get(at..)?.first_chunk()?;
        Some(u64::from(u32::from_ne_bytes(*word)))
    };
    range(start as u64 + word(4)? + word(16)?, word(20)?)
}

fn range(start: u64, size: u64) -> Option<Range<usize>> {
    let end = start.checked_add(size)?;
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_elf_file_stays() {
        assert_eq!(in_ascii("é".as_bytes()), "é".as_bytes());
    }

    #[test]
    fn finds_the_strings_of_btf() {
        let words: [u32; 6] = [0, 24, 0, 8, 8, 4];
        let section: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(strings_of_btf(Some(&section), 100), Some(132..136));
        assert_eq!(strings_of_btf(Some(&section[..20]), 100), None);
    }
}
