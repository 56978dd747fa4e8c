//! Chooses the kernel modules that an initramfs needs, in the order in which they load.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use object::{Object, ObjectSection};

/// A module, ready for `finit_module(2)`.
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The `.ko` file, decompressed.
    pub content: Vec<u8>,
}

/// The modules of one kernel.
pub struct Available {
    paths: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
}

impl Available {
    /// `paths` are the kernel's files, `builtin` the content of its `modules.builtin`.
    pub fn new<'a>(paths: impl Iterator<Item = &'a str>, builtin: &str) -> Available {
        let paths = paths.filter_map(|path| Some((name(path)?, path.to_owned()))).collect();
        let builtin = builtin.lines().filter_map(name).collect();
        Available { paths, builtin }
    }

    /// Whether there is any module at all, built in or not.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.builtin.is_empty()
    }

    /// Whether the kernel has a module, or has it built in.
    pub fn has(&self, module: &str) -> bool {
        let name = module.replace('-', "_");
        self.builtin.contains(&name) || self.paths.contains_key(&name)
    }

    /// The wanted modules and all that they depend on, each after what it needs. Packages bring
    /// no `modules.dep` (depmod writes it at installation), so the modules themselves are asked.
    pub fn select(
        &self,
        wanted: &[String],
        mut read: impl FnMut(&str) -> Result<Vec<u8>>,
    ) -> Result<Vec<Module>> {
        let mut chosen = Vec::new();
        let mut seen = BTreeSet::new();
        for module in wanted {
            self.visit(&module.replace('-', "_"), &mut read, &mut seen, &mut chosen)?;
        }
        Ok(chosen)
    }

    fn visit(
        &self,
        name: &str,
        read: &mut impl FnMut(&str) -> Result<Vec<u8>>,
        seen: &mut BTreeSet<String>,
        chosen: &mut Vec<Module>,
    ) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.paths.get(name).ok_or_else(|| absent(name))?;
        let content = decompress(path, read(path)?)?;
        for dependency in depends(&content).with_context(|| format!("reading {path}"))? {
            self.visit(&dependency, read, seen, chosen)
                .with_context(|| format!("module {name} needs {dependency}"))?;
        }
        chosen.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

fn absent(name: &str) -> anyhow::Error {
    let nine_p = ["9p", "9pnet", "9pnet_virtio"].contains(&name);
    let why = if nine_p {
        ": the guest's root comes over 9p, so take a kernel with CONFIG_9P_FS and CONFIG_NET_9P_VIRTIO (Debian's cloud kernels lack them, its ordinary ones have them)"
    } else {
        ": take it out of `modules` in kernels.toml, or take a kernel that has it"
    };
    anyhow!("this kernel has no module {name}, and has it not built in either{why}")
}

/// The module that a file holds: `kernel/fs/9p/9p.ko.xz` is `9p`. `None` for other files.
fn name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (stem, rest) = file.split_once(".ko")?;
    ["", ".xz", ".zst", ".gz"].contains(&rest).then(|| stem.replace('-', "_"))
}

fn decompress(path: &str, content: Vec<u8>) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let done = match path.rsplit('.').next() {
        Some("xz") => liblzma::read::XzDecoder::new(&content[..]).read_to_end(&mut plain),
        Some("gz") => flate2::read::GzDecoder::new(&content[..]).read_to_end(&mut plain),
        Some("zst") => ruzstd::decoding::StreamingDecoder::new(&content[..])
            .map_err(std::io::Error::other)
            .and_then(|mut decoder| decoder.read_to_end(&mut plain)),
        _ => return Ok(content),
    };
    done.with_context(|| format!("decompressing {path}"))?;
    Ok(plain)
}

/// The modules that this one names in the `depends=` of its `.modinfo`.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("this is not a kernel module")?;
    let Some(section) = file.section_by_name(".modinfo") else {
        bail!("this is not a kernel module: it has no .modinfo");
    };
    let info = section.data()?;
    let mut fields = info.split(|byte| *byte == 0);
    let depends = fields.find_map(|field| field.strip_prefix(b"depends="));
    let depends = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
    Ok(depends
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io::Write;

    #[rstest]
    #[case("kernel/fs/9p/9p.ko.xz", Some("9p"))]
    #[case("snd-hda-intel.ko", Some("snd_hda_intel"))]
    #[case("x.ko.zst", Some("x"))]
    #[case("x.ko.gz", Some("x"))]
    #[case("x.ko.lz4", None)]
    #[case("modules.builtin", None)]
    fn a_module_is_named_by_its_file(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(name(path).as_deref(), expected);
    }

    #[test]
    fn every_compression_is_read() {
        let plain = b"module ".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let gz = gz.finish().unwrap();
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let zst = ruzstd::encoding::compress_to_vec(&plain[..], level);
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(&plain[..], 1).read_to_end(&mut xz).unwrap();
        for (path, packed) in [("a.ko.gz", gz), ("a.ko.zst", zst), ("a.ko.xz", xz)] {
            assert!(packed.len() < plain.len());
            assert!(decompress(path, packed).unwrap() == plain, "{path}");
        }
        assert_eq!(decompress("a.ko", b"plain".to_vec()).unwrap(), b"plain");
        for path in ["a.ko.gz", "a.ko.zst", "a.ko.xz"] {
            let error = decompress(path, b"garbage".to_vec()).unwrap_err();
            assert!(error.to_string().contains(path), "{error:#}");
        }
    }

    #[test]
    fn what_is_not_a_module_is_named() {
        let available = Available::new(["9p.ko"].into_iter(), "");
        let read = |_: &str| Ok(b"garbage".to_vec());
        let error = available.select(&["9p".to_owned()], read).err().unwrap();
        assert_eq!(format!("{error:#}").matches("9p.ko").count(), 1, "{error:#}");
        assert!(format!("{error:#}").contains("not a kernel module"), "{error:#}");
    }

    #[test]
    fn a_kernel_has_modules_and_what_is_built_in() {
        let available = Available::new(["hid/hid-generic.ko.xz"].into_iter(), "drivers/uhid.ko\n");
        assert!(available.has("hid-generic") && available.has("hid_generic"));
        assert!(available.has("uhid"));
        assert!(!available.has("hid"));
    }

    #[test]
    fn a_module_that_is_built_in_is_not_read() {
        let available = Available::new(["9p.ko"].into_iter(), "kernel/fs/9p/9p.ko\n");
        let read = |path: &str| panic!("{path} is read");
        assert!(available.select(&["9p".to_owned()], read).unwrap().is_empty());
    }
}
