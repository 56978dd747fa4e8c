//! What `cargo xtask kernels` does: lists the kernels of the matrix, fetches them, builds them.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use crate::cache::Cache;
use crate::config::{Matrix, Pinned};
use crate::failure;
use crate::kernels::{Choice, choose, ensure, key};

/// A row of the list of kernels.
#[derive(Serialize)]
struct Row<'a> {
    series: &'a str,
    version: &'a str,
    release: &'a str,
    cached: bool,
}

/// Prints the matrix: as a table, or its default kernels as a JSON array of
/// `{series, version, release, cached}`.
pub fn list(matrix: &Matrix, cache: &Cache, json: bool) -> Result<()> {
    let kernels: Vec<&Pinned> = matrix.kernel.iter().filter(|k| k.default || !json).collect();
    let mut rows = Vec::new();
    for kernel in kernels.iter().copied() {
        let cached = cache.entry(&key(kernel, matrix)?).exists();
        let Pinned { series, version, release, .. } = kernel;
        rows.push(Row { series, version, release, cached });
    }
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &rows)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<10}{:<11}{:<24}{:<8}{:>11}",
        "series", "version", "release", "cached", "to fetch"
    )?;
    for (row, kernel) in rows.iter().zip(kernels) {
        let source = kernel.build.iter().map(|build| &build.source);
        let bytes: u64 = kernel.package.iter().chain(source).map(|package| package.bytes).sum();
        let (cached, size, build) = match (row.cached, &kernel.build) {
            (true, _) => ("yes", "-".to_owned(), ""),
            (false, build) => {
                let build = if build.is_some() { ", to build" } else { "" };
                ("no", format!("{} MB", bytes.div_ceil(1_000_000)), build)
            }
        };
        let named = if kernel.default { "" } else { ", only where it is named" };
        writeln!(
            out,
            "{:<10}{:<11}{:<24}{cached:<8}{size:>11}{build}{named}",
            row.series, row.version, row.release
        )?;
    }
    Ok(())
}

/// Builds the named kernels of the matrix, or all default ones that are built, unless they are in
/// the cache. A default kernel is also named by the first two parts of its version.
pub fn build(matrix: &Matrix, words: &[String], cache: &Cache, mirror: Option<&str>) -> Result<()> {
    let built: Vec<&Pinned> =
        matrix.kernel.iter().filter(|kernel| kernel.build.is_some()).collect();
    let is = |kernel: &Pinned, word: &str| {
        [&kernel.series, &kernel.version, &kernel.release].contains(&&word.to_owned())
            || kernel.default && kernel.version.splitn(3, '.').take(2).eq(word.split('.'))
    };
    if let Some(word) = words.iter().find(|word| !built.iter().any(|kernel| is(kernel, word))) {
        let series: Vec<&str> = built.iter().map(|kernel| &*kernel.series).collect();
        return Err(failure::usage(format!(
            "no kernel {word} is built: there are {}",
            series.join(", ")
        )));
    }
    for pinned in built {
        let is_meant = match words {
            [] => pinned.default,
            words => words.iter().any(|word| is(pinned, word)),
        };
        if is_meant {
            let kernel = ensure(&Choice::Pinned(pinned.clone()), matrix, cache, mirror)?;
            println!("{} {}", kernel.name, kernel.vmlinuz.display());
        }
    }
    Ok(())
}

/// Makes the named kernels of the matrix, or its default ones, ready to boot; plain `vmtest` works then too.
pub fn fetch(matrix: &Matrix, words: &[String], cache: &Cache, mirror: Option<&str>) -> Result<()> {
    for choice in choose(matrix, words, None)? {
        let kernel = ensure(&choice, matrix, cache, mirror)?;
        println!("{} {}", kernel.name, kernel.vmlinuz.display());
    }
    Ok(())
}
