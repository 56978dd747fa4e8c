//! Connects a person's terminal, or a script's standard input, to a guest's console.

use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::interrupt;
use crate::ui::Ui;

/// Gives the console to the user until the guest powers off: `exit` at its prompt does that.
pub fn attach(console: &Path, ui: &Ui) {
    ui.say("the guest is yours; `exit` ends it");
    if let Err(e) = copy(console) {
        ui.say(format!("the console is lost: {e:#}"));
    }
}

fn copy(console: &Path) -> Result<()> {
    let mut guest =
        UnixStream::connect(console).context("cannot connect to the guest's console")?;
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    let here = here.to_string_lossy().replace('\'', r"'\''");
    writeln!(guest, "cd '{here}'")?;
    if std::io::stdin().is_terminal() {
        let (rows, columns) = console::Term::stdout().size();
        writeln!(guest, "stty rows {rows} cols {columns}")?;
    }

    let _raw = Raw::enter()?;
    let mut to_guest = guest.try_clone()?;
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        let mut input = std::io::stdin();
        loop {
            let read = input.read(&mut bytes).unwrap_or(0);
            // The end of a script is Ctrl-D at the guest's prompt.
            let said = if read == 0 { b"\x04" } else { &bytes[..read] };
            // The guest is gone when this fails; the reader below has seen it too.
            if to_guest.write_all(said).is_err() || read == 0 {
                break;
            }
        }
    });
    let mut output = std::io::stdout();
    let mut bytes = [0; 4096];
    guest.set_read_timeout(Some(Duration::from_millis(200)))?;
    while !interrupt::requested() {
        match guest.read(&mut bytes) {
            // A signal interrupts a read that has a timeout, and is noted a moment later.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
            Ok(0) | Err(_) => break,
            Ok(read) => {
                output.write_all(&bytes[..read])?;
                output.flush()?;
            }
        }
    }
    Ok(())
}

/// The terminal in raw mode: every key, Ctrl-C too, is the guest's.
struct Raw {
    before: Option<Termios>,
}

impl Raw {
    fn enter() -> Result<Self> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Ok(Raw { before: None });
        }
        let before = tcgetattr(&input).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&input, SetArg::TCSANOW, &raw).context("cannot set the terminal")?;
        Ok(Raw { before: Some(before) })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            if let Err(e) = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before) {
                eprintln!("cannot restore the terminal: {e}; `reset` does");
            }
        }
    }
}
