use std::fmt;

use serde::{Deserialize, Serialize};

/// A way to have work done later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The kernel's own part: from `workqueue_queue_work` to `workqueue_execute_start`.
    Floor,
    /// A bpf_wq of one's own.
    Bare,
    /// `BPF_WQ_EXECUTOR`.
    Executor,
    /// A bpf_timer of 0 ns.
    Timer,
    /// bpf_task_work, since 6.18.
    TaskWork,
    /// A ring buffer to a thread in epoll_wait(2).
    Epoll,
    /// A ring buffer to a thread that looks at it all the time.
    Busy,
}

impl Way {
    /// Since which kernel it is there.
    pub fn since(self) -> (u32, u32) {
        match self {
            Self::TaskWork => (6, 18),
            _ => (6, 10),
        }
    }

    /// Whether it can be had on another CPU than the submission's.
    pub fn reaches_other_cpus(self) -> bool {
        matches!(self, Self::TaskWork | Self::Epoll | Self::Busy)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "kernel's floor",
            Self::Bare => "bpf_wq, bare",
            Self::Executor => "executor",
            Self::Timer => "bpf_timer, 0 ns",
            Self::TaskWork => "bpf_task_work",
            Self::Epoll => "ring buffer, epoll",
            Self::Busy => "ring buffer, busy",
        })
    }
}
