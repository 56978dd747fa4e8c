//! Digests that the kernel has.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use bpf_wq_tests::{event, needs_config};
use exec_guard::database::Known;
use exec_guard::subject::{Action, Why};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use serial_test::serial;

use crate::support::{Guarded, Place, Server, can_run};

/// Of nobody else's files: IMA takes one policy until the next boot.
const OWNER: u32 = 4711;

/// Whether the runner has started this kernel for its tests. On any other machine the policy would
/// be in place of that of the boot, until the next one.
fn is_guest() -> bool {
    let is_guest = std::env::var_os("XTASK_EVENTS").is_some();
    if !is_guest {
        let reason = "it would replace IMA's policy until the next boot: run it by cargo xtask";
        event(&json!({"skip": {"reason": reason}}));
    }
    is_guest
}

/// Has IMA measure programs of that owner.
fn measure() {
    let security = tempfile::tempdir().expect("a directory");
    let (none, flags) = (None::<&Path>, MsFlags::empty());
    mount(none, security.path(), Some("securityfs"), flags, none).expect("securityfs");
    let policy = security.path().join("ima/policy");
    // It is gone when there is a policy, which is that of an earlier round.
    if policy.exists() {
        let rule = format!("measure func=BPRM_CHECK fowner={OWNER}\n");
        fs::write(policy, rule).expect("IMA takes it");
    }
    umount2(security.path(), MntFlags::empty()).expect("it was mounted");
}

#[test]
#[serial]
fn a_digest_that_ima_has_is_used() {
    if !can_run() || !needs_config("CONFIG_IMA", "it measures files") || !is_guest() {
        return;
    }
    measure();
    let place = Place::new();
    let server = Server::new(&[]);
    let policy = place.policy(server.address, |policy| policy.exec.unlisted = Action::Log);
    for (owner, measured) in [(OWNER, 1), (0, 0)] {
        let program = place.program(&format!("of-{owner}"), "/bin/true");
        chown(&program, Some(owner), None).expect("it is changed");
        place.know(&program, Known::Good);
        // It has run, and so IMA has measured it, before the agent looks.
        let mut guarded = Guarded::without_agent(&place, &policy);
        assert!(place.may_run(&program));
        guarded.start_agent(&policy);
        let verdict = guarded.learns(&guarded.executed(&program));
        assert_eq!(verdict, (Action::Allow, Why::Answer), "the database knows it");
        assert_eq!(guarded.agent().measured, measured, "of {owner}");
        guarded.leave();
    }
    place.end();
}
