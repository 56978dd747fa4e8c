//! The database of files: SQLite, with what is known of each digest.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

/// What a database has.
const SCHEMA: &str = "CREATE TABLE files (digest TEXT PRIMARY KEY, verdict TEXT NOT NULL) STRICT";

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It may be used.
    Good,
    /// It may not.
    Bad,
}

/// A database that is there.
pub struct Database(Connection);

impl Database {
    /// Opens one, which is only read.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("cannot read the database {}", path.display());
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(what)?;
        let database = Self(connection);
        database.known("").with_context(what)?;
        Ok(database)
    }

    /// What is known of a digest, which is `sha256:HEX`.
    pub fn known(&self, digest: &str) -> Result<Option<Known>> {
        let found: Option<String> = self
            .0
            .query_row("SELECT verdict FROM files WHERE digest = ?1", [digest], |row| row.get(0))
            .optional()?;
        match found.as_deref() {
            None => Ok(None),
            Some("good") => Ok(Some(Known::Good)),
            Some("bad") => Ok(Some(Known::Bad)),
            Some(other) => bail!("the verdict of {digest} is {other}, neither good nor bad"),
        }
    }
}

/// Makes a database, or adds to one.
pub fn write(path: &Path, files: &[(String, Known)]) -> Result<()> {
    let is_new = !path.exists();
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    if is_new {
        transaction.execute(SCHEMA, ())?;
    }
    for (digest, known) in files {
        let verdict = if *known == Known::Good { "good" } else { "bad" };
        transaction.execute("INSERT OR REPLACE INTO files VALUES (?1, ?2)", [digest, verdict])?;
    }
    transaction.commit()?;
    Ok(())
}
