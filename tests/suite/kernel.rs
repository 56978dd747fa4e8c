//! What the probes say, against what is known of each version.

use bpf_wq::{Answer, Kernel, SetCallback};
use serial_test::serial;
use test_log::test;

use crate::support::btf::{RawBtf, with_btf_at_its_place};
use crate::support::restricted::{needs_seccomp, with_bpf_failing, without_capabilities};
use crate::support::{fact, needs_bpf_wq, version};

#[test]
fn set_callback_is_that_of_the_version() {
    let answer = Kernel::running().set_callback();
    match &answer {
        Answer::Yes(abi) => fact("ABI", &abi.to_string()),
        Answer::No(_) => fact("ABI", "unsupported"),
        Answer::Inconclusive(why) => fact("ABI", why),
    }
    match version() {
        (major, _) if major >= 7 => assert_eq!(answer, Answer::Yes(SetCallback::ImplicitArgs)),
        // 6.10 had both, before and after 6.10.3.
        (6, 10) => assert!(answer.is_yes(), "{answer:?}"),
        (6, minor) if minor > 10 => assert_eq!(answer, Answer::Yes(SetCallback::Impl)),
        _ => assert!(matches!(answer, Answer::No(_)), "{answer:?}"),
    }
}

#[test]
fn bpf_wq_is_there_since_6_10() {
    let answer = Kernel::running().bpf_wq();
    if version() >= (6, 10) {
        assert_eq!(answer, Answer::Yes(()));
    } else {
        assert_eq!(answer, Answer::No("no bpf_wq_init in BTF".to_owned()));
    }
}

#[test]
fn unlink_was_renamed_in_7_0() {
    let name = if version() >= (7, 0) { "filename_unlinkat" } else { "do_unlinkat" };
    assert_eq!(Kernel::running().unlink_function(), Answer::Yes(name));
}

#[test]
fn the_callback_of_6_10_0_is_told_from_the_later_one() {
    if !needs_bpf_wq() {
        return;
    }
    let mut btf = RawBtf::of_kernel();
    btf.give_callback_of_6_10_0();
    if version() >= (7, 0) {
        // The new name comes first: without it, what is left is the old one.
        btf.rename("bpf_wq_set_callback", "bpf_wq_set_kcabllac");
    }
    let file = btf.into_file();
    let kernel = Kernel::with_btf(file.path());
    assert_eq!(kernel.set_callback(), Answer::Yes(SetCallback::ImplWithWq));
}

#[test]
#[serial]
fn tracing_is_allowed_to_root() {
    assert_eq!(Kernel::running().tracing(), Answer::Yes(()));
}

#[test]
#[serial]
fn tracing_is_inconclusive_without_capabilities() {
    let answer = without_capabilities(|| Kernel::running().tracing());
    let Answer::Inconclusive(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains("CAP_BPF and CAP_PERFMON"), "{why}");
}

#[test]
#[serial]
fn tracing_is_inconclusive_where_it_is_refused() {
    if !needs_seccomp() {
        return;
    }
    let answer = with_bpf_failing(libc::EPERM, || Kernel::running().tracing());
    let Answer::Inconclusive(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains("although this thread has the capabilities"), "{why}");
}

#[test]
#[serial]
fn tracing_is_a_no_without_the_system_call() {
    if !needs_seccomp() {
        return;
    }
    let answer = with_bpf_failing(libc::ENOSYS, || Kernel::running().tracing());
    let Answer::No(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains("no bpf system call"), "{why}");
}

/// The other tests rely on it: what is put in place of the kernel's BTF is what is read.
#[test]
fn a_probe_reads_what_the_kernel_shows() {
    let mut btf = RawBtf::of_kernel();
    let known = Kernel::running().unlink_function();
    let Answer::Yes(name) = known else { panic!("{known:?}") };
    btf.rename(name, &name.to_uppercase());
    let file = btf.into_file();
    let answer = with_btf_at_its_place(file.path(), || Kernel::running().unlink_function());
    assert!(matches!(answer, Answer::No(_)), "{answer:?}");
    assert_eq!(Kernel::running().unlink_function(), known, "the change is seen by others");
}
