//! The files of one folder, as the store needs them.
//!
//! The rules are those of POSIX and no more, so that what is built on them holds on any file system:
//!
//! * What is written is seen by every read at once, and is **durable** only after [`Disk::sync`] of that
//!   name returned without an error. Before that a power cut may keep it, lose it, or keep a part of it.
//! * Which name is which file is durable only after [`Disk::sync_folder`]; a file's sync does not make its
//!   name durable, and a folder's sync does not make content durable.
//! * A sync that failed says nothing of what was written since the last one, and neither does the next
//!   sync, even where that one succeeds: the system may count the lost pages as clean (Rebello et al.,
//!   *Can Applications Recover from fsync Failures?*, 2020).

use std::{fmt, io};

/// The files of one folder. Names are plain: no separator, not `.` and not `..`.
///
/// One process uses a folder at a time. Errors are those of the operating system.
#[expect(
    clippy::missing_errors_doc,
    reason = "every call fails as the operating system does, and in no other way"
)]
pub trait Disk: fmt::Debug {
    /// The whole content of a file as it was last written, durable or not; none where there is no file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// The names of all files, ascending.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Writes behind the end of a file that exists. Where it fails, a part may have been written.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file that exists to a length it had.
    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()>;
    /// Makes a file with this content, readable by its owner only; one that exists is emptied first.
    fn write_new(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's content and length durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name. A file that had it is gone; there is no moment without one of both.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that does not exist is fine.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes all names durable: creations, renames and removals.
    fn sync_folder(&mut self) -> io::Result<()>;
}

impl<D: Disk + ?Sized> Disk for Box<D> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        (**self).read(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        (**self).list()
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (**self).append(name, bytes)
    }
    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        (**self).truncate(name, bytes)
    }
    fn write_new(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (**self).write_new(name, bytes)
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        (**self).sync(name)
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        (**self).remove(name)
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        (**self).sync_folder()
    }
}

/// Ending of a file that is being written.
pub(crate) const PART: &str = ".part";

/// Gives a file new content: after a power cut at any moment it has all of the old or all of the new.
/// Durable when it returns.
///
/// # Errors
/// Those of the disk. The old content is then still there, or the new, and nothing else.
pub fn replace(disk: &mut (impl Disk + ?Sized), name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = format!("{name}{PART}");
    if let Err(error) = disk.write_new(&part, bytes).and_then(|()| disk.sync(&part)) {
        // A full disk gets its room back; the next start removes it otherwise.
        let _ = disk.remove(&part);
        return Err(error);
    }
    disk.rename(&part, name)?;
    disk.sync_folder()
}
