//! The disk in memory as the folder of a library.

use std::io::{self, Read, Write};

use osiris_fleet::{disk::Disk as _, sim::disk::SimDisk};
use osiris_runtime::{BlobDisk, BlobFile};

#[derive(Debug)]
pub(crate) struct SimFolder(pub(crate) SimDisk);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    name: String,
    at: usize,
}

fn read(disk: &SimDisk, name: &str) -> io::Result<Vec<u8>> {
    disk.read(name)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Read for SimFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = read(&self.disk, &self.name)?;
        let some = bytes[self.at..].len().min(buffer.len());
        buffer[..some].copy_from_slice(&bytes[self.at..][..some]);
        self.at += some;
        Ok(some)
    }
}

impl Write for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.append(&self.name, bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobFile for SimFile {
    fn sync(&self) -> io::Result<()> {
        self.disk.clone().sync(&self.name)
    }
}

impl SimFolder {
    fn file(&self, name: &str) -> Box<dyn BlobFile> {
        Box::new(SimFile { disk: self.0.clone(), name: name.to_owned(), at: 0 })
    }
}

impl BlobDisk for SimFolder {
    fn list(&self) -> io::Result<Vec<(String, Option<u64>)>> {
        let sized = |name: String| Ok((name.clone(), Some(read(&self.0, &name)?.len() as u64)));
        self.0.list()?.into_iter().map(sized).collect()
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read(&self.0, name)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn BlobFile>> {
        self.0.clone().write_new(name, b"")?;
        Ok(self.file(name))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn BlobFile>> {
        read(&self.0, name).map(|_| self.file(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.clone().rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        read(&self.0, name)?;
        self.0.clone().remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.0.clone().sync_folder()
    }
}
