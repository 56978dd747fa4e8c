//! What goes away while its callback sleeps, and when all of it is gone.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object};

use super::called::{get, program_info, word};
use super::fuse::Page;
use super::loading::{choose, load, open};
use super::running::run;

/// Programs of `bpf/tests/teardown.bpf.c`, loaded.
pub struct Loaded {
    object: Object,
}

impl Loaded {
    /// Loads these programs; where their callback waits for a page, it is this one.
    pub fn new(programs: &[&str], page: Option<&Page>) -> Self {
        let mut open = open("teardown");
        programs.iter().for_each(|program| choose(&mut open, program));
        let object = load(open).expect("it loads");
        let pages = object.maps().find(|map| map.name() == "pages").expect("map pages");
        if let Some(page) = page {
            let value = [page.pid() as u64, page.address(), 0, 0].map(u64::to_ne_bytes).concat();
            pages.update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY).expect("the page is named");
        }
        Self { object }
    }

    /// A program's id.
    pub fn id(&self, program: &str) -> u32 {
        let found = self.object.progs().find(|p| p.name() == program).expect("the program");
        program_info(found.as_fd()).id
    }

    /// What the callback writes to, also when the rest is gone.
    pub fn pages(&self) -> MapHandle {
        let pages = self.object.maps().find(|map| map.name() == "pages").expect("map pages");
        MapHandle::try_from(&pages).expect("a descriptor")
    }

    /// Runs a program once, and asserts that it returns 0, or what lets a frame pass.
    pub fn run(&self, program: &str) {
        let (frame, expected) =
            if program.starts_with("xdp") { (&[0; 64][..], 2) } else { (&[][..], 0) };
        assert_eq!(run(&self.object, program, frame), expected, "{program}");
    }
}

/// Whether the callback has come to its end, of `Loaded::pages`.
pub fn has_ended(pages: &MapHandle) -> bool {
    word(&get(pages, 0), 3) == 1
}

/// The text of a program that is gone is freed by a worker, a grace period later. A fifth of this
/// is too short: the programs of `tests/danger/` live then, and what the suite shows means nothing.
pub fn wait_until_text_is_freed() {
    for _ in 0..3 {
        fs::write("/sys/module/rcutree/parameters/do_rcu_barrier", "1").expect("rcu_barrier");
        for _ in 0..20 {
            // SAFETY: takes numbers only.
            let result = unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) };
            assert_eq!(result, 0, "membarrier: {}", io::Error::last_os_error());
        }
    }
}
