//! Compiles the BPF programs.

use std::{env, error::Error, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let types = "../bpf/tests";
    println!("cargo::rerun-if-changed=src/torture.bpf.c");
    println!("cargo::rerun-if-changed={types}/program_types.h");
    println!("cargo::rerun-if-changed={}", bpf_wq::include_dir().display());
    SkeletonBuilder::new()
        .source("src/torture.bpf.c")
        .obj(out.join("torture.bpf.o"))
        .clang_args([
            "-Wall".as_ref(),
            "-Werror".as_ref(),
            "-I".as_ref(),
            bpf_wq::include_dir().as_os_str(),
            "-I".as_ref(),
            types.as_ref(),
            // Where Debian has <asm/types.h>, which <linux/bpf.h> includes.
            "-idirafter".as_ref(),
            format!("/usr/include/{arch}-linux-gnu").as_ref(),
        ])
        .build_and_generate(out.join("torture.skel.rs"))?;
    Ok(())
}
