//! Reads files out of a Debian package.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Take};

use anyhow::{Context, Result, anyhow, bail};

use crate::cache::{self, Cache};

/// A package's files.
pub struct Deb {
    data: File,
    files: BTreeMap<String, (u64, u64)>,
}

impl Deb {
    /// Unpacks the package's data to a file without a name in the cache, and indexes it.
    pub fn open(package: File, cache: &Cache) -> Result<Deb> {
        let mut data = cache.scratch()?;
        let mut archive = ar::Archive::new(BufReader::with_capacity(1 << 20, package));
        loop {
            let member = archive.next_entry().ok_or_else(|| anyhow!("no data.tar in it"))?;
            let mut member = member.context("reading the ar archive")?;
            let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
            let copied = match name.trim_end_matches('/') {
                "data.tar.xz" => unpack(liblzma::read::XzDecoder::new_parallel(member), &mut data),
                "data.tar.gz" => unpack(flate2::read::GzDecoder::new(member), &mut data),
                "data.tar" => unpack(&mut member, &mut data),
                other if other.starts_with("data.tar") => bail!("{other}: unknown compression"),
                _ => continue,
            };
            copied.map_err(|error| cache::explain(error, cache.dir()))?;
            break;
        }
        let mut files = BTreeMap::new();
        data.rewind()?;
        let mut tar = tar::Archive::new(&data);
        for entry in tar.entries_with_seek().context("reading data.tar")? {
            let entry = entry.context("reading data.tar")?;
            if entry.header().entry_type().is_file() {
                let path = entry.path().context("reading data.tar")?;
                let path = path.to_string_lossy();
                let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
                files.insert(path, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Deb { data, files })
    }

    /// The paths of all regular files, without a leading `./`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// One file's content, `None` if the package does not have it.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.reader(path)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// As [`read`](Self::read), for what is too large for the memory; only one at a time.
    pub fn reader(&self, path: &str) -> Result<Option<Take<&File>>> {
        let Some(&(offset, size)) = self.files.get(path) else {
            return Ok(None);
        };
        let mut data = &self.data;
        data.seek(SeekFrom::Start(offset))?;
        Ok(Some(data.take(size)))
    }
}

fn unpack(mut from: impl Read, to: &mut File) -> io::Result<()> {
    io::copy(&mut from, to).map(drop)
}
