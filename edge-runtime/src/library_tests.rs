//! The library on a real folder, and two threads of it at the same blob.

use std::fs;

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

/// A folder where something happens after a read of a blob, before the reader hears of it.
#[derive(Debug)]
struct Interrupted {
    folder: BlobFolder,
    then: Arc<Mutex<Option<Library>>>,
}

const GOOD: &[u8] = b"precious";

impl BlobDisk for Interrupted {
    fn list(&self) -> io::Result<Vec<(String, Option<u64>)>> {
        self.folder.list()
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let read = self.folder.read(name);
        let other = self.then.lock().expect("not poisoned").take();
        if let Some(other) = other {
            other.put(GOOD).expect("stored by another thread");
        }
        read
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn BlobFile>> {
        self.folder.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn BlobFile>> {
        self.folder.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.folder.sync_folder()
    }
}

#[test]
fn a_blob_that_is_stored_while_its_damage_is_found_stays() {
    for harm in [None, Some(b"preciouz")] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = BlobFolder::made(dir.path()).expect("a folder");
        let then = Arc::default();
        let disk = Interrupted { folder, then: Arc::clone(&then) };
        let library = Library::open_on(disk, dir.path(), 100).expect("a library");
        let hash = library.put(GOOD).expect("room");
        match harm {
            Some(bytes) => fs::write(library.path(hash), bytes).expect("damaged"),
            None => fs::remove_file(library.path(hash)).expect("removed behind its back"),
        }
        *then.lock().expect("not poisoned") = Some(library.clone());
        assert_eq!(library.read(hash).expect("the new one"), GOOD);
        assert_eq!(library.list(), [(hash, 8)]);
        assert_eq!(fs::read(library.path(hash)).expect("it is there"), GOOD);
    }
}
