//! A kernel as virtme-ng wants it: laid out as its packages would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use cpio::NewcReader;

use super::host::Kernel;
use super::install::done;

/// What virtme-ng boots, of a directory of kernels.
pub fn image(kernels: &Path, kernel: &Kernel) -> PathBuf {
    kernels.join(&kernel.kernel).join("boot").join(format!("vmlinuz-{}", kernel.release))
}

/// As the kernel's packages would, but with no modules but those of the initramfs: virtme-ng makes
/// one of its own of them.
pub fn lay_out(kernels: &Path, kernel: &Kernel) -> Result<()> {
    let root = kernels.join(&kernel.kernel);
    let wrong = || format!("cannot lay out {}", root.display());
    if root.exists() {
        fs::remove_dir_all(&root).with_context(wrong)?;
    }
    let modules = root.join("lib/modules").join(&kernel.release);
    fs::create_dir_all(&modules).with_context(wrong)?;
    fs::create_dir_all(root.join("boot")).with_context(wrong)?;
    fs::copy(kernel.dir.join("vmlinuz"), image(kernels, kernel)).with_context(wrong)?;
    let archive = fs::read(kernel.dir.join("modules.cpio")).with_context(wrong)?;
    unpack(&archive, &modules).with_context(wrong)?;
    let mut depmod = Command::new("depmod");
    // It warns that there is no list of what the kernel has built in.
    done(depmod.arg("-b").arg(&root).arg(&kernel.release).stderr(Stdio::null()))
}

/// Puts the modules of an archive into a directory.
fn unpack(mut archive: &[u8], dir: &Path) -> Result<()> {
    loop {
        let mut file = NewcReader::new(archive)?;
        if file.entry().is_trailer() {
            return Ok(());
        }
        let name = Path::new(file.entry().name()).to_owned();
        if name.extension().is_some_and(|extension| extension == "ko") {
            let to = dir.join(name.file_name().context("a module without a name")?);
            std::io::copy(&mut file, &mut fs::File::create(to)?)?;
        }
        archive = file.finish()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_unpacked_and_nothing_else() {
        let mut archive = Vec::new();
        for (name, content) in
            [("modules", ""), ("modules/9p.ko", "module"), ("modules/order", "x")]
        {
            let size = u32::try_from(content.len()).expect("it is small");
            let mut file = cpio::newc::Builder::new(name).write(&mut archive, size);
            std::io::copy(&mut content.as_bytes(), &mut file).expect("it is written");
            file.finish().expect("it is written");
        }
        cpio::newc::trailer(&mut archive).expect("it is written");
        let dir = tempfile::tempdir().expect("a directory");
        unpack(&archive, dir.path()).expect("it is one");
        let files: Vec<_> = fs::read_dir(dir.path()).expect("it is there").collect();
        assert_eq!(files.len(), 1);
        assert_eq!(fs::read(dir.path().join("9p.ko")).expect("it is there"), b"module");
    }
}
