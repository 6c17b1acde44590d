//! Looking into a library without changing anything: for a folder that nobody has opened, and for one that is
//! only to be reported on.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::files;
use crate::hash::ComponentHash;
use crate::library::{BLOB_ENDING, DAMAGED_ENDING, Library, LibraryError, Result, io_error};

/// What the names in a library's folder say, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibrarySurvey {
    /// Blobs. Whether their bytes fit is said by [`Library::check`].
    pub blobs: Vec<ComponentHash>,
    /// Blobs that were found damaged and moved aside.
    pub moved_aside: Vec<ComponentHash>,
}

impl Library {
    /// Lists a library's folder; none where there is no folder.
    ///
    /// # Errors
    /// [`LibraryError::Io`].
    pub fn survey(dir: &Path) -> Result<Option<LibrarySurvey>> {
        let fail = |error| io_error(dir, error);
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(fail)?,
        };
        let mut survey = LibrarySurvey::default();
        for entry in entries {
            let name = entry.map_err(fail)?.file_name();
            let Some((stem, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            match (stem.parse(), ending) {
                (Ok(hash), BLOB_ENDING) => survey.blobs.push(hash),
                (Ok(hash), DAMAGED_ENDING) => survey.moved_aside.push(hash),
                _ => {}
            }
        }
        survey.blobs.sort_unstable();
        survey.moved_aside.sort_unstable();
        Ok(Some(survey))
    }

    /// Hashes a blob of a library's folder. Unlike [`Library::read`] it leaves a damaged one where it is.
    ///
    /// # Errors
    /// [`LibraryError::Missing`], [`LibraryError::Altered`], or [`LibraryError::Io`], also for what is no
    /// regular file.
    pub fn check(dir: &Path, hash: ComponentHash) -> Result<()> {
        let path = Self::path_in(dir, hash);
        let mut hasher = blake3::Hasher::new();
        let read = files::open_regular(File::options().read(true), &path)
            .and_then(|file| hasher.update_reader(file).map(|hasher| hasher.finalize()));
        match read {
            Ok(found) if ComponentHash(found.into()) == hash => Ok(()),
            Ok(_) => Err(LibraryError::Altered { hash }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LibraryError::Missing { hash }),
            Err(error) => Err(io_error(&path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_finds_what_is_wrong_and_leaves_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = dir.path().join("blobs");
        assert_eq!(Library::survey(&blobs).expect("no folder is no error"), None);
        let library = Library::open(&blobs, 1 << 20).expect("a new library");
        let [sound, harmed, gone, odd] =
            ["sound", "harmed", "gone", "odd"].map(|text| library.put(text.as_bytes()).expect("room"));
        fs::write(library.path(harmed), b"other").expect("damaged");
        fs::rename(library.path(gone), blobs.join(format!("{gone}.damaged"))).expect("moved");
        fs::write(blobs.join("notes.txt"), b"a person's").expect("written");
        fs::write(blobs.join(format!("{sound}.7.part")), b"half").expect("written");
        fs::remove_file(library.path(odd)).expect("removed");
        std::os::unix::fs::symlink(library.path(sound), library.path(odd)).expect("a link");
        let names = || -> Vec<_> {
            let names =
                fs::read_dir(&blobs).expect("the folder").map(|entry| entry.expect("one").file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        let before = names();
        let survey = Library::survey(&blobs).expect("a folder").expect("it is there");
        let mut expected = vec![sound, harmed, odd];
        expected.sort_unstable();
        assert_eq!((survey.blobs, survey.moved_aside), (expected, vec![gone]));
        Library::check(&blobs, sound).expect("whole");
        assert!(matches!(Library::check(&blobs, harmed), Err(LibraryError::Altered { .. })));
        assert!(matches!(Library::check(&blobs, gone), Err(LibraryError::Missing { .. })));
        let Err(LibraryError::Io { source, .. }) = Library::check(&blobs, odd) else { panic!("a link") };
        assert!(crate::NotRegular::is(&source), "{source}");
        assert_eq!(names(), before);
        // One that is opened counts it as missing, and does not follow it.
        let again = Library::open(&blobs, 1 << 20).expect("opens again");
        assert!(again.contains(sound) && !again.contains(odd));
        again.put(b"odd").expect("put again in its place");
        Library::check(&blobs, odd).expect("whole");
    }
}
