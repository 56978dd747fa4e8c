//! What is typed for a verdict, as a line of shell.
//!
//! Each begins with the same look of cargo whether the job is built: `cargo xtask test` has its own.

use std::path::Path;

use super::host::{Host, Kernel};
use super::install::{BUILD, Installed};
use super::{EXPECTED, Runner};

/// The line that asks `runner` about these kernels.
pub fn of(
    runner: Runner,
    host: &Host,
    installed: &Installed,
    kernels: &[Kernel],
    expected: u32,
) -> String {
    let build = format!("cargo {BUILD}");
    match runner {
        Runner::Xtask => {
            let each = kernels.iter().map(|kernel| format!(" -k {}", kernel.kernel));
            format!("cargo xtask test{} --test job", each.collect::<String>())
        }
        Runner::Vmtest => {
            let names: Vec<String> =
                kernels.iter().map(|kernel| kernel.kernel.replace('.', "[.]")).collect();
            let (vmtest, config) = (quoted(&installed.vmtest), quoted(&installed.config));
            format!("{build} && {vmtest} -c {config} -f '^({})$'", names.join("|"))
        }
        Runner::VirtmeNg => {
            // Without --force-9p it waits three seconds for QEMU 7.2's own virtiofsd, which is not
            // the one that it knows how to start.
            let kvm = if host.is_emulated() { " --disable-kvm" } else { "" };
            let (cpus, memory) = (installed.cpus, &installed.memory);
            let job = quoted(&installed.job);
            // It has no matrix, and finds its second half by PATH.
            let each = kernels.iter().map(|kernel| {
                let kernel = quoted(&installed.kernel(kernel));
                format!(
                    " && vng -r {kernel}{kvm} --force-9p --cpus {cpus} --memory {memory} \
                     -- env {EXPECTED}={expected} {job}"
                )
            });
            let bin = quoted(&installed.virtme_ng);
            format!("PATH={bin}:$PATH && {build}{}", each.collect::<String>())
        }
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(runner: Runner, accel: &str) -> String {
        let json = serde_json::json!({
            "command": "", "machine": "", "accel": accel, "root": "/w", "target": "/w/target",
            "kernels": [
                {"kernel": "6.12", "release": "6.12.107-amd64", "dir": "/k/6.12"},
                {"kernel": "7.3", "release": "7.3.4-amd64", "dir": "/k/7.3"},
            ]
        });
        let host: Host = serde_json::from_value(json).expect("it is one");
        of(runner, &host, &Installed::example(), &host.kernels(), 41)
    }

    #[test]
    fn every_kernel_is_asked_about() {
        let line = asked(Runner::Xtask, "TCG");
        assert_eq!(line, "cargo xtask test -k 6.12 -k 7.3 --test job");
        let line = asked(Runner::Vmtest, "TCG");
        let call = "--no-run && '/v/vmtest' -c '/v/vmtest.toml' -f '^(6[.]12|7[.]3)$'";
        assert!(line.ends_with(call), "{line}");
        let line = asked(Runner::VirtmeNg, "TCG");
        for release in ["6.12/boot/vmlinuz-6.12.107-amd64", "7.3/boot/vmlinuz-7.3.4-amd64"] {
            let call = format!(
                "&& vng -r '/v/kernels/{release}' --disable-kvm --force-9p --cpus 2 --memory 2G \
                 -- env BENCH_JOB_EXPECTS=41 '/w/job'"
            );
            assert!(line.contains(&call), "{call} in {line}");
        }
    }

    #[test]
    fn kvm_is_used_where_it_works() {
        assert!(!asked(Runner::VirtmeNg, "KVM").contains("--disable-kvm"));
    }

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
