//! Real processes that connect, end, and are told of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bpf_wq_tests::{Running, eventually, fact, needs_bpf_wq, needs_config, version};
use libbpf_rs::MapCore as _;
use nix::sys::signal::Signal;
use reclaim::cgroup::Cgroup;
use reclaim::measure::{Exit, Place};
use reclaim::network;
use reclaim::summary::Summary;
use reclaim::tracker::{Freed, Limits, Numbers, Tracker};
use serde_json::Value;
use serial_test::serial;
use tempfile::NamedTempFile;

const PINS: &str = "/sys/fs/bpf";

const RECLAIM: &str = env!("CARGO_BIN_EXE_reclaim");

/// So many summaries fit into the ring.
const IN_RING: u64 = 65_536 / 200;

fn can_run() -> bool {
    let can = needs_bpf_wq()
        && needs_config("CONFIG_CGROUP_BPF", "it looks at the processes of a cgroup");
    if can {
        network::join().expect("a network");
    }
    can
}

/// A cgroup, and what looks at it.
struct Looked {
    cgroup: Cgroup,
    tracker: Tracker,
}

impl Looked {
    fn at_all() -> Self {
        Self::at(Limits::DEFAULT)
    }

    fn at(limits: Limits) -> Self {
        let cgroup = Cgroup::create().expect("a cgroup");
        let tracker = Tracker::start(&cgroup, &limits, Path::new(PINS)).expect("it starts");
        assert!(tracker.is_new());
        Self { cgroup, tracker }
    }

    fn numbers(&self) -> Numbers {
        self.tracker.numbers().expect("the map can be read")
    }

    /// Waits until so many are told of.
    #[track_caller]
    fn told(&self, processes: usize) -> Vec<Summary> {
        let mut told = Vec::new();
        eventually("all are told of", || {
            read(&self.tracker, &mut told);
            (told.len() >= processes).then_some(())
        });
        assert_eq!(told.len(), processes, "{told:?}");
        told
    }

    /// Waits until one is.
    #[track_caller]
    fn told_one(&self) -> Summary {
        self.told(1).remove(0)
    }

    /// The entries that are there, by process.
    fn entries(&self) -> BTreeMap<u64, usize> {
        let mut entries = BTreeMap::new();
        for key in self.tracker.entries().keys() {
            *entries
                .entry(u64::from_ne_bytes(key[..8].try_into().expect("8 bytes")))
                .or_default() += 1;
        }
        entries
    }

    #[track_caller]
    fn stop(self) {
        self.stop_and_tell(|summary| panic!("one more: {summary}"));
    }

    #[track_caller]
    fn stop_and_tell(self, mut tell: impl FnMut(Summary)) {
        assert_eq!(self.entries(), BTreeMap::new());
        let stopped = self.tracker.stop(|summary| {
            tell(summary);
            Ok(())
        });
        let stopped = stopped.expect("it stops");
        assert!(stopped.drained.is_complete(), "{}", stopped.drained);
        assert_eq!(stopped.numbers.processes_left(), 0, "{:?}", stopped.numbers);
        self.cgroup.remove().expect("it is empty");
        assert_nothing_is_left();
    }
}

fn read(tracker: &Tracker, told: &mut Vec<Summary>) {
    let push = |summary| {
        told.push(summary);
        Ok(())
    };
    tracker.ended(Duration::ZERO, push).expect("the ring can be read");
}

#[track_caller]
fn assert_nothing_is_left() {
    let pins = fs::read_dir(PINS).expect("it is there").map(|entry| entry.expect("it is there"));
    let pins: Vec<_> =
        pins.filter(|pin| pin.file_name().to_string_lossy().starts_with("reclaim")).collect();
    assert!(pins.is_empty(), "{pins:?} are left");
    let names = ["exit_deferred", "connect4", "sendmsg6"];
    let is_ours = |name: &str| names.contains(&name);
    let loaded =
        || libbpf_rs::query::ProgInfoIter::default().any(|p| p.name.to_str().is_some_and(is_ours));
    eventually("the programs are gone", || (!loaded()).then_some(()));
}

/// Processes that connect.
fn visit(cgroup: &Cgroup, arguments: &[&str]) -> Child {
    let mut command = Command::new(RECLAIM);
    command.arg("visit").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    cgroup.enter(&mut command).expect("it takes a process");
    command.spawn().expect("it starts")
}

#[track_caller]
fn ends(mut visit: Child) -> u64 {
    let status = visit.wait().expect("it is our child");
    assert!(status.success(), "{status}");
    visit.id().into()
}

/// Waits until one with `--wait` has done all.
fn is_ready(visit: &mut Child) {
    let mut line = String::new();
    BufReader::new(visit.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
}

fn top(summary: &Summary) -> Vec<(String, u64)> {
    summary.top.iter().map(|counted| (counted.address.to_string(), counted.count)).collect()
}

#[test]
#[serial]
fn the_totals_are_what_the_process_did() {
    if !can_run() {
        return;
    }
    let looked = Looked::at_all();
    let to = ["--send", "[::1]:53", "--send", "127.0.0.1:4444"];
    let pid =
        ends(visit(&looked.cgroup, &[&["--addresses", "1000", "--times", "7"], &to[..]].concat()));
    let told = looked.told_one();
    assert_eq!((told.pid, told.name.as_str()), (pid, "reclaim"), "{told}");
    assert_eq!((told.addresses, told.connects, told.untracked), (1002, 999 + 7 + 4, 0), "{told}");
    assert_eq!(told.steps, 1002_u64.div_ceil(256), "{told}");
    let highest = top(&told);
    assert_eq!(highest[0], ("127.0.0.1:9".to_owned(), 7), "{told}");
    let sent: BTreeSet<_> = highest[1..3].iter().cloned().collect();
    assert_eq!(
        sent,
        [("127.0.0.1:4444".to_owned(), 2), ("[::1]:53".to_owned(), 2)].into(),
        "{told}"
    );
    assert_eq!(highest[3].1, 1, "{told}");
    let numbers = looked.numbers();
    assert_eq!(
        (numbers.entries, numbers.freed_by_worker, numbers.missed),
        (1002, 1002, 0),
        "{numbers:?}"
    );
    looked.stop();
}

#[test]
#[serial]
fn the_entries_of_a_process_that_lives_are_kept() {
    if !can_run() {
        return;
    }
    let looked = Looked::at_all();
    let mut lives = visit(&looked.cgroup, &["--addresses", "300", "--wait"]);
    is_ready(&mut lives);
    let ended = ends(visit(&looked.cgroup, &["--addresses", "500"]));
    let told = looked.told_one();
    assert_eq!((told.pid, told.addresses), (ended, 500), "{told}");
    assert_eq!(looked.entries(), [(lives.id().into(), 300)].into());
    let lived = ends(lives);
    let told = looked.told_one();
    assert_eq!((told.pid, told.addresses), (lived, 300), "{told}");
    looked.stop();
}

#[test]
#[serial]
fn a_process_ends_when_its_last_thread_does() {
    if !can_run() {
        return;
    }
    let looked = Looked::at_all();
    let mut outlives = visit(&looked.cgroup, &["--addresses", "50", "--outlive", "--wait"]);
    // Its first thread has ended.
    is_ready(&mut outlives);
    // What would have been submitted then is done before this.
    ends(visit(&looked.cgroup, &["--addresses", "7"]));
    assert_eq!(looked.told_one().addresses, 7);
    assert_eq!(looked.entries(), [(outlives.id().into(), 50)].into());
    ends(outlives);
    let told = looked.told_one();
    assert_eq!((told.addresses, told.connects), (51, 50 + 51), "{told}");
    looked.stop();
}

/// Of processes with so many addresses, and one more each.
#[track_caller]
fn assert_each_once(told: &[Summary], addresses: u64, processes: u64) {
    let mut found: Vec<u64> = told.iter().map(|summary| summary.addresses).collect();
    found.sort_unstable();
    let expected: Vec<u64> = (addresses..addresses + processes).collect();
    assert_eq!(found, expected);
    let pids: BTreeSet<u64> = told.iter().map(|summary| summary.pid).collect();
    assert_eq!(pids.len(), told.len(), "{told:?}");
    for summary in told {
        assert_eq!((summary.connects, summary.untracked), (summary.addresses, 0), "{summary}");
    }
}

/// How often the kernel did not call the program for exits, as it was running on that CPU.
fn exits_missed() -> u64 {
    let mut programs = libbpf_rs::query::ProgInfoIter::default();
    programs.find(|program| program.name == "exit_deferred").expect("loaded").recursion_misses
}

#[test]
#[serial]
fn of_many_that_end_at_once_each_is_told_of_once() {
    if !can_run() {
        return;
    }
    let looked = Looked::at_all();
    let visits = visit(&looked.cgroup, &["--addresses", "20", "--processes", "200"]);
    let told = looked.told(200);
    ends(visits);
    assert_each_once(&told, 20, 200);
    let numbers = looked.numbers();
    assert_eq!(numbers.exits + numbers.found_later, 200, "{numbers:?}");
    let misses = exits_missed();
    fact("reclaim: exits that the kernel did not tell of", &misses.to_string());
    if version() < (7, 0) {
        // No program at a tracepoint is preempted there.
        assert_eq!(misses, 0, "{numbers:?}");
    }
    looked.stop();
}

#[test]
#[serial]
fn an_end_that_the_kernel_does_not_tell_of_is_found() {
    if !can_run() {
        return;
    }
    let looked = Looked::at_all();
    let pins = Path::new(PINS).join(format!("reclaim-{}", looked.cgroup.id()));
    let mut builds = fs::read_dir(&pins).expect("it is pinned");
    let build = builds.next().expect("a build").expect("it is there").path();
    fs::remove_file(build.join("links/exit_deferred")).expect("it was attached");
    // The kernel detaches it a little later.
    let before = eventually("it is detached", || {
        let before = looked.numbers();
        ends(visit(&looked.cgroup, &["--addresses", "1"]));
        looked.told_one();
        let now = looked.numbers();
        (now.exits == before.exits).then_some(now)
    });
    let pid = ends(visit(&looked.cgroup, &["--addresses", "600"]));
    let told = looked.told_one();
    assert_eq!((told.pid, told.addresses, told.name.as_str()), (pid, 600, "reclaim"), "{told}");
    let numbers = looked.numbers();
    let found = (numbers.exits - before.exits, numbers.found_later - before.found_later);
    assert_eq!(found, (0, 1), "{before:?} {numbers:?}");
    looked.stop();
}

#[test]
#[serial]
fn while_nobody_reads_they_wait_and_a_pid_that_is_used_again_is_another_process() {
    if !can_run() {
        return;
    }
    let looked = Looked::at_all();
    let processes = IN_RING + 50;
    let parent =
        ends(visit(&looked.cgroup, &["--addresses", "1", "--processes", &processes.to_string()]));
    let waiting = |count| {
        let mut now = looked.numbers();
        eventually("all is freed, and the ring is full", || {
            now = looked.numbers();
            (now.entries_left() == 0 && now.summaries == IN_RING).then_some(())
        });
        assert_eq!(now.processes, count, "{now:?}");
    };
    waiting(processes);
    // It has connected to nothing, so none of the others has this number.
    let pid = parent.to_string();
    for addresses in ["700", "800"] {
        ends(visit(&looked.cgroup, &["--pid", &pid, "--addresses", addresses]));
    }
    waiting(processes + 2);
    // Whoever waits until all is done has to read.
    let mut told = Vec::new();
    looked.stop_and_tell(|summary| told.push(summary));
    let (again, others): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|summary| summary.pid == parent);
    assert_each_once(&others, 1, processes);
    let mut again: Vec<_> = again.iter().map(|s| (s.started_ns, s.addresses, s.connects)).collect();
    again.sort_unstable();
    assert_eq!(again.iter().map(|s| (s.1, s.2)).collect::<Vec<_>>(), [(700, 700), (800, 800)]);
}

#[test]
#[serial]
fn what_there_is_no_place_for_is_counted() {
    if !can_run() {
        return;
    }
    let looked = Looked::at(Limits { processes: 2, addresses: 100 });
    ends(visit(&looked.cgroup, &["--addresses", "150", "--times", "3"]));
    let told = looked.told_one();
    assert_eq!((told.addresses, told.connects, told.untracked), (100, 102, 50), "{told}");
    let there_is_place_again = || {
        eventually("no place is taken", || (looked.numbers().processes_left() == 0).then_some(()))
    };
    there_is_place_again();
    let mut two =
        ["60", "40"].map(|addresses| visit(&looked.cgroup, &["--addresses", addresses, "--wait"]));
    two.iter_mut().for_each(is_ready);
    ends(visit(&looked.cgroup, &["--addresses", "7"]));
    assert_eq!(looked.numbers().missed, 7);
    for visit in two {
        ends(visit);
    }
    let told = looked.told(2);
    assert_eq!(
        told.iter().map(|s| s.addresses).collect::<BTreeSet<_>>(),
        [60, 40].into(),
        "{told:?}"
    );
    assert!(told.iter().all(|summary| summary.untracked == 0), "{told:?}");
    there_is_place_again();
    ends(visit(&looked.cgroup, &["--addresses", "7"]));
    assert_eq!(looked.told_one().addresses, 7);
    looked.stop();
}

/// The fastest of some exits, with what was freed where.
fn fastest(place: &Place<'_>, entries: u32) -> Exit {
    let exits = (0..5).map(|_| place.exit(Path::new(RECLAIM), entries).expect("it ends"));
    exits.min_by_key(|exit| exit.program_ns).expect("some")
}

#[test]
#[serial]
fn an_exit_frees_nothing_and_does_not_wait_for_what_there_is_to_free() {
    /// A thousand times as many make inline's exit a hundred times as long and more.
    const GROWS: u64 = 20;
    /// The other's is as long. It may be held up, but not five times.
    const FLAT: u64 = 5;
    let (few, many) = (10, 10_000);
    if !can_run() {
        return;
    }
    let mut storage = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let inline = Place::new(&mut storage.0, Freed::Inline).expect("it starts");
    let deferred = Place::new(&mut storage.1, Freed::Deferred).expect("it starts");
    let of = |place| [few, many].map(|entries| fastest(place, entries));
    let (inlined, later) = (of(&inline), of(&deferred));
    let freed = |exits: [Exit; 2]| exits.map(|exit| (exit.freed_by_owner, exit.freed_by_worker));
    assert_eq!(freed(inlined), [(few.into(), 0), (many.into(), 0)], "{inlined:?}");
    assert_eq!(freed(later), [(0, few.into()), (0, many.into())], "{later:?}");
    assert!(inlined[1].program_ns > GROWS * inlined[0].program_ns, "{inlined:?}");
    assert!(later[1].program_ns < FLAT * later[0].program_ns, "{later:?}");
    assert!(inlined[1].program_ns > 5 * later[1].program_ns, "{inlined:?} {later:?}");
    for place in [inline, deferred] {
        place.remove().expect("it is empty");
    }
    assert_nothing_is_left();
}

fn cgroups() -> BTreeSet<PathBuf> {
    let made = Cgroup::create().expect("a cgroup");
    let beside = fs::read_dir(made.path().parent().expect("a cgroup")).expect("it is there");
    let beside: BTreeSet<_> = beside.flatten().map(|entry| entry.path()).collect();
    let made = made.path().to_owned();
    fs::remove_dir(&made).expect("it is empty");
    beside.into_iter().filter(|path| *path != made && path.is_dir()).collect()
}

#[test]
#[serial]
fn what_is_shown_and_measured_leaves_nothing_when_it_is_interrupted() {
    if !can_run() {
        return;
    }
    let before = cgroups();
    for action in ["demo", "figures"] {
        let mut running = Running::start(RECLAIM, &[action]);
        let is_loaded = || {
            let mut programs = libbpf_rs::query::ProgInfoIter::default();
            programs.any(|program| program.name == "exit_deferred")
        };
        eventually("it is at work", || is_loaded().then_some(()));
        running.signal(Signal::SIGINT);
        assert_eq!(running.ends(), Some(1), "{action}");
        let said = running.says();
        assert!(said.starts_with("reclaim: interrupted"), "{said}");
        assert_eq!(cgroups(), before, "{action}");
        assert_nothing_is_left();
    }
}

/// A cgroup that nobody looks at, and a file for what is printed.
struct Free {
    cgroup: PathBuf,
    printed: NamedTempFile,
}

impl Free {
    fn new() -> Self {
        let cgroup = Cgroup::create().expect("a cgroup").path().to_owned();
        Self { cgroup, printed: NamedTempFile::new().expect("a file") }
    }

    /// Runs the command for it, which takes it for its own.
    fn run(&self, arguments: &[&str]) -> Running {
        let cgroup = self.cgroup.to_str().expect("UTF-8");
        self.print(&[&["--cgroup", cgroup, "--json"], arguments].concat())
    }

    fn print(&self, arguments: &[&str]) -> Running {
        let printed = self.printed.path().to_str().expect("UTF-8");
        let print = ["-c", "exec \"$@\" >> \"$0\"", printed, RECLAIM, "run"];
        Running::start("sh", &[&print, arguments].concat())
    }

    fn visit(&self, arguments: &[&str]) -> Child {
        let cgroup = self.cgroup.join("cgroup.procs");
        let enter = ["-c", "echo 0 > \"$0\"; exec \"$@\"", cgroup.to_str().expect("UTF-8")];
        let mut command = Command::new("sh");
        command.args(enter).args([RECLAIM, "visit"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts")
    }

    /// The addresses of each process that was printed, by its number and when it was started. One
    /// that was being printed when the command was killed is printed again.
    fn printed(&self) -> BTreeMap<(u64, u64), u64> {
        let text = fs::read_to_string(self.printed.path()).expect("it is there");
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = whole.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let number = |line: &Value, of: &str| line[of].as_u64().expect("a number");
        lines
            .map(|line| {
                ((number(&line, "pid"), number(&line, "started_ns")), number(&line, "addresses"))
            })
            .collect()
    }

    #[track_caller]
    fn remove(self) {
        eventually("it is empty", || fs::remove_dir(&self.cgroup).ok());
        assert_nothing_is_left();
    }
}

#[test]
#[serial]
fn killed_under_load_it_stays_at_work_and_the_next_one_tells_the_rest() {
    if !can_run() {
        return;
    }
    let free = Free::new();
    let mut first = free.run(&[]);
    assert!(first.says().starts_with("looks at the processes of"));
    let mut lives = free.visit(&["--addresses", "1000", "--wait"]);
    is_ready(&mut lives);
    let load = free.visit(&["--addresses", "100", "--processes", "150"]);
    eventually("some are told of", || (free.printed().len() >= 5).then_some(()));
    first.signal(Signal::SIGKILL);
    assert_eq!(first.ends(), None);
    let told = free.printed().len();
    ends(lives);
    ends(load);
    assert_eq!(free.printed().len(), told);

    let mut second = free.run(&[]);
    assert!(second.says().starts_with("goes on to look at the processes of"));
    second.signal(Signal::SIGINT);
    assert_eq!(second.ends(), Some(0));
    assert_eq!(second.says(), "processes that ended: 151; all work is done");
    let mut addresses: Vec<u64> = free.printed().into_values().collect();
    addresses.sort_unstable();
    assert_eq!(addresses, (100..250).chain([1000]).collect::<Vec<_>>());
    free.remove();
}

/// Each line is one too many: the first one when it shows, and the next one when it stops.
#[test]
#[serial]
fn what_cannot_be_printed_ends_it_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let free = Free::new();
    let mut first = free.run(&[]);
    assert!(first.says().starts_with("looks at"));
    first.signal(Signal::SIGKILL);
    assert_eq!(first.ends(), None);
    for addresses in ["3", "4", "5"] {
        ends(free.visit(&["--addresses", addresses]));
    }
    let cgroup = free.cgroup.to_str().expect("UTF-8");
    let print = ["-c", "exec \"$@\" > /dev/full", "sh", RECLAIM, "run", "--cgroup", cgroup];
    let mut running = Running::start("sh", &print);
    assert!(running.says().starts_with("goes on"));
    let said = running.says();
    assert!(said.starts_with("reclaim: cannot print: No space left"), "{said}");
    assert_eq!(running.ends(), Some(1));
    free.remove();
}

#[test]
#[serial]
fn ctrl_c_waits_for_what_has_ended_and_forgets_what_lives() {
    if !can_run() {
        return;
    }
    let free = Free::new();
    let mut running = free.run(&[]);
    assert!(running.says().starts_with("looks at"));
    let mut lives = free.visit(&["--addresses", "10", "--wait"]);
    is_ready(&mut lives);
    ends(free.visit(&["--addresses", "30000"]));
    running.signal(Signal::SIGINT);
    assert_eq!(running.ends(), Some(0));
    assert_eq!(
        running.says(),
        "processes that ended: 1, that did not and are forgotten: 1; all work is done"
    );
    assert_eq!(free.printed().into_values().collect::<Vec<_>>(), [30_000]);
    ends(lives);
    free.remove();
}

#[test]
#[serial]
fn a_command_is_looked_at_until_it_and_its_children_end() {
    if !can_run() {
        return;
    }
    let free = Free::new();
    // The last process is one that the command does not wait for.
    let script = "\"$0\" visit --addresses 3; \"$0\" visit --addresses 4000 & exit $1";
    for (code, ends_with) in [("0", 0), ("3", 1)] {
        let mut running = free.print(&["--json", "--", "sh", "-c", script, RECLAIM, code]);
        assert!(running.says().starts_with("looks at the processes of"));
        assert_eq!(running.says(), "processes that ended: 2; all work is done");
        if ends_with != 0 {
            assert_eq!(running.says(), "reclaim: sh ended with exit status: 3");
        }
        assert_eq!(running.ends(), Some(ends_with));
    }
    let mut addresses: Vec<u64> = free.printed().into_values().collect();
    addresses.sort_unstable();
    assert_eq!(addresses, [3, 3, 4000, 4000]);

    let mut running = free.print(&["--", "/nowhere/to/be/found"]);
    assert!(running.says().starts_with("looks at"));
    let said = running.says();
    assert!(said.starts_with("reclaim: cannot run /nowhere/to/be/found: No such file"), "{said}");
    assert_eq!(running.ends(), Some(1));
    free.remove();
}

#[test]
#[serial]
fn a_cgroup_that_goes_away_ends_it() {
    if !can_run() {
        return;
    }
    let free = Free::new();
    let mut running = free.run(&[]);
    assert!(running.says().starts_with("looks at"));
    fs::remove_dir(&free.cgroup).expect("it is empty");
    assert_eq!(running.says(), "processes that ended: 0; all work is done");
    assert!(running.says().ends_with("is gone"));
    assert_eq!(running.ends(), Some(1));
    assert_nothing_is_left();
}

#[test]
#[serial]
fn bad_input_is_told_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let free = Free::new();
    let cgroup = free.cgroup.to_str().expect("UTF-8");
    let plain = tempfile::tempdir().expect("a directory");
    let plain = plain.path().to_str().expect("UTF-8");
    let refused = |arguments: &[&str], why: &str| {
        let mut running = free.print(arguments);
        let said = running.says();
        assert!(said.contains(why), "{arguments:?}: {said}");
        assert_eq!(running.ends(), Some(1), "{arguments:?}");
    };
    refused(&["--cgroup", "/nowhere"], "cannot open the cgroup /nowhere: No such file");
    refused(&["--cgroup", plain], "is no cgroup of version 2");
    refused(&["--cgroup", cgroup, "--pins", plain], "mount -t bpf");
    refused(&["--pins", plain, "--", "true"], "mount -t bpf");
    assert_eq!(fs::read_dir(plain).expect("it is there").count(), 0);
    for wrong in [
        &[][..],
        &["--cgroup", cgroup, "--", "true"],
        &["--cgroup", cgroup, "--processes", "0"],
        &["--cgroup", cgroup, "--processes", "1021"],
        &["--cgroup", cgroup, "--addresses", "many"],
    ] {
        assert_eq!(free.print(wrong).ends(), Some(2), "{wrong:?}");
    }
    assert_nothing_is_left();

    let mut running = free.run(&[]);
    assert!(running.says().starts_with("looks at"));
    refused(&["--cgroup", cgroup], "another process has");
    running.signal(Signal::SIGKILL);
    assert_eq!(running.ends(), None);
    refused(&["--cgroup", cgroup, "--processes", "5"], "--processes 1020 --addresses 262144");
    let mut running = free.run(&[]);
    assert!(running.says().starts_with("goes on"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ends(), Some(0));
    free.remove();
}
