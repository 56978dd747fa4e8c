//! Compiles the BPF programs.

use std::{env, error::Error, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for name in ["rate_limit", "uncleaned", "by_timer"] {
        let source = format!("src/{name}.bpf.c");
        println!("cargo::rerun-if-changed={source}");
        SkeletonBuilder::new()
            .source(source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang_args(["-I".as_ref(), bpf_wq::include_dir().as_os_str()])
            .build_and_generate(out.join(format!("{name}.skel.rs")))?;
    }
    for header in ["src/limit.h", "src/tracked.h"] {
        println!("cargo::rerun-if-changed={header}");
    }
    Ok(())
}
