//! What bpf-wq promises, asserted on a real kernel: as root, or `cargo xtask test`.

#[path = "suite/support/mod.rs"]
mod support;

#[path = "suite/added.rs"]
mod added;
#[path = "suite/api.rs"]
mod api;
#[path = "suite/arming.rs"]
mod arming;
#[path = "suite/config.rs"]
mod config;
#[path = "suite/contexts.rs"]
mod contexts;
#[path = "suite/elements.rs"]
mod elements;
#[path = "suite/errors.rs"]
mod errors;
#[path = "suite/executor.rs"]
mod executor;
#[path = "suite/executor_careless.rs"]
mod executor_careless;
#[path = "suite/executor_cost.rs"]
mod executor_cost;
#[path = "suite/executor_load.rs"]
mod executor_load;
#[path = "suite/executor_stop.rs"]
mod executor_stop;
#[path = "suite/executor_types.rs"]
mod executor_types;
#[path = "suite/executor_workers.rs"]
mod executor_workers;
#[path = "suite/header.rs"]
mod header;
#[path = "suite/hid.rs"]
mod hid;
#[path = "suite/kernel.rs"]
mod kernel;
#[path = "suite/ksock.rs"]
mod ksock;
#[path = "suite/latency.rs"]
mod latency;
#[path = "suite/lifecycle.rs"]
mod lifecycle;
#[path = "suite/lifecycle_drain.rs"]
mod lifecycle_drain;
#[path = "suite/lint.rs"]
mod lint;
#[path = "suite/lint_targets.rs"]
mod lint_targets;
#[path = "suite/maps.rs"]
mod maps;
#[path = "suite/memory.rs"]
mod memory;
#[path = "suite/pin.rs"]
mod pin;
#[path = "suite/program_types.rs"]
mod program_types;
#[path = "suite/regressions.rs"]
mod regressions;
#[path = "suite/simple.rs"]
mod simple;
#[path = "suite/sleepable_calls.rs"]
mod sleepable_calls;
#[path = "suite/sleeping.rs"]
mod sleeping;
#[path = "suite/stale_pins.rs"]
mod stale_pins;
#[path = "suite/starting.rs"]
mod starting;
#[path = "suite/teardown.rs"]
mod teardown;
#[path = "suite/unpin.rs"]
mod unpin;
#[path = "suite/verifier.rs"]
mod verifier;
