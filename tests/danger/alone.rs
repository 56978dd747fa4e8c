//! What a test needs that has a guest of its own.

use std::fs;
use std::panic::Location;

use serde_json::json;

use crate::support::stated;

pub use crate::support::alone::is_alone;

/// States the rule of a test that makes the kernel report a fault: the words of the report, in
/// their order, and what becomes of the kernel, as the compatibility table lists it. Comes right
/// before the deed. It goes to the kernel's log, which survives the kernel.
#[track_caller]
pub fn expects(id: &str, group: &str, statement: &str, report: &[&str], answer: &str) {
    let rule = stated(id, group, statement, Location::caller().file());
    let expected = json!({"rule": rule, "report": report, "answer": answer});
    fs::write("/dev/kmsg", format!("<6>xtask: expects {expected}\n")).expect("/dev/kmsg");
}
