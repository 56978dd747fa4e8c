//! Compiles `bpf/*.bpf.c` into skeletons, and tells dependents where the header is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("no CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").context("no OUT_DIR")?);
    let include = root.join("bpf/include");

    // Seen by the build scripts of direct dependents as DEP_BPF_WQ_INCLUDE.
    println!("cargo::metadata=include={}", include.display());

    rerun_if_changed(&include)?;
    println!("cargo::rerun-if-changed=bpf/simple.bpf.c");
    SkeletonBuilder::new()
        .source(root.join("bpf/simple.bpf.c"))
        .clang_args(["-Wall", "-I"].map(Into::into).into_iter().chain([include.into_os_string()]))
        .build_and_generate(out.join("simple.skel.rs"))
}

/// libbpf-cargo names no header, so cargo has to be told of each.
fn rerun_if_changed(dir: &Path) -> Result<()> {
    println!("cargo::rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            rerun_if_changed(&path)?;
        } else {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Ok(())
}
