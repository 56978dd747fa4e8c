//! Compiles the BPF program.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=src/limit.h");
    println!("cargo::rerun-if-changed=src/rate_limit.bpf.c");
    libbpf_cargo::SkeletonBuilder::new()
        .source("src/rate_limit.bpf.c")
        .obj(out.join("rate_limit.bpf.o"))
        .clang_args(["-I".as_ref(), bpf_wq::include_dir().as_os_str()])
        .build_and_generate(out.join("rate_limit.skel.rs"))?;
    Ok(())
}
