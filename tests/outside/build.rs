//! Builds one BPF program twice, by each way of finding the header.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<()> {
    let metadata = env::var_os("DEP_BPF_WQ_INCLUDE").context("no DEP_BPF_WQ_INCLUDE")?;
    build(Path::new(&metadata), "by_metadata")?;
    build(bpf_wq::include_dir(), "by_function")
}

fn build(include: &Path, name: &str) -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("no OUT_DIR")?);
    println!("cargo::rerun-if-changed=src/deferred.bpf.c");
    println!("cargo::rerun-if-changed={}", include.display());
    SkeletonBuilder::new()
        .source("src/deferred.bpf.c")
        .clang_args(["-I".as_ref(), include.as_os_str()])
        .build_and_generate(out.join(name).with_extension("skel.rs"))
}
