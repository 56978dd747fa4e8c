//! One guest, from boot to verdict, on the vmtest crate. What vmtest leaves open is closed here and
//! in [`crate::guardian`]: a deadline, a verdict that needs the runner's own marker, the kernel's
//! reports on the console, and the reason when a boot fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use vmtest::output::Output;
use vmtest::{Config, Target, VMConfig, Vmtest};

use crate::accel::Accel;
use crate::config::GuestConfig;
use crate::console;
use crate::failure::{Interrupted, usage};
use crate::guardian::{self, Post, qemu_log};
use crate::interrupt::{self, Busy};
use crate::job::{self, CONFIG_FILE, Event, GUEST_SHARE, JOB_FILE, Job, RESULTS_DIR, Work};
use crate::kernels::Kernel;
use crate::runner;

/// How often a guest's loop looks at the clock and at [`interrupt::requested`].
const LOOK: Duration = Duration::from_millis(100);

/// How much of the console is shown when a boot fails.
const LAST_LINES: usize = 15;

/// What to boot, and for how long.
pub struct Guest<'a> {
    /// The kernel and its initramfs.
    pub kernel: &'a Kernel,
    /// Memory, CPUs and kernel arguments.
    pub config: &'a GuestConfig,
    /// KVM or TCG.
    pub accel: Accel,
    /// From the boot to the verdict.
    pub deadline: Duration,
    /// Where the guest's console log and its share with the host are kept.
    pub dir: PathBuf,
}

/// What a guest's run came to, before anyone judges the tests.
#[derive(Debug)]
pub enum End {
    /// The marker came: whether the work succeeded, and how it ended.
    Marker {
        /// All of it.
        success: bool,
        /// An exit status or an error, where tests do not tell.
        how: String,
    },
    /// The command had started, and no marker came. Why.
    NoMarker(String),
    /// The command did not start. Why, with the console's last lines.
    NoBoot {
        /// One line, and the console's last ones.
        why: String,
        /// Trying once more may be of use: neither QEMU nor our PID 1 has refused.
        repeatable: bool,
    },
}

/// Where a program that a guest ran has left what it has for the host. `dir` is the guest's.
pub fn results(dir: &Path) -> PathBuf {
    dir.join("share").join(RESULTS_DIR)
}

/// A guest's run, with the boots that it took.
pub struct Ran {
    /// How the last boot ended.
    pub end: End,
    /// Why the first one had to be repeated, if it had.
    pub first_boot: Option<String>,
}

/// What the caller hears while a guest runs.
pub enum News<'a> {
    /// The guest died before its command started, or QEMU did not come up, of this; it is booted once
    /// more.
    Again(&'a str),
    /// An event of the job.
    Event(&'a Event),
    /// A line that the work's program wrote.
    Line(&'a str),
    /// The guest stays up; its console is this socket. Return when the person is done.
    Held(&'a Path),
}

impl Guest<'_> {
    /// The console's log.
    pub fn console_log(&self) -> PathBuf {
        guardian::console_log(&self.dir)
    }

    /// Boots the guest, gives it the work, and waits for the end, which is at the deadline at the
    /// latest. A guest that dies before its command starts is booted a second time: under TCG one
    /// in many does, and QEMU may not come up in time. Nothing of the guest is left then but the
    /// files in `dir`.
    pub fn run(
        &self,
        work: &Work,
        hold_on_failure: bool,
        hear: &mut dyn FnMut(News),
    ) -> Result<Ran> {
        let _busy = Busy::new();
        let _lock = self.lock()?;
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| {
                let dir = self.dir.display();
                format!("cannot clear {dir}: if a run as root left it, `sudo rm -r {dir}`")
            })?;
        }
        match self.boot(work, hold_on_failure, hear)? {
            End::NoBoot { why, repeatable: true } => {
                hear(News::Again(&why));
                let log = self.console_log();
                // A QEMU that did not come up has none.
                if log.exists() {
                    fs::rename(&log, self.dir.join("console-of-first-boot.log"))
                        .with_context(|| format!("cannot keep {}", log.display()))?;
                }
                let end = self.boot(work, hold_on_failure, hear)?;
                Ok(Ran { end, first_boot: Some(why) })
            }
            end => Ok(Ran { end, first_boot: None }),
        }
    }

    fn boot(&self, work: &Work, hold_on_failure: bool, hear: &mut dyn FnMut(News)) -> Result<End> {
        let share = self.dir.join("share");
        fs::create_dir_all(&share).with_context(|| format!("cannot make {}", share.display()))?;
        if matches!(work, Work::Run { .. }) {
            let results = results(&self.dir);
            fs::create_dir_all(&results)
                .with_context(|| format!("cannot make {}", results.display()))?;
        }
        let marker = marker()?;
        let job = Job { marker: marker.clone(), work: work.clone(), hold_on_failure };
        fs::write(share.join(JOB_FILE), serde_json::to_vec(&job)?)
            .with_context(|| format!("cannot write to {}", share.display()))?;

        if let Some(config) = &self.kernel.config {
            fs::copy(config, share.join(CONFIG_FILE))
                .with_context(|| format!("cannot copy {} into the share", config.display()))?;
        }
        let guests = self.dir.parent().context("a guest's directory is in none")?;
        let exe = runner::copy_in(guests)?;
        let mut post = Post::new(self.accel, &self.dir, &exe)?;
        let vm = Vmtest::new(&share, Config { target: vec![self.target(&post, &exe)?] })?;
        let (updates, news) = mpsc::channel();
        let vm = std::thread::spawn(move || vm.run_one(0, updates));
        let mut watch =
            Watch { marker, hear, started: false, ended: None, held: false, error: None };
        let begun = Instant::now();
        let mut over = None;
        loop {
            match news.recv_timeout(LOOK) {
                Ok(output) => watch.output(output),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if watch.held {
                watch.held = false;
                (watch.hear)(News::Held(&post.console()));
                post.end_guest();
                let stopped = interrupt::requested();
                over = Some(if stopped { Over::Interrupted } else { Over::Held });
            }
            if watch.ended.is_some() && over.is_none() && console::is_whole(&self.console_log()) {
                // vmtest's thread may sleep for seconds before it sees that, and has nothing to do.
                post.end_guest_that_ran()?;
                if interrupt::requested() {
                    return Err(Interrupted.into());
                }
                return Ok(self.end(watch, false));
            }
            if over.is_none() {
                if interrupt::requested() {
                    over = Some(Over::Interrupted);
                } else if begun.elapsed() > self.deadline {
                    over = Some(Over::Deadline);
                }
                if over.is_some() {
                    post.end_guest();
                }
            }
        }
        let panicked = vm.join().is_err();
        if panicked {
            watch.error.get_or_insert("vmtest panicked".into());
        }
        if over == Some(Over::Interrupted) {
            return Err(Interrupted.into());
        }
        Ok(self.end(watch, over == Some(Over::Deadline)))
    }

    /// Two runs of one kernel in one target directory would share a console log.
    fn lock(&self) -> Result<Flock<File>> {
        // Not `with_extension`, which takes `.12` of `6.12` for one.
        let mut path = self.dir.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let parent = path.parent().context("a guest's directory has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            anyhow!("another run uses {}: wait for it, or set CARGO_TARGET_DIR", self.dir.display())
        })
    }

    fn end(&self, watch: Watch, deadline_passed: bool) -> End {
        if let Some((success, how)) = watch.ended {
            return End::Marker { success, how };
        }
        let mut why = match (deadline_passed, watch.error) {
            (true, _) => format!("the deadline of {} s passed", self.deadline.as_secs()),
            (false, Some(error)) => error,
            (false, None) => "the guest's command ended".into(),
        };
        if watch.started {
            return End::NoMarker(why);
        }
        let log = self.console_log();
        let qemu_said = fs::read_to_string(qemu_log(&self.dir)).unwrap_or_default();
        if !qemu_said.trim().is_empty() {
            why = format!("{why}; QEMU said: {}", qemu_said.trim());
        }
        // Without a console QEMU itself has failed. It says why, unless vmtest has ended it: on a
        // busy machine the 5 s that it has to come up may be too few.
        let has_console = fs::metadata(&log).is_ok_and(|m| m.len() > 0);
        let qemu_refused = !has_console && !qemu_said.trim().is_empty();
        let refusal = console::refusal(&log);
        if let Some(line) = &refusal {
            why.clone_from(line);
        } else if has_console && !console::init_ran(&log) {
            why.push_str(
                "; the kernel did not run the initramfs's init (it needs CONFIG_BLK_DEV_INITRD, \
                 CONFIG_BINFMT_ELF, and CONFIG_VIRTIO_PCI and CONFIG_VIRTIO_CONSOLE afterwards)",
            );
        }
        if has_console {
            let last = console::last_lines(&log, LAST_LINES);
            why = format!("{why}; the console ({}) ends with:\n{last}", log.display());
        }
        let repeatable = !qemu_refused && refusal.is_none() && !deadline_passed;
        End::NoBoot { why, repeatable }
    }

    fn target(&self, post: &Post, exe: &Path) -> Result<Target> {
        let path = |p: &Path| -> Result<String> {
            Ok(p.to_str().with_context(|| format!("{} is not UTF-8", p.display()))?.to_owned())
        };
        // vmtest's init mounts empty file systems there.
        if let Some(hidden) = ["/mnt", "/run"].into_iter().find(|dir| exe.starts_with(dir)) {
            return Err(usage(format!(
                "the guest does not see the host's {hidden}, where the target directory is ({}): \
                 set CARGO_TARGET_DIR to another place",
                exe.display()
            )));
        }
        // By its path on the host: the guest's root has a cache, the share has none.
        let exe = path(exe)?.replace('\'', r"'\''");
        Ok(Target {
            name: self.kernel.name.clone(),
            kernel: Some(self.kernel.vmlinuz.clone()),
            kernel_args: self.config.kernel_args.clone(),
            qemu_command: Some(path(&post.command())?),
            // Without `exit`, bash may exec the command; vmtest takes its death by a signal for
            // success.
            command: format!("'{exe}' guest {GUEST_SHARE}; exit $?"),
            vm: VMConfig {
                num_cpus: self.config.num_cpus,
                memory: self.config.memory.clone(),
                extra_args: vec!["-initrd".into(), path(&self.kernel.initramfs)?],
                ..VMConfig::default()
            },
            ..Target::default()
        })
    }
}

#[derive(PartialEq, Eq)]
enum Over {
    Deadline,
    Interrupted,
    Held,
}

struct Watch<'a> {
    marker: String,
    hear: &'a mut dyn FnMut(News),
    started: bool,
    ended: Option<(bool, String)>,
    held: bool,
    error: Option<String>,
}

impl Watch<'_> {
    fn output(&mut self, output: Output) {
        match output {
            Output::Command(line) => self.line(&line),
            Output::BootEnd(Err(e)) | Output::SetupEnd(Err(e)) | Output::CommandEnd(Err(e)) => {
                self.error.get_or_insert(format!("{e:#}"));
            }
            Output::CommandEnd(Ok(code)) => {
                self.error.get_or_insert(format!("the guest's command ended with status {code}"));
            }
            Output::BootStart
            | Output::Boot(_)
            | Output::BootEnd(Ok(()))
            | Output::SetupStart
            | Output::Setup(_)
            | Output::SetupEnd(Ok(()))
            | Output::CommandStart => (),
        }
    }

    fn line(&mut self, line: &str) {
        let Some((before, event)) = job::parse(&self.marker, line) else {
            (self.hear)(News::Line(line));
            return;
        };
        if !before.is_empty() {
            (self.hear)(News::Line(&before));
        }
        match event {
            Ok(event) => {
                match &event {
                    Event::Started { .. } => self.started = true,
                    Event::Ended { success, how, is_held } => {
                        self.ended = Some((*success, how.clone()));
                        self.held = *is_held;
                    }
                    Event::Chosen { .. } | Event::Begin { .. } | Event::Test(_) => (),
                }
                (self.hear)(News::Event(&event));
            }
            Err(e) => _ = self.error.get_or_insert(format!("{e:#}")),
        }
    }
}

/// A word that no program's output holds by accident.
fn marker() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot read a UUID")?;
    Ok(format!("::xtask:{}", id.trim()))
}
