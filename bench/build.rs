//! Compiles the BPF programs.

use std::{env, error::Error, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// `executor_cost` is the suite's own.
const SOURCES: [&str; 5] = [
    "src/bpf/latency.bpf.c",
    "src/bpf/throughput.bpf.c",
    "src/bpf/growth.bpf.c",
    "src/bpf/memory.bpf.c",
    "../bpf/tests/executor_cost.bpf.c",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let asm = format!("/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH")?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        let file = source.rsplit('/').next().ok_or("a file")?;
        let name = file.strip_suffix(".bpf.c").ok_or("a program")?;
        SkeletonBuilder::new()
            .source(source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang_args([
                "-Wall".as_ref(),
                "-Werror".as_ref(),
                "-I".as_ref(),
                bpf_wq::include_dir().as_os_str(),
                // Where Debian has <asm/types.h>, which the suite's program includes.
                "-idirafter".as_ref(),
                asm.as_ref(),
            ])
            .build_and_generate(out.join(format!("{name}.skel.rs")))?;
    }
    println!("cargo::rerun-if-changed=src/bpf/task_work.h");
    println!("cargo::rerun-if-changed=../bpf/tests/rules.h");
    println!("cargo::rerun-if-changed={}", bpf_wq::include_dir().display());
    Ok(())
}
