//! What the kernels do with each fault, as data.

use std::fmt;

use super::version::Version;

/// What a kernel does with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// A weak kernel function counts as absent, although the kernel has it.
    Absent,
    /// Work that was started, or that a program tried to start, is not done.
    LostWork,
    /// The object, or the program's attachment, is refused.
    Refused,
    /// The kernel has an oops, which kills the loader.
    Oops,
    /// A CPU waits for a lock that it holds itself, and the kernel with it.
    Hang,
    /// The kernel panics.
    Panic,
}

impl Effect {
    /// The word for it: `absent`, `lost work`, `refused`, `oops`, `hang` or `panic`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::LostWork => "lost work",
            Self::Refused => "refused",
            Self::Oops => "oops",
            Self::Hang => "hang",
            Self::Panic => "panic",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// From this version on, and until the next step, a fault has this effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The first such version.
    pub since: Version,
    /// What it does; `None` if the fault does no harm there.
    pub effect: Option<Effect>,
    /// The upstream commit that made it so, where it is known.
    pub commit: Option<&'static str>,
}

impl Step {
    pub(crate) const fn new(
        since: Version,
        effect: Option<Effect>,
        commit: Option<&'static str>,
    ) -> Self {
        Self { since, effect, commit }
    }
}

/// What a kernel of this version does.
pub(crate) fn at(history: &[Step], version: Version) -> Option<Effect> {
    history.iter().rev().find(|step| step.since <= version)?.effect
}

/// The first kernel with bpf_wq.
pub(crate) const FIRST: Version = Version::new(6, 10, 0);
/// set_callback's callback gets the value in place of the wq.
pub(crate) const CALLBACK_GETS_VALUE: Version = Version::new(6, 10, 3);
pub(crate) const CALLBACK_GETS_VALUE_COMMIT: &str = "f56f4d541eab";
/// set_callback has three arguments, and another name.
pub(crate) const IMPLICIT_ARGS: Version = Version::new(7, 0, 0);
pub(crate) const IMPLICIT_ARGS_COMMIT: &str = "b97931a25a4b";

use Effect::{LostWork, Oops, Panic, Refused};

/// Before 6.10 there is no bpf_wq.
pub(crate) const NO_WORKQUEUES: &[Step] = &[
    Step::new(Version::new(0, 0, 0), Some(Refused), None),
    Step::new(FIRST, None, Some("eb48f6cd41a0")),
];

/// Hazard H2: the verifier looks into a record that is not there.
pub(crate) const NO_RECORD: &[Step] = &[
    Step::new(FIRST, Some(Oops), None),
    Step::new(Version::new(6, 18, 2), Some(Refused), Some("5f8d41172931")),
];

/// Hazard H2 with a hash whose key has no type: 7.0 and 7.1 were seen to take its value's type.
pub(crate) const UNTYPED_KEY: &[Step] = &[
    Step::new(FIRST, Some(Oops), None),
    Step::new(Version::new(6, 18, 2), Some(Refused), Some("5f8d41172931")),
    Step::new(Version::new(7, 0, 0), None, None),
    Step::new(Version::new(7, 2, 0), Some(Refused), None),
];

/// Hazard H2 with a map of which nothing says that it holds a bpf_wq: seen up to 7.2, and
/// refused by 7.3, which compares the maps first.
pub(crate) const PLAIN_MAP: &[Step] =
    &[Step::new(FIRST, Some(Oops), None), Step::new(Version::new(7, 3, 0), Some(Refused), None)];

/// Always.
pub(crate) const REFUSED: &[Step] = &[Step::new(FIRST, Some(Refused), None)];

/// The resizable hash came between 7.1 and 7.2.
pub(crate) const RHASH: &[Step] =
    &[Step::new(FIRST, Some(Refused), None), Step::new(Version::new(7, 2, 0), None, None)];

/// `tracing progs cannot use bpf_wq yet`.
pub(crate) const TRACING: &[Step] = &[
    Step::new(FIRST, Some(Refused), None),
    Step::new(Version::new(7, 0, 0), None, Some("19bd300e22c2")),
];

/// Hazard H1, unfixed.
pub(crate) const SLEEPS: &[Step] = &[Step::new(FIRST, Some(Panic), None)];

/// Hazard H1 in programs that may not use a bpf_wq at all before.
pub(crate) const SLEEPS_IN_TRACING: &[Step] =
    &[Step::new(Version::new(7, 0, 0), Some(Panic), Some("19bd300e22c2"))];

/// Hazard H1 in programs to which the helper that sleeps is refused before.
pub(crate) const SLEEPS_BY_NEW_HELPER: &[Step] = &[
    Step::new(FIRST, Some(Refused), None),
    Step::new(Version::new(6, 16, 0), Some(Panic), Some("ee971630f20f")),
];

/// Rule 9-sched: from 7.0 on the start is put off where interrupts are.
pub(crate) const UNDER_LOCK: &[Step] = &[
    Step::new(FIRST, Some(Effect::Hang), None),
    Step::new(Version::new(7, 0, 0), None, Some("1bfbc267ec91")),
];

/// Hazard H5, which is how maps are meant to be.
pub(crate) const LOSES_WORK: &[Step] = &[Step::new(FIRST, Some(LostWork), None)];

/// Hazard H1 in network programs, to which keys and signatures are refused before.
pub(crate) const SLEEPS_WITH_KEYS: &[Step] =
    &[Step::new(FIRST, Some(Refused), None), Step::new(Version::new(6, 18, 0), Some(Panic), None)];

/// bpf_wq_start says -EINVAL where no callback was set (rules 1 and 4).
pub(crate) const NOT_ARMED: &[Step] = LOSES_WORK;

/// A weak kernel function with another prototype.
pub(crate) const ABSENT: &[Step] = &[Step::new(FIRST, Some(Effect::Absent), None)];

/// The kernel functions that 7.0 renamed.
pub(crate) const RENAMED: &[(&str, &str)] = &[("do_unlinkat", "filename_unlinkat")];

/// To attach to the old name of such a function.
pub(crate) const OLD_NAME: &[Step] = &[Step::new(Version::new(7, 0, 0), Some(Refused), None)];
/// To attach to its new name.
pub(crate) const NEW_NAME: &[Step] =
    &[Step::new(FIRST, Some(Refused), None), Step::new(Version::new(7, 0, 0), None, None)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_effect_at_each_boundary() {
        let of = |patch| at(NO_RECORD, Version::new(6, 18, patch));
        assert_eq!((of(1), of(2)), (Some(Oops), Some(Refused)));
        assert_eq!(at(NO_RECORD, Version::new(6, 1, 0)), None);
        assert_eq!(at(TRACING, Version::new(6, 19, 14)), Some(Refused));
        assert_eq!(at(TRACING, Version::new(7, 0, 0)), None);
    }
}
