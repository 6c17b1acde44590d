//! The node's store of components and other blobs, each named by its hash.
//!
//! A blob is one file `<hash>.blob`, written under a temporary name, synced and renamed: after a crash
//! it is there whole or not at all. The calls block; an async driver wraps them. Several threads may
//! share one [`Library`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
         unused functions or raise the quota."
    )]
    Quota {
        /// Bytes that were to be added.
        wanted: u64,
        /// Bytes in use.
        used: u64,
        /// The quota.
        quota: u64,
    },
    /// The disk is full.
    #[error("The disk that holds {path} is full; free some space, reading goes on meanwhile.")]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
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
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LibraryError::DiskFull { path },
        _ => LibraryError::Io { path, source },
    }
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
    index: Arc<Mutex<Index>>,
}

impl Library {
    /// Opens (or makes) the library in `dir` and removes what a crash left half written.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub fn open(dir: impl Into<PathBuf>, quota_bytes: u64) -> Result<Self> {
        let dir: PathBuf = dir.into();
        files::create_private_dir(&dir).map_err(|source| io_error(&dir, source))?;
        Self::indexed(dir, quota_bytes, false)
    }

    /// Opens the library in `dir` to look at it: nothing in it is changed, and a missing folder is an empty library.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn open_to_look(dir: impl Into<PathBuf>, quota_bytes: u64) -> Result<Self> {
        Self::indexed(dir.into(), quota_bytes, true)
    }

    fn indexed(dir: PathBuf, quota_bytes: u64, looks: bool) -> Result<Self> {
        let fail = |source| io_error(&dir, source);
        let mut sizes = BTreeMap::new();
        let entries = match fs::read_dir(&dir) {
            Err(error) if looks && error.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries.map_err(fail)?),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some(files::TEMP_ENDING) if !looks => {
                    fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
                }
                Some(BLOB_ENDING) => {
                    let hash = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
                    let found = entry.metadata().map_err(fail)?;
                    // What has a blob's name and is no file is as if it were missing; a fetch replaces it.
                    if let (Some(hash), true) = (hash, found.is_file()) {
                        sizes.insert(hash, found.len());
                    }
                }
                _ => {}
            }
        }
        let used = sizes.values().sum();
        let index = Arc::new(Mutex::new(Index { sizes, used }));
        Ok(Self { dir: dir.into(), quota_bytes, looks, index })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change of the index is a single step, so a panic elsewhere cannot leave it half done.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
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
            let mut fetch = self.begin_fetch(hash)?;
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
        let (temp, file) =
            files::create_temp(&self.dir, &hash.to_string()).map_err(|e| io_error(&self.dir, e))?;
        Ok(Fetch {
            library: self.clone(),
            hash,
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
        let target = self.path(wanted);
        files::publish(&self.dir, &fetch.temp, &fetch.file, &target).map_err(|e| io_error(&target, e))?;
        fetch.kept = true;
        let mut index = self.index();
        // The same blob may have been stored meanwhile; it then counts once.
        if let Some(before) = index.sizes.insert(wanted, fetch.bytes) {
            index.used -= before;
        }
        Ok(())
    }

    /// Room for `bytes` that somebody else writes to the returned path in the library's folder, to be
    /// [adopted](Self::adopt). Who writes keeps to that size, and fetches a hash once at a time. What
    /// is left there is removed when the library is opened.
    ///
    /// # Errors
    ///
    /// [`LibraryError::Quota`], before anything is fetched.
    pub fn fetch_path(&self, hash: ComponentHash, bytes: u64) -> Result<PathBuf> {
        self.reserve(bytes)?;
        self.release(bytes);
        Ok(self.dir.join(format!("{hash}.fetch.{}", files::TEMP_ENDING)))
    }

    /// Keeps a finished file of the library's folder as the blob `hash`, checking its bytes. The file
    /// is removed where it does not fit.
    ///
    /// # Errors
    ///
    /// [`LibraryError::WrongHash`], [`LibraryError::Quota`] or [`LibraryError::Io`].
    pub fn adopt(&self, hash: ComponentHash, file: &Path) -> Result<()> {
        let adopted = self.check_and_adopt(hash, file);
        if adopted.is_err() {
            let _ = fs::remove_file(file);
        }
        adopted
    }

    fn check_and_adopt(&self, hash: ComponentHash, file: &Path) -> Result<()> {
        let fail = |error| io_error(file, error);
        let mut hasher = blake3::Hasher::new();
        let mut opened = File::open(file).map_err(fail)?;
        let bytes = io::copy(&mut opened, &mut hasher).map_err(fail)?;
        let got = ComponentHash(hasher.finalize().into());
        if got != hash {
            return Err(LibraryError::WrongHash { wanted: hash, got });
        }
        self.reserve(bytes)?;
        let target = self.path(hash);
        if let Err(error) = files::publish(&self.dir, file, &opened, &target) {
            self.release(bytes);
            return Err(io_error(&target, error));
        }
        let mut index = self.index();
        if let Some(before) = index.sizes.insert(hash, bytes) {
            index.used -= before;
        }
        Ok(())
    }

    /// Where a blob of a library's folder is, or would be, whether or not the library is open.
    #[must_use]
    pub fn path_in(dir: &Path, hash: ComponentHash) -> PathBuf {
        dir.join(format!("{hash}.{BLOB_ENDING}"))
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
        let path = self.path(hash);
        let bytes = match files::read_regular(&path, u64::MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.forget(hash);
                return Err(LibraryError::Missing { hash });
            }
            Err(e) => return Err(io_error(&path, e)),
        };
        if ComponentHash::of(&bytes) == hash {
            return Ok(bytes);
        }
        if self.looks {
            return Err(LibraryError::Altered { hash });
        }
        let moved_to = self.dir.join(format!("{hash}.{DAMAGED_ENDING}"));
        fs::rename(&path, &moved_to).map_err(|e| io_error(&path, e))?;
        self.forget(hash);
        Err(LibraryError::Damaged { hash, moved_to })
    }

    /// Removes a blob; whether it was there.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn remove(&self, hash: ComponentHash) -> Result<bool> {
        let path = self.path(hash);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&path, e)),
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
    temp: PathBuf,
    file: File,
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
        &self.temp
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
        self.file.write_all(piece).map_err(|e| io_error(&self.temp, e))?;
        self.hasher.update(piece);
        Ok(())
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if !self.kept {
            self.library.release(self.bytes);
            let _ = fs::remove_file(&self.temp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(quota: u64) -> (tempfile::TempDir, Library) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let library = Library::open(dir.path().join("blobs"), quota).expect("a new library");
        (dir, library)
    }

    fn files_in(library: &Library) -> usize {
        fs::read_dir(&library.dir).expect("the folder").count()
    }

    #[test]
    fn put_is_idempotent_and_survives_reopening() {
        let (_dir, library) = library(100);
        let hash = library.put(b"hello").expect("room");
        assert_eq!(library.put(b"hello").expect("the same"), hash);
        assert_eq!((library.used_bytes(), files_in(&library)), (5, 1));
        let again = Library::open(&*library.dir, 100).expect("opens again");
        assert_eq!(again.list(), [(hash, 5)]);
        assert_eq!(again.read(hash).expect("whole"), b"hello");
        assert!(again.remove(hash).expect("removed"));
        assert!(!again.remove(hash).expect("already gone"));
        assert_eq!(again.used_bytes(), 0);
        assert!(matches!(again.read(hash), Err(LibraryError::Missing { .. })));
    }

    #[test]
    fn quota_holds_and_leaves_nothing_behind() {
        let (_dir, library) = library(10);
        library.put(b"12345678").expect("fits");
        let error = library.put(b"abc").expect_err("does not fit");
        assert!(matches!(error, LibraryError::Quota { wanted: 3, used: 8, quota: 10 }));
        assert_eq!((library.used_bytes(), files_in(&library)), (8, 1));
        library.put(b"ab").expect("fits exactly");
    }

    #[test]
    fn damaged_blob_is_moved_aside_and_can_be_stored_again() {
        let (_dir, library) = library(100);
        let hash = library.put(b"precious").expect("room");
        fs::write(library.path(hash), b"preciouz").expect("damage it");
        let Err(LibraryError::Damaged { moved_to, .. }) = library.read(hash) else {
            panic!("damage must be found");
        };
        assert_eq!(fs::read(moved_to).expect("kept aside"), b"preciouz");
        assert!(!library.contains(hash));
        assert_eq!(library.used_bytes(), 0);
        library.put(b"precious").expect("stored again");
        // The same where nobody has read it in between.
        fs::write(library.path(hash), b"precioux").expect("damaged");
        assert_eq!(library.put(b"precious").expect("replaced"), hash);
        assert_eq!(library.read(hash).expect("whole"), b"precious");
        assert_eq!(library.used_bytes(), 8);
        assert_eq!(library.read(hash).expect("whole again"), b"precious");
    }

    #[test]
    fn leftover_temporary_files_are_removed_at_open() {
        let (_dir, library) = library(100);
        let mut fetch = library.begin_fetch(ComponentHash::of(b"x")).expect("starts");
        fetch.write(b"half").expect("written");
        let temp = fetch.temp_path().to_owned();
        std::mem::forget(fetch);
        assert!(temp.exists());
        let again = Library::open(&*library.dir, 100).expect("opens again");
        assert!(!temp.exists());
        assert_eq!(again.used_bytes(), 0);
    }

    #[test]
    fn a_file_is_adopted_only_if_it_is_what_was_asked_for() {
        let (_dir, library) = library(10);
        let hash = ComponentHash::of(b"hello");
        let path = library.fetch_path(hash, 5).expect("room");
        fs::write(&path, b"hullo").expect("written");
        assert!(matches!(library.adopt(hash, &path), Err(LibraryError::WrongHash { .. })));
        assert!(!path.exists(), "what does not fit is removed");
        fs::write(&path, b"hello").expect("written");
        library.adopt(hash, &path).expect("adopted");
        assert_eq!(library.read(hash).expect("whole"), b"hello");
        assert_eq!((library.used_bytes(), files_in(&library)), (5, 1));
        assert!(matches!(library.fetch_path(hash, 6), Err(LibraryError::Quota { .. })));
    }

    #[test]
    fn wrong_bytes_are_not_committed() {
        let (_dir, library) = library(100);
        let wanted = ComponentHash::of(b"good");
        let mut fetch = library.begin_fetch(wanted).expect("starts");
        fetch.write(b"evil").expect("written");
        let error = library.commit(fetch).expect_err("wrong bytes");
        assert!(matches!(error, LibraryError::WrongHash { .. }));
        assert_eq!((library.used_bytes(), files_in(&library)), (0, 0));
        let mut fetch = library.begin_fetch(wanted).expect("starts");
        fetch.write(b"go").expect("written");
        fetch.write(b"od").expect("written");
        library.commit(fetch).expect("right bytes");
        assert_eq!(library.read(wanted).expect("whole"), b"good");
    }

    #[test]
    fn a_blob_fetched_twice_at_once_counts_once() {
        let (_dir, library) = library(100);
        let hash = ComponentHash::of(b"twice");
        let mut fetches = [library.begin_fetch(hash), library.begin_fetch(hash)].map(|f| f.expect("starts"));
        for fetch in &mut fetches {
            fetch.write(b"twice").expect("written");
        }
        assert_eq!(library.used_bytes(), 10);
        for fetch in fetches {
            library.commit(fetch).expect("right bytes");
        }
        assert_eq!(library.used_bytes(), 5);
    }
}
