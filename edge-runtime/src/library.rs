//! The node's store of components and other blobs, each named by its hash.
//!
//! A blob is one file `<hash>.blob`, written under a temporary name, synced and renamed: after a crash
//! it is there whole or not at all. What the library says it holds is durable: nothing is listed before its name is.
//! The calls block; an async driver wraps them. Several threads may share one [`Library`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::blob_disk::{BlobDisk, BlobFile, BlobFolder};
use crate::files;
use crate::hash::ComponentHash;

pub(crate) const BLOB_ENDING: &str = "blob";
/// Ending of a blob whose bytes no longer match its name; kept for the operator to look at.
pub(crate) const DAMAGED_ENDING: &str = "damaged";

/// Why the library could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// The quota does not leave room for the blob.
    #[error(
        "The library's quota of {quota} bytes has no room for {wanted} more bytes beside the {used} in use; remove \
         functions that are needed no more."
    )]
    Quota {
        /// Bytes that were to be added.
        wanted: u64,
        /// Bytes in use.
        used: u64,
        /// The quota.
        quota: u64,
    },
    /// The disk is full, or what this user may have of it is used up.
    #[error(
        "The library {folder} has no room for a file of {wanted} bytes, because its disk is full; nothing of it was kept, \
         and what the library holds is served on."
    )]
    DiskFull {
        /// The library's folder.
        folder: PathBuf,
        /// Size of what was to be stored, bytes; what of it was written already counts.
        wanted: u64,
    },
    /// No blob has this name.
    #[error("The library does not hold {hash}; fetch it from a peer that does.")]
    Missing {
        /// The name.
        hash: ComponentHash,
    },
    /// A stored blob no longer matches its name. It was moved aside.
    #[error("The stored copy of {hash} is damaged and was moved to {moved_to}; fetch it again from a peer.")]
    Damaged {
        /// The name.
        hash: ComponentHash,
        /// Where the damaged bytes are now.
        moved_to: PathBuf,
    },
    /// A stored blob no longer matches its name. It was only looked at.
    #[error("The stored copy of {hash} is damaged: its bytes are others than its name says.")]
    Altered {
        /// The name.
        hash: ComponentHash,
    },
    /// Fetched bytes are not what was asked for. They were discarded.
    #[error("The fetched bytes hash to {got}, not {wanted}; they were discarded, ask another peer.")]
    WrongHash {
        /// The name that was asked for.
        wanted: ComponentHash,
        /// The name of what came.
        got: ComponentHash,
    },
    /// The file system failed.
    #[error("The library could not use {path}: {source}. Check the data folder and its permissions.")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, LibraryError>;

pub(crate) fn io_error(path: &Path, source: io::Error) -> LibraryError {
    LibraryError::Io { path: path.to_owned(), source }
}

/// Why a file of `wanted` bytes could not be stored in `folder`. Which name it had meanwhile helps nobody to make room.
fn unwritten(folder: &Path, path: &Path, wanted: u64, source: io::Error) -> LibraryError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            LibraryError::DiskFull { folder: folder.to_owned(), wanted }
        }
        _ => io_error(path, source),
    }
}

fn blob_name(hash: ComponentHash) -> String {
    format!("{hash}.{BLOB_ENDING}")
}

/// The name of a file of the library's folder.
fn name_of(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[derive(Debug)]
struct Index {
    sizes: BTreeMap<ComponentHash, u64>,
    /// Bytes of all blobs and of all fetches under way.
    used: u64,
}

/// Content-addressed blobs in one folder, within a quota. A clone is the same library.
#[derive(Clone, Debug)]
pub struct Library {
    dir: Arc<Path>,
    quota_bytes: u64,
    /// Whether it is only looked at: what is damaged stays where it is.
    looks: bool,
    disk: Arc<dyn BlobDisk>,
    index: Arc<Mutex<Index>>,
    /// Held where a blob's name is given or taken and the index follows, so that both say the same.
    names: Arc<Mutex<()>>,
    /// How many places were given to what others write.
    places: Arc<AtomicU64>,
}

impl Library {
    /// Opens (or makes) the library in `dir` and removes what a crash left half written.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub fn open(dir: impl Into<PathBuf>, quota_bytes: u64) -> Result<Self> {
        let dir: PathBuf = dir.into();
        let disk = BlobFolder::made(&dir).map_err(|source| unwritten(&dir, &dir, 0, source))?;
        Self::open_on(disk, dir, quota_bytes)
    }

    /// Opens the library on a disk that stands for the folder `dir`; see [`Library::open`].
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn open_on(disk: impl BlobDisk, dir: impl Into<PathBuf>, quota_bytes: u64) -> Result<Self> {
        Self::indexed(Arc::new(disk), dir.into(), quota_bytes, false)
    }

    /// Opens the library in `dir` to look at it: nothing in it is changed, and a missing folder is an empty library.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn open_to_look(dir: impl Into<PathBuf>, quota_bytes: u64) -> Result<Self> {
        let dir = dir.into();
        Self::indexed(Arc::new(BlobFolder::at(&dir)), dir, quota_bytes, true)
    }

    fn indexed(disk: Arc<dyn BlobDisk>, dir: PathBuf, quota_bytes: u64, looks: bool) -> Result<Self> {
        let fail = |source| io_error(&dir, source);
        let mut sizes = BTreeMap::new();
        let found = match disk.list() {
            Err(error) if looks && error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found.map_err(fail)?,
        };
        for (name, bytes) in found {
            let Some((stem, ending)) = name.rsplit_once('.') else { continue };
            match ending {
                files::TEMP_ENDING if !looks => {
                    disk.remove(&name).map_err(|e| io_error(&dir.join(&name), e))?;
                }
                // What has a blob's name and is no file is as if it were missing; a fetch replaces it.
                BLOB_ENDING => sizes.extend(stem.parse().ok().zip(bytes)),
                _ => {}
            }
        }
        if !looks {
            // The process that gave a blob its name may have ended before that was durable.
            disk.sync_folder().map_err(fail)?;
        }
        let used = sizes.values().sum();
        let index = Arc::new(Mutex::new(Index { sizes, used }));
        Ok(Self {
            dir: dir.into(),
            quota_bytes,
            looks,
            disk,
            index,
            names: Arc::default(),
            places: Arc::default(),
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change of the index is a single step, so a panic elsewhere cannot leave it half done.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, bytes: u64) -> Result<()> {
        let mut index = self.index();
        match index.used.checked_add(bytes) {
            Some(total) if total <= self.quota_bytes => index.used = total,
            _ => {
                return Err(LibraryError::Quota { wanted: bytes, used: index.used, quota: self.quota_bytes });
            }
        }
        Ok(())
    }

    fn release(&self, bytes: u64) {
        self.index().used -= bytes;
    }

    /// Stores `bytes` durably; storing them again changes nothing, unless the stored copy is damaged: then it is
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`LibraryError::Quota`], [`LibraryError::DiskFull`] or [`LibraryError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<ComponentHash> {
        let hash = ComponentHash::of(bytes);
        if !self.contains(hash) || self.read(hash).is_err() {
            let mut fetch = self.begin(hash, bytes.len() as u64)?;
            fetch.write(bytes)?;
            self.commit(fetch)?;
        }
        Ok(hash)
    }

    /// Starts to store a blob whose bytes arrive piece by piece and are not trusted yet.
    ///
    /// # Errors
    ///
    /// The temporary file cannot be made.
    pub fn begin_fetch(&self, hash: ComponentHash) -> Result<Fetch> {
        self.begin(hash, 0)
    }

    /// The same, where it is known how many bytes will come.
    fn begin(&self, hash: ComponentHash, wanted: u64) -> Result<Fetch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let temp = format!("{hash}.{}.{serial}.{}", std::process::id(), files::TEMP_ENDING);
        let created = self.disk.create(&temp);
        let file = created.map_err(|e| unwritten(&self.dir, &self.dir.join(&temp), wanted, e))?;
        Ok(Fetch {
            library: self.clone(),
            hash,
            path: self.dir.join(&temp),
            temp,
            file,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            kept: false,
        })
    }

    /// Checks the fetched bytes against the name they were asked for by, and keeps them durably.
    ///
    /// # Errors
    ///
    /// [`LibraryError::WrongHash`] discards the bytes; so do [`LibraryError::DiskFull`] and
    /// [`LibraryError::Io`].
    pub fn commit(&self, mut fetch: Fetch) -> Result<()> {
        let (wanted, got) = (fetch.hash, ComponentHash(fetch.hasher.finalize().into()));
        if wanted != got {
            return Err(LibraryError::WrongHash { wanted, got });
        }
        self.publish(wanted, fetch.bytes, &fetch.temp, &*fetch.file)?;
        fetch.kept = true;
        Ok(())
    }

    /// Makes a file durable as the blob `hash`, for which `bytes` are reserved; where it fails they are still.
    fn publish(&self, hash: ComponentHash, bytes: u64, temp: &str, file: &dyn BlobFile) -> Result<()> {
        let target = self.path(hash);
        let fail = |error| unwritten(&self.dir, &target, bytes, error);
        file.sync().map_err(fail)?;
        let _names = self.naming();
        let name = blob_name(hash);
        self.disk.rename(temp, &name).map_err(fail)?;
        // The rename is durable only when the folder is.
        if let Err(error) = self.disk.sync_folder() {
            // A later sync would say nothing of this name. What was here before is the same bytes, and stays.
            if !self.contains(hash) {
                let _ = self.disk.remove(&name);
            }
            return Err(fail(error));
        }
        let mut index = self.index();
        // The same blob may have been stored meanwhile; it then counts once.
        if let Some(before) = index.sizes.insert(hash, bytes) {
            index.used -= before;
        }
        Ok(())
    }

    /// Room for `bytes` that somebody else writes to the returned path in the library's folder, to be
    /// [adopted](Self::adopt). Who writes keeps to that size. Each call gives another path; what is left there is
    /// removed when the library is opened.
    ///
    /// # Errors
    ///
    /// [`LibraryError::Quota`], before anything is fetched.
    pub fn fetch_path(&self, hash: ComponentHash, bytes: u64) -> Result<PathBuf> {
        self.reserve(bytes)?;
        self.release(bytes);
        let place = self.places.fetch_add(1, Ordering::Relaxed);
        Ok(self.dir.join(format!("{hash}.{place}.fetch.{}", files::TEMP_ENDING)))
    }

    /// Why somebody else could not write `bytes` to a path of the library's folder, in the library's words.
    #[must_use]
    pub fn unwritten(&self, path: &Path, bytes: u64, source: io::Error) -> LibraryError {
        unwritten(&self.dir, path, bytes, source)
    }

    /// Keeps a finished file of the library's folder as the blob `hash`, checking its bytes. The file
    /// is removed where it does not fit.
    ///
    /// # Errors
    ///
    /// [`LibraryError::WrongHash`], [`LibraryError::Quota`], [`LibraryError::DiskFull`] or [`LibraryError::Io`].
    pub fn adopt(&self, hash: ComponentHash, file: &Path) -> Result<()> {
        let adopted = self.check_and_adopt(hash, file);
        if adopted.is_err() {
            let _ = self.disk.remove(name_of(file));
        }
        adopted
    }

    fn check_and_adopt(&self, hash: ComponentHash, file: &Path) -> Result<()> {
        let fail = |error| io_error(file, error);
        let name = name_of(file);
        let mut hasher = blake3::Hasher::new();
        let mut opened = self.disk.open(name).map_err(fail)?;
        let bytes = io::copy(&mut opened, &mut hasher).map_err(fail)?;
        let got = ComponentHash(hasher.finalize().into());
        if got != hash {
            return Err(LibraryError::WrongHash { wanted: hash, got });
        }
        self.reserve(bytes)?;
        self.publish(hash, bytes, name, &*opened).inspect_err(|_| self.release(bytes))
    }

    /// Where a blob of a library's folder is, or would be, whether or not the library is open.
    #[must_use]
    pub fn path_in(dir: &Path, hash: ComponentHash) -> PathBuf {
        dir.join(blob_name(hash))
    }

    /// Where a blob is, or would be. The path stays valid until the blob is removed.
    #[must_use]
    pub fn path(&self, hash: ComponentHash) -> PathBuf {
        Self::path_in(&self.dir, hash)
    }

    /// Whether the blob is here. Its bytes are checked when it is read.
    #[must_use]
    pub fn contains(&self, hash: ComponentHash) -> bool {
        self.index().sizes.contains_key(&hash)
    }

    /// Reads a blob and checks it against its name.
    ///
    /// # Errors
    ///
    /// [`LibraryError::Missing`], or [`LibraryError::Damaged`] after the damaged file was moved aside;
    /// [`LibraryError::Altered`] where the library is only looked at.
    pub fn read(&self, hash: ComponentHash) -> Result<Vec<u8>> {
        match self.look(hash) {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) if self.looks => return Err(LibraryError::Altered { hash }),
            _ => {}
        }
        // Another thread may have stored it since: what is moved aside or forgotten is what was looked at.
        let _names = self.naming();
        match self.look(hash) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => {
                let damaged = format!("{hash}.{DAMAGED_ENDING}");
                let moved = self.disk.rename(&blob_name(hash), &damaged);
                moved.map_err(|error| io_error(&self.path(hash), error))?;
                self.forget(hash);
                Err(LibraryError::Damaged { hash, moved_to: self.dir.join(damaged) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(hash);
                Err(LibraryError::Missing { hash })
            }
            Err(error) => Err(io_error(&self.path(hash), error)),
        }
    }

    /// A blob's bytes; none where they are others than its name says.
    fn look(&self, hash: ComponentHash) -> io::Result<Option<Vec<u8>>> {
        let bytes = self.disk.read(&blob_name(hash))?;
        Ok((ComponentHash::of(&bytes) == hash).then_some(bytes))
    }

    /// Removes a blob; whether it was there.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn remove(&self, hash: ComponentHash) -> Result<bool> {
        let _names = self.naming();
        match self.disk.remove(&blob_name(hash)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&self.path(hash), e)),
            removed => {
                self.forget(hash);
                Ok(removed.is_ok())
            }
        }
    }

    fn forget(&self, hash: ComponentHash) {
        let mut index = self.index();
        if let Some(bytes) = index.sizes.remove(&hash) {
            index.used -= bytes;
        }
    }

    /// Every blob with its size in bytes, in order of the hashes.
    #[must_use]
    pub fn list(&self) -> Vec<(ComponentHash, u64)> {
        self.index().sizes.iter().map(|(hash, bytes)| (*hash, *bytes)).collect()
    }

    /// Bytes of all blobs and of the fetches under way.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.index().used
    }

    /// The most bytes [`Library::used_bytes`] may reach.
    #[must_use]
    pub fn quota_bytes(&self) -> u64 {
        self.quota_bytes
    }
}

/// A blob on its way in. Dropped without [`Library::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Fetch {
    library: Library,
    hash: ComponentHash,
    path: PathBuf,
    temp: String,
    file: Box<dyn BlobFile>,
    hasher: blake3::Hasher,
    bytes: u64,
    kept: bool,
}

impl Fetch {
    /// The name it was asked for by.
    #[must_use]
    pub fn hash(&self) -> ComponentHash {
        self.hash
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.bytes
    }

    /// The temporary file.
    #[must_use]
    pub fn temp_path(&self) -> &Path {
        &self.path
    }

    /// Adds a piece. The quota is checked before the disk is touched.
    ///
    /// # Errors
    ///
    /// [`LibraryError::Quota`], [`LibraryError::DiskFull`] or [`LibraryError::Io`]; the fetch cannot be
    /// used after that.
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.library.reserve(piece.len() as u64)?;
        self.bytes += piece.len() as u64;
        let written = self.file.write_all(piece);
        written.map_err(|e| unwritten(&self.library.dir, &self.path, self.bytes, e))?;
        self.hasher.update(piece);
        Ok(())
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if !self.kept {
            self.library.release(self.bytes);
            let _ = self.library.disk.remove(&self.temp);
        }
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
