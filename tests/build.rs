//! Compiles `bpf/tests/*.bpf.c` into objects that the tests load.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use libbpf_cargo::SkeletonBuilder;

/// Those that the library loads.
const SKELETONS: [&str; 9] = [
    "added",
    "executor",
    "executor_careless",
    "executor_load",
    "executor_types",
    "executor_workers",
    "lifecycle",
    "pin",
    "portable",
];

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("no OUT_DIR")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("no CARGO_CFG_TARGET_ARCH")?;
    let asm = format!("/usr/include/{arch}-linux-gnu");
    let sources = PathBuf::from("../bpf/tests");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed={}", bpf_wq::include_dir().display());
    for entry in fs::read_dir(&sources).context("cannot list bpf/tests")? {
        let path = entry?.path();
        println!("cargo::rerun-if-changed={}", path.display());
        let Some(name) = path.to_str().and_then(|p| p.strip_suffix(".bpf.c")) else { continue };
        let name = name.rsplit('/').next().unwrap_or(name);
        let mut builder = SkeletonBuilder::new();
        builder
            .source(&path)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang_args([
                "-Wall".as_ref(),
                "-Werror".as_ref(),
                "-I".as_ref(),
                bpf_wq::include_dir().as_os_str(),
                // Where Debian has <asm/types.h>, which <linux/bpf.h> includes.
                "-idirafter".as_ref(),
                asm.as_ref(),
            ])
            .build()?;
        if SKELETONS.contains(&name) {
            builder.reference_obj(true).generate(out.join(name).with_extension("skel.rs"))?;
        }
    }
    Ok(())
}
