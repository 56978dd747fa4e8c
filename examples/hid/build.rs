//! Compiles the BPF program.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=src/kernel.h");
    println!("cargo::rerun-if-changed=src/descriptor.h");
    println!("cargo::rerun-if-changed=src/hid.bpf.c");
    libbpf_cargo::SkeletonBuilder::new()
        .source("src/hid.bpf.c")
        .obj(out.join("hid.bpf.o"))
        .clang_args(["-I".as_ref(), bpf_wq::include_dir().as_os_str()])
        .build_and_generate(out.join("hid.skel.rs"))?;
    Ok(())
}
