//! Builds the initramfs: our init and the modules that it loads.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use cpio::newc;

use crate::modules::Module;

const DIRECTORY: u32 = 0o040755;
const DEVICE: u32 = 0o020600;
const PROGRAM: u32 = 0o100755;
const FILE: u32 = 0o100644;

/// An archive of the modules and their order, to be put before [`init`]'s: Linux takes archives
/// one after the other.
pub fn modules(modules: &[Module]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.add("modules", DIRECTORY, &[])?;
    let mut order = String::new();
    for module in modules {
        let path = format!("modules/{}.ko", module.name);
        archive.add(&path, FILE, &module.content)?;
        order += &format!("/{path}\n");
    }
    archive.add("modules/order", FILE, order.as_bytes())?;
    archive.finish()
}

/// An archive of the init program and the console that it writes to.
pub fn init(program: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "root"] {
        archive.add(directory, DIRECTORY, &[])?;
    }
    archive
        .write(newc::Builder::new("dev/console").mode(DEVICE).rdev_major(5).rdev_minor(1), &[])?;
    archive.add("init", PROGRAM, program)?;
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.write(newc::Builder::new(path).mode(mode), content)
    }

    fn write(&mut self, entry: newc::Builder, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).context("a file of over 4 GB")?;
        let mut writer = entry.ino(self.entries).nlink(1).write(&mut self.bytes, size);
        io::copy(&mut &content[..], &mut writer)?;
        writer.finish()?;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        newc::trailer(&mut self.bytes)?;
        // The next archive's header must start at a multiple of four.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        Ok(self.bytes)
    }
}

/// Builds `xtask-init`, which lies beside the runner's own source, once in a process, and reads it.
pub fn build_init() -> Result<Vec<u8>> {
    static BUILT: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(program) = &*built {
        return Ok(program.clone());
    }
    // The workspace that is tested may be another one; this is the one that the runner is of. A
    // directory of its own: the one of `cargo test` may be locked by a cargo that waits for us.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("init");
    let exe = std::env::current_exe().context("finding the runner's own executable")?;
    let target = exe.ancestors().nth(2).context("the runner's target directory")?.join("init");
    let triple = "x86_64-unknown-linux-gnu";
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--package", "xtask-init", "--profile", "init"])
        // With --target the flags are for the program alone, not for build scripts.
        .args(["--target", triple, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .context("running cargo to build the guest's init")?;
    if !output.status.success() {
        bail!(
            "building the guest's init failed; a static C library is needed (libc6-dev on Debian, glibc-static on Fedora):\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    let path = target.join(triple).join("init/xtask-init");
    let program = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(built.insert(program).clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::io::Read;

    /// The entries' names, modes and contents.
    fn entries(archive: &[u8]) -> Vec<(String, u32, String)> {
        let mut entries = Vec::new();
        let mut rest = archive;
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            entries.push((name, mode, content));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn modules_are_listed_in_their_order() {
        let module = |name: &str| Module { name: name.to_owned(), content: name.into() };
        let archive = modules(&[module("b"), module("a")]).unwrap();
        // Another archive follows it.
        assert_eq!(archive.len() % 4, 0);
        let file = |name: &str, content: &str| (name.to_owned(), FILE, content.to_owned());
        assert_eq!(
            entries(&archive),
            [
                ("modules".to_owned(), DIRECTORY, String::new()),
                file("modules/b.ko", "b"),
                file("modules/a.ko", "a"),
                file("modules/order", "/modules/b.ko\n/modules/a.ko\n"),
            ]
        );
    }

    #[test]
    fn init_is_a_program_and_has_a_console() {
        let entries = entries(&init(b"program").unwrap());
        assert!(entries.contains(&("init".to_owned(), PROGRAM, "program".to_owned())));
        assert!(entries.contains(&("dev/console".to_owned(), DEVICE, String::new())));
    }

    #[test]
    fn the_init_program_needs_no_library() {
        use object::read::elf::{ElfFile64, FileHeader};
        let program = build_init().unwrap();
        let file = ElfFile64::<object::Endianness>::parse(&*program).unwrap();
        assert!(!file.elf_header().is_class_32());
        assert!(crate::setup::is_static(&program), "it is linked dynamically");
    }
}
