//! A folder of the operating system as a [`Disk`].

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use osiris_runtime::{open_regular, read_regular};

use crate::disk::Disk;

/// A folder. Files that were written stay open until they are renamed over or removed: a failed
/// writeback is reported to those who had the file open then, and to nobody later.
#[derive(Debug)]
pub(crate) struct FolderDisk {
    path: PathBuf,
    open: BTreeMap<String, File>,
}

impl FolderDisk {
    /// A folder that exists.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), open: BTreeMap::new() }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if !self.open.contains_key(name) {
            let file = open_regular(OpenOptions::new().append(true), &self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FolderDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match read_regular(&self.path.join(name), u64::MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // What is not ours may have any name.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.file(name)?.set_len(bytes)
    }

    fn write_new(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        let mut file = open_regular(OpenOptions::new().create(true).append(true).mode(0o600), &path)?;
        file.set_len(0)?;
        let written = file.write_all(bytes);
        self.open.insert(name.to_owned(), file);
        written
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.open.remove(to);
        if let Some(file) = self.open.remove(from) {
            self.open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disk::SimDisk;

    /// The same calls on a folder and on the model of one.
    #[test]
    fn a_folder_and_its_model_answer_alike() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let mut disks: [Box<dyn Disk>; 2] =
            [Box::new(FolderDisk::new(dir.path())), Box::new(SimDisk::new(0))];
        let answers = disks.each_mut().map(|disk| {
            let mut said = Vec::new();
            let mut note = |result: io::Result<()>| said.push(result.map_err(|error| error.kind()));
            note(disk.append("a", b"no file"));
            note(disk.truncate("a", 0));
            note(disk.sync("a"));
            note(disk.rename("a", "b"));
            note(disk.remove("a"));
            note(disk.write_new("a", b"one, two"));
            note(disk.sync("a"));
            note(disk.truncate("a", 3));
            note(disk.append("a", b" and a half"));
            note(disk.write_new("b", b"a longer one"));
            note(disk.write_new("b", b"short"));
            note(disk.append("b", b"er"));
            note(disk.rename("b", "c"));
            note(disk.append("c", b"!"));
            note(disk.write_new("d", b""));
            note(disk.rename("d", "a2"));
            note(disk.remove("a2"));
            note(disk.sync("c"));
            note(disk.sync_folder());
            let names = disk.list().expect("names");
            let files: Vec<_> = ["a", "b", "c", "d"].map(|name| disk.read(name).expect("read")).into();
            (said, names, files)
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].1, ["a", "c"]);
        assert_eq!(answers[0].2[2].as_deref(), Some(b"shorter!".as_slice()));
        let mode = fs::metadata(dir.path().join("c")).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
