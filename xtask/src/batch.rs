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

/// What runs on one kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    /// Its guests. The one of many tests comes first: it takes longest.
    pub batches: Vec<Batch>,
    /// Tests that are marked `#[ignore]` and are in none of them.
    pub ignored: Vec<String>,
}

/// The chosen tests by guest; those of the test targets `only`, if any is named.
pub fn share(binaries: &[TestBinary], filter: &Filter, chosen: &[Test], only: &[String]) -> Share {
    let is_ours = |binary: &TestBinary| {
        only.is_empty() || binary.target.as_ref().is_some_and(|target| only.contains(target))
    };
    let (alone, ordinary): (Vec<&Test>, Vec<&Test>) =
        chosen.iter().filter(|test| is_ours(test.binary)).partition(|test| test.binary.alone);
    let mut batches = Vec::new();
    let mut ignored = Vec::new();
    if ordinary.iter().any(|test| !test.is_ignored) {
        let ours = binaries.iter().filter(|binary| !binary.alone && is_ours(binary));
        let binaries = ours.cloned().collect();
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
    Share { batches, ignored }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(name: &str, alone: bool) -> TestBinary {
        let target = Some(name.into());
        TestBinary { name: name.into(), path: name.into(), dir: "/".into(), target, alone }
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
        let Share { batches, ignored } = share(&binaries, &filter, &chosen, &[]);
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
        let Share { batches, ignored } = share(&binaries, &Filter::default(), &chosen, &[]);
        assert_eq!(batches.len(), 1);
        assert!(batches[0].alone.is_some());
        assert_eq!(ignored, ["suite::b"]);
    }

    #[test]
    fn a_kernel_of_some_targets_runs_no_others() {
        let mut library = binary("hid", false);
        library.target = None;
        let binaries =
            [binary("danger", true), library, binary("hid", false), binary("suite", false)];
        let [danger, library, hid, suite] = &binaries;
        let chosen = [
            test(danger, "a", false),
            test(library, "b", false),
            test(hid, "c", false),
            test(suite, "d", false),
            test(suite, "e", true),
        ];
        let share = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| name.to_string()).collect();
            share(&binaries, &Filter::default(), &chosen, &only)
        };
        let Share { batches, ignored } = share(&["hid"]);
        let [one] = &batches[..] else { panic!("{batches:?}") };
        assert_eq!((&one.alone, &one.binaries[..]), (&None, &binaries[2..3]));
        assert!(ignored.is_empty());
        let Share { batches, .. } = share(&["danger"]);
        assert_eq!(batches[0].alone.as_deref(), Some("danger::a"));
        assert_eq!(share(&["other"]), Share { batches: vec![], ignored: vec![] });
        assert_eq!(share(&[]).batches[0].binaries, binaries[1..]);
    }
}
