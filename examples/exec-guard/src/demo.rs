//! `exec-guard demo`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use exec_guard::agent::Agent;
use exec_guard::cgroup::Own;
use exec_guard::database::{self, Known};
use exec_guard::digest;
use exec_guard::events::{Event, Events};
use exec_guard::guard::Guard;
use exec_guard::policy::Policy;

use crate::IS_OVER;

const ZONE: &str = "list.demo";

/// In a guest nobody else listens there.
const SERVER: &str = "127.53.0.1";

const LISTED: &str = "127.66.6.6";
const FINE: &str = "127.1.1.1";

/// Most that anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is shown, and what it is shown with.
struct Demo<'a> {
    own: &'a Own,
    events: Events,
}

/// Shows programs and addresses before and after they are known.
pub fn run() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let own = Own::new()?;
    let [fine, bad] = ["fine", "bad"].map(|name| directory.path().join(name));
    program(&fine, "/bin/true")?;
    program(&bad, "/bin/sleep")?;
    let files = directory.path().join("files.db");
    let digest = digest::of_contents(&mut fs::File::open(&bad)?, &IS_OVER)?;
    database::write(&files, &[(digest, Known::Bad)])?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.context("cannot run ip: install iproute2")?.success() {
        bail!("the loopback interface cannot be set up: run as root");
    }
    let mut server = Server::start(directory.path())?;
    let policy = Policy::parse(&policy(&files))?;
    let guard = Guard::start(&policy, &own.path(), Path::new("/sys/fs/bpf"))?;
    let shown = guard_by(&guard, &policy, &own, &mut server, [&fine, &bad]);
    let numbers = guard.numbers();
    let drained = guard.stop()?;
    shown?;
    println!("\n{}", numbers?);
    println!("It is not guarded any more; {drained}");
    Ok(())
}

/// With an agent, until all is shown.
fn guard_by(
    guard: &Guard,
    policy: &Policy,
    own: &Own,
    server: &mut Server,
    programs: [&Path; 2],
) -> Result<()> {
    let agent = Agent::start(guard, policy)?;
    let demo = Events::of(guard).map(|events| Demo { own, events });
    let shown = demo.and_then(|mut demo| demo.show_all(server, programs));
    let drained = agent.drain(guard);
    shown.and(drained)
}

/// One that nobody knows: another, with something behind it.
fn program(path: &Path, of: &str) -> Result<()> {
    fs::copy(of, path).with_context(|| format!("cannot copy {of}"))?;
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(b"demo")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn policy(files: &Path) -> String {
    format!(
        r#"
        exec = {{ unknown = "allow", unlisted = "allow", when_unreachable = "log", revoke = "kill" }}
        open = {{ unknown = "allow", unlisted = "allow", when_unreachable = "log", revoke = "leave" }}
        connect = {{ unknown = "allow", when_unreachable = "log", revoke = "leave" }}
        files = {{ database = "{}", ttl_ms = 60_000 }}
        [addresses]
        server = "{SERVER}:53"
        zone = "{ZONE}"
        timeout_ms = 1000
        tries = 2
        ttl_ms = 60_000
        "#,
        files.display()
    )
}

impl Demo<'_> {
    fn show_all(&mut self, server: &mut Server, [fine, bad]: [&Path; 2]) -> Result<()> {
        println!(
            "A cgroup is guarded: what nobody knows is allowed, and asked for; -> is the answer.\n"
        );
        println!("A program that no database has, twice:");
        self.execute(fine)?;
        self.until_learned()?;
        self.execute(fine)?;
        self.show()?;
        println!("\nA program that is bad, as it runs already, and again:");
        let mut running = self.spawn(bad)?;
        self.until_learned()?;
        println!("   it has ended: {}", ended(&mut running)?);
        self.execute(bad)?;
        self.show()?;
        for (what, address) in [("An address that is not listed", FINE), ("One that is", LISTED)] {
            println!("\n{what}, twice:");
            self.connect(address)?;
            self.until_learned()?;
            self.connect(address)?;
            self.show()?;
        }
        server.end()?;
        println!("\nThe DNS server is gone; another address, twice:");
        self.connect("127.2.2.2")?;
        self.until_learned()?;
        self.connect("127.2.2.2")?;
        self.show()?;
        Ok(())
    }

    fn spawn(&self, program: &Path) -> Result<Child> {
        let script = "exec \"$0\" 1000";
        let mut command = self.own.shell(script, program);
        command.stderr(Stdio::null()).spawn().context("cannot run /bin/sh")
    }

    fn execute(&self, program: &Path) -> Result<()> {
        let status = self.spawn(program)?.wait()?;
        let how = if status.success() { "it runs" } else { "it may not run" };
        println!("   {how}");
        Ok(())
    }

    fn connect(&self, address: &str) -> Result<()> {
        let own = std::env::current_exe()?;
        let mut connect = Command::new(own);
        connect.arg("connect").arg(self.own.path()).arg(address).stdin(Stdio::null());
        let output = connect.output()?;
        println!("   {}", String::from_utf8_lossy(&output.stdout).trim());
        Ok(())
    }

    /// Shows what happens until a verdict is learned.
    fn until_learned(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            go_on()?;
            let events = self.events.wait(Duration::from_millis(50))?;
            events.iter().for_each(show);
            if events.iter().any(|event| event.process.is_none()) {
                return Ok(());
            }
        }
        bail!("nothing was learned within {PATIENCE:?}")
    }

    fn show(&mut self) -> Result<()> {
        self.events.wait(Duration::ZERO)?.iter().for_each(show);
        Ok(())
    }
}

fn show(event: &Event) {
    println!("   {event}");
}

fn go_on() -> Result<()> {
    if IS_OVER.load(Ordering::Relaxed) {
        bail!("it was ended before all was shown");
    }
    Ok(())
}

/// How a process has ended, that was killed or will be.
fn ended(process: &mut Child) -> Result<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        go_on()?;
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("it has not ended within {PATIENCE:?}")
}

/// A DNS server of lists.
struct Server(Child);

impl Server {
    fn start(directory: &Path) -> Result<Self> {
        let list = directory.join("list");
        fs::write(&list, format!("{LISTED}\n"))?;
        // It is a user of its own.
        for (path, mode) in [(directory, 0o755), (&list, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        let mut serve = Command::new("rbldnsd");
        serve.args(["-n", "-b", SERVER]).arg(format!("{ZONE}:ip4set:{}", list.display()));
        let server = serve.stdout(Stdio::piped()).spawn();
        let mut server = Self(server.context("cannot run rbldnsd: cargo xtask setup installs it")?);
        let said = BufReader::new(server.0.stdout.take().context("its output")?);
        let (line, lines) = mpsc::channel();
        // Reads on, as the server would be killed if nobody did.
        thread::spawn(move || {
            for said in said.lines().map_while(Result::ok) {
                let _nobody_waits = line.send(said);
            }
        });
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line.contains("started") {
                return Ok(server);
            }
        }
        bail!("rbldnsd does not serve the list")
    }

    fn end(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.end();
    }
}
