//! The journal of a data folder, and the thread that writes it and groups its syncs.

use std::{
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use osiris_ledger::FleetId;
use tokio::sync::mpsc;

use super::{disk::FolderDisk, error::DriverError};
use crate::{
    api::codes,
    disk::Disk,
    node::Group,
    store::{self, HEAD, JOURNAL, Recovered, Store, StoreError},
};

/// Groups of blocks that wait to be written; more hold up the core.
const QUEUE: usize = 1_024;
/// Bytes written before a sync, where more groups wait.
const GROUP_BYTES_MAX: usize = 1 << 20;

type AnyDisk = Box<dyn Disk + Send>;

/// A journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    store: Store<AnyDisk>,
    path: PathBuf,
}

impl Journal {
    /// Makes the journal of a fleet with its first entries, durably.
    ///
    /// # Errors
    /// [`DriverError`], with what to do about it.
    pub fn create(folder: &Path, fleet: &FleetId, entries: &[&[u8]]) -> Result<(), DriverError> {
        let made = Store::create(FolderDisk::new(folder), fleet, entries);
        made.map(|_| ()).map_err(|error| store_error(folder, &error))
    }

    /// Removes a journal that nothing was written to.
    pub(crate) fn remove(folder: &Path) -> Result<(), DriverError> {
        let mut disk = FolderDisk::new(folder);
        disk.remove(HEAD).and_then(|()| disk.remove(JOURNAL)).map_err(|error| {
            DriverError::io("The unused journal cannot be removed:", &folder.join(JOURNAL), &error)
        })
    }

    /// Reads a journal without changing it.
    pub(crate) fn inspect(folder: &Path) -> Result<Recovered, DriverError> {
        store::inspect(&FolderDisk::new(folder)).map_err(|error| store_error(folder, &error))
    }

    /// Opens a journal for appending, repairing it where that is needed.
    ///
    /// # Errors
    /// [`DriverError`], with what to do about it.
    pub fn open(folder: &Path) -> Result<(Self, Recovered), DriverError> {
        Self::open_on(Box::new(FolderDisk::new(folder)), folder)
    }

    /// The same on any disk; the folder is for sentences.
    pub(crate) fn open_on(disk: AnyDisk, folder: &Path) -> Result<(Self, Recovered), DriverError> {
        let (store, found) = Store::open(disk).map_err(|error| store_error(folder, &error))?;
        Ok((Self { store, path: folder.join(JOURNAL) }, found))
    }

    /// Starts the thread that writes. Each group is acknowledged by its number, in order, once it is
    /// durable; after the first failure nothing is written or acknowledged any more.
    ///
    /// # Panics
    /// If the system starts no thread.
    pub fn spawn(self) -> JournalThread {
        let (groups, from_core) = mpsc::channel(QUEUE);
        let (to_core, acknowledged) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("osiris-journal".to_owned())
            .spawn(move || self.write_groups(from_core, &to_core))
            .expect("a thread can be started while the node starts");
        JournalThread { groups, acknowledged, thread: Some(thread) }
    }

    fn write_groups(mut self, mut groups: mpsc::Receiver<Group>, done: &mpsc::Sender<Result<u64, String>>) {
        let mut next = None;
        while let Some(first) = next.take().or_else(|| groups.blocking_recv()) {
            let mut last = first.number;
            let (anew, mut blocks, mut pages) = (first.anew, first.blocks, first.pages);
            let mut bytes: usize = blocks.iter().map(|block| block.entry().len()).sum();
            // A journal that is written anew holds what it is given, and nothing that comes behind.
            while !anew && bytes < GROUP_BYTES_MAX {
                let Ok(group) = groups.try_recv() else { break };
                if group.anew {
                    next = Some(group);
                    break;
                }
                bytes += group.blocks.iter().map(|block| block.entry().len()).sum::<usize>();
                last = group.number;
                blocks.extend(group.blocks);
                pages.extend(group.pages);
            }
            let entries = blocks.iter().map(|block| block.entry());
            let written = match anew {
                true => self.store.rewrite(&pages, entries),
                false => self.store.append_with(&pages, entries),
            };
            let failed = written.is_err();
            let outcome = written
                .map(|()| last)
                .map_err(|error| format!("writing {} failed: {error}", self.path.display()));
            if done.blocking_send(outcome).is_err() || failed {
                break;
            }
        }
        if let Err(error) = self.store.close() {
            tracing::warn!(%error, "how far the journal goes was not made durable");
        }
    }
}

/// The thread that writes a journal. Dropped, it has ended, and the journal is closed.
#[derive(Debug)]
pub struct JournalThread {
    /// Takes groups.
    pub groups: mpsc::Sender<Group>,
    /// Gives the number of each durable group, or why there are no more.
    pub acknowledged: mpsc::Receiver<Result<u64, String>>,
    thread: Option<JoinHandle<()>>,
}

impl JournalThread {
    /// One that takes nothing: for a folder that is only read.
    #[must_use]
    pub fn none() -> Self {
        Self { groups: mpsc::channel(1).0, acknowledged: mpsc::channel(1).1, thread: None }
    }
}

impl Drop for JournalThread {
    fn drop(&mut self) {
        self.groups = mpsc::channel(1).0;
        self.acknowledged.close();
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do but the write under way. A panic of it was reported by itself.
            let _ = thread.join();
        }
    }
}

pub(crate) fn store_error(folder: &Path, error: &StoreError) -> DriverError {
    let path = folder.join(JOURNAL);
    let unusable = format!("The journal {} cannot be used: {error}.", path.display());
    match error {
        StoreError::Missing { known: None } => DriverError::new(
            codes::NOT_FOUND,
            format!("There is no fleet in {}.", folder.display()),
            "Found one with `osiris init`, or join one with `osiris join TICKET`.",
        ),
        StoreError::Missing { known: Some(head) } => DriverError::new(
            codes::INTERNAL,
            format!(
                "The journal {} is missing, though {} says that it held {} record(s).",
                path.display(),
                folder.join(HEAD).display(),
                head.number
            ),
            "Restore the folder from a backup; or join again with a new ticket: `osiris join TICKET`.",
        ),
        StoreError::Header(osiris_ledger::journal::HeaderError::Old) => DriverError::new(
            codes::INTERNAL,
            unusable,
            "Use the build that wrote it; or found a new fleet, or join one, in another folder with `--data DIR`.",
        ),
        StoreError::OtherFleet { .. } => DriverError::new(
            codes::INTERNAL,
            unusable,
            "Put back the folder's own journal; if it was exchanged on purpose, remove `journal.head`.",
        ),
        StoreError::Header(osiris_ledger::journal::HeaderError::Newer(_)) => DriverError::new(
            codes::INTERNAL,
            unusable,
            "Use the build that wrote it. If no newer build was ever used here, byte 7 of the file is damaged: it has to be `2`.",
        ),
        StoreError::Read(error) => {
            // Either of two files was read.
            let head = FolderDisk::new(folder).read(HEAD).is_err();
            let path = if head { folder.join(HEAD) } else { path };
            DriverError::io("The journal cannot be read from", &path, error)
        }
        StoreError::Write(error) => DriverError::io("The journal cannot be written to", &path, error),
        _ => DriverError::new(
            codes::INTERNAL,
            unusable,
            "Restore the folder from a backup; or move the journal away and join again with a new ticket.",
        ),
    }
}
