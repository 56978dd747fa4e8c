//! Types of BTF, without the panics and endless loops of broken ones.

use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, TypeId};

/// No type of C is deeper; libbpf and the kernel stop there too.
pub(crate) const DEEPEST: usize = 32;

/// The type below typedefs, const and the like.
pub(crate) fn resolve<'btf>(btf: &'btf Btf<'_>, id: TypeId) -> Option<BtfType<'btf>> {
    let mut ty = btf.type_by_id::<BtfType<'btf>>(id)?;
    for _ in 0..DEEPEST {
        if !ty.is_mod() && ty.kind() != BtfKind::Typedef {
            return Some(ty);
        }
        ty = ty.next_type()?;
    }
    None
}

pub(crate) fn name_of(ty: &BtfType<'_>) -> String {
    ty.name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The prototype of a function.
pub(crate) fn prototype<'btf>(btf: &'btf Btf<'_>, function: &str) -> Option<FuncProto<'btf>> {
    // Several types may have the name, a struct among them.
    let mut functions = btf.type_by_kind::<Func<'btf>>();
    let found = functions.find(|f| f.name().is_some_and(|name| name == function))?;
    FuncProto::try_from(found.next_type()?).ok()
}

/// What a parameter points to, or `None` if it is no pointer.
pub(crate) fn pointee<'btf>(btf: &'btf Btf<'_>, id: TypeId) -> Option<BtfType<'btf>> {
    let pointer = resolve(btf, id)?;
    if pointer.kind() != BtfKind::Ptr {
        return None;
    }
    resolve(btf, pointer.next_type()?.type_id())
}
