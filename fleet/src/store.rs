//! The journal in a folder: opened with recovery, appended to in groups, each durable before it is
//! acknowledged. Blocking, and pure but for its [`Disk`].
//!
//! ```text
//! journal                 header and records (osiris_ledger::journal)
//! journal.head            how far the journal went, written behind each group and not waited for
//! journal.damaged-N       a journal that was damaged, as it was found
//! journal.tail-N          what was cut off behind the last whole record
//! journal.cut-N           a note that acknowledged records were missing at the end
//! journal….part           being written; worthless after a crash
//! ```

use std::{cmp::Ordering, fmt, io, path::Path};

use osiris_ledger::{
    BlobHash, FleetId,
    journal::{self, Damage, HEAD_BYTES, Head, Header, HeaderError, Kind, Scan},
};

use crate::disk::{Disk, PART, replace};

mod survey;

pub use survey::{Place, Survey, survey};
use survey::{is_mended, mended};

/// The journal's name.
pub const JOURNAL: &str = "journal";
/// The name of the file that says how far the journal went.
pub const HEAD: &str = "journal.head";
/// Bytes of the head file at which it is begun anew.
pub const HEAD_FILE_BYTES_MAX: u64 = 64 << 10;
/// What the names of files begin with that recovery keeps for people.
pub const KEPT: [&str; 3] = ["journal.damaged-", KEPT_TAIL, "journal.cut-"];
/// The one of them for what followed the last whole record.
pub const KEPT_TAIL: &str = "journal.tail-";

/// Why a journal cannot be opened or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no journal. `known` is what the head file says of it, where there is one.
    #[error("there is no journal")]
    Missing {
        /// Its last record.
        known: Option<Head>,
    },
    /// The file is no journal that this build can read.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// The journal and the head file are of different fleets.
    #[error("it is of the fleet {}, but the folder belonged to the fleet {}", journal.short(), head.short())]
    OtherFleet {
        /// The journal's.
        journal: FleetId,
        /// The head file's.
        head: FleetId,
    },
    /// The disk failed while it was read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The disk failed while a journal was made or repaired.
    #[error("it cannot be written: {0}")]
    Write(#[source] io::Error),
}

/// The store takes no more writes: one failed, so nothing is known of what it wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Poisoned {
    /// The first failure.
    pub reason: String,
}

/// Acknowledged records that a journal no longer holds at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostEnd {
    /// The last record that was known to be durable.
    pub known: Head,
    /// The last record that was found.
    pub found: Head,
    /// Whether what was found is a part of that journal, or another one.
    pub same: bool,
}

/// What a journal holds, and what was found when it was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The fleet.
    pub fleet: FleetId,
    /// Entries in the order in which they were written.
    pub entries: Vec<Vec<u8>>,
    /// Pages by which further blocks are here.
    pub pages: Vec<BlobHash>,
    /// What follows the last whole record.
    pub torn_tail: Option<Damage>,
    /// Changed since it was written.
    pub damage: Vec<Damage>,
    /// Acknowledged records are missing at the end.
    pub lost_end: Option<LostEnd>,
    /// There is a head file, and nothing in it checks.
    pub head_damaged: bool,
    /// The name of the damaged journal, kept.
    pub kept: Option<String>,
    /// The name of the tail, cut off and kept.
    pub kept_tail: Option<String>,
    /// The name of the note about the lost end.
    pub kept_cut: Option<String>,
}

/// What both files of a journal hold.
struct Files<'a> {
    scan: Scan<'a>,
    /// The last record that is known to have been durable.
    known: Option<Head>,
    /// The same, of a later generation of the journal than the one that is here.
    later: Option<Head>,
    head_damaged: bool,
}

impl<'a> Files<'a> {
    fn read(journal: Option<&'a [u8]>, head: Option<&[u8]>) -> Result<Self, StoreError> {
        let named = head.and_then(journal::read_head_file);
        let bytes = journal.ok_or(StoreError::Missing { known: named.map(|(_, head)| head) })?;
        let header = journal::read_header(bytes)?;
        let of = |generation: Ordering| {
            named.filter(|(of, _)| of.generation.cmp(&header.generation) == generation).map(|(_, head)| head)
        };
        let known = of(Ordering::Equal);
        let scan = journal::scan(bytes, known.as_ref())?;
        if let Some((head, _)) = named.filter(|(head, _)| head.fleet != header.fleet) {
            return Err(StoreError::OtherFleet { journal: header.fleet, head: head.fleet });
        }
        Ok(Self {
            scan,
            known,
            later: of(Ordering::Greater),
            head_damaged: head.is_some() && named.is_none(),
        })
    }

    fn lost_end(&self) -> Option<LostEnd> {
        let found = self.scan.head();
        if let Some(known) = self.later {
            return Some(LostEnd { known, found, same: false });
        }
        let known = self.known.filter(|known| !self.scan.holds(known))?;
        let shorter = found.number < known.number;
        // Where the named record is a hole in the middle, that is said as damage.
        (shorter || self.scan.damage.is_empty()).then_some(LostEnd { known, found, same: shorter })
    }

    fn recovered(&self, header_damaged: bool) -> Recovered {
        let header = Damage { offset: 0, bytes: journal::HEADER_BYTES, records: 0 };
        let header = header_damaged.then_some(header);
        Recovered {
            fleet: self.scan.header.fleet,
            entries: of_kind(&self.scan, Kind::Block).map(<[u8]>::to_vec).collect(),
            pages: of_kind(&self.scan, Kind::Page)
                .filter_map(|name| name.try_into().ok().map(BlobHash))
                .collect(),
            torn_tail: self.scan.torn_tail,
            damage: header.into_iter().chain(self.scan.damage.iter().copied()).collect(),
            lost_end: self.lost_end(),
            head_damaged: self.head_damaged,
            kept: None,
            kept_tail: None,
            kept_cut: None,
        }
    }
}

fn of_kind<'a>(scan: &Scan<'a>, kind: Kind) -> impl Iterator<Item = &'a [u8]> {
    scan.records.iter().filter(move |record| record.kind == kind).map(|record| record.payload)
}

/// Records of entries and of pages, entries first: a journal's first record is the fleet's first block.
fn records<'a>(
    pages: &'a [BlobHash],
    entries: impl IntoIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = (Kind, &'a [u8])> {
    let entries = entries.into_iter().map(|entry| (Kind::Block, entry));
    entries.chain(pages.iter().map(|page| (Kind::Page, page.0.as_slice())))
}

/// Reads a journal without changing anything. Where it is being written, its last record may look torn.
///
/// # Errors
/// [`StoreError`] where there is no journal, or it cannot be read.
pub fn inspect(disk: &(impl Disk + ?Sized)) -> Result<Recovered, StoreError> {
    // The head first: what it names is in the journal already.
    let head = disk.read(HEAD).map_err(StoreError::Read)?;
    let bytes = disk.read(JOURNAL).map_err(StoreError::Read)?;
    let mended = mended(bytes.as_deref(), head.as_deref());
    Ok(Files::read(mended.as_deref(), head.as_deref())?.recovered(is_mended(mended.as_ref())))
}

/// A journal, open for appending.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    header: Header,
    /// The last durable record.
    head: Head,
    head_file_bytes: u64,
    head_unsynced: bool,
    poisoned: Option<Poisoned>,
}

impl<D: Disk> Store<D> {
    /// Makes the journal of a fleet with its first entries, durably. A journal that is there is replaced.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn create(mut disk: D, fleet: &FleetId, entries: &[&[u8]]) -> Result<Self, StoreError> {
        let header = Header { fleet: *fleet, generation: 0 };
        // An old head file names records of another journal.
        let forget = |disk: &mut D| match disk.read(HEAD)? {
            Some(_) => disk.remove(HEAD).and_then(|()| disk.sync_folder()),
            None => Ok(()),
        };
        let made =
            forget(&mut disk).and_then(|()| make(&mut disk, &header, records(&[], entries.iter().copied())));
        Ok(Self::at(disk, header, made.map_err(StoreError::Write)?))
    }

    /// Opens a journal for appending, and repairs it. A torn tail is cut off and kept beside; a damaged
    /// file is kept beside and replaced by its whole records. Nothing is lost that was still there, and
    /// all that is returned is durable. Opening again gives the same entries.
    ///
    /// # Errors
    /// [`StoreError`] where there is no journal, or it cannot be read or repaired. Nothing is lost then.
    pub fn open(disk: D) -> Result<(Self, Recovered), StoreError> {
        let head_file = disk.read(HEAD).map_err(StoreError::Read)?;
        let bytes = disk.read(JOURNAL).map_err(StoreError::Read)?;
        let mended = mended(bytes.as_deref(), head_file.as_deref());
        let files = Files::read(mended.as_deref(), head_file.as_deref())?;
        let mut found = files.recovered(is_mended(mended.as_ref()));
        let mut store = Self::at(disk, files.scan.header, files.scan.head());
        let size = head_file.map_or(0, |bytes| bytes.len());
        store.head_file_bytes = size as u64;
        let head_whole = size % HEAD_BYTES == journal::HEADER_BYTES % HEAD_BYTES;
        store
            .remove_parts()
            .and_then(|()| store.repair(&files, bytes.as_deref().unwrap_or_default(), head_whole, &mut found))
            .map_err(StoreError::Write)?;
        Ok((store, found))
    }

    fn at(disk: D, header: Header, head: Head) -> Self {
        let head_file_bytes = (journal::HEADER_BYTES + HEAD_BYTES) as u64;
        Self { disk, header, head, head_file_bytes, head_unsynced: false, poisoned: None }
    }

    /// What a crash left half written.
    fn remove_parts(&mut self) -> io::Result<()> {
        let part = |name: &String| name.starts_with(JOURNAL) && name.ends_with(PART);
        for name in self.disk.list()?.into_iter().filter(part) {
            self.disk.remove(&name)?;
        }
        Ok(())
    }

    /// Each step leaves a folder that the next opening repairs to the same entries: what people should
    /// see is kept first, then the journal is made whole, then the head says how far it goes.
    fn repair(
        &mut self,
        files: &Files<'_>,
        bytes: &[u8],
        head_whole: bool,
        found: &mut Recovered,
    ) -> io::Result<()> {
        let whole = &bytes[..usize::try_from(self.head.bytes).expect("read into memory")];
        if !found.damage.is_empty() {
            found.kept = Some(keep(&mut self.disk, KEPT[0], bytes)?);
        } else if let Some(tail) = found.torn_tail {
            found.kept_tail = Some(keep(&mut self.disk, KEPT[1], &bytes[tail.offset..])?);
        }
        if let Some(lost) = found.lost_end {
            found.kept_cut = Some(keep(&mut self.disk, KEPT[2], lost.note().as_bytes())?);
        }
        let acknowledged = files.known == Some(self.head);
        if !found.damage.is_empty() {
            let entries = found.entries.iter().map(Vec::as_slice);
            // Until the new head is there, the old one is seen to be an earlier generation's.
            self.header.generation = self.header.generation.wrapping_add(1);
            self.head = make(&mut self.disk, &self.header, records(&found.pages, entries))?;
            self.head_file_bytes = (journal::HEADER_BYTES + HEAD_BYTES) as u64;
            return Ok(());
        }
        if !acknowledged {
            // Records that nobody is known to have waited for may be whole in the system's cache and not
            // on the disk, even where a sync would succeed: it may have failed before. So they are
            // written again.
            replace(&mut self.disk, JOURNAL, whole)?;
        } else {
            if found.torn_tail.is_some() {
                self.disk.truncate(JOURNAL, self.head.bytes)?;
            }
            // What a store cut off when it failed does not come back.
            self.disk.sync(JOURNAL)?;
        }
        if !acknowledged || !head_whole {
            self.begin_head_file()?;
        }
        Ok(())
    }

    fn begin_head_file(&mut self) -> io::Result<()> {
        let bytes = journal::write_head_file(&self.header, &self.head);
        replace(&mut self.disk, HEAD, &bytes)?;
        self.head_file_bytes = bytes.len() as u64;
        self.head_unsynced = false;
        Ok(())
    }

    /// Appends a group of entries with one sync. All of them are durable when it returns.
    ///
    /// # Errors
    /// [`Poisoned`], with the first reason, after any write or sync failed. Nothing is known then of what
    /// this group wrote; nothing acknowledged before is touched, and nothing is acknowledged any more.
    ///
    /// # Panics
    /// If an entry is larger than a record may be.
    pub fn append<'a>(&mut self, entries: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Poisoned> {
        self.append_with(&[], entries)
    }

    /// [`Store::append`], with the names of pages by which further blocks are here from now on. Their bytes have to
    /// be durable already.
    ///
    /// # Errors
    /// As [`Store::append`].
    ///
    /// # Panics
    /// As [`Store::append`].
    pub fn append_with<'a>(
        &mut self,
        pages: &'a [BlobHash],
        entries: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Poisoned> {
        if let Some(poisoned) = &self.poisoned {
            return Err(poisoned.clone());
        }
        let mut head = self.head;
        let bytes = head.write_records(records(pages, entries));
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.disk.append(JOURNAL, &bytes).and_then(|()| self.disk.sync(JOURNAL)) {
            return Err(self.poison(&error));
        }
        self.head = head;
        if let Err(error) = self.write_head() {
            // This group is durable. The disk is not to be trusted with another.
            self.poison(&error);
        }
        Ok(())
    }

    /// Writes the journal again as its next generation, with these pages and entries alone. A power cut at any step
    /// leaves the whole old journal or the whole new one. What the new one leaves out has to be listed by its pages,
    /// whose bytes have to be durable already.
    ///
    /// # Errors
    /// As [`Store::append`]: what was acknowledged before is in the old journal, or in the new one.
    ///
    /// # Panics
    /// As [`Store::append`].
    pub fn rewrite<'a>(
        &mut self,
        pages: &'a [BlobHash],
        entries: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Poisoned> {
        if let Some(poisoned) = self.poisoned.clone() {
            return Err(poisoned);
        }
        // Until the new head is there, the old one is seen to be an earlier generation's.
        let header = Header { generation: self.header.generation.wrapping_add(1), ..self.header };
        match make(&mut self.disk, &header, records(pages, entries)) {
            Ok(head) => {
                (self.header, self.head, self.head_unsynced) = (header, head, false);
                self.head_file_bytes = (journal::HEADER_BYTES + HEAD_BYTES) as u64;
                Ok(())
            }
            // Which of the two journals has the name is not known, so nothing is cut off it.
            Err(error) => Err(self.poisoned.insert(Poisoned { reason: error.to_string() }).clone()),
        }
    }

    fn write_head(&mut self) -> io::Result<()> {
        if self.head_file_bytes >= HEAD_FILE_BYTES_MAX {
            return self.begin_head_file();
        }
        self.disk.append(HEAD, &self.head.to_bytes(&self.header))?;
        self.head_file_bytes += HEAD_BYTES as u64;
        self.head_unsynced = true;
        Ok(())
    }

    /// Takes no more writes. What nobody was told of is cut off, and what is known is written down, so that
    /// a restart finds nothing to repair, for which a full disk would have no room. Where this fails too,
    /// recovery does it.
    fn poison(&mut self, error: &io::Error) -> Poisoned {
        for (name, bytes) in [(JOURNAL, self.head.bytes), (HEAD, self.head_file_bytes)] {
            let _ = self.disk.truncate(name, bytes).and_then(|()| self.disk.sync(name));
        }
        self.poisoned.insert(Poisoned { reason: error.to_string() }).clone()
    }

    /// Ends cleanly: makes durable how far the journal goes. What was appended is durable without it.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn close(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.head_unsynced) {
            self.disk.sync(HEAD)?;
        }
        Ok(())
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self) -> FleetId {
        self.header.fleet
    }

    /// The last durable record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Why the store takes no more writes.
    #[must_use]
    pub fn poisoned(&self) -> Option<&Poisoned> {
        self.poisoned.as_ref()
    }
}

/// Makes journal and head file.
fn make<'a>(
    disk: &mut impl Disk,
    header: &Header,
    records: impl IntoIterator<Item = (Kind, &'a [u8])>,
) -> io::Result<Head> {
    let (bytes, head) = journal::write_all(header, records);
    replace(disk, JOURNAL, &bytes)?;
    replace(disk, HEAD, &journal::write_head_file(header, &head))?;
    Ok(head)
}

/// Keeps bytes for people under a free name, durably. An opening that was cut short may have done it.
fn keep(disk: &mut impl Disk, what: &str, bytes: &[u8]) -> io::Result<String> {
    for n in 1_u32.. {
        let name = format!("{what}{n}");
        match disk.read(&name)? {
            Some(kept) if kept == bytes => {
                disk.sync_folder()?;
                return Ok(name);
            }
            Some(_) => {}
            None => {
                replace(disk, &name, bytes)?;
                return Ok(name);
            }
        }
    }
    Err(io::Error::other("there is no free name to keep it under"))
}

impl LostEnd {
    fn note(&self) -> String {
        let Self { known, found, .. } = self;
        format!(
            "Record {} of the journal was durable, and ended at byte {}.\n\
             When the journal was opened, its last record was {}, and ended at byte {}.\n",
            known.number, known.bytes, found.number, found.bytes
        )
    }
}

impl fmt::Display for LostEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, found, same } = self;
        if !same {
            let number = known.number;
            return write!(
                f,
                "The journal is not the one that was last used here, whose record {number} was durable."
            );
        }
        write!(
            f,
            "The journal ends with record {} at byte {}, but record {} was durable: {} record(s) vanished at its end.",
            found.number,
            found.bytes,
            known.number,
            known.number - found.number
        )
    }
}

/// Where damage is, for a sentence.
#[must_use]
pub fn places(damage: &[Damage]) -> String {
    let place = |damage: &Damage| {
        let mut place = match damage.bytes {
            bytes if damage.offset == 0 => format!("its header, {bytes} bytes at 0"),
            0 => format!("at {}", damage.offset),
            bytes => format!("{bytes} bytes at {}", damage.offset),
        };
        match (damage.records, damage.bytes) {
            (0, 0) => place.push_str(": the records do not follow each other"),
            (0, _) => {}
            (records, _) => place.push_str(&format!(": {records} record(s) missing")),
        }
        place
    };
    damage.iter().map(place).collect::<Vec<_>>().join(", ")
}

impl Recovered {
    /// What people should know, in sentences.
    #[must_use]
    pub fn warnings(&self, folder: &Path) -> Vec<String> {
        let kept = |name: &Option<String>| {
            name.as_ref().map(|name| format!(" in {}", folder.join(name).display())).unwrap_or_default()
        };
        let mut warnings = Vec::new();
        if let (Some(tail), true) = (self.torn_tail, self.damage.is_empty()) {
            warnings.push(format!(
                "The journal ended in {} bytes that are no whole record: a write that was cut short, or damage. \
                 They were cut off and kept{}; if something is missing, `osiris sync` fetches what other members hold.",
                tail.bytes,
                kept(&self.kept_tail)
            ));
        }
        if !self.damage.is_empty() {
            warnings.push(format!(
                "The journal was damaged on disk ({}). What is whole was kept; the damaged file is kept{}. \
                 What other members hold of the missing blocks is fetched again: `osiris sync` waits for it, and `osiris ledger verify` says what is still missing.",
                places(&self.damage),
                kept(&self.kept)
            ));
        }
        if let Some(lost) = self.lost_end {
            warnings.push(format!(
                "{lost} It was cut, or the disk did not keep what it said it had written; a note is kept{}. If this folder \
                 was put together from a backup, that is why. `osiris sync` fetches what other members hold.",
                kept(&self.kept_cut)
            ));
        }
        if self.head_damaged {
            warnings.push(format!(
                "{} was damaged, so it could not be checked whether the journal is whole at its end. It was made anew; \
                 `osiris sync` fetches what other members hold.",
                folder.join(HEAD).display()
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disk::{Faults, SimDisk};

    const FLEET: FleetId = FleetId([9; 32]);

    fn made(entries: &[&[u8]]) -> SimDisk {
        let disk = SimDisk::new(1);
        Store::create(disk.clone(), &FLEET, entries).expect("a journal");
        disk
    }

    fn open(disk: &SimDisk) -> (Store<SimDisk>, Recovered) {
        Store::open(disk.clone()).expect("opened")
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_reported_once() {
        let disk = made(&[b"one"]);
        let (mut store, _) = open(&disk);
        store.append([b"two".as_slice()]).expect("room");
        let whole = disk.read(JOURNAL).expect("read").expect("the journal");
        disk.tamper(JOURNAL, |bytes| bytes.extend(b"a write that was cut"));
        let (_, found) = open(&disk);
        assert_eq!(found.entries, [b"one", b"two"]);
        assert_eq!((found.warnings(Path::new("d")).len(), found.lost_end), (1, None));
        let kept = disk.read(&found.kept_tail.expect("kept")).expect("read").expect("the tail");
        assert_eq!(kept, b"a write that was cut", "nothing is thrown away");
        assert_eq!(disk.read(JOURNAL).expect("read"), Some(whole));
        assert!(open(&disk).1.warnings(Path::new("d")).is_empty());
    }

    #[test]
    fn a_flipped_bit_is_reported_and_the_file_is_kept() {
        let disk = made(&[b"one", b"two", b"three"]);
        disk.flip(JOURNAL, journal::HEADER_BYTES + 39, 2);
        let damaged = disk.read(JOURNAL).expect("read");
        let (mut store, found) = open(&disk);
        assert_eq!(found.entries, [b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(disk.read(&found.kept.clone().expect("kept")).expect("read"), damaged);
        assert!(found.warnings(Path::new("d"))[0].contains("1 record(s) missing"), "{found:?}");
        store.append([b"four".as_slice()]).expect("room");
        let (_, again) = open(&disk);
        assert!(again.warnings(Path::new("d")).is_empty(), "{again:?}");
        assert_eq!(again.entries, [b"two".to_vec(), b"three".to_vec(), b"four".to_vec()]);
    }

    #[test]
    fn a_journal_cut_between_two_records_is_noticed() {
        let disk = made(&[b"one"]);
        let (mut store, _) = open(&disk);
        let one = store.head();
        store.append([b"two".as_slice(), b"three"]).expect("room");
        let three = store.head();
        disk.tamper(JOURNAL, |bytes| bytes.truncate(usize::try_from(one.bytes).expect("small")));
        let (mut store, found) = open(&disk);
        assert_eq!(found.lost_end, Some(LostEnd { known: three, found: one, same: true }));
        assert!(found.warnings(Path::new("d"))[0].contains("2 record(s) vanished"), "{found:?}");
        let note = disk.read(&found.kept_cut.expect("kept")).expect("read").expect("a note");
        assert!(String::from_utf8(note).expect("text").contains("Record 3"));
        // Said once; the note stays until somebody has looked.
        store.append([b"TWO".as_slice()]).expect("room");
        assert_eq!(open(&disk).1.lost_end, None);
    }

    #[test]
    fn the_first_failure_poisons_and_reads_go_on() {
        let disk = made(&[b"one"]);
        let (mut store, _) = open(&disk);
        disk.set_faults(Faults { sync_fails_at: Some(disk.syncs()), ..Faults::default() });
        let first = store.append([b"two".as_slice()]).expect_err("the sync fails");
        assert!(first.reason.contains("syncing"), "{first}");
        disk.set_faults(Faults::default());
        assert_eq!(store.append([b"three".as_slice()]), Err(first.clone()));
        assert_eq!(store.poisoned(), Some(&first));
        assert_eq!(inspect(&disk).expect("reads go on").entries, [b"one"]);
    }

    #[test]
    fn another_fleets_journal_is_refused() {
        let disk = made(&[b"one"]);
        let other = SimDisk::new(2);
        Store::create(other.clone(), &FleetId([8; 32]), &[b"two".as_slice()]).expect("a journal");
        let theirs = other.read(JOURNAL).expect("read").expect("the journal");
        disk.tamper(JOURNAL, |bytes| *bytes = theirs);
        assert!(matches!(Store::open(disk.clone()), Err(StoreError::OtherFleet { .. })));
        disk.clone().remove(JOURNAL).expect("removed");
        assert!(matches!(Store::open(disk), Err(StoreError::Missing { known: Some(_) })));
    }
}
