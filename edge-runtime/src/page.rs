//! The load page: what this device does at a moment, in memory that every process on it may map.
//!
//! One node writes it, any number of processes read it, and nobody waits: a reader that catches the writer in
//! the middle looks again (a sequence lock: Lameter 2005, "Effective synchronization on Linux/NUMA systems").
//!
//! ```text
//! 512 words of 64 bits in the machine's byte order:
//!   0 magic "OSIRISP1"   1 sequence, odd while it is being written   2 the writer's process id
//!   3 milliseconds since the machine started (CLOCK_BOOTTIME) of the last write   4.. the figures
//! ```
//!
//! The file belongs on a file system in memory: written every few seconds, it would wear out flash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags};
use serde::{Deserialize, Serialize};

use crate::files;

/// Bytes of the page.
pub(crate) const PAGE_BYTES: usize = 4_096;
/// Functions that the page has room for; the busiest are there.
pub const PAGE_FUNCTIONS_MAX: usize = 32;
/// Bytes of a function's name on the page.
const NAME_BYTES: usize = 64;
/// Times that a reader looks again before it gives up: the writer died in the middle.
const LOOKS_MAX: u32 = 1_000;

const WORDS: usize = PAGE_BYTES / 8;
const MAGIC: u64 = u64::from_ne_bytes(*b"OSIRISP1");
const SEQUENCE: usize = 1;
const PID: usize = 2;
const WRITTEN: usize = 3;
const FIGURES: usize = 4;
const HEAD_WORDS: usize = 24;
const FUNCTION_WORDS: usize = NAME_BYTES / 8 + 4;
const FIGURE_WORDS: usize = HEAD_WORDS + PAGE_FUNCTIONS_MAX * FUNCTION_WORDS;
const _: () = assert!(FIGURES + FIGURE_WORDS <= WORDS);

/// What a device does, as its node published it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Use of all cores, parts of a thousand; mean of the window.
    pub cpu_permille: u64,
    /// The same at the last sample.
    pub cpu_now_permille: u64,
    /// Cores.
    pub cores: u64,
    /// Memory in use, bytes.
    pub memory_used: u64,
    /// Memory there is, bytes.
    pub memory_total: u64,
    /// Runnable tasks, thousandths, mean of a minute.
    pub load1_milli: u64,
    /// Bytes in use on the disk of the data folder.
    pub disk_used: u64,
    /// Bytes of that disk.
    pub disk_total: u64,
    /// Bytes received a second, mean of the window.
    pub network_rx_per_s: u64,
    /// Bytes sent a second, mean of the window.
    pub network_tx_per_s: u64,
    /// The hottest sensor, thousandths of a degree Celsius; 0 where there is none.
    pub temperature_milli: u64,
    /// Resident memory of the node, bytes.
    pub node_memory: u64,
    /// Use of one core by the node, parts of a thousand; mean of the window.
    pub node_cpu_permille: u64,
    /// Length of the window in milliseconds; it grows from the node's start.
    pub window_ms: u64,
    /// Invocations accepted and not started, of all functions.
    pub backlog: u64,
    /// Invocations that run.
    pub in_flight: u64,
    /// The busiest functions, by name.
    pub functions: Vec<FunctionLoad>,
}

/// What one function does on this device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionLoad {
    /// Its name; at most 63 bytes.
    pub name: String,
    /// Invocations accepted and not started.
    pub backlog: u64,
    /// Invocations that run.
    pub in_flight: u64,
    /// Invocations that ended with a result since the node started.
    pub done: u64,
    /// Invocations that ended with an error since the node started.
    pub failed: u64,
}

/// A load as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The figures.
    pub load: Load,
    /// How long ago they were written, milliseconds.
    pub age_ms: u64,
    /// The process that wrote them.
    pub pid: u64,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The page could not be opened or mapped.
    #[error("the load page {path} cannot be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is none, or another user's.
    #[error("{path} is not a load page of this user's node")]
    NotAPage {
        /// The file.
        path: PathBuf,
    },
    /// The writer ended while it wrote.
    #[error("the node stopped while it wrote its load page; start it again")]
    Torn,
}

/// The one writer of a page. The file is removed when it is dropped.
#[derive(Debug)]
pub struct PageWriter {
    path: PathBuf,
    page: Mapping,
}

impl PageWriter {
    /// Makes the page, for this user alone. A page that an earlier process left is replaced; its readers keep the
    /// old one, which says how old it is.
    ///
    /// # Errors
    /// Where the folder cannot be made or entered by this user alone, or the file cannot be made or mapped.
    pub fn create(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        files::create_private_dir(folder)?;
        let found = fs::symlink_metadata(folder)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0
        {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the folder is not this user's alone",
            ));
        }
        let stem = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (temporary, file) = files::create_temp(folder, &stem)?;
        let made: io::Result<Mapping> = (|| {
            file.set_len(PAGE_BYTES as u64)?;
            // A mapping that is written to needs a file that is open for both.
            let file = OpenOptions::new().read(true).write(true).open(&temporary)?;
            let page = Mapping::new(&file, ProtFlags::READ | ProtFlags::WRITE)?;
            page.words()[0].store(MAGIC, Ordering::Relaxed);
            page.words()[PID].store(u64::from(std::process::id()), Ordering::Relaxed);
            fs::rename(&temporary, path)?;
            Ok(page)
        })();
        if made.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        Ok(Self { path: path.to_owned(), page: made? })
    }

    /// Publishes a load.
    pub fn write(&mut self, load: &Load) {
        let mut figures = [0; FIGURE_WORDS];
        encode(load, &mut figures);
        let words = self.page.words();
        let sequence = words[SEQUENCE].load(Ordering::Relaxed);
        words[SEQUENCE].store(sequence | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        words[WRITTEN].store(since_boot_ms(), Ordering::Relaxed);
        for (word, figure) in words[FIGURES..].iter().zip(figures) {
            word.store(figure, Ordering::Relaxed);
        }
        words[SEQUENCE].store((sequence | 1).wrapping_add(1), Ordering::Release);
    }
}

impl Drop for PageWriter {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A reader of a page.
#[derive(Debug)]
pub struct PageReader {
    page: Mapping,
}

impl PageReader {
    /// Maps a page read-only.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn open(path: &Path) -> Result<Self, PageError> {
        let failed = |source| PageError::Io { path: path.to_owned(), source };
        let no_page = || PageError::NotAPage { path: path.to_owned() };
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(nofollow).open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let mine = found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_file() || !mine || found.len() != PAGE_BYTES as u64 {
            return Err(no_page());
        }
        let page = Mapping::new(&file, ProtFlags::READ).map_err(failed)?;
        if page.words()[0].load(Ordering::Relaxed) != MAGIC {
            return Err(no_page());
        }
        Ok(Self { page })
    }

    /// The load as it is now. Asks nobody and waits for nobody.
    ///
    /// # Errors
    /// [`PageError::Torn`] where the writer ended in the middle of a write.
    pub fn read(&self) -> Result<Reading, PageError> {
        let words = self.page.words();
        for look in 0..LOOKS_MAX {
            let before = words[SEQUENCE].load(Ordering::Acquire);
            let written = words[WRITTEN].load(Ordering::Relaxed);
            let mut figures = [0; FIGURE_WORDS];
            for (figure, word) in figures.iter_mut().zip(&words[FIGURES..]) {
                *figure = word.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && words[SEQUENCE].load(Ordering::Relaxed) == before {
                let pid = words[PID].load(Ordering::Relaxed);
                let age_ms = since_boot_ms().saturating_sub(written);
                return Ok(Reading { load: decode(&figures), age_ms, pid });
            }
            if look > 10 {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Err(PageError::Torn)
    }
}

fn encode(load: &Load, words: &mut [u64; FIGURE_WORDS]) {
    let functions = &load.functions[..load.functions.len().min(PAGE_FUNCTIONS_MAX)];
    let head = [
        load.cpu_permille,
        load.cpu_now_permille,
        load.cores,
        load.memory_used,
        load.memory_total,
        load.load1_milli,
        load.disk_used,
        load.disk_total,
        load.network_rx_per_s,
        load.network_tx_per_s,
        load.temperature_milli,
        load.node_memory,
        load.node_cpu_permille,
        load.window_ms,
        load.backlog,
        load.in_flight,
        functions.len() as u64,
    ];
    words[..head.len()].copy_from_slice(&head);
    for (function, words) in functions.iter().zip(words[HEAD_WORDS..].chunks_exact_mut(FUNCTION_WORDS)) {
        let mut name = [0; NAME_BYTES];
        let len = function.name.len().min(NAME_BYTES - 1);
        name[..len].copy_from_slice(&function.name.as_bytes()[..len]);
        for (word, bytes) in words.iter_mut().zip(name.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let figures = [function.backlog, function.in_flight, function.done, function.failed];
        words[NAME_BYTES / 8..].copy_from_slice(&figures);
    }
}

fn decode(words: &[u64; FIGURE_WORDS]) -> Load {
    let count = usize::try_from(words[16]).unwrap_or(0).min(PAGE_FUNCTIONS_MAX);
    let functions = words[HEAD_WORDS..].chunks_exact(FUNCTION_WORDS).take(count).map(|words| {
        let (name, figures) = words.split_at(NAME_BYTES / 8);
        let name: Vec<u8> = name.iter().flat_map(|word| word.to_ne_bytes()).take_while(|b| *b != 0).collect();
        FunctionLoad {
            name: String::from_utf8_lossy(&name).into_owned(),
            backlog: figures[0],
            in_flight: figures[1],
            done: figures[2],
            failed: figures[3],
        }
    });
    Load {
        cpu_permille: words[0],
        cpu_now_permille: words[1],
        cores: words[2],
        memory_used: words[3],
        memory_total: words[4],
        load1_milli: words[5],
        disk_used: words[6],
        disk_total: words[7],
        network_rx_per_s: words[8],
        network_tx_per_s: words[9],
        temperature_milli: words[10],
        node_memory: words[11],
        node_cpu_permille: words[12],
        window_ms: words[13],
        backlog: words[14],
        in_flight: words[15],
        functions: functions.collect(),
    }
}

/// A clock that runs on while the machine sleeps, the same in every process of it.
fn since_boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// A page of shared memory.
#[derive(Debug)]
struct Mapping {
    start: std::ptr::NonNull<AtomicU64>,
}

#[allow(unsafe_code, reason = "mapping memory is unsafe by nature; the arguments are written below")]
mod mapping {
    use super::{AtomicU64, File, MapFlags, Mapping, PAGE_BYTES, ProtFlags, WORDS, io};

    // SAFETY: the words are atomics, and the mapping is the value's alone until it is dropped.
    unsafe impl Send for Mapping {}
    // SAFETY: as above; all access through a shared reference is by atomic operations.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        /// Maps a file of at least a page's length, which the caller has checked.
        pub(super) fn new(file: &File, protection: ProtFlags) -> io::Result<Self> {
            // SAFETY: the kernel chooses the place, so no memory of this process is replaced. The file is
            // private to this user (its folder may be entered by it alone) and has its full length from before it
            // gets its name; nothing of ours ever shortens it, so no access faults.
            let start = unsafe {
                rustix::mm::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, MapFlags::SHARED, file, 0)?
            };
            let start = std::ptr::NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self { start })
        }

        /// The words. Other processes change them at any time, so they are only ever reached as atomics; a page
        /// that is mapped read-only is never stored to, because only its writer calls a store.
        pub(super) fn words(&self) -> &[AtomicU64] {
            // SAFETY: the mapping has this length, is aligned to a page, lives as long as `self`, and any bits
            // are a valid word.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), WORDS) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: mapped by `new` with this length, and no reference into it outlives `self`.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), PAGE_BYTES) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn load(n: u64) -> Load {
        let function = |i: u64| FunctionLoad {
            name: format!("f{i}-{}", "x".repeat(50)),
            backlog: n + i,
            in_flight: n,
            done: 2 * n,
            failed: n / 2,
        };
        Load {
            cpu_permille: n,
            memory_used: n + 1,
            window_ms: n,
            in_flight: n,
            functions: (0..n % 40).map(function).collect(),
            ..Load::default()
        }
    }

    fn as_read(mut load: Load) -> Load {
        load.functions.truncate(PAGE_FUNCTIONS_MAX);
        load
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("private/a.load");
        let mut writer = PageWriter::create(&path).expect("made");
        let reader = PageReader::open(&path).expect("opened");
        for n in [0, 7, 39] {
            writer.write(&load(n));
            let reading = reader.read().expect("whole");
            assert_eq!(reading.load, as_read(load(n)));
            assert_eq!(reading.pid, u64::from(std::process::id()));
        }
        drop(writer);
        assert!(matches!(PageReader::open(&path), Err(PageError::Io { .. })), "removed with its writer");
        assert_eq!(reader.read().expect("still mapped").load, as_read(load(39)));
    }

    #[test]
    fn a_reader_never_sees_half_a_write() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("private/a.load");
        let mut writer = PageWriter::create(&path).expect("made");
        writer.write(&load(1));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let reader = PageReader::open(&path).expect("opened");
                let mut seen = std::collections::BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let read = reader.read().expect("whole").load;
                    assert_eq!(read, as_read(load(read.cpu_permille)));
                    seen.insert(read.cpu_permille);
                }
                seen.len()
            });
            for n in (0..40).cycle().take(200_000) {
                writer.write(&load(n));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(reader.join().expect("no torn reading") > 1, "the reader read while it was written");
        });
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x");
        fs::write(&path, vec![7; PAGE_BYTES]).expect("written");
        assert!(matches!(PageReader::open(&path), Err(PageError::NotAPage { .. })));
        fs::write(&path, b"short").expect("written");
        assert!(matches!(PageReader::open(&path), Err(PageError::NotAPage { .. })));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        assert!(matches!(PageReader::open(&link), Err(PageError::Io { .. })));
    }

    #[test]
    fn a_writer_that_died_in_the_middle_is_told_and_a_new_one_begins_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("private/a.load");
        let writer = PageWriter::create(&path).expect("made");
        writer.page.words()[SEQUENCE].store(3, Ordering::Relaxed);
        let reader = PageReader::open(&path).expect("opened");
        assert!(matches!(reader.read(), Err(PageError::Torn)));
        let mut next = PageWriter::create(&path).expect("made anew");
        next.write(&load(5));
        assert_eq!(PageReader::open(&path).expect("opened").read().expect("whole").load, load(5));
        std::mem::forget(writer);
    }
}
