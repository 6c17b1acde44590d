//! Files that are either wholly there or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Ending of files that are still being written.
pub(crate) const TEMP_ENDING: &str = "part";

/// Makes a folder that only this user may enter.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A new, private, uniquely named temporary file in `dir`.
pub(crate) fn create_temp(dir: &Path, stem: &str) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("{stem}.{}.{serial}.{TEMP_ENDING}", std::process::id()));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    Ok((path, file))
}

/// Makes the temporary file durable under its final name.
pub(crate) fn publish(dir: &Path, temp: &Path, file: &File, target: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(temp, target)?;
    // The rename is durable only when the folder is.
    File::open(dir)?.sync_all()
}

/// Writes `parts` to `dir/name` by way of a temporary file, which does not stay behind on failure.
pub(crate) fn write_atomically(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<PathBuf> {
    let target = dir.join(name);
    let (temp, mut file) = create_temp(dir, name)?;
    let written = parts
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| publish(dir, &temp, &file, &target));
    if let Err(error) = written {
        let _ = fs::remove_file(&temp);
        return Err(error);
    }
    Ok(target)
}
