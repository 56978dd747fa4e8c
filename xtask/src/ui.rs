//! What a person sees while guests run: a line a guest on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The terminal, shared by the guests that run side by side.
#[derive(Default)]
pub struct Ui {
    bars: MultiProgress,
}

impl Ui {
    /// Prints a line above the guests' lines.
    pub fn say(&self, line: impl AsRef<str>) {
        if std::io::stderr().is_terminal() {
            self.bars.suspend(|| println!("{}", line.as_ref()));
        } else {
            println!("{}", line.as_ref());
        }
    }

    /// A guest that boots: a line of its own, gone when it is dropped.
    pub fn guest(&self, name: &str) -> GuestLine {
        if !std::io::stderr().is_terminal() {
            println!("{name}: booting");
        }
        let style = ProgressStyle::with_template("{prefix:>12} {spinner} {elapsed:>4} {wide_msg}");
        let bar = ProgressBar::new_spinner().with_prefix(name.to_owned());
        let bar = self.bars.add(bar.with_style(style.expect("a constant template")));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_message("booting");
        GuestLine(bar)
    }
}

/// One guest's line on the terminal.
pub struct GuestLine(ProgressBar);

impl GuestLine {
    /// What the guest is doing.
    pub fn shows(&self, doing: impl Into<String>) {
        self.0.set_message(doing.into());
    }
}

impl Drop for GuestLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
