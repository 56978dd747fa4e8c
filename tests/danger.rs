//! What takes a kernel down, or part of it. Each test has a guest of its own, by
//! `cargo xtask test`; elsewhere they do nothing, and say so.

#[path = "suite/support/mod.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod support;

#[path = "danger/alone.rs"]
mod alone;
#[path = "danger/lifecycle.rs"]
mod lifecycle;
#[path = "danger/malformed.rs"]
mod malformed;
#[path = "danger/teardown.rs"]
mod teardown;
