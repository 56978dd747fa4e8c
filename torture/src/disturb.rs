//! What goes on beside the loaders: a CPU goes and comes back, and the page that handlers wait for
//! is there for a moment.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bpf_wq_tests::fuse::Page;
use fastrand::Rng;

/// The last CPU that can go; none, if this machine has one CPU, or a kernel that keeps all.
pub fn cpu_that_can_go() -> Option<u32> {
    let online = |cpu: u32| format!("/sys/devices/system/cpu/cpu{cpu}/online");
    let cpus = (1..1024)
        .take_while(|cpu| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists());
    cpus.filter(|cpu| Path::new(&online(*cpu)).exists()).last()
}

/// Takes a CPU away and gives it back, until it is over. How often.
pub fn hotplug(cpu: u32, seed: u64, is_over: &AtomicBool) -> Result<u64> {
    let mut rng = Rng::with_seed(seed);
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    let mut times = 0;
    while !is_over.load(Ordering::SeqCst) {
        pause(&mut rng, 200..2000);
        fs::write(&file, "0").with_context(|| format!("{file}: 0"))?;
        pause(&mut rng, 10..500);
        fs::write(&file, "1").with_context(|| format!("{file}: 1"))?;
        times += 1;
    }
    Ok(times)
}

/// Lets those who wait for the page have it, and takes it away again, until it is over. How often.
pub fn turn_the_page(page: &Page, seed: u64, is_over: &AtomicBool) -> Result<u64> {
    let mut rng = Rng::with_seed(seed);
    let mut times = 0;
    while !is_over.load(Ordering::SeqCst) {
        pause(&mut rng, 1..30);
        page.answer();
        page.forget().context("the page cannot be forgotten")?;
        times += 1;
    }
    page.answer();
    Ok(times)
}

fn pause(rng: &mut Rng, milliseconds: std::ops::Range<u64>) {
    thread::sleep(Duration::from_millis(rng.u64(milliseconds)));
}
