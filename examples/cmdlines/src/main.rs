use std::{error::Error, io::Write as _, mem::MaybeUninit, num::NonZeroU64, time::Duration};

use libbpf_rs::{RingBufferBuilder, skel::SkelBuilder as _};

mod skel {
    include!(concat!(env!("OUT_DIR"), "/cmdlines.skel.rs"));
}

// What the skeleton was made from: bpf-wq checks it before it is loaded.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cmdlines.bpf.o"));

fn main() {
    if let Err(error) = run() {
        eprintln!("cmdlines: {error}");
        std::process::exit(1);
    }
}

/// Prints so many command lines as the first argument says, or all.
fn run() -> Result<(), Box<dyn Error>> {
    let mut left = std::env::args().nth(1).map_or(Ok(NonZeroU64::MAX), |n| n.parse())?.get();

    let mut storage = MaybeUninit::uninit();
    let open = skel::CmdlinesSkelBuilder::default().open(&mut storage)?;
    let mut armed = bpf_wq::load(open, OBJECT)?.arm()?;
    armed.attach()?;
    eprintln!("ready");

    let mut ring = RingBufferBuilder::new();
    ring.add(&armed.skel().maps.lines, |line| {
        let line = String::from_utf8_lossy(line).trim_end_matches('\0').replace('\0', " ");
        // An error is one of standard output: nobody reads on.
        left = if writeln!(std::io::stdout(), "{line}").is_ok() { left - 1 } else { 0 };
        if left == 0 { -1 } else { 0 }
    })?;
    let ring = ring.build()?;
    while ring.poll(Duration::from_secs(1)).is_ok() {}
    drop(ring);

    eprintln!("{}", bpf_wq::Executor::<i32>::of(&armed, "reads")?.counters());
    eprintln!("{}", armed.stop(Duration::from_secs(10)));
    Ok(())
}
