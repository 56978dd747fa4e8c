//! The policy: what is settled, whom to ask for the rest, and what to do until there is an answer.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytemuck::{Pod, Zeroable};
use hickory_proto::rr::Name;
use serde::Deserialize;

use crate::dnsbl::List;
use crate::subject::{Action, Hook};

/// As it is written, in TOML. What is in no `Option` has to be said.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Of all programs that are executed.
    pub exec: FileHook,
    /// Of files that are opened, and have a rule.
    pub open: FileHook,
    /// Of all addresses that are connected to.
    pub connect: ConnectHook,
    /// Whom to ask for files.
    pub files: Files,
    /// Whom to ask for addresses.
    pub addresses: Addresses,
    /// How long to wait for the agent.
    #[serde(default)]
    pub questions: Questions,
    /// Files for which the verdict is settled.
    #[serde(default, rename = "file")]
    pub file_rules: Vec<FileRule>,
    /// Addresses for which the verdict is settled.
    #[serde(default, rename = "address")]
    pub address_rules: Vec<AddressRule>,
}

/// What is done with files that have no rule.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileHook {
    /// Until there is an answer.
    pub unknown: Action,
    /// If the answer is that the file is in no database.
    pub unlisted: Action,
    /// If there is none.
    pub when_unreachable: Action,
    /// What becomes of processes that were let in, if the answer is that the file is bad.
    pub revoke: Revoke,
}

/// What is done with addresses that have no rule. One that is listed is bad; one that is not is not.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectHook {
    /// Until there is an answer.
    pub unknown: Action,
    /// If there is none.
    pub when_unreachable: Action,
    /// What becomes of processes that have connected, if the answer is that the address is bad.
    pub revoke: Revoke,
}

/// What becomes of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoke {
    /// It gets a SIGKILL.
    Kill,
    /// It gets a SIGSTOP.
    Stop,
    /// Nothing.
    Leave,
}

impl Revoke {
    fn signal(self) -> u32 {
        match self {
            Self::Kill => libc_signal(rustix::process::Signal::KILL),
            Self::Stop => libc_signal(rustix::process::Signal::STOP),
            Self::Leave => 0,
        }
    }
}

fn libc_signal(signal: rustix::process::Signal) -> u32 {
    signal.as_raw().unsigned_abs()
}

/// A database of files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The SQLite file; see [`crate::database`].
    pub database: PathBuf,
    /// For how long an answer holds.
    pub ttl_ms: u64,
}

/// A list of addresses that a DNS server has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// The server.
    pub server: SocketAddr,
    /// The zone that is the list.
    pub zone: Name,
    /// How long to wait for it.
    pub timeout_ms: u64,
    /// How often to ask it.
    pub tries: u32,
    /// For how long an answer holds; the server may say that it is less.
    pub ttl_ms: u64,
}

/// When the workqueue puts a question again, and when it gives up.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Questions {
    /// After so long the first time, and each time after twice as long.
    pub again_ms: u64,
    /// How often it is put.
    pub tries: u32,
    /// For how long the verdict without an answer holds.
    pub unreachable_ms: u64,
}

impl Default for Questions {
    fn default() -> Self {
        Self { again_ms: 1000, tries: 3, unreachable_ms: 10_000 }
    }
}

impl Questions {
    /// When nobody waits any more.
    fn give_up_ms(&self) -> u64 {
        self.again_ms * ((1 << self.tries) - 1)
    }
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// As [`Action::Allow`].
    Allow,
    /// As [`Action::Deny`].
    Deny,
    /// As [`Action::Log`].
    Log,
    /// It is to be asked for, also when it is opened.
    Ask,
}

/// For a file, which is executed or opened.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// Its name, also of another file that gets it later. Its directory has to be there.
    pub path: PathBuf,
    /// What is done.
    pub verdict: Rule,
}

/// For an address.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressRule {
    /// Of IPv4 or IPv6.
    pub address: IpAddr,
    /// What is done.
    pub verdict: Action,
}

/// `struct hook`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HookSettings {
    unknown: u32,
    unreachable: u32,
    signal: u32,
    unused: u32,
}

/// `struct settings`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Settings {
    hooks: [HookSettings; 4],
    again_ns: u64,
    give_up_ns: u64,
    unreachable_ns: u64,
}

impl Policy {
    /// Reads it from a file.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot read the policy {}", path.display());
        let text = fs::read_to_string(path).with_context(what)?;
        Self::parse(&text).with_context(what)
    }

    /// Reads it from a text.
    pub fn parse(text: &str) -> Result<Self> {
        let policy: Self = toml::from_str(text)?;
        policy.check()?;
        Ok(policy)
    }

    fn check(&self) -> Result<()> {
        let Questions { again_ms, tries, unreachable_ms } = self.questions;
        const DAY_MS: u64 = 24 * 3600 * 1000;
        for (name, ms) in [
            ("questions.again_ms", again_ms),
            ("questions.unreachable_ms", unreachable_ms),
            ("files.ttl_ms", self.files.ttl_ms),
            ("addresses.ttl_ms", self.addresses.ttl_ms),
            ("addresses.timeout_ms", self.addresses.timeout_ms),
        ] {
            if !(1..=365 * DAY_MS).contains(&ms) {
                bail!("{name} has to be at least 1, and no more than a year");
            }
        }
        for (name, tries) in [("questions.tries", tries), ("addresses.tries", self.addresses.tries)]
        {
            if !(1..=8).contains(&tries) {
                bail!("{name} has to be 1 to 8");
            }
        }
        let server_ms = self.addresses.timeout_ms * u64::from(self.addresses.tries);
        if self.questions.give_up_ms() <= server_ms {
            bail!(
                "a question is given up after {} ms, and the DNS server has {server_ms} ms: raise \
                 questions.again_ms",
                self.questions.give_up_ms()
            );
        }
        List::new(&self.addresses).check().context("addresses.zone is too long")?;
        for (what, rules) in
            [("files", self.file_rules.len()), ("addresses", self.address_rules.len())]
        {
            if rules > MOST_RULES {
                bail!("there are {rules} rules for {what}: no more than {MOST_RULES} can be");
            }
        }
        for rule in &self.file_rules {
            rule.split().map(drop)?;
        }
        Ok(())
    }

    /// For the guard.
    pub(crate) fn settings(&self) -> Settings {
        let hook = |unknown: Action, unreachable: Action, revoke: Revoke| HookSettings {
            unknown: unknown as u32,
            unreachable: unreachable as u32,
            signal: revoke.signal(),
            unused: 0,
        };
        let file = |of: &FileHook| hook(of.unknown, of.when_unreachable, of.revoke);
        let connect = &self.connect;
        let ns = |ms: u64| ms * 1_000_000;
        Settings {
            hooks: [
                file(&self.exec),
                file(&self.open),
                hook(connect.unknown, connect.when_unreachable, connect.revoke),
                HookSettings::zeroed(),
            ],
            again_ns: ns(self.questions.again_ms),
            give_up_ns: ns(self.questions.give_up_ms()),
            unreachable_ns: ns(self.questions.unreachable_ms),
        }
    }

    /// What is done if nobody answers.
    pub(crate) fn when_unreachable(&self, hook: Hook) -> Action {
        match hook {
            Hook::Exec => self.exec.when_unreachable,
            Hook::Open => self.open.when_unreachable,
            Hook::Connect => self.connect.when_unreachable,
        }
    }

    /// What is done with a file that is in no database.
    pub(crate) fn unlisted(&self, hook: Hook) -> Action {
        if hook == Hook::Exec { self.exec.unlisted } else { self.open.unlisted }
    }

    /// What becomes of processes.
    pub(crate) fn revoke(&self, hook: Hook) -> Revoke {
        match hook {
            Hook::Exec => self.exec.revoke,
            Hook::Open => self.open.revoke,
            Hook::Connect => self.connect.revoke,
        }
    }

    /// For how long the verdict without an answer holds.
    pub(crate) fn unreachable(&self) -> Duration {
        Duration::from_millis(self.questions.unreachable_ms)
    }
}

/// Half of what the maps hold: while a policy replaces another one, the rules of both are there.
const MOST_RULES: usize = 2048;

/// The kernel cuts longer ones.
const LONGEST_NAME: usize = 62;

impl FileRule {
    /// The directory, and the name in it.
    pub(crate) fn split(&self) -> Result<(&Path, &str)> {
        let what = || format!("no rule can be for the file {}", self.path.display());
        let name = self.path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: it has no name", what()))?;
        let directory = self.path.parent().filter(|_| self.path.is_absolute());
        let directory = directory.with_context(|| format!("{}: begin it with /", what()))?;
        if name.len() > LONGEST_NAME {
            bail!("{}: its name is longer than {LONGEST_NAME} bytes", what());
        }
        Ok((directory, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(zone: &str) -> Result<Policy> {
        let file = r#"{ unknown = "allow", unlisted = "allow", when_unreachable = "log", revoke = "kill" }"#;
        Policy::parse(&format!(
            r#"
            exec = {file}
            open = {file}
            connect = {{ unknown = "allow", when_unreachable = "log", revoke = "leave" }}
            files = {{ database = "/files.db", ttl_ms = 1000 }}
            [addresses]
            server = "127.0.0.1:53"
            zone = "{zone}"
            timeout_ms = 1000
            tries = 2
            ttl_ms = 1000
            "#
        ))
    }

    #[track_caller]
    fn fails(policy: &Policy, expected: &str) {
        let error = policy.check().expect_err(expected);
        assert!(error.to_string().contains(expected), "{error:#}");
    }

    #[test]
    fn a_zone_has_names_for_all_addresses() {
        // 32 digits take 64 of 255 bytes, and the end takes one.
        let zone = |last: usize| {
            let label = |length| "z".repeat(length);
            format!("{}.{}.{}.", label(63), label(62), label(last))
        };
        policy(&zone(62)).expect("it is short enough");
        let error = policy(&zone(63)).expect_err("too long");
        assert!(error.to_string().contains("addresses.zone is too long"), "{error:#}");
    }

    #[test]
    fn the_rules_of_two_policies_have_a_place() {
        let policy = policy("list.example.").expect("a policy");
        let file = FileRule { path: "/bin/true".into(), verdict: Rule::Deny };
        let address =
            AddressRule { address: "192.0.2.1".parse().expect("one"), verdict: Action::Deny };
        let mut most = policy.clone();
        most.file_rules = vec![file.clone(); MOST_RULES];
        most.address_rules = vec![address; MOST_RULES];
        most.check().expect("so many can be");
        let (mut files, mut addresses) = (most.clone(), most);
        files.file_rules.push(file);
        fails(&files, "2049 rules for files");
        addresses.address_rules.push(address);
        fails(&addresses, "2049 rules for addresses");
    }
}
