//! What is told of a process that has ended.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Result, bail};
use serde::Serialize;

/// As many of the addresses are told.
pub const TOP: usize = 4;

/// An address, and how often the process connected or sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// The address.
    pub address: SocketAddr,
    /// How often.
    pub count: u64,
}

/// A process that has ended: `struct summary` of `state.h`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its number, which another process may have later.
    pub pid: u64,
    /// When it was started: nanoseconds of the monotonic clock. With `pid` it names one process.
    pub started_ns: u64,
    /// What it was called at its end.
    pub name: String,
    /// How many addresses it connected to: so many entries were freed.
    pub addresses: u64,
    /// How often it did, to these.
    pub connects: u64,
    /// How often it connected to others, for which there was no place.
    pub untracked: u64,
    /// In how many steps the entries were freed.
    pub steps: u64,
    /// The addresses with the highest counts, the highest first.
    pub top: Vec<Counted>,
}

impl Summary {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        const WORDS: usize = 8 + TOP * 4;
        if bytes.len() != WORDS * 8 {
            bail!("a summary of {} bytes is none of this program", bytes.len());
        }
        let word = |i: usize| u64::from_ne_bytes(bytes[i * 8..][..8].try_into().expect("8 bytes"));
        let name = bytes[16..32].split(|byte| *byte == 0).next().unwrap_or_default();
        let top = (8..WORDS).step_by(4).filter(|at| word(at + 3) > 0).map(|at| {
            let ip: [u8; 16] = bytes[at * 8..][..16].try_into().expect("16 bytes");
            let ip = Ipv6Addr::from(ip).to_canonical();
            Ok(Counted {
                address: SocketAddr::new(ip, u16::try_from(word(at + 2))?),
                count: word(at + 3),
            })
        });
        Ok(Self {
            pid: word(0),
            started_ns: word(1),
            name: String::from_utf8_lossy(name).into_owned(),
            addresses: word(4),
            connects: word(5),
            untracked: word(6),
            steps: word(7),
            top: top.collect::<Result<_>>()?,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, .. } = self;
        let connects = number(self.connects, "connect", "connects");
        let addresses = number(self.addresses, "address", "addresses");
        write!(f, "{name}[{pid}]: {connects} to {addresses}")?;
        if self.untracked > 0 {
            write!(f, ", {} to others", self.untracked)?;
        }
        write!(f, "; freed in {};", number(self.steps, "step", "steps"))?;
        for Counted { address, count } in &self.top {
            write!(f, " {address} ({count})")?;
        }
        Ok(())
    }
}

fn number(number: u64, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_and_shown() {
        let mut bytes = vec![0; (8 + TOP * 4) * 8];
        let mut put = |at: usize, new: &[u8]| bytes[at..][..new.len()].copy_from_slice(new);
        for (word, number) in [(0, 7), (1, 99), (4, 2), (5, 12), (6, 1), (7, 1)] {
            put(word * 8, &u64::to_ne_bytes(number));
        }
        put(16, b"curl");
        put(64, &"::ffff:10.0.0.1".parse::<Ipv6Addr>().expect("an address").octets());
        put(80, &443u64.to_ne_bytes());
        put(88, &11u64.to_ne_bytes());
        put(96, &"fd00::1".parse::<Ipv6Addr>().expect("an address").octets());
        put(112, &53u64.to_ne_bytes());
        put(120, &1u64.to_ne_bytes());
        let summary = Summary::parse(&bytes).expect("a summary");
        assert_eq!((summary.pid, summary.started_ns), (7, 99));
        assert_eq!(
            summary.to_string(),
            "curl[7]: 12 connects to 2 addresses, 1 to others; freed in 1 step; 10.0.0.1:443 (11) \
             [fd00::1]:53 (1)"
        );
        assert!(Summary::parse(&bytes[1..]).is_err());
    }
}
