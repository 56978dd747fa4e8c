//! Compiles the BPF program.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for source in ["kernel.h", "state.h", "release.h", "look.h", "count.h", "reclaim.bpf.c"] {
        println!("cargo::rerun-if-changed=src/{source}");
    }
    libbpf_cargo::SkeletonBuilder::new()
        .source("src/reclaim.bpf.c")
        .obj(out.join("reclaim.bpf.o"))
        .clang_args(["-I".as_ref(), bpf_wq::include_dir().as_os_str()])
        .build_and_generate(out.join("reclaim.skel.rs"))?;
    Ok(())
}
