//! How a map's value holds a bpf_wq.

use libbpf_rs::btf::types::{Array, Composite, MemberAttr};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, HasSize as _, TypeId};

use super::finding::Fault;
use super::types::{DEEPEST, name_of, resolve};

/// Of `struct bpf_wq`, in bytes.
const SIZE: usize = 16;
const ALIGNMENT: u64 = 8;

/// What a value holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// No bpf_wq at all.
    None,
    /// One, where the kernel finds it.
    Valid,
    Bad(Fault),
}

/// More than any value has; a broken file could make the search endless.
const MOST_TYPES: usize = 100_000;

/// Where a value has a bpf_wq.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    /// More than 1 in an array, 0 in one of no elements.
    count: usize,
    in_union: bool,
    size: usize,
}

/// What a value of this type holds.
pub(crate) fn of(btf: &Btf<'_>, value: TypeId) -> Layout {
    let Some(value) = resolve(btf, value) else { return Layout::None };
    if is_wq(&value) {
        return Layout::Bad(Fault::ValueIsWorkqueue);
    }
    let mut search = Search { btf, places: Vec::new(), left: MOST_TYPES };
    search.look_into(&value, Place { offset: 0, count: 1, in_union: false, size: 0 }, 0);
    let places = search.places;
    let total: usize = places.iter().fold(0, |sum, place| sum.saturating_add(place.count));
    let Some(first) = places.first() else { return Layout::None };
    if let Some(place) = places.iter().find(|place| place.size != SIZE) {
        return Layout::Bad(Fault::WrongSize { size: place.size });
    }
    if places.iter().any(|place| place.in_union) {
        return Layout::Bad(Fault::InUnion);
    }
    match (places.len(), total) {
        (_, 0) => return Layout::None,
        (1, 1) => {}
        (1, length) => return Layout::Bad(Fault::ArrayOfWorkqueues { length }),
        (_, count) => return Layout::Bad(Fault::SeveralWorkqueues { count }),
    }
    if first.offset % ALIGNMENT != 0 {
        return Layout::Bad(Fault::Misaligned { offset: first.offset });
    }
    Layout::Valid
}

fn is_wq(ty: &BtfType<'_>) -> bool {
    ty.kind() == BtfKind::Struct && name_of(ty) == "bpf_wq"
}

struct Search<'btf> {
    btf: &'btf Btf<'btf>,
    places: Vec<Place>,
    left: usize,
}

impl Search<'_> {
    fn look_into(&mut self, ty: &BtfType<'_>, at: Place, depth: usize) {
        if depth > DEEPEST || self.left == 0 {
            return;
        }
        self.left -= 1;
        if let Ok(array) = Array::try_from(*ty) {
            if let Some(element) = resolve(self.btf, array.ty()) {
                let count = at.count.saturating_mul(array.capacity());
                self.look_into(&element, Place { count, ..at }, depth + 1);
            }
            return;
        }
        let Ok(composite) = Composite::try_from(*ty) else { return };
        if is_wq(ty) {
            self.places.push(Place { size: composite.size(), ..at });
            return;
        }
        let in_union = at.in_union || ty.kind() == BtfKind::Union;
        for member in composite.iter() {
            let bits = match member.attr {
                MemberAttr::Normal { offset } => offset,
                // Of a number, never of a struct.
                MemberAttr::BitField { .. } => continue,
            };
            if let Some(ty) = resolve(self.btf, member.ty) {
                let offset = at.offset + u64::from(bits) / 8;
                self.look_into(&ty, Place { offset, in_union, ..at }, depth + 1);
            }
        }
    }
}
