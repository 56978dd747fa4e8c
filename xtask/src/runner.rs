//! The runner's own file, for guests: a copy, as cargo replaces the file that it has built when it
//! builds the tests of the host.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// What the copy is called.
const NAME: &str = "xtask";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The copy in `dir`, which is made unless it is there. One serves all guests: to write 100 MB for
/// each holds up the disk for seconds, and vmtest gives QEMU 5 to come up.
pub fn copy_in(dir: &Path) -> Result<PathBuf> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = dir.join(NAME);
    let copied = || format!("cannot copy the runner to {}", copy.display());
    let mut own = File::open("/proc/self/exe").context("cannot open the runner's own file")?;
    let own_is = own.metadata()?;
    if let Ok(there) = fs::metadata(&copy) {
        if there.len() == own_is.len() && there.modified()? == own_is.modified()? {
            return Ok(copy);
        }
    }
    let mut made = tempfile::NamedTempFile::new_in(dir).with_context(copied)?;
    io::copy(&mut own, made.as_file_mut()).with_context(copied)?;
    made.as_file().set_permissions(Permissions::from_mode(0o755)).with_context(copied)?;
    made.as_file().set_modified(own_is.modified()?).with_context(copied)?;
    made.persist(&copy).with_context(copied)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_copied_once_and_again_when_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let copy = copy_in(dir.path()).unwrap();
        let own = fs::metadata("/proc/self/exe").unwrap();
        let is = |wanted: bool| {
            let there = fs::metadata(&copy).unwrap();
            assert_eq!(there.len() == own.len(), wanted);
            there.permissions().mode() & 0o777
        };
        assert_eq!(is(true), 0o755);

        fs::write(&copy, "changed").unwrap();
        File::open(&copy).unwrap().set_modified(own.modified().unwrap()).unwrap();
        is(false);
        copy_in(dir.path()).unwrap();
        is(true);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
