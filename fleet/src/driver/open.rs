//! Opening a data folder as a node: key, journal, ledger, library.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
    time::Instant,
};

use osiris_ledger::{BlobHash, Ledger, Mono, Now, Page, WallMs, Writer, limits};
use osiris_runtime::{ComponentHash, Library, LibraryError};

use super::{
    disk::FolderDisk,
    error::DriverError,
    folder::{Folder, fresh_session},
    inspect::{Mend, blocks::Waiting, journal_problems},
    limits::LIBRARY_QUOTA_BYTES,
    store::{Journal, store_error},
};
use crate::{
    api::{Problem, codes},
    store::{self, Recovered, StoreError},
};

/// Both clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now { mono: Mono(mono), wall: WallMs(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// The moment on tokio's clock.
    pub(crate) fn instant(&self, mono: Mono) -> tokio::time::Instant {
        (self.start + std::time::Duration::from_millis(mono.0)).into()
    }

    /// How long this machine was suspended since its boot: what CLOCK_BOOTTIME counts and CLOCK_MONOTONIC, by which
    /// [`Clock::now`] goes, does not. Zero where the system does not tell.
    #[cfg(target_os = "linux")]
    pub(crate) fn asleep() -> std::time::Duration {
        use rustix::time::{ClockId, Timespec, clock_gettime};
        let since = |clock| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
            let seconds = u64::try_from(tv_sec).unwrap_or_default();
            std::time::Duration::new(seconds, u32::try_from(tv_nsec).unwrap_or_default())
        };
        // In this order what passes between the two looks is never taken for sleep.
        let boot = since(ClockId::Boottime);
        boot.saturating_sub(since(ClockId::Monotonic))
    }

    /// As above: not told here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn asleep() -> std::time::Duration {
        std::time::Duration::ZERO
    }

    pub(crate) fn uptime(&self) -> std::time::Duration {
        self.start.elapsed()
    }
}

/// A data folder, locked and replayed.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) folder: Folder,
    /// None where the folder is only read.
    pub(crate) journal: Option<Journal>,
    pub(crate) ledger: Ledger,
    pub(crate) writer: Writer,
    pub(crate) library: Library,
    /// What people should know of the journal's recovery.
    pub(crate) warnings: Vec<String>,
    /// What is wrong with the journal, where the folder is only read and so nothing was repaired.
    pub(crate) problems: Vec<String>,
    /// Whether the journal lacks blocks that it held, or lost its end, now or at an earlier start, and nobody has said
    /// that this is settled.
    pub(crate) lacks: bool,
    /// Its blocks that wait for those.
    pub(crate) waiting: Waiting,
}

impl Opened {
    /// Opens an initialised folder.
    pub(crate) fn open(data: &Path) -> Result<Self, DriverError> {
        let folder = Folder::open(data)?;
        let (journal, mut found) = Journal::open(folder.path())?;
        let library = open_library(&folder)?;
        let mut opened = Self::replayed(folder, Some(journal), &mut found, library)?;
        let told = found.warnings(opened.folder.path());
        opened.warnings.splice(0..0, told);
        Ok(opened)
    }

    /// Opens an initialised folder to read it: nothing in it is changed, repaired or made.
    pub(crate) fn look(data: &Path) -> Result<Self, DriverError> {
        let folder = Folder::open_to_look(data)?;
        let unusable = |error| store_error(data, &error);
        let mut survey = store::survey(&FolderDisk::new(data)).map_err(unusable)?;
        if let Some(head) = survey.other_fleet {
            return Err(unusable(StoreError::OtherFleet { journal: survey.found.fleet, head }));
        }
        let library = Library::open_to_look(folder.library(), LIBRARY_QUOTA_BYTES).map_err(library_error)?;
        let mut opened = Self::replayed(folder, None, &mut survey.found, library)?;
        let mend = Mend::new(
            &opened.ledger.views().load(),
            Some(opened.writer.author()),
            opened.ledger.is_founded(),
            &opened.folder.peers(),
        );
        // Of a folder that is read without its lock, the end may be under way.
        let written = opened.folder.is_unwritable();
        let problems = journal_problems(&survey, mend, written);
        opened.problems = problems.iter().map(Problem::sentences).collect();
        if opened.folder.is_unwritable() {
            opened.warnings.push(format!(
                "Nothing can be written to the data folder {}: it is read as it is, and nothing in it is repaired or handed on.",
                data.display()
            ));
        }
        Ok(opened)
    }

    /// Takes the entries out of what was found.
    fn replayed(
        folder: Folder,
        journal: Option<Journal>,
        found: &mut Recovered,
        library: Library,
    ) -> Result<Self, DriverError> {
        let key = folder.device_key()?;
        let mut warnings = Vec::new();
        let mut ledger = Ledger::new(found.fleet);
        // Before the blocks, which name what they list.
        let unread = offer_pages(&mut ledger, &folder.library(), &found.pages);
        let brought =
            |page: &UnreadPage| format!("{page} `osiris sync` brings back what other members hold.");
        warnings.extend(unread.iter().map(brought));
        let replayed = ledger.replay_journal(std::mem::take(&mut found.entries));
        warnings.extend(replayed.refused.iter().map(|reject| {
            format!("The journal holds a block that this build refuses ({reject}); `osiris ledger verify` says more.")
        }));
        ledger.take_offered();
        let view = ledger.publish();
        let waiting = Waiting { blocks: replayed.early }.left(&ledger);
        if !waiting.is_empty() {
            warnings.push(format!(
                "{} They are kept, and count again once what they follow is here.",
                waiting.sentence(&view)
            ));
        }
        // A journal holds each block behind all it names; where one waits, something was lost before.
        let damaged = !found.damage.is_empty() || ledger.early().0 > 0 || !unread.is_empty();
        let lacks = damaged || found.lost_end.is_some() || Folder::kept_damage(folder.path());
        let writer = Writer::new(key, fresh_session()?);
        let problems = Vec::new();
        Ok(Self { folder, journal, ledger, writer, library, warnings, problems, lacks, waiting })
    }

    /// The same, for all but a join under way: without the fleet's first block nothing can be judged.
    pub(crate) fn open_founded(data: &Path) -> Result<Self, DriverError> {
        Self::open(data)?.founded()
    }

    /// Refused where the fleet's first block is not here.
    pub(crate) fn founded(self) -> Result<Self, DriverError> {
        let opened = self;
        if opened.ledger.is_founded() {
            return Ok(opened);
        }
        let mut message = format!(
            "The journal in {} lacks the fleet's first block, so nothing in it can be judged.",
            opened.folder.path().display()
        );
        for warning in &opened.warnings {
            message.push(' ');
            message.push_str(warning);
        }
        Err(DriverError::new(
            codes::INTERNAL,
            message,
            "If a join was interrupted, run it again. Else restore the folder from a backup, or move the journal away and join again with a new ticket.",
        ))
    }
}

/// A page by which blocks should be here, and whose bytes are not.
#[derive(Debug, thiserror::Error)]
#[error("The page {} cannot be used ({why}), so blocks that are here by it alone are missing.", hash.short())]
pub(super) struct UnreadPage {
    pub(super) hash: BlobHash,
    pub(super) why: String,
}

/// Offers a ledger the pages that a journal names, from a library's folder. Returns those that cannot be read.
pub(super) fn offer_pages(ledger: &mut Ledger, library: &Path, pages: &[BlobHash]) -> Vec<UnreadPage> {
    let read = |hash: &BlobHash| {
        let path = Library::path_in(library, ComponentHash(hash.0));
        let bytes = read_page(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "its file is missing".to_owned(),
            _ => error.to_string(),
        })?;
        let page = Page::decode(&ledger.fleet(), &bytes).map_err(|error| error.to_string())?;
        if page.hash() == *hash { Ok(Arc::new(page)) } else { Err("its bytes were changed".to_owned()) }
    };
    let read: Vec<_> = pages.iter().map(|hash| (*hash, read(hash))).collect();
    let mut unread = Vec::new();
    for (hash, page) in read {
        match page {
            Ok(page) => ledger.offer(&page),
            Err(why) => unread.push(UnreadPage { hash, why }),
        }
    }
    unread
}

/// At most one byte more than a page may have: then it is none.
fn read_page(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if !std::fs::metadata(path)?.is_file() {
        // A pipe would wait for its other end.
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)?.take(limits::PAGE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn open_library(folder: &Folder) -> Result<Library, DriverError> {
    Library::open(folder.library(), LIBRARY_QUOTA_BYTES).map_err(library_error)
}

fn library_error(error: LibraryError) -> DriverError {
    let next = match error {
        LibraryError::DiskFull { .. } => "Free some space on that disk and try again.",
        _ => "Check the data folder's disk and permissions.",
    };
    DriverError::new(codes::STORAGE, error.to_string(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_agree_with_the_runtime() {
        let clock = Clock::start();
        let now = clock.now();
        assert!(clock.instant(now.mono) <= tokio::time::Instant::now());
        assert!(now.wall.0 > 1_500_000_000_000);
    }
}
