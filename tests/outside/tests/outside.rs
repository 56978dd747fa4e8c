//! Both builds load and run.

use std::mem::MaybeUninit;
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapCore, MapFlags, ProgramInput};

/// Polls for the callback's answer.
fn answer(entries: &impl MapCore) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let entry = entries.lookup(&21_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        let answer = u64::from_ne_bytes(*entry.first_chunk().unwrap());
        if answer != 0 || Instant::now() > deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// On a kernel without bpf_wq the same objects are refused, and the library says why.
fn supported() -> bool {
    let kernel = bpf_wq::Kernel::running();
    match kernel.bpf_wq() {
        bpf_wq::Answer::Yes(()) => true,
        bpf_wq::Answer::No(why) => {
            assert_eq!(why, "no bpf_wq_init in BTF", "linux {}", kernel.release());
            false
        }
        bpf_wq::Answer::Inconclusive(why) => panic!("{why}"),
    }
}

macro_rules! builds {
    ($name:ident) => {
        #[test]
        fn $name() {
            let mut storage = MaybeUninit::uninit();
            let builder = outside::$name::DeferredSkelBuilder::default();
            let loaded = builder.open(&mut storage).unwrap().load();
            if !supported() {
                assert!(loaded.is_err(), "loads on a kernel without bpf_wq");
                return;
            }
            let skel = loaded.unwrap();
            let output = skel.progs.defer.test_run(ProgramInput::default()).unwrap();
            assert_eq!(output.return_value, 0);
            assert_eq!(answer(&skel.maps.entries), 42);
        }
    };
}

builds!(by_metadata);
builds!(by_function);
