//! Fetches one package: resumed after a broken transfer, verified before use.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use ureq::http::StatusCode;
use ureq::http::header::CONTENT_RANGE;
use ureq::tls::{RootCerts, TlsConfig};

use crate::cache::{self, Cache};
use crate::config::Package;
use crate::mirror;

/// Failures in a row, without [`PROGRESS`] new bytes between them, that end the transfer.
const TRIES: u32 = 5;
/// New bytes after which a transfer that broke counts as one that gets on.
const PROGRESS: u64 = 1 << 20;
const CONNECT: Duration = Duration::from_secs(15);
/// The longest silence of a server in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(30);

/// What went wrong in one attempt.
enum Trouble {
    /// This mirror does not have the file.
    Absent(String),
    /// Worth another attempt.
    Broken(String),
    Fatal(anyhow::Error),
}

struct Transfer<'a> {
    package: &'a Package,
    cache: &'a Cache,
    file: File,
    got: u64,
    hash: Sha256,
    bar: ProgressBar,
}

/// Fetches the package from the first mirror that has it, into a file without a name whose size
/// and SHA-256 are those of `package`.
pub fn fetch(mirrors: &[String], package: &Package, cache: &Cache) -> Result<File> {
    cache.want_space(package.bytes)?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        // The machine's own certificates, as apt: a company's mirror may have a company's.
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .user_agent("xtask")
        .build()
        .into();
    let mut troubles = Vec::new();
    for mirror in mirrors {
        let url = format!("{mirror}{}", package.path);
        let mut transfer = Transfer::start(package, cache)?;
        match transfer.run(&agent, &url) {
            Ok(()) => return Ok(transfer.file),
            Err(Trouble::Absent(why) | Trouble::Broken(why)) => {
                troubles.push(format!("{url}: {why}"));
            }
            Err(Trouble::Fatal(error)) => return Err(error),
        }
    }
    bail!("cannot fetch {}: {}; {}", package.name(), troubles.join("; "), mirror::advice())
}

impl<'a> Transfer<'a> {
    fn start(package: &'a Package, cache: &'a Cache) -> Result<Transfer<'a>> {
        Ok(Transfer {
            package,
            cache,
            file: cache.scratch()?,
            got: 0,
            hash: Sha256::new(),
            bar: progress(package),
        })
    }

    /// Attempts until the file is whole and right.
    fn run(&mut self, agent: &ureq::Agent, url: &str) -> Result<(), Trouble> {
        let name = self.package.name();
        let megabytes = self.package.bytes.div_ceil(1_000_000);
        if self.bar.is_hidden() {
            eprintln!("fetching {name} ({megabytes} MB)");
        }
        let started = Instant::now();
        let (mut failures, mut furthest) = (0, 0);
        loop {
            let resumed = self.got > 0;
            let trouble = match self.attempt(agent, url) {
                Ok(()) => match self.verify(url) {
                    Ok(()) => break,
                    // The file may have changed on the mirror between the parts.
                    Err(wrong) if resumed => {
                        self.restart()?;
                        format!("{wrong:#}")
                    }
                    Err(wrong) => return Err(Trouble::Fatal(wrong)),
                },
                Err(Trouble::Broken(why)) => why,
                Err(other) => return Err(other),
            };
            if self.got >= furthest + PROGRESS {
                furthest = self.got;
                failures = 0;
            }
            failures += 1;
            if failures == TRIES {
                return Err(Trouble::Broken(format!("{trouble} (after {TRIES} attempts)")));
            }
            let next = if self.got > 0 { "resuming" } else { "trying again" };
            let note = format!("{name}: {trouble}; {next} at {} MB", self.got / 1_000_000);
            if self.bar.is_hidden() {
                eprintln!("{note}");
            } else {
                self.bar.println(note);
            }
            std::thread::sleep(Duration::from_millis(100 << failures));
        }
        self.bar.finish_and_clear();
        eprintln!("fetched {name} ({megabytes} MB) in {:.1} s", started.elapsed().as_secs_f32());
        Ok(())
    }

    /// One request, from where the last one ended.
    fn attempt(&mut self, agent: &ureq::Agent, url: &str) -> Result<(), Trouble> {
        let mut request = agent.get(url);
        if self.got > 0 {
            request = request.header("Range", format!("bytes={}-", self.got));
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) => Trouble::Fatal(anyhow!("{url}: {error}")),
            _ => Trouble::Broken(error.to_string()),
        })?;
        let status = response.status();
        match status {
            StatusCode::OK => {
                // The server ignores Range, or this is the first attempt.
                self.restart()?;
                let length = response.body().content_length();
                if let Some(length) = length.filter(|length| *length != self.package.bytes) {
                    return Err(Trouble::Fatal(self.wrong(url, &format!("is {length} bytes"))));
                }
            }
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE);
                let start = range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes "));
                if start.and_then(|range| range.split('-').next()) != Some(&self.got.to_string()) {
                    self.restart()?;
                    return Err(Trouble::Broken("the server sent another part".to_owned()));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.restart()?;
                return Err(Trouble::Broken("the server refused the part".to_owned()));
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Trouble::Broken(status.to_string()));
            }
            _ if status.is_server_error() => return Err(Trouble::Broken(status.to_string())),
            _ => return Err(Trouble::Absent(status.to_string())),
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = body.read(&mut buffer).map_err(|error| Trouble::Broken(error.to_string()))?;
            if n == 0 {
                break;
            }
            let part = &buffer[..n];
            self.got += n as u64;
            if self.got > self.package.bytes {
                let more = format!("is more than {} bytes", self.package.bytes);
                return Err(Trouble::Fatal(self.wrong(url, &more)));
            }
            self.file
                .write_all(part)
                .map_err(|error| Trouble::Fatal(cache::explain(error, self.cache.dir())))?;
            self.hash.update(part);
            self.bar.set_position(self.got);
        }
        if self.got < self.package.bytes {
            return Err(Trouble::Broken(format!("the transfer broke at {} bytes", self.got)));
        }
        Ok(())
    }

    fn verify(&mut self, url: &str) -> Result<()> {
        let hash = hex(&self.hash.finalize_reset());
        if hash != self.package.sha256 {
            return Err(self.wrong(url, &format!("has SHA-256 {hash}")));
        }
        self.file.rewind().map_err(|error| cache::explain(error, self.cache.dir()))
    }

    fn restart(&mut self) -> Result<(), Trouble> {
        self.got = 0;
        self.hash = Sha256::new();
        self.file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .map_err(|error| Trouble::Fatal(cache::explain(error, self.cache.dir())))
    }

    fn wrong(&self, url: &str, is: &str) -> anyhow::Error {
        anyhow!(
            "{url} {is}, but kernels.toml pins {} bytes with SHA-256 {}: it is not used; correct the pin if the package is known to be right, else {}",
            self.package.bytes,
            self.package.sha256,
            mirror::advice()
        )
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn progress(package: &Package) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
    );
    ProgressBar::new(package.bytes)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(package.name().to_owned())
}
