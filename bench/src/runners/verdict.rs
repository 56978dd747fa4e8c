//! What a runner has said.

use super::{Runner, Verdict};

/// timeout(1)'s, when the time was over, and when it also had to kill.
const TIMED_OUT: [i32; 2] = [124, 137];

/// The verdict of a runner that ended with `code`, after it was asked about so many kernels.
///
/// The exit status is the verdict, and what was written is the proof that there is one: that the job
/// has come to the same end on every kernel.
pub fn read(runner: Runner, kernels: usize, code: Option<i32>, log: &str) -> Verdict {
    let count = |text: &str| log.lines().filter(|line| line.trim_end() == text).count();
    let (passed, failed) = match runner {
        Runner::Xtask => {
            let all = |total: String| if count(&total) == 1 { kernels } else { 0 };
            let passed = format!("total: {kernels} passed, 0 failed, 0 skipped");
            (all(passed), all(format!("total: 0 passed, {kernels} failed, 0 skipped")))
        }
        Runner::Vmtest | Runner::VirtmeNg => {
            let job = "test a_removed_file_runs_the_callback ...";
            (count(&format!("{job} ok")), count(&format!("{job} FAILED")))
        }
    };
    match code {
        Some(code) if TIMED_OUT.contains(&code) => Verdict::None,
        Some(_) if passed != kernels && failed != kernels => Verdict::None,
        Some(0) => Verdict::Passed,
        Some(_) => Verdict::Failed,
        None => Verdict::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "running 1 test\r\ntest a_removed_file_runs_the_callback ... ok\r\n";
    const FAILED: &str = "test a_removed_file_runs_the_callback ... FAILED\n";

    #[test]
    fn the_status_is_the_verdict_where_the_job_has_run() {
        for runner in [Runner::Vmtest, Runner::VirtmeNg] {
            assert_eq!(read(runner, 1, Some(0), OK), Verdict::Passed);
            assert_eq!(read(runner, 1, Some(101), FAILED), Verdict::Failed);
            assert_eq!(read(runner, 2, Some(0), &OK.repeat(2)), Verdict::Passed);
        }
        let total = |text: &str| format!("7.3: booting\n{text}\n");
        let passed = total("total: 9 passed, 0 failed, 0 skipped");
        assert_eq!(read(Runner::Xtask, 9, Some(0), &passed), Verdict::Passed);
        let failed = total("total: 0 passed, 1 failed, 0 skipped");
        assert_eq!(read(Runner::Xtask, 1, Some(1), &failed), Verdict::Failed);
    }

    #[test]
    fn a_runner_may_be_wrong() {
        assert_eq!(read(Runner::Vmtest, 1, Some(0), FAILED), Verdict::Passed);
        assert_eq!(read(Runner::VirtmeNg, 1, Some(255), OK), Verdict::Failed);
    }

    #[test]
    fn without_the_jobs_end_there_is_no_verdict() {
        assert_eq!(read(Runner::Vmtest, 1, Some(0), ""), Verdict::None);
        assert_eq!(read(Runner::Vmtest, 2, Some(0), OK), Verdict::None);
        assert_eq!(read(Runner::VirtmeNg, 1, Some(255), "no script I/O ports"), Verdict::None);
        assert_eq!(read(Runner::VirtmeNg, 1, Some(124), OK), Verdict::None);
        assert_eq!(read(Runner::VirtmeNg, 1, None, OK), Verdict::None);
        let skipped = "total: 0 passed, 0 failed, 1 skipped";
        assert_eq!(read(Runner::Xtask, 1, Some(0), skipped), Verdict::None);
    }
}
