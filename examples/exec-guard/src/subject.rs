//! What verdicts are about, and what the agent is asked, as `subject.h` and `verdict.h` have them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// What a process wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// To execute a file.
    Exec,
    /// To open one.
    Open,
    /// To connect to an address.
    Connect,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exec => "exec",
            Self::Open => "open",
            Self::Connect => "connect",
        })
    }
}

/// A file or an address, and what is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Subject {
    hook: u32,
    /// The number of a file's file system.
    pub device: u32,
    of: [u64; 3],
}

impl Subject {
    /// Of an address that is connected to.
    pub fn address(address: IpAddr) -> Self {
        let [high, low] = words(address);
        Self { hook: Hook::Connect as u32, device: 0, of: [high, low, 0] }
    }

    /// The same file, as it is executed.
    pub fn executed(self) -> Self {
        Self { hook: Hook::Exec as u32, ..self }
    }

    /// What is to be done.
    pub fn hook(&self) -> Hook {
        match self.hook {
            0 => Hook::Exec,
            1 => Hook::Open,
            _ => Hook::Connect,
        }
    }

    /// The number of a file's inode.
    pub fn inode(&self) -> u64 {
        self.of[0]
    }

    /// Whether it is the same file, in the same state, whatever is to be done with it.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.of) == (other.device, other.of)
    }

    /// The address, if it is one.
    pub fn as_address(&self) -> Option<IpAddr> {
        let bytes: [u8; 16] = bytemuck::cast([self.of[0], self.of[1]]);
        (self.hook() == Hook::Connect).then(|| IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
    }
}

/// An address as of IPv6, as the kernel has it.
pub fn words(address: IpAddr) -> [u64; 2] {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    bytemuck::cast(v6.octets())
}

/// What is done with a process that wants something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It may.
    Allow,
    /// It may not (EPERM).
    Deny,
    /// It may, and is told of.
    Log,
}

impl Action {
    pub(crate) fn of(number: u32) -> Self {
        match number {
            0 => Self::Allow,
            1 => Self::Deny,
            _ => Self::Log,
        }
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The policy has a rule for it.
    Rule,
    /// It is not known yet.
    Unknown,
    /// Who was asked said so.
    Answer,
    /// Who was asked said that it is bad.
    Bad,
    /// Who was asked said nothing, or nothing of use.
    Unreachable,
}

impl Why {
    pub(crate) fn of(number: u32) -> Self {
        match number {
            0 => Self::Rule,
            1 => Self::Unknown,
            2 => Self::Answer,
            3 => Self::Bad,
            _ => Self::Unreachable,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rule => "by a rule",
            Self::Unknown => "not known yet",
            Self::Answer => "as answered",
            Self::Bad => "known as bad",
            Self::Unreachable => "no answer",
        })
    }
}

/// An answer of the agent, `struct answer`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Answer {
    pub expires_ns: u64,
    pub action: u32,
    pub why: u32,
}

/// `struct question`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Question {
    pub subject: Subject,
    pub what: u32,
    pub process: u32,
    pub started_ns: u64,
    of_handler: [u64; 4],
    pub path: [u8; 192],
}

/// Of [`Question::what`]; else it is to be answered.
pub(crate) const TO_REVOKE: u32 = 1;

/// Text that ends with a 0.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
