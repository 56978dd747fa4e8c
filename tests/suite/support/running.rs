//! One run of a program.

use libbpf_rs::{Object, ProgramInput};

/// Runs a program once, on this data if there is any, as the kernel would run it, and returns
/// what it returns.
#[track_caller]
pub fn run(object: &Object, name: &str, data: &[u8]) -> u32 {
    let program = object.progs_mut().find(|program| program.name() == name);
    let program = program.unwrap_or_else(|| panic!("no program {name}"));
    // The test run of a tracing program calls the function that it is attached to.
    let _link = name.contains("fentry").then(|| program.attach().expect("it is attached"));
    let data_in = (!data.is_empty()).then_some(data);
    let input = ProgramInput { data_in, ..ProgramInput::default() };
    program.test_run(input).expect("the program runs").return_value
}
