//! A cgroup to guard, files and a database, a DNS server that does as it is told.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bpf_wq::Counters;
use bpf_wq_tests::{DEADLINE, eventually, needs, needs_bpf_wq, needs_config};
use exec_guard::agent::{Agent, AgentNumbers};
use exec_guard::cgroup::Own;
use exec_guard::database::{self, Known};
use exec_guard::digest;
use exec_guard::guard::{Guard, Numbers};
use exec_guard::policy::Policy;
use exec_guard::subject::{Action, Subject, Why};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::connected::Connected;
use crate::zone::Zone;

/// Of all guards.
pub const PINS: &str = "/sys/fs/bpf";

/// The list.
pub const ZONE: &str = "list.test.";

pub fn can_run() -> bool {
    needs_bpf_wq()
        && needs((6, 11), "an inode's i_ctime_sec was added in 6.11 (3aa63a569c64)")
        && needs_config("CONFIG_BPF_LSM", "LSM programs decide")
}

/// With a database of its own.
#[track_caller]
fn directory() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    database::write(&directory.path().join(DATABASE), &[]).expect("a database");
    directory
}

const DATABASE: &str = "files.db";

/// What a test needs beside a guard.
pub struct Place {
    pub own: Own,
    pub directory: TempDir,
}

impl Place {
    #[track_caller]
    pub fn new() -> Self {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("ip runs").success());
        Self { own: Own::new().expect("a cgroup"), directory: directory() }
    }

    pub fn database(&self) -> PathBuf {
        self.path(DATABASE)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A policy that asks for all, and allows it until then; `with` changes it.
    #[track_caller]
    pub fn policy(&self, server: SocketAddr, with: impl FnOnce(&mut Policy)) -> Policy {
        let mut policy = Policy::parse(&self.policy_text(server)).expect("a policy");
        with(&mut policy);
        policy
    }

    pub fn policy_text(&self, server: SocketAddr) -> String {
        format!(
            r#"
            [exec]
            unknown = "allow"
            unlisted = "allow"
            when_unreachable = "log"
            revoke = "kill"
            [open]
            unknown = "allow"
            unlisted = "allow"
            when_unreachable = "log"
            revoke = "leave"
            [connect]
            unknown = "allow"
            when_unreachable = "log"
            revoke = "leave"
            [files]
            database = "{}"
            ttl_ms = 600_000
            [addresses]
            server = "{server}"
            zone = "{ZONE}"
            timeout_ms = 60_000
            tries = 1
            ttl_ms = 600_000
            [questions]
            again_ms = 61_000
            tries = 1
            unreachable_ms = 600_000
            "#,
            self.database().display()
        )
    }

    /// A program, as another one with something behind it: so nobody knows it.
    #[track_caller]
    pub fn program(&self, name: &str, of: &str) -> PathBuf {
        let mut bytes = fs::read(of).expect("a program");
        bytes.extend_from_slice(name.as_bytes());
        let path = self.path(name);
        fs::write(&path, bytes).expect("it is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        path
    }

    /// Puts a file into the database.
    #[track_caller]
    pub fn know(&self, path: &Path, known: Known) {
        let mut file = fs::File::open(path).expect("it is there");
        let digest =
            digest::of_contents(&mut file, &AtomicBool::new(false)).expect("it can be read");
        database::write(&self.database(), &[(digest, known)]).expect("it is written");
    }

    /// Starts a program in the cgroup: that it is executed is decided there.
    pub fn start(&self, program: &Path, arguments: &[&str]) -> io::Result<Child> {
        let mut procs =
            fs::OpenOptions::new().write(true).open(self.own.path().join("cgroup.procs"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: writing to a descriptor is async-signal-safe.
        unsafe { command.pre_exec(move || procs.write_all(b"0")) };
        command.spawn()
    }

    /// Runs one, and says whether it was allowed to.
    #[track_caller]
    pub fn may_run(&self, program: &Path) -> bool {
        let ended = self.run(program);
        assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
        ended.is_some()
    }

    /// Runs one, and says whether it was allowed to begin: what turns out bad meanwhile is killed.
    #[track_caller]
    pub fn is_let_in(&self, program: &Path) -> bool {
        self.run(program).is_some()
    }

    /// How one has ended, if it was allowed to begin.
    #[track_caller]
    fn run(&self, program: &Path) -> Option<ExitStatus> {
        match self.start(program, &[]) {
            Ok(mut child) => Some(child.wait().expect("it ends")),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM), "{error}");
                None
            }
        }
    }

    /// Whether a process in the cgroup may read a file.
    #[track_caller]
    pub fn may_open(&self, path: &Path) -> bool {
        let mut command = self.own.shell("exec 3< \"$0\"", path);
        command.stderr(Stdio::null()).status().expect("it starts").success()
    }

    /// Connects to addresses, in a process in the cgroup.
    #[track_caller]
    pub fn connect(&self, addresses: &[IpAddr]) -> Connected {
        Connected::start(&self.own.path(), addresses, None)
    }

    /// ... that has the number of one that has ended.
    #[track_caller]
    pub fn connect_as(&self, number: Pid, addresses: &[IpAddr]) -> Connected {
        Connected::start(&self.own.path(), addresses, Some(number))
    }

    #[track_caller]
    pub fn may_connect(&self, address: IpAddr) -> bool {
        self.connect(&[address]).allowed[0]
    }

    /// Where the guard is pinned.
    #[track_caller]
    pub fn pins(&self) -> PathBuf {
        let cgroup = fs::metadata(self.own.path()).expect("it is there");
        Path::new(PINS).join(format!("exec-guard-{}", cgroup.ino()))
    }

    /// Of the guard at work, whichever process loaded it.
    #[track_caller]
    pub fn open_questions(&self) -> u64 {
        let pins = bpf_wq::pins(self.pins()).expect("a directory of pins");
        let mut questions = pins[0].counters.iter().filter(|(name, _)| name == "questions");
        questions.next().expect("an executor").1.in_flight
    }

    /// Ends the guard that checks have left at work, or drained.
    #[track_caller]
    pub fn end(self) {
        for pin in bpf_wq::clear_pins(self.pins(), None, DEADLINE).expect("they are removed") {
            assert!(pin.drained.is_complete(), "{}", pin.drained);
        }
        fs::remove_dir(self.pins()).expect("it is empty");
        assert_nothing_is_left();
    }
}

/// Loading a guard takes longer than a check, above all in an emulated guest: these share one.
#[track_caller]
pub fn check(checks: &[fn(&Place)]) {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    for check in checks {
        check(&place);
        // What one has put into the database is not known to the next.
        place.directory = directory();
    }
    place.end();
}

/// A test that fails leaves nothing to others.
impl Drop for Place {
    fn drop(&mut self) {
        if self.own.path().exists() {
            let _none = bpf_wq::clear_pins(self.pins(), None, Duration::ZERO);
            let _none = fs::remove_dir(self.pins());
        }
    }
}

/// What a server does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Answer,
    /// Not before it is told to do something else.
    Hold,
    /// No DNS message.
    Garbage,
    /// The right answer, but for its number.
    OtherNumber,
    /// The answer to another question.
    OtherName,
    /// An address that means nothing.
    OutOfRange,
    /// An address of another name.
    OtherRecord,
    /// No records, as to say to ask another server.
    Nothing,
    /// Half of it.
    Cut,
    /// SERVFAIL.
    Fail,
    /// A wrong one, and then the right one.
    ForgedFirst,
}

pub struct Server {
    pub address: SocketAddr,
    does: Arc<Mutex<Does>>,
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    #[track_caller]
    pub fn new(listed: &[IpAddr]) -> Self {
        Self::with_ttl(listed, 600)
    }

    #[track_caller]
    pub fn with_ttl(listed: &[IpAddr], ttl_s: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let zone = Zone::new(&ZONE.parse().expect("a name"), ttl_s, listed).expect("a zone");
        let address = socket.local_addr().expect("an address");
        let does = Arc::new(Mutex::new(Does::Answer));
        let (asked, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let shared = (does.clone(), asked.clone(), is_over.clone());
        let thread = thread::spawn(move || {
            let (does, asked, is_over) = shared;
            let mut held = Vec::new();
            let mut packet = [0; 512];
            while !is_over.load(Ordering::Relaxed) {
                let received = socket.recv_from(&mut packet);
                // Before it counts as asked: what it is told then is not for this question.
                let does = *does.lock().expect("no panic");
                if let Ok((length, from)) = received {
                    held.push((packet[..length].to_vec(), from));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                if does == Does::Hold {
                    continue;
                }
                for (question, from) in held.drain(..) {
                    for answer in answers(&zone, &question, does) {
                        // Who does not wait any more has closed the port.
                        let _sent = socket.send_to(&answer, from);
                    }
                }
            }
        });
        Self { address, does, asked, is_over, thread: Some(thread) }
    }

    pub fn does(&self, what: Does) {
        *self.does.lock().expect("no panic") = what;
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

/// By bytes, as a liar would: offsets are those of RFC 1035, 4.1.
fn answers(zone: &Zone, question: &[u8], does: Does) -> Vec<Vec<u8>> {
    let right = zone.answer(question).expect("a question");
    let mut wrong = right.clone();
    match does {
        Does::Answer | Does::Hold => return vec![right],
        Does::Garbage => wrong = b"no DNS message".to_vec(),
        Does::OtherNumber | Does::ForgedFirst => wrong[1] ^= 1,
        // The first character of the first label.
        Does::OtherName => wrong[13] ^= 1,
        // The last byte but one of the only record, which is an address.
        Does::OutOfRange => {
            let at = wrong.len() - 2;
            wrong[at] = 255;
        }
        // The record's name, which points at the question's: one without its first label.
        Does::OtherRecord => wrong[question.len() + 1] += 1 + question[12],
        Does::Nothing | Does::Fail => {
            wrong.truncate(question.len());
            wrong[6..12].fill(0);
            if does == Does::Fail {
                wrong[3] = wrong[3] & 0xf0 | 2;
            }
        }
        Does::Cut => wrong[2] |= 2,
    }
    if does == Does::ForgedFirst { vec![wrong, right] } else { vec![wrong] }
}

/// A guard with its agent, if it has one. It is loaded by the first check of a test; each of the
/// others goes on with it, with a policy and an agent of its own.
pub struct Guarded {
    pub guard: Guard,
    agent: Option<Agent>,
    before: Numbers,
    questions_before: Counters,
}

#[track_caller]
fn start(place: &Place, policy: &Policy) -> Guard {
    Guard::start(policy, &place.own.path(), Path::new(PINS)).expect("it starts")
}

impl Guarded {
    #[track_caller]
    pub fn start(place: &Place, policy: &Policy) -> Self {
        let mut guarded = Self::without_agent(place, policy);
        guarded.start_agent(policy);
        guarded
    }

    #[track_caller]
    pub fn without_agent(place: &Place, policy: &Policy) -> Self {
        let guard = start(place, policy);
        let before = guard.numbers().expect("the map can be read");
        let questions_before = guard.questions().expect("an executor");
        Self { guard, agent: None, before, questions_before }
    }

    #[track_caller]
    pub fn start_agent(&mut self, policy: &Policy) {
        self.agent = Some(Agent::start(&self.guard, policy).expect("it starts"));
    }

    #[track_caller]
    pub fn agent(&self) -> AgentNumbers {
        self.agent.as_ref().expect("it was started").numbers()
    }

    /// Since it was started.
    #[track_caller]
    pub fn numbers(&self) -> Numbers {
        const COUNTS: usize = size_of::<Numbers>() / size_of::<u64>();
        let now: [u64; COUNTS] = bytemuck::cast(self.guard.numbers().expect("the map can be read"));
        let before: [u64; COUNTS] = bytemuck::cast(self.before);
        bytemuck::cast(std::array::from_fn::<_, COUNTS, _>(|n| now[n] - before[n]))
    }

    /// Waits until so many answers are counted, which each is after its verdict is known.
    #[track_caller]
    pub fn has_learned(&self, answers: u64) -> Numbers {
        eventually("they are counted", || {
            let now = self.numbers();
            (now.learned == answers).then_some(now)
        })
    }

    /// Of all questions, those that are open; and those that were accepted since it was started.
    #[track_caller]
    pub fn questions(&self) -> (u64, u64) {
        let questions = self.guard.questions().expect("an executor");
        (questions.in_flight, questions.accepted - self.questions_before.accepted)
    }

    /// Waits until that is so: what a question's job counts at its end is counted then.
    #[track_caller]
    pub fn no_question_is_open(&self) {
        eventually("no question is open", || (self.questions().0 == 0).then_some(()));
    }

    /// How often questions were looked at that stay open.
    #[track_caller]
    pub fn retried(&self) -> u64 {
        self.guard.questions().expect("an executor").retried - self.questions_before.retried
    }

    /// Waits until a verdict is known.
    #[track_caller]
    pub fn learns(&self, subject: &Subject) -> (Action, Why) {
        let verdict = || self.guard.verdict(subject).expect("the map can be read");
        eventually("it is known", verdict)
    }

    /// When a verdict expires, or has expired, as nanoseconds of CLOCK_BOOTTIME.
    #[track_caller]
    pub fn expires_ns(&self, place: &Place, subject: &Subject) -> u64 {
        let pins = bpf_wq::pins(place.pins()).expect("a directory of pins");
        let verdicts = pins[0].path.join("maps/verdicts");
        let verdicts = MapHandle::from_pinned_path(verdicts).expect("the map");
        let verdict = verdicts.lookup(bytemuck::bytes_of(subject), MapFlags::ANY);
        let verdict = verdict.expect("the map can be read").expect("it is there");
        u64::from_ne_bytes(verdict[..8].try_into().expect("its first member"))
    }

    /// A file, as it is executed.
    #[track_caller]
    pub fn executed(&self, path: &Path) -> Subject {
        self.opened(path).executed()
    }

    /// ... and as it is opened.
    #[track_caller]
    pub fn opened(&self, path: &Path) -> Subject {
        self.guard.opener().expect("an opener").open(path).expect("it is there").1
    }

    /// Ends the agent as Ctrl-C does: no question is open any more.
    #[track_caller]
    pub fn drain(&mut self) {
        let agent = self.agent.take().expect("it was started");
        agent.drain(&self.guard).expect("it is drained");
        assert_eq!(self.questions().0, 0);
    }

    /// Leaves it at work for the next check, when no question of this one is open.
    #[track_caller]
    pub fn leave(self) {
        self.no_question_is_open();
    }
}

#[track_caller]
pub fn assert_nothing_is_left() {
    let left = || {
        let pins = fs::read_dir(PINS).expect("a bpffs").flatten();
        pins.map(|pin| pin.file_name()).find(|name| name.to_string_lossy().contains("exec-guard"))
    };
    assert_eq!(left(), None);
    let loaded = || libbpf_rs::query::ProgInfoIter::default().any(|p| p.name == "on_exec");
    eventually("the programs are gone", || (!loaded()).then_some(()));
}
