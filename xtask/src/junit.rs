//! A run's results as JUnit, for CI systems.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::job::Outcome;
use crate::report::{KernelReport, Verdict};

/// A suite a kernel, and one of the tests that no kernel ran.
pub fn junit(reports: &[KernelReport], never_ran: &[String]) -> Report {
    let mut junit = Report::new("kernels");
    for report in reports {
        let mut suite = TestSuite::new(&report.kernel);
        suite.set_time(Duration::from_secs_f64(report.seconds));
        suite.add_property(("release", report.release.as_str()));
        suite.add_property(("accel", report.accel.to_string().as_str()));
        for test in &report.tests {
            let mut status = match test.outcome {
                Outcome::Passed => TestCaseStatus::success(),
                Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Outcome::Skipped => TestCaseStatus::skipped(),
            };
            if !test.reason.is_empty() {
                status.set_message(test.reason.as_str());
            }
            let mut case = TestCase::new(test.name.as_str(), status);
            case.set_classname(report.kernel.as_str());
            case.set_time(Duration::from_secs_f64(test.seconds));
            if !test.output.is_empty() {
                case.set_system_out(test.output.as_str());
            }
            suite.add_test_case(case);
        }
        if !report.reason.is_empty() {
            let mut status = TestCaseStatus::non_success(match report.outcome {
                Verdict::Error => NonSuccessKind::Error,
                Verdict::Passed | Verdict::Failed => NonSuccessKind::Failure,
            });
            status.set_message(report.reason.as_str());
            suite.add_test_case(TestCase::new("the guest", status));
        }
        junit.add_test_suite(suite);
    }
    let mut suite = TestSuite::new("the matrix");
    for test in never_ran {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message("no kernel of the matrix ran it");
        suite.add_test_case(TestCase::new(test.as_str(), status));
    }
    if !never_ran.is_empty() {
        junit.add_test_suite(suite);
    }
    junit
}
