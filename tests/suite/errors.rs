//! Each thing that can be missing leads to the error that names it (claim S16).

use std::mem::MaybeUninit;

use bpf_wq::{Error, Kernel, Simple, UNLINK_FUNCTIONS};
use serial_test::serial;
use test_log::test;

use crate::support::btf::RawBtf;
use crate::support::restricted::{needs_seccomp, with_bpf_failing, without_capabilities};
use crate::support::{needs_bpf_wq, refusal, rule, version};

const GROUP: &str = "The claims of the tutorial";

/// Loads on what `kernel` says, and returns why that was refused.
#[track_caller]
fn refused_on(kernel: &Kernel) -> Error {
    let mut storage = MaybeUninit::uninit();
    refusal(Simple::load_on(kernel, &mut storage))
}

#[track_caller]
fn refused() -> Error {
    refused_on(&Kernel::running())
}

#[test]
#[serial]
fn a_kernel_before_6_10_is_named() {
    rule("S16", GROUP, "the program needs 6.10: an older kernel is told so, in an error");
    if version() >= (6, 10) {
        let mut storage = MaybeUninit::uninit();
        assert!(Simple::load(&mut storage).is_ok());
        return;
    }
    let error = refused();
    let running = Kernel::running();
    assert!(
        matches!(
            &error,
            Error::Unsupported { release, needs: "6.10" } if release == running.release()
        ),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(message.contains(running.release()), "{message}");
    assert!(message.contains("needs linux 6.10 or later"), "{message}");
}

#[test]
#[serial]
fn a_kernel_without_the_kfuncs_is_named() {
    rule("S16-kfuncs", GROUP, "a kernel whose BTF lacks bpf_wq_init is told the same");
    if !needs_bpf_wq() {
        return;
    }
    let mut btf = RawBtf::of_kernel();
    btf.rename("bpf_wq_init", "bpf_wq_tini");
    let file = btf.into_file();
    let error = refused_on(&Kernel::with_btf(file.path()));
    assert!(matches!(error, Error::Unsupported { needs: "6.10", .. }), "{error:?}");
}

#[test]
fn missing_btf_is_named() {
    let error = refused_on(&Kernel::with_btf("/nonexistent/vmlinux"));
    assert!(matches!(&error, Error::NoBtf { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("/nonexistent/vmlinux"), "{message}");
    assert!(message.contains("CONFIG_DEBUG_INFO_BTF"), "{message}");
}

#[test]
#[serial]
fn a_missing_unlink_function_is_named() {
    if !needs_bpf_wq() {
        return;
    }
    let mut btf = RawBtf::of_kernel();
    let known = Kernel::running().unlink_function();
    let bpf_wq::Answer::Yes(name) = known else { panic!("{known:?}") };
    btf.rename(name, &name.to_uppercase());
    let file = btf.into_file();
    let error = refused_on(&Kernel::with_btf(file.path()));
    assert!(matches!(error, Error::NoUnlinkFunction { .. }), "{error:?}");
    for name in UNLINK_FUNCTIONS {
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
#[serial]
fn missing_capabilities_are_named() {
    if !needs_bpf_wq() {
        return;
    }
    let error = without_capabilities(refused);
    assert!(
        matches!(
            &error,
            Error::Privilege { errno: libc::EPERM, missing, .. }
                if missing == "CAP_BPF and CAP_PERFMON"
        ),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(message.contains("bpf/simple.bpf.c"), "{message}");
    assert!(message.contains("cargo xtask test"), "{message}");
}

#[test]
#[serial]
fn a_host_that_refuses_tracing_is_told_from_missing_privilege() {
    if !needs_bpf_wq() || !needs_seccomp() {
        return;
    }
    let error = with_bpf_failing(libc::EPERM, refused);
    assert!(matches!(&error, Error::TracingRefused { errno: libc::EPERM, .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("refuses tracing programs"), "{message}");
    assert!(message.contains("cargo xtask test"), "{message}");
    // libbpf's own words are kept.
    assert!(message.contains("libbpf:"), "{message}");
}

#[test]
#[serial]
fn a_missing_system_call_is_named() {
    if !needs_bpf_wq() || !needs_seccomp() {
        return;
    }
    let error = with_bpf_failing(libc::ENOSYS, refused);
    assert!(matches!(error, Error::NoBpf { errno: libc::ENOSYS, .. }), "{error:?}");
}
