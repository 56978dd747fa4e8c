//! Compiles the BPF program.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for source in ["subject.h", "policy.h", "verdict.h", "exec_guard.bpf.c"] {
        println!("cargo::rerun-if-changed=src/{source}");
    }
    libbpf_cargo::SkeletonBuilder::new()
        .source("src/exec_guard.bpf.c")
        .obj(out.join("exec_guard.bpf.o"))
        .clang_args(["-I".as_ref(), bpf_wq::include_dir().as_os_str()])
        .build_and_generate(out.join("exec_guard.skel.rs"))?;
    Ok(())
}
