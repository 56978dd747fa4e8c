//! Tests that have a guest each, and what the whole of a run comes to.

use std::fs;

use crate::support::{Fixture, KERNEL};

#[test]
fn a_test_with_a_guest_of_its_own_passes_if_the_kernel_reports_what_it_announced() {
    let fixture = Fixture::new();
    fixture.test("as_it_said", &[]).ends(0, &["6.12 danger::panics_as_it_said: passed"]);
    let (outcome, test) = fixture.outcome("danger::panics_as_it_said");
    assert_eq!(outcome, "passed");
    assert_eq!((&test["rule"]["id"], &test["answer"]), (&"P1".into(), &"dies: it panics".into()));
    assert_eq!(fixture.outcome("danger::deep::warns_as_it_said").0, "passed");
    assert_eq!(fixture.report()[0]["passed"], 2);
    // Each has had a guest to itself, whose log is kept.
    let log = |guest: &str| {
        let log = fixture.path("target/guests").join(guest).join("console.log");
        fs::read_to_string(&log).unwrap_or_else(|e| panic!("{}: {e}", log.display()))
    };
    assert!(log("6.12-danger.panics_as_it_said").contains("Kernel panic"));
    let warned = log("6.12-danger.deep.warns_as_it_said");
    assert_eq!(warned.matches("xtask: begin ").count(), 1, "{warned}");
    assert!(!fixture.path("target/guests").join(KERNEL).exists());
}

#[test]
fn a_test_with_a_guest_of_its_own_fails_if_the_kernel_reports_otherwise() {
    let fixture = Fixture::new();
    fixture.test("no_good", &["--test", "danger"]).ends(
        1,
        &[
            "the kernel did not report \"Kernel panic\": the guest lived",
            "in the guest of danger::no_good::panics_without_a_word: the guest ended without",
            "during danger::no_good::panics_without_a_word",
            "danger::no_good::is_too_new: needs Linux 99.0",
            "danger::no_good::is_ignored: marked #[ignore]",
        ],
    );
    let outcome = |name: &str| fixture.outcome(&format!("danger::no_good::{name}")).0;
    assert_eq!(outcome("lives_against_its_word"), "failed");
    assert_eq!(outcome("panics_without_a_word"), "failed");
    assert_eq!(outcome("is_too_new"), "skipped");
    assert_eq!(outcome("is_ignored"), "skipped");
    let report = &fixture.report()[0];
    let counts = ["passed", "failed", "skipped"].map(|c| report[c].as_u64().unwrap());
    assert_eq!((counts, &report["outcome"]), ([0, 2, 2], &"failed".into()));
}

/// The whole of a workspace: many tests, some with a guest of their own, on a matrix of one kernel.
#[test]
fn a_test_that_no_kernel_ran_fails_a_run_of_all() {
    let fixture = Fixture::new();
    for (file, section) in [("kernels.toml", "[[kernel]]"), ("vmtest.toml", "[[target]]")] {
        fixture.edit(file, |text| {
            let mut sections = text.split(section);
            let head = sections.next().unwrap().to_owned();
            let ours = sections.find(|s| s.contains(&format!("= \"{KERNEL}\"\n"))).unwrap();
            head + section + ours
        });
    }
    fixture.edit("tests/guest.rs", |text| {
        let helpers = text.split("#[test]").next().unwrap();
        let note = r#"{"skip":{"needs":"99.0","reason":"it has not been written"}}"#;
        let skips = format!("#[test] fn skips() {{ note({note:?}); }}");
        format!("{helpers} {skips} #[test] fn runs() {{ run({:?}); }}", "true")
    });
    fixture.edit("tests/danger.rs", |text| text.split("mod deep").next().unwrap().to_owned());
    let says = ["Doc-tests fixture", "no kernel of the matrix ran guest::skips", "2 passed"];
    fixture.xtask(&["test"]).ends(1, &says);
    let report = fixture.report();
    assert_eq!((report.as_array().unwrap().len(), &report[0]["outcome"]), (1, &"passed".into()));
    assert_eq!(fixture.outcome("danger::panics_as_it_said").0, "passed");
    let text = fs::read_to_string(fixture.path("target/kernel-report.txt")).unwrap();
    assert!(text.contains("no kernel of the matrix ran guest::skips"), "{text}");
}

#[test]
fn a_report_that_is_announced_beside_other_tests_fails() {
    let run = Fixture::new().test("announces_a_report_beside_others", &[]);
    run.ends(1, &["only tests of alone targets may expect a report"]);
}
