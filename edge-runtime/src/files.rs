//! Files that are either wholly there or not at all, and nothing else in their place.

use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

/// Ending of files that are still being written.
pub(crate) const TEMP_ENDING: &str = "part";

/// What stands where a regular file should. The error inside an [`io::Error`] of [`open_regular`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRegular(&'static str);

impl NotRegular {
    fn of(kind: FileType) -> Self {
        Self(match kind {
            kind if kind.is_symlink() => "a symbolic link",
            kind if kind.is_dir() => "a folder",
            kind if kind.is_fifo() => "a pipe",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        })
    }

    /// Whether an error is of this kind.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {} and no regular file", self.0)
    }
}

impl std::error::Error for NotRegular {}

/// Opens a regular file, with these options, and refuses at once whatever else has its name: to open a pipe
/// waits for its other end, and a link leads out of the folder. It is what was opened that is looked at, so
/// nobody can exchange it in between.
///
/// # Errors
/// Those of the system, and [`NotRegular`].
pub fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = options.custom_flags(flags.bits().cast_signed()).open(path);
    let kind = match &opened {
        Ok(file) => file.metadata()?.file_type(),
        // A link, a socket and a pipe that nobody reads are refused by the system, in words that do not help.
        Err(_) => match fs::symlink_metadata(path) {
            Ok(found) => found.file_type(),
            Err(_) => return opened,
        },
    };
    if kind.is_file() { opened } else { Err(io::Error::other(NotRegular::of(kind))) }
}

/// The whole of a regular file of at most `max` bytes.
///
/// # Errors
/// As [`open_regular`], and [`io::ErrorKind::FileTooLarge`].
pub fn read_regular(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(OpenOptions::new().read(true), path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    if size <= max {
        bytes.reserve(usize::try_from(size).unwrap_or(0));
        file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if size > max || bytes.len() as u64 > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than the {max} bytes that such a file may have"),
        ));
    }
    Ok(bytes)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), b"bytes").expect("written");
        assert_eq!(read_regular(&at("file"), 5).expect("a file"), b"bytes");
        let large = read_regular(&at("file"), 4).expect_err("too large");
        assert_eq!(large.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_regular(&at("none"), 5).expect_err("none").kind(), io::ErrorKind::NotFound);

        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), mode).expect("a pipe");
        std::os::unix::fs::symlink(at("file"), at("link")).expect("a link");
        std::os::unix::fs::symlink(at("none"), at("dangling")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        fs::create_dir(at("folder")).expect("a folder");
        for (name, word) in [
            ("pipe", "a pipe"),
            ("link", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("socket", "a socket"),
            ("folder", "a folder"),
        ] {
            // To write to a pipe that nobody reads, and to read from one that nobody writes to.
            let append = open_regular(OpenOptions::new().create(true).append(true), &at(name));
            let read = open_regular(OpenOptions::new().read(true), &at(name));
            for error in [append.expect_err(name), read.expect_err(name)] {
                assert!(NotRegular::is(&error), "{name}: {error}");
                assert!(error.to_string().contains(word), "{name}: {error}");
            }
        }
        let _reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(at("pipe"))
            .expect("the other end");
        let error = open_regular(OpenOptions::new().append(true), &at("pipe")).expect_err("a pipe");
        assert!(NotRegular::is(&error), "{error}");
        assert!(!at("none").exists(), "nothing is made behind a link");
    }
}
