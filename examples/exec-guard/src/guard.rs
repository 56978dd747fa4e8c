//! The guard of one cgroup.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bpf_wq::{Counters, Drained, Pinned};
use bytemuck::{NoUninit, Pod, Zeroable};
use libbpf_rs::skel::SkelBuilder as _;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use nix::time::{ClockId, clock_gettime};

use crate::cgroup::Scope;
use crate::database::Database;
use crate::digest::Measured;
use crate::opener::Opener;
use crate::policy::{Policy, Rule};
use crate::skel::ExecGuardSkelBuilder;
use crate::subject::{Action, Answer, Subject, Why, words};

/// What the skeleton was made from.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exec_guard.bpf.o"));

/// For questions that are open, and for another process that starts or stops the same guard.
const DEADLINE: Duration = Duration::from_secs(10);

/// What directories of pins are called, before the cgroup's number.
const PIN: &str = "exec-guard-";

const ZERO: [u8; 4] = [0; 4];

/// What the guard has done since it was loaded, whoever was its agent: `struct counts`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Numbers {
    /// Decisions that a process may do what it wants to.
    pub allowed: u64,
    /// Decisions that it may not.
    pub denied: u64,
    /// Decisions that it may, which were told of.
    pub logged: u64,
    /// Of all these, those by default, as nothing was known.
    pub unknown: u64,
    /// Of those, how many could not be asked for as too many questions were open.
    pub queue_full: u64,
    /// How many could not be asked for as too many verdicts were known.
    pub no_place: u64,
    /// Questions that the agent was handed, also those that it was handed before.
    pub put: u64,
    /// How often there was no place to hand it something, and that was tried again.
    pub agent_full: u64,
    /// Answers that were applied.
    pub learned: u64,
    /// Questions that were given up.
    pub unreachable: u64,
    /// Those that were forgotten as the guard was stopped.
    pub forgotten: u64,
    /// Processes that the agent was told to stop, or that were stopped as they began.
    pub revoked: u64,
    /// Verdicts whose time was over.
    pub expired: u64,
    /// Verdicts and questions that there were.
    pub created: u64,
    /// Of these, those that are gone.
    pub removed: u64,
    /// Lines that were not shown, as nobody read those before.
    pub events_lost: u64,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} allowed, {} denied, {} logged; of these {} not known yet, {} of them not asked for; \
             {} verdicts learned, {} questions given up",
            self.allowed,
            self.denied,
            self.logged,
            self.unknown,
            self.queue_full + self.no_place,
            self.learned,
            self.unreachable,
        )
    }
}

/// A guard at work. It stays so when this is dropped, and when the process ends.
pub struct Guard {
    pinned: Pinned,
    is_new: bool,
    scope: Arc<Scope>,
    counts: MapHandle,
}

impl Guard {
    /// Guards a cgroup, or goes on with the guard that is there. Its pins are in
    /// `exec-guard-NUMBER` in `pins`, a directory of a bpffs; the number is that of the cgroup.
    pub fn start(policy: &Policy, scope: &Path, pins: &Path) -> Result<Self> {
        Database::open(&policy.files.database)?;
        let scope = Arc::new(Scope::open(scope)?);
        if let Err(error) = clear_gone(&scope, pins) {
            eprintln!("exec-guard: cannot remove what guards a cgroup that is gone: {error:#}");
        }
        let directory = pins.join(format!("{PIN}{}", scope.number()?));
        let mut storage = MaybeUninit::uninit();
        let open = ExecGuardSkelBuilder::default().open(&mut storage)?;
        let taken_over = bpf_wq::take_over(&directory, DEADLINE, open, OBJECT, |loaded| {
            let mut armed = loaded.arm()?;
            armed.attach()?;
            Ok(armed)
        });
        let taken_over = taken_over.with_context(|| {
            // It stays if there is something in it.
            let _removed = fs::remove_dir(&directory);
            format!("cannot guard {}", scope.path().display())
        })?;
        let (pinned, is_new) = (taken_over.pinned, taken_over.is_new);
        let counts = pinned.map(".data.counts")?;
        let guard = Self { pinned, is_new, scope, counts };
        match guard.set(policy) {
            Err(error) if is_new => {
                let _drained = guard.stop()?;
                Err(error)
            }
            set => set.map(|()| guard),
        }
    }

    /// Applies a policy. What fails does so before anything is changed.
    fn set(&self, policy: &Policy) -> Result<()> {
        let openers = self.map("openers")?;
        // Of threads that are gone.
        retain(&openers, |_| false)?;
        let files = file_rules(policy, &self.opener()?)?;
        let rules = policy.address_rules.iter();
        let addresses: HashMap<Vec<u8>, u32> = rules
            .map(|rule| (bytemuck::bytes_of(&words(rule.address)).to_vec(), rule.verdict as u32))
            .collect();
        replace(&self.map("file_rules")?, &files)?;
        replace(&self.map("address_rules")?, &addresses)?;
        put(&self.map(".data.settings")?, &ZERO, &policy.settings())?;
        put(&self.map("scope")?, &ZERO, &self.scope.directory.as_raw_fd())
    }

    pub(crate) fn map(&self, name: &str) -> Result<MapHandle> {
        Ok(self.pinned.map(name)?)
    }

    /// For this thread.
    pub fn opener(&self) -> Result<Opener> {
        let opener = Opener::new(self.map("openers")?)?;
        // To see whether it is told at all.
        opener.open("/")?;
        Ok(opener)
    }

    /// Whether it was loaded by this process; else it was at work already.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whose processes it guards.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// What it has done.
    pub fn numbers(&self) -> Result<Numbers> {
        get(&self.counts, &ZERO)?.context("an element of .data.counts")
    }

    /// What has become of the questions.
    pub fn questions(&self) -> Result<Counters> {
        let counters = self.pinned.counters();
        let questions = counters.into_iter().find(|(name, _)| name == "questions");
        questions.map(|(_, counters)| counters).context("the executor of questions")
    }

    /// What is known of a subject, unless its time is over.
    pub fn verdict(&self, subject: &Subject) -> Result<Option<(Action, Why)>> {
        /// `struct verdict`.
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        struct Verdict {
            expires_ns: u64,
            action: u32,
            why: u32,
            asked_by: u64,
        }
        let verdict: Option<Verdict> = get(&self.map("verdicts")?, bytemuck::bytes_of(subject))?;
        let verdict = verdict.filter(|verdict| verdict.expires_ns > now_ns());
        Ok(verdict.map(|verdict| (Action::of(verdict.action), Why::of(verdict.why))))
    }

    /// All files that are known as bad.
    pub(crate) fn bad_files(&self) -> Result<Vec<Subject>> {
        let keys = self.map("verdicts")?.keys().collect::<Vec<_>>();
        let mut bad = Vec::new();
        for subject in keys.iter().map(|key| bytemuck::pod_read_unaligned::<Subject>(key)) {
            if self.verdict(&subject)? == Some((Action::Deny, Why::Bad)) {
                bad.push(subject);
            }
        }
        Ok(bad)
    }

    /// Detaches it, and waits until no question is open. What is left then is for
    /// [`stop`](Self::stop) to tell.
    pub(crate) fn drain(&self) -> Result<()> {
        let _left = self.pinned.drain(DEADLINE)?;
        Ok(())
    }

    /// Detaches it, waits until no question is open, and removes it.
    pub fn stop(self) -> Result<Drained> {
        let directory =
            self.pinned.path().parent().context("a pin without a directory")?.to_owned();
        let drained = self.pinned.stop(DEADLINE)?;
        fs::remove_dir(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
        Ok(drained)
    }
}

/// Removes guards whose processes were killed, and whose cgroups are gone, too: no cgroup is given
/// such a number again.
fn clear_gone(scope: &Scope, pins: &Path) -> Result<()> {
    // Whether there are pins at all is for take_over() to say.
    let Ok(entries) = fs::read_dir(pins) else { return Ok(()) };
    // Before the cgroups: one that is guarded by now is seen.
    let pinned: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    let Some(there) = scope.numbers_of_all()? else { return Ok(()) };
    for directory in pinned {
        let name = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let number = name.strip_prefix(PIN).and_then(|number| number.parse::<u64>().ok());
        if number.is_none_or(|number| there.contains(&number)) {
            continue;
        }
        let cleared = bpf_wq::clear_pins(&directory, None, DEADLINE).map(drop);
        let removed = cleared.map_err(anyhow::Error::from).and_then(|()| {
            let what = || format!("cannot remove {}", directory.display());
            fs::remove_dir(&directory).with_context(what)
        });
        // Its own process may have been faster.
        if directory.exists() {
            removed?;
        }
    }
    Ok(())
}

/// Where the agent's answers go, and what IMA has measured.
pub(crate) struct Answers {
    answers: MapHandle,
    digests: MapHandle,
}

impl Answers {
    pub(crate) fn of(guard: &Guard) -> Result<Self> {
        Ok(Self { answers: guard.map("answers")?, digests: guard.map("digests")? })
    }

    /// For so long from now on; it is applied when the workqueue looks again.
    pub(crate) fn put(
        &self,
        subject: &Subject,
        action: Action,
        why: Why,
        ttl: Duration,
    ) -> Result<()> {
        let answer = Answer {
            expires_ns: now_ns() + u64::try_from(ttl.as_nanos())?,
            action: action as u32,
            why: why as u32,
        };
        put(&self.answers, bytemuck::bytes_of(subject), &answer)
    }

    pub(crate) fn measured(&self, subject: &Subject) -> Result<Option<Measured>> {
        get(&self.digests, bytemuck::bytes_of(subject))
    }
}

/// Of CLOCK_BOOTTIME.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
    Duration::from(now).as_nanos().try_into().expect("no 584 years")
}

/// `struct name`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Name {
    device: u32,
    unused: u32,
    directory: u64,
    name: [u8; 64],
}

fn file_rules(policy: &Policy, opener: &Opener) -> Result<HashMap<Vec<u8>, u32>> {
    let mut rules = HashMap::new();
    for rule in &policy.file_rules {
        let (directory, file) = rule.split()?;
        let (_, subject) = opener.open(directory)?;
        let mut name = [0; 64];
        name[..file.len()].copy_from_slice(file.as_bytes());
        let name = Name { device: subject.device, unused: 0, directory: subject.inode(), name };
        let verdict = match rule.verdict {
            Rule::Allow => 0,
            Rule::Deny => 1,
            Rule::Log => 2,
            Rule::Ask => 3,
        };
        rules.insert(bytemuck::bytes_of(&name).to_vec(), verdict);
    }
    Ok(rules)
}

/// Those that are in both are there all the time.
fn replace(map: &MapHandle, rules: &HashMap<Vec<u8>, u32>) -> Result<()> {
    for (key, rule) in rules {
        put(map, key, rule)?;
    }
    retain(map, |key| rules.contains_key(key))
}

fn retain(map: &MapHandle, is_kept: impl Fn(&[u8]) -> bool) -> Result<()> {
    // Not while it changes.
    for key in map.keys().collect::<Vec<_>>() {
        if !is_kept(&key) {
            map.delete(&key)?;
        }
    }
    Ok(())
}

fn put(map: &MapHandle, key: &[u8], value: &impl NoUninit) -> Result<()> {
    let full = || format!("no place in {}", map.name().to_string_lossy());
    map.update(key, bytemuck::bytes_of(value), MapFlags::ANY).with_context(full)
}

fn get<V: Pod>(map: &MapHandle, key: &[u8]) -> Result<Option<V>> {
    let value = map.lookup(key, MapFlags::ANY)?;
    Ok(value.map(|value| bytemuck::pod_read_unaligned(&value)))
}
