//! Tar archives (POSIX ustar), which Docker's API takes files by: of few files, whose names are short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::exit::Failure;

const BLOCK: usize = 512;
/// Whose files are: user and group 65532, the nodes' own in a container, in octal digits.
const OWNER: &str = "0177774\0";
/// Longest name of a file in an archive, bytes.
const NAME_BYTES_MAX: usize = 100;
/// Largest archive of a program, bytes: it is held in memory.
const PROGRAM_BYTES_MAX: usize = 1 << 30;
/// Where the libraries of a program are, for which `LD_LIBRARY_PATH` has to be set.
pub(super) const LIBRARIES: &str = "lib";

#[derive(Default)]
pub(super) struct Archive(Vec<u8>);

impl Archive {
    /// A folder; its name ends with `/`.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, "0000755\0", "5", &[]);
    }

    /// A file that only its owner may read.
    pub(super) fn secret(&mut self, name: &str, content: &[u8]) {
        self.entry(name, "0000400\0", "0", content);
    }

    /// A file that everybody may read and run.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, "0000755\0", "0", content);
    }

    fn entry(&mut self, name: &str, mode: &str, kind: &str, content: &[u8]) {
        assert!(name.len() <= NAME_BYTES_MAX, "a name that an archive cannot hold: {name}");
        let mut head = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, mode);
        put(108, OWNER);
        put(116, OWNER);
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, kind);
        put(257, "ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&head);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    pub(super) fn done(mut self) -> Bytes {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0.into()
    }
}

/// A root file system for this program: itself as `osiris`, the libraries that it has mapped, what loads them, and the
/// folder `data`.
pub(super) fn of_this_program() -> Result<Bytes, Failure> {
    let read = |path: &Path| fs::read(path).map_err(|error| Failure::unread("file", path, &error));
    let program = read(&super::this_program()?)?;
    let mut archive = Archive::default();
    archive.folder("data/");
    if let Some(loader) = loader(&program) {
        archive.program(loader.trim_start_matches('/'), &read(Path::new(loader))?);
        for library in libraries()? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.program(&format!("{LIBRARIES}/{name}"), &read(&library)?);
        }
    }
    archive.program("osiris", &program);
    if archive.0.len() > PROGRAM_BYTES_MAX {
        return Err(Failure::failed("This program is too large for an image that is made here."));
    }
    Ok(archive.done())
}

/// The program that loads a dynamic one, which a static one does not name: the segment PT_INTERP of ELF64, little
/// endian (System V ABI, chapter 5).
fn loader(elf: &[u8]) -> Option<&str> {
    let number = |at: usize, bytes: usize| {
        let part = elf.get(at..at.checked_add(bytes)?)?;
        usize::try_from(part.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))).ok()
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (heads, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let heads = (0..count).map(|n| heads.saturating_add(n * size));
    let interpreter = heads.into_iter().find(|head| number(*head, 4) == Some(3))?;
    let (at, bytes) = (number(interpreter + 8, 8)?, number(interpreter + 32, 8)?);
    let name = elf.get(at..at.checked_add(bytes)?)?;
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
    (name.len() < NAME_BYTES_MAX).then_some(name)
}

/// The libraries that this process has mapped: proc_pid_maps(5).
fn libraries() -> Result<BTreeSet<PathBuf>, Failure> {
    let maps = Path::new("/proc/self/maps");
    let maps = fs::read_to_string(maps).map_err(|error| Failure::unread("file", maps, &error))?;
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    let is_library = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".so") && LIBRARIES.len() + 1 + name.len() <= NAME_BYTES_MAX
    };
    Ok(files.filter(is_library).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.tar");
        let mut archive = Archive::default();
        archive.folder("data/");
        archive.secret("ticket", b"osiris");
        archive.program("osiris", &[7; BLOCK]);
        fs::write(&file, archive.done()).expect("written");
        let listed = std::process::Command::new("tar").arg("-tvf").arg(&file).output().expect("tar");
        let said = String::from_utf8_lossy(&listed.stdout).into_owned();
        let lines: Vec<_> = said.lines().collect();
        assert!(listed.status.success() && lines.len() == 3, "{said}");
        for (line, (mode, name)) in
            lines.iter().zip([("drwxr-xr-x", "data/"), ("-r--------", "ticket"), ("-rwxr-xr-x", "osiris")])
        {
            assert!(line.starts_with(&format!("{mode} 65532/65532")) && line.ends_with(name), "{said}");
        }
    }

    #[test]
    fn a_loader_is_read_where_one_is_named() {
        let program = fs::read(std::env::current_exe().expect("this test")).expect("read");
        // These tests are built for the machine that runs them, with its libraries or without any.
        if let Some(loader) = loader(&program) {
            assert!(Path::new(loader).is_file(), "{loader}");
            assert!(!libraries().expect("maps").is_empty());
        }
        for cut in [0, 4, 40, 64, 100] {
            assert_eq!(loader(&program[..cut]), None, "{cut} bytes");
        }
        assert_eq!(loader(b"#!/bin/sh"), None);
    }
}
