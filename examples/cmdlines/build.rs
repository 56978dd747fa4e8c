use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=src/cmdlines.bpf.c");
    libbpf_cargo::SkeletonBuilder::new()
        .source("src/cmdlines.bpf.c")
        .obj(out.join("cmdlines.bpf.o"))
        .clang_args([
            "-I".as_ref(),
            bpf_wq::include_dir().as_os_str(),
            "-Werror=incompatible-pointer-types".as_ref(),
        ])
        .build_and_generate(out.join("cmdlines.skel.rs"))?;
    Ok(())
}
