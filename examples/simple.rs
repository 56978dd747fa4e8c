//! Removes a file and shows that a BPF workqueue's callback ran because of it.

use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::Duration;

use bpf_wq::{Answer, Error, Kernel, Report, Result, Simple};

/// Far more than a callback takes, also in an emulated machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let kernel = Kernel::running();
    let abi = match kernel.set_callback() {
        Answer::Yes(abi) => format!("bpf_wq_set_callback: {abi}"),
        Answer::No(why) => format!("no bpf_wq: {why}"),
        Answer::Inconclusive(why) => format!("bpf_wq unknown: {why}"),
    };
    println!("linux {}, {abi}", kernel.release());

    match run() {
        Ok(report) => judge(&report),
        Err(error) => {
            eprintln!("error: {error}");
            if let Error::Timeout { report, .. } = &error {
                return judge(report);
            }
            println!("Test FAILED");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Report> {
    let mut storage = MaybeUninit::uninit();
    let mut simple = Simple::load(&mut storage)?;
    simple.attach()?;
    simple.trigger()?;
    simple.wait(1, DEADLINE)
}

fn judge(report: &Report) -> ExitCode {
    println!("main_executed = {} (expected: 1)", report.main_executed);
    println!("wq_executed = {} (expected: 1)", report.wq_executed);
    println!("value = {} (expected: 42)", report.value);
    if (report.main_executed, report.wq_executed, report.value) == (1, 1, 42) {
        println!("Test PASSED");
        ExitCode::SUCCESS
    } else {
        println!("Test FAILED");
        ExitCode::FAILURE
    }
}
