//! The journal on disk: opened with recovery, appended to by one thread that groups its syncs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use osiris_ledger::{
    Block, FleetId,
    journal::{self, Damage, HeaderError, Kind},
};
use tokio::sync::mpsc;

use super::{error::DriverError, folder::write_durably};
use crate::{api::codes, node::Group};

/// Groups of blocks that wait to be written; more hold up the core.
const QUEUE: usize = 1_024;
/// Bytes written before a sync, where more groups wait.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovered {
    /// Entries in the order in which they were written.
    pub(crate) entries: Vec<Vec<u8>>,
    /// What follows the last whole record; cut off and kept beside.
    pub(crate) torn_tail: Option<Damage>,
    /// Changed since it was written; the damaged file was kept beside.
    pub(crate) damage: Vec<Damage>,
    /// Where the damaged file was kept.
    pub(crate) kept: Option<PathBuf>,
    /// Where the cut-off tail was kept.
    pub(crate) kept_tail: Option<PathBuf>,
}

impl Recovered {
    /// What people should know, in sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(tail) = self.torn_tail {
            warnings.push(format!(
                "The journal ended in {} bytes that are no whole record: a write that was cut short, or damage. \
                 They were cut off and kept{}; if something is missing, `osiris sync` fetches what other members hold.",
                tail.bytes,
                self.kept_tail.as_ref().map(|kept| format!(" in {}", kept.display())).unwrap_or_default()
            ));
        }
        if let (false, Some(kept)) = (self.damage.is_empty(), &self.kept) {
            let places: Vec<_> =
                self.damage.iter().map(|d| format!("{} bytes at {}", d.bytes, d.offset)).collect();
            warnings.push(format!(
                "The journal was damaged on disk ({}). What is whole was kept; the damaged file is {}. \
                 The missing blocks are fetched again from other members: check with `osiris sync`, then `osiris ledger verify`.",
                places.join(", "),
                kept.display()
            ));
        }
        warnings
    }
}

/// A journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Makes the journal of a fleet with its first entries, durably.
    pub(crate) fn create(path: &Path, fleet: &FleetId, entries: &[&[u8]]) -> Result<(), DriverError> {
        let mut bytes = journal::header(fleet);
        for entry in entries {
            bytes.extend(journal::record(Kind::Block, entry));
        }
        write_durably(path, &bytes)
            .map_err(|error| DriverError::io("The journal cannot be made at", path, &error))
    }

    /// Reads a journal without changing it.
    pub(crate) fn inspect(path: &Path) -> Result<(FleetId, Recovered), DriverError> {
        let bytes = read(path)?;
        let fail = |error: HeaderError| header_error(path, error);
        let fleet = journal::read_header(&bytes).map_err(fail)?;
        let scan = journal::scan(&bytes).map_err(fail)?;
        let entries = scan.records.iter().map(|(_, payload)| payload.to_vec()).collect();
        Ok((
            fleet,
            Recovered { entries, torn_tail: scan.torn_tail, damage: scan.damage, ..Recovered::default() },
        ))
    }

    /// Opens a journal for appending. A torn tail is cut off; a damaged file is kept beside and
    /// replaced by its whole records. Nothing is lost that was still there.
    pub(crate) fn open(path: &Path) -> Result<(Self, FleetId, Recovered), DriverError> {
        let (fleet, mut found) = Self::inspect(path)?;
        let fail = |error: io::Error| DriverError::io("The journal cannot be repaired at", path, &error);
        if !found.damage.is_empty() {
            let kept = free_name(path, "damaged");
            fs::hard_link(path, &kept).map_err(fail)?;
            let entries: Vec<_> = found.entries.iter().map(Vec::as_slice).collect();
            Self::create(path, &fleet, &entries)?;
            found.kept = Some(kept);
        }
        let open = OpenOptions::new().read(true).write(true).mode(0o600).open(path);
        let mut file =
            open.map_err(|error| DriverError::io("The journal cannot be opened at", path, &error))?;
        if let (Some(tail), true) = (found.torn_tail, found.damage.is_empty()) {
            let kept = free_name(path, "tail");
            let bytes = read(path)?;
            write_durably(&kept, bytes.get(tail.offset..).unwrap_or_default()).map_err(fail)?;
            found.kept_tail = Some(kept);
            file.set_len(tail.offset as u64).map_err(fail)?;
            file.sync_all().map_err(fail)?;
        }
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok((Self { file, path: path.to_owned() }, fleet, found))
    }

    /// Appends blocks and makes them durable.
    pub(crate) fn append(&mut self, blocks: &[Arc<Block>]) -> io::Result<()> {
        let bytes: Vec<u8> =
            blocks.iter().flat_map(|block| journal::record(Kind::Block, block.entry())).collect();
        self.file.write_all(&bytes)?;
        self.file.sync_data()
    }

    /// Starts the thread that writes. Each group is acknowledged by its number, in order, once it is
    /// durable; after the first failure nothing is written or acknowledged any more.
    pub(crate) fn spawn(self) -> (mpsc::Sender<Group>, mpsc::Receiver<Result<u64, String>>) {
        let (groups, from_core) = mpsc::channel(QUEUE);
        let (to_core, acknowledged) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("osiris-journal".to_owned())
            .spawn(move || self.write_groups(from_core, &to_core))
            .expect("a thread can be started while the node starts");
        (groups, acknowledged)
    }

    fn write_groups(mut self, mut groups: mpsc::Receiver<Group>, done: &mpsc::Sender<Result<u64, String>>) {
        while let Some(first) = groups.blocking_recv() {
            let mut last = first.number;
            let mut blocks = first.blocks;
            let mut bytes: usize = blocks.iter().map(|block| block.entry().len()).sum();
            while bytes < GROUP_BYTES_MAX {
                let Ok(group) = groups.try_recv() else { break };
                bytes += group.blocks.iter().map(|block| block.entry().len()).sum::<usize>();
                last = group.number;
                blocks.extend(group.blocks);
            }
            let outcome = self
                .append(&blocks)
                .map(|()| last)
                .map_err(|error| format!("writing {} failed: {error}", self.path.display()));
            let failed = outcome.is_err();
            if done.blocking_send(outcome).is_err() || failed {
                return;
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DriverError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DriverError::new(
            codes::NOT_FOUND,
            format!("There is no fleet in {}.", path.parent().unwrap_or(path).display()),
            "Found one with `osiris init`, or join one with `osiris join TICKET`.",
        )),
        Err(error) => Err(DriverError::io("The journal cannot be read from", path, &error)),
    }
}

fn header_error(path: &Path, error: HeaderError) -> DriverError {
    DriverError::new(
        codes::INTERNAL,
        format!("The journal {} cannot be used: {error}.", path.display()),
        "Restore the folder from a backup; or move the journal away and join again with a new ticket.",
    )
}

fn free_name(path: &Path, what: &str) -> PathBuf {
    let name = |n: u32| path.with_file_name(format!("journal.{what}-{n}"));
    (1..).map(name).find(|candidate| !candidate.exists()).unwrap_or_else(|| name(0))
}

#[cfg(test)]
impl Journal {
    /// A journal whose every write fails as on a full disk.
    pub(crate) fn on_a_full_disk() -> Self {
        let file = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        Self { file, path: PathBuf::from("/dev/full") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, payloads: &[&[u8]]) {
        Journal::create(path, &FleetId([9; 32]), payloads).expect("a journal");
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_reported_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        write(&path, &[b"one", b"two"]);
        let whole = fs::read(&path).expect("bytes");
        fs::write(&path, &whole[..whole.len() - 1]).expect("a torn write");
        let (_, _, found) = Journal::open(&path).expect("recovered");
        assert_eq!(found.entries, [b"one"]);
        assert_eq!(found.warnings().len(), 1);
        let kept = fs::read(found.kept_tail.expect("kept")).expect("the tail");
        assert!(
            whole.ends_with(&[kept.as_slice(), &whole[whole.len() - 1..]].concat()),
            "nothing is thrown away"
        );
        let (_, _, again) = Journal::open(&path).expect("clean");
        assert!(again.warnings().is_empty());
    }

    #[test]
    fn a_flipped_bit_is_reported_and_the_file_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        write(&path, &[b"one", b"two", b"three"]);
        let mut bytes = fs::read(&path).expect("bytes");
        let at = journal::HEADER_BYTES + 18;
        bytes[at] ^= 4;
        fs::write(&path, &bytes).expect("a damaged file");
        let (_, _, found) = Journal::open(&path).expect("recovered");
        assert_eq!(found.entries, [b"two".to_vec(), b"three".to_vec()]);
        let kept = found.kept.clone().expect("kept");
        assert_eq!(fs::read(kept).expect("the damaged file"), bytes);
        assert!(found.warnings()[0].contains("osiris ledger verify"));
        assert!(Journal::open(&path).expect("clean").2.warnings().is_empty());
    }
}
