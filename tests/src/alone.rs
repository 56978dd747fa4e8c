//! Tests that have a guest of their own.

use std::env;

use serde_json::json;

use crate::event;

/// Whether the test has a machine of its own, which it may take down; if not, nothing happens, and
/// it has to return.
#[must_use]
pub fn is_alone() -> bool {
    let alone = env::var_os("XTASK_ALONE").is_some();
    if !alone {
        let why = "it may take the kernel down: `cargo xtask test` gives it a guest of its own";
        event(&json!({"skip": {"reason": why}}));
    }
    alone
}
