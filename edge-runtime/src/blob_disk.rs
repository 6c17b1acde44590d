//! The files of a library's folder, as the library needs them.
//!
//! The rules are those of POSIX and no more: what is written is durable only after [`BlobFile::sync`], which name
//! is which file only after [`BlobDisk::sync_folder`], and a sync that failed says nothing, also not where the
//! next one succeeds. `property-tests/tests/library` puts a disk in memory here that loses what was not synced.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::files;

/// A file that is open.
pub trait BlobFile: Read + Write + fmt::Debug + Send + Sync {
    /// Makes its content and length durable.
    ///
    /// # Errors
    /// Those of the system. What was written since the last sync may be lost then, whatever a later sync says.
    fn sync(&self) -> io::Result<()>;
}

/// The files of one folder. Names are plain: no separator, not `.` and not `..`.
#[expect(
    clippy::missing_errors_doc,
    reason = "every call fails as the operating system does, and in no other way"
)]
pub trait BlobDisk: fmt::Debug + Send + Sync + 'static {
    /// Every name, with its bytes where it is a regular file.
    fn list(&self) -> io::Result<Vec<(String, Option<u64>)>>;
    /// The whole content of a regular file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes a file to write to, readable by its owner only; one that exists is emptied.
    fn create(&self, name: &str) -> io::Result<Box<dyn BlobFile>>;
    /// Opens a regular file that exists to read it, and to sync it.
    fn open(&self, name: &str) -> io::Result<Box<dyn BlobFile>>;
    /// Gives a file another name. A file that had it is gone; there is no moment without one of both.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable: creations, renames and removals.
    fn sync_folder(&self) -> io::Result<()>;
}

/// A folder of the operating system.
#[derive(Debug)]
pub(crate) struct BlobFolder(PathBuf);

impl BlobFolder {
    /// Makes the folder where there is none.
    pub(crate) fn made(path: &Path) -> io::Result<Self> {
        files::create_private_dir(path)?;
        // The folder's own name: without it all that is in it would be gone.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Self::at(path))
    }

    /// A folder that may be missing.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl BlobFile for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

impl BlobDisk for BlobFolder {
    fn list(&self) -> io::Result<Vec<(String, Option<u64>)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // What is not ours may have any name.
            if let Ok(name) = entry.file_name().into_string() {
                let metadata = entry.metadata()?;
                found.push((name, metadata.is_file().then_some(metadata.len())));
            }
        }
        Ok(found)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        files::read_regular(&self.0.join(name), u64::MAX)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn BlobFile>> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        Ok(Box::new(options.open(self.0.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BlobFile>> {
        Ok(Box::new(files::open_regular(OpenOptions::new().read(true), &self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}
