//! The agent: gets the questions of the workqueue, asks who may know, and writes the answers.
//!
//! A thread reads questions, and never waits for those that ask: who is slow to answer for
//! addresses holds up no file, and no process that is to be stopped.

use std::collections::HashSet;
use std::fs::File;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{MapHandle, RingBufferBuilder};

use crate::cgroup::Scope;
use crate::database::{Database, Known};
use crate::digest;
use crate::dnsbl::{Failure, List, Listing};
use crate::guard::{Answers, Guard};
use crate::opener::Opener;
use crate::policy::Policy;
use crate::revoke;
use crate::subject::{Action, Hook, Question, Subject, TO_REVOKE, Why, text};

/// Threads that wait for the DNS server.
const ASKING: usize = 16;

/// Questions that wait for a thread, of files and of addresses: as many as can be open.
const WAITING: usize = 1024;

/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What an agent has done.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    silent: AtomicU64,
    lied: AtomicU64,
    not_found: AtomicU64,
    measured: AtomicU64,
    stopped: AtomicU64,
}

/// What this agent has done.
#[derive(Debug, Clone, Copy)]
pub struct AgentNumbers {
    /// Answers, of whatever kind.
    pub answered: u64,
    /// Of these, how often the service said nothing.
    pub silent: u64,
    /// How often it said nothing of use.
    pub lied: u64,
    /// Questions without an answer: the file is gone, or another one.
    pub not_found: u64,
    /// Files that IMA had measured.
    pub measured: u64,
    /// Processes that were stopped.
    pub stopped: u64,
}

/// What the threads share.
struct Shared {
    policy: Policy,
    answers: Answers,
    scope: Arc<Scope>,
    /// That are not answered yet: they may be put again.
    open: Mutex<HashSet<Subject>>,
    is_over: AtomicBool,
    /// Nothing is asked any more, and what is to be revoked is.
    is_drained: AtomicBool,
    counts: Counts,
}

/// Dropping it ends its threads, when they have got what they wait for.
pub struct Agent {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Agent {
    /// Begins to answer, after it has stopped what runs that is known as bad: an agent that was
    /// killed may not have.
    pub fn start(guard: &Guard, policy: &Policy) -> Result<Self> {
        let shared = Arc::new(Shared {
            policy: policy.clone(),
            answers: Answers::of(guard)?,
            scope: guard.scope().clone(),
            open: Mutex::default(),
            is_over: AtomicBool::new(false),
            is_drained: AtomicBool::new(false),
            counts: Counts::default(),
        });
        let opener = guard.opener()?;
        for file in guard.bad_files()? {
            shared.stop_all_of(&file, &opener);
        }
        let mut agent = Self { shared, threads: Vec::new() };
        let (addresses, of_addresses) = sync_channel(WAITING);
        let of_addresses = Arc::new(Mutex::new(of_addresses));
        for _ in 0..ASKING {
            let (shared, of_addresses) = (agent.shared.clone(), of_addresses.clone());
            agent.spawn("ask", move || ask_for_addresses(&shared, &of_addresses))?;
        }
        let (files, of_files) = sync_channel(WAITING);
        let (shared, openers) = (agent.shared.clone(), guard.map("openers")?);
        agent.spawn("files", move || ask_for_files(&shared, openers, &of_files))?;
        let (shared, ring) = (agent.shared.clone(), guard.map("to_agent")?);
        let openers = guard.map("openers")?;
        agent.spawn("questions", move || {
            let read = read_questions(&shared, &ring, openers, &files, &addresses);
            read.context("cannot read questions")
        })?;
        Ok(agent)
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(thread.context("cannot make a thread")?);
        Ok(())
    }

    /// Whether it is at work.
    ///
    /// # Errors
    ///
    /// Why one of its threads has ended; all others have by then.
    pub fn check(&mut self) -> Result<()> {
        if self.threads.iter().any(JoinHandle::is_finished) { self.end() } else { Ok(()) }
    }

    /// Detaches the guard, waits until no question is open, and ends when those are stopped that
    /// turned out bad until then. The guard stays pinned, for [`Guard::stop`].
    pub fn drain(mut self, guard: &Guard) -> Result<()> {
        let drained = guard.drain();
        self.shared.is_drained.store(true, Ordering::Relaxed);
        drained.and(self.end())
    }

    fn end(&mut self) -> Result<()> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let ended = self.threads.drain(..).map(|thread| match thread.join() {
            Ok(ended) => ended,
            Err(_) => bail!("a thread of the agent has panicked"),
        });
        // All are waited for, and the first error is told.
        ended.fold(Ok(()), Result::and)
    }

    /// What it has done.
    pub fn numbers(&self) -> AgentNumbers {
        let Counts { answered, silent, lied, not_found, measured, stopped } = &self.shared.counts;
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AgentNumbers {
            answered: number(answered),
            silent: number(silent),
            lied: number(lied),
            not_found: number(not_found),
            measured: number(measured),
            stopped: number(stopped),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _failed = self.end();
    }
}

fn read_questions(
    shared: &Shared,
    ring: &MapHandle,
    openers: MapHandle,
    files: &SyncSender<Question>,
    addresses: &SyncSender<(Subject, IpAddr)>,
) -> Result<()> {
    let opener = Opener::new(openers)?;
    let mut builder = RingBufferBuilder::new();
    builder.add(ring, |record| {
        let question: Question = bytemuck::pod_read_unaligned(record);
        let subject = question.subject;
        if question.what == TO_REVOKE {
            shared.revoke(&question, &opener);
        } else if !shared.is_over() && shared.open().insert(subject) {
            let sent = match subject.as_address() {
                Some(address) => addresses.try_send((subject, address)).is_ok(),
                None => files.try_send(question).is_ok(),
            };
            // The workqueue puts it again.
            if !sent {
                shared.open().remove(&subject);
            }
        }
        // Those that are left are for the next agent, if there can be one.
        if shared.is_over() && !shared.is_drained() { -1 } else { 0 }
    })?;
    let ring = builder.build()?;
    while !shared.is_over() {
        match ring.poll(LOOK) {
            // A process that was stopped and goes on is interrupted, too.
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
            Err(error) if !shared.is_over() => return Err(error.into()),
            _ => {}
        }
    }
    if shared.is_drained() {
        ring.consume()?;
    }
    Ok(())
}

fn ask_for_addresses(
    shared: &Shared,
    questions: &Mutex<Receiver<(Subject, IpAddr)>>,
) -> Result<()> {
    let list = List::new(&shared.policy.addresses);
    let longest = Duration::from_millis(shared.policy.addresses.ttl_ms);
    let next = || questions.lock().expect("no thread panics").recv();
    while let Ok((subject, address)) = next() {
        if shared.is_over() {
            continue;
        }
        let listing = list.ask(address, &shared.is_over);
        match listing {
            // The next agent asks again.
            Err(_) if shared.is_over() => {}
            Ok(Listing { is_listed, ttl }) => {
                let (action, why) =
                    if is_listed { (Action::Deny, Why::Bad) } else { (Action::Allow, Why::Answer) };
                let ttl = ttl.map_or(longest, |ttl| ttl.min(longest));
                shared.answer(&subject, action, why, ttl);
            }
            Err(Failure::Silent(why)) => shared.unreachable(&subject, &shared.counts.silent, &why),
            Err(Failure::Lied(why)) => shared.unreachable(&subject, &shared.counts.lied, &why),
        }
    }
    Ok(())
}

fn ask_for_files(
    shared: &Shared,
    openers: MapHandle,
    questions: &Receiver<Question>,
) -> Result<()> {
    let opener = Opener::new(openers).context("cannot answer for files")?;
    let ttl = Duration::from_millis(shared.policy.files.ttl_ms);
    for question in questions {
        let subject = question.subject;
        if shared.is_over() {
            continue;
        }
        match shared.known(&question, &opener) {
            // The next agent looks again.
            Err(_) if shared.is_over() => {}
            Ok(Some(Known::Good)) => shared.answer(&subject, Action::Allow, Why::Answer, ttl),
            Ok(Some(Known::Bad)) => shared.answer(&subject, Action::Deny, Why::Bad, ttl),
            Ok(None) => {
                let unlisted = shared.policy.unlisted(subject.hook());
                shared.answer(&subject, unlisted, Why::Answer, ttl);
            }
            Err(Unknown::NotFound(why)) => {
                // It may be there when the question is put again.
                say_first(&shared.counts.not_found, &why);
                shared.open().remove(&subject);
            }
            Err(Unknown::Unreadable(why)) => {
                shared.unreachable(&subject, &shared.counts.silent, &format!("{why:#}"));
            }
        }
    }
    Ok(())
}

/// Counts what may come often, and says it once.
fn say_first(count: &AtomicU64, why: &str) {
    if count.fetch_add(1, Ordering::Relaxed) == 0 {
        eprintln!("exec-guard: no answer: {why}");
    }
}

/// Why nothing can be said of a file.
enum Unknown {
    /// It is not where it was, or another one.
    NotFound(String),
    /// It cannot be read, or the database.
    Unreadable(anyhow::Error),
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    fn open(&self) -> MutexGuard<'_, HashSet<Subject>> {
        self.open.lock().expect("no thread panics")
    }

    fn answer(&self, subject: &Subject, action: Action, why: Why, ttl: Duration) {
        // At once: an answer may expire, and the question come again, before it is closed.
        let mut open = self.open();
        let put = self.answers.put(subject, action, why, ttl);
        open.remove(subject);
        drop(open);
        match put {
            Ok(()) => _ = self.counts.answered.fetch_add(1, Ordering::Relaxed),
            // The question is put again.
            Err(error) => eprintln!("exec-guard: cannot answer: {error:#}"),
        }
    }

    fn unreachable(&self, subject: &Subject, count: &AtomicU64, why: &str) {
        say_first(count, why);
        let action = self.policy.when_unreachable(subject.hook());
        self.answer(subject, action, Why::Unreachable, self.policy.unreachable());
    }

    /// What the database has of a file.
    fn known(&self, question: &Question, opener: &Opener) -> Result<Option<Known>, Unknown> {
        let database = Database::open(&self.policy.files.database).map_err(Unknown::Unreadable)?;
        let known = |digest: &str| database.known(digest).map_err(Unknown::Unreadable);
        let measured = self.answers.measured(&question.subject).map_err(Unknown::Unreadable)?;
        if let Some(digest) = measured.and_then(|measured| measured.name()) {
            self.counts.measured.fetch_add(1, Ordering::Relaxed);
            return known(&digest);
        }
        let mut file = find(question, opener).map_err(Unknown::NotFound)?;
        let digest = digest::of_contents(&mut file, &self.is_over).map_err(Unknown::Unreadable)?;
        // It may have been written to while it was read.
        match opener.again(&file) {
            Ok(now) if now.is_same_file(&question.subject) => known(&digest),
            _ => Err(Unknown::NotFound("the file has changed".to_owned())),
        }
    }

    fn revoke(&self, question: &Question, opener: &Opener) {
        let how = self.policy.revoke(question.subject.hook());
        if revoke::stop(question.process, question.started_ns, how) {
            self.counts.stopped.fetch_add(1, Ordering::Relaxed);
        }
        self.stop_all_of(&question.subject, opener);
    }

    /// Of a file that is executed: children that were forked run it, too.
    fn stop_all_of(&self, subject: &Subject, opener: &Opener) {
        if subject.hook() == Hook::Exec {
            let stopped =
                revoke::stop_all_of(subject, &self.scope, opener, self.policy.exec.revoke);
            self.counts.stopped.fetch_add(stopped as u64, Ordering::Relaxed);
        }
    }
}

/// The file of a question: as the process has it or, if it is gone or not there yet, by its path.
fn find(question: &Question, opener: &Opener) -> Result<File, String> {
    let (process, path) = (question.process, text(&question.path));
    let mut why = String::new();
    for place in
        [format!("/proc/{process}/exe"), format!("/proc/{process}/root{path}"), path.clone()]
    {
        match opener.open(&place) {
            Ok((file, subject)) if subject.is_same_file(&question.subject) => return Ok(file),
            Ok(_) => why = format!("{place} is another file by now"),
            Err(error) => why = format!("{error:#}"),
        }
    }
    Err(why)
}
