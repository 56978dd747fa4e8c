//! Which tests run in which guest: most of them together, and each test of an `alone` target in a
//! guest of its own.

use crate::job::{Filter, Ignored, TestBinary};
use crate::libtest::Test;

/// The tests of one guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The test that has the guest to itself, if one has.
    pub alone: Option<String>,
    /// The test binaries.
    pub binaries: Vec<TestBinary>,
    /// Which of their tests.
    pub filter: Filter,
}

/// The chosen tests by guest, and the names of those that no guest has to list: they are marked
/// `#[ignore]`.
///
/// The guest of many tests comes first: it takes longest.
pub fn split(
    binaries: &[TestBinary],
    filter: &Filter,
    chosen: &[Test],
) -> (Vec<Batch>, Vec<String>) {
    let (alone, ordinary): (Vec<&Test>, Vec<&Test>) =
        chosen.iter().partition(|test| test.binary.alone);
    let mut batches = Vec::new();
    let mut ignored = Vec::new();
    if ordinary.iter().any(|test| !test.is_ignored) {
        let binaries = binaries.iter().filter(|binary| !binary.alone).cloned().collect();
        batches.push(Batch { alone: None, binaries, filter: filter.clone() });
    } else {
        ignored.extend(ordinary.iter().map(|test| test.full_name()));
    }
    for test in alone {
        if test.is_ignored {
            ignored.push(test.full_name());
            continue;
        }
        let only = vec![test.name.clone(), "--exact".into()];
        batches.push(Batch {
            alone: Some(test.full_name()),
            binaries: vec![test.binary.clone()],
            filter: Filter { choose: only, ignored: Ignored::Include },
        });
    }
    (batches, ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(name: &str, alone: bool) -> TestBinary {
        TestBinary { name: name.into(), path: name.into(), dir: "/".into(), alone }
    }

    fn test<'a>(binary: &'a TestBinary, name: &str, is_ignored: bool) -> Test<'a> {
        Test { binary, name: name.into(), is_ignored }
    }

    #[test]
    fn a_test_of_an_alone_target_has_a_guest_behind_the_one_of_the_others() {
        let binaries = [binary("danger", true), binary("suite", false)];
        let [danger, suite] = &binaries;
        let chosen = [
            test(danger, "a::b", false),
            test(danger, "c", true),
            test(suite, "d", false),
            test(suite, "e", true),
        ];
        let filter = Filter { choose: vec!["x".into()], ..Filter::default() };
        let (batches, ignored) = split(&binaries, &filter, &chosen);
        let [all, one] = &batches[..] else { panic!("{batches:?}") };
        assert_eq!((&all.alone, &all.filter), (&None, &filter));
        assert_eq!(all.binaries, binaries[1..]);
        assert_eq!(one.alone.as_deref(), Some("danger::a::b"));
        assert_eq!(one.binaries, binaries[..1]);
        assert_eq!(one.filter.choose, ["a::b", "--exact"]);
        assert_eq!(ignored, ["danger::c"]);
    }

    #[test]
    fn there_is_no_guest_for_none_but_ignored_tests() {
        let binaries = [binary("danger", true), binary("suite", false)];
        let [danger, suite] = &binaries;
        let chosen = [test(danger, "a", false), test(suite, "b", true)];
        let (batches, ignored) = split(&binaries, &Filter::default(), &chosen);
        assert_eq!(batches.len(), 1);
        assert!(batches[0].alone.is_some());
        assert_eq!(ignored, ["suite::b"]);
    }
}
