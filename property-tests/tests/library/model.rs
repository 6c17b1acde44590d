//! The model.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    mem,
    path::Path,
};

use osiris_fleet::{
    disk::Disk as _,
    sim::disk::{Faults, SimDisk},
};
use osiris_runtime::{ComponentHash, Fetch, Library, LibraryError};
use proptest::prelude::*;

use crate::disk::SimFolder;

/// Blobs that a case may store.
pub(crate) const BLOBS: usize = 6;
/// Room for some of them, not for all.
const QUOTA: u64 = 3_000;
const DIR: &str = "library";

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(usize),
    /// A fetch begins.
    Begin(usize),
    /// A fetch gets half of its bytes, or others.
    Write(usize, bool),
    Commit(usize),
    Drop(usize),
    /// Somebody else writes the file, right or wrong.
    Adopt(usize, bool),
    Remove(usize),
    Read(usize),
    /// A byte of a stored blob changes.
    Flip(usize, usize),
    /// A stored blob gets shorter.
    Cut(usize, usize),
    /// A stored blob's file is removed behind the library's back.
    Delete(usize),
    /// The process ends, and another starts.
    Kill,
    /// The power goes at the n-th operation from here, and once more at one of the recovery.
    PowerCut(u64, Option<u64>),
    /// The n-th sync from here fails.
    FailSync(u64),
    /// The disk has room for so many more bytes.
    Full(u64),
    /// Nothing goes wrong from here.
    Heal,
}

/// What happened in all cases.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) power_cuts: u32,
    pub(crate) failed_syncs: u64,
    cuts_in_recovery: u32,
    full: u32,
    over_quota: u32,
    wrong_bytes: u32,
    damaged: u32,
    gone: u32,
    left_parts: u32,
    kept_unacknowledged: u32,
    lost_unacknowledged: u32,
    back_again: u32,
}

impl Seen {
    pub(crate) fn all(&self) -> [(&'static str, u64); 12] {
        [
            ("power cuts", self.power_cuts.into()),
            ("failed syncs", self.failed_syncs),
            ("power cuts in a recovery", self.cuts_in_recovery.into()),
            ("full disks", self.full.into()),
            ("blobs over the quota", self.over_quota.into()),
            ("wrong bytes", self.wrong_bytes.into()),
            ("damaged blobs", self.damaged.into()),
            ("blobs that were deleted behind its back", self.gone.into()),
            ("files left half written", self.left_parts.into()),
            ("blobs kept though nobody was told", self.kept_unacknowledged.into()),
            ("blobs lost of which nobody was told", self.lost_unacknowledged.into()),
            ("removed blobs that a power cut brought back", self.back_again.into()),
        ]
    }
}

/// The bytes of a blob: of some sizes, one of them nothing.
fn blob(number: usize) -> Vec<u8> {
    let len = [700, 0, 513, 1_200, 90, 1_700][number];
    (0..len).map(|at| u8::try_from((at * 7 + number) % 251).expect("small")).collect()
}

fn hash(number: usize) -> ComponentHash {
    ComponentHash::of(&blob(number))
}

fn name(number: usize) -> String {
    format!("{}.blob", hash(number))
}

fn number(hash: ComponentHash) -> usize {
    (0..BLOBS).find(|number| self::hash(*number) == hash).expect("one of ours")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    Harmed,
    Gone,
}

/// What the library says it keeps.
#[derive(Clone, Copy, Debug)]
struct Kept {
    bytes: u64,
    state: State,
}

struct Fetching {
    fetch: Fetch,
    blob: usize,
    wrong: bool,
}

/// The library under test and its model.
pub(crate) struct Held<'a> {
    disk: SimDisk,
    library: Library,
    kept: BTreeMap<usize, Kept>,
    /// Blobs that may be there after a power cut, and those of them that may be damaged.
    maybe: BTreeSet<usize>,
    maybe_harmed: BTreeSet<usize>,
    removed: BTreeSet<usize>,
    fetches: Vec<Fetching>,
    faults: Faults,
    again: Option<u64>,
    seen: &'a RefCell<Seen>,
}

type Checked = Result<(), TestCaseError>;
type Stored = Result<(), LibraryError>;

impl<'a> Held<'a> {
    pub(crate) fn new(seed: u64, seen: &'a RefCell<Seen>) -> Self {
        let disk = SimDisk::new(seed);
        let library = Library::open_on(SimFolder(disk.clone()), DIR, QUOTA).expect("made");
        disk.reopen();
        Self {
            disk,
            library,
            kept: BTreeMap::new(),
            maybe: BTreeSet::new(),
            maybe_harmed: BTreeSet::new(),
            removed: BTreeSet::new(),
            fetches: Vec::new(),
            faults: Faults::default(),
            again: None,
            seen,
        }
    }

    fn fail(&mut self, faults: Faults) {
        self.faults = faults.clone();
        self.disk.set_faults(faults);
    }

    /// The power goes at this operation from here, and again at one of the recovery.
    pub(crate) fn cut_at(&mut self, at: u64, again: Option<u64>) {
        let power_cut_at = Some(self.disk.operations() + at);
        self.fail(Faults { power_cut_at, ..Faults::default() });
        self.again = again;
    }

    /// This sync from here fails.
    pub(crate) fn sync_fails_at(&mut self, at: u64) {
        let sync_fails_at = Some(self.disk.syncs() + at);
        self.fail(Faults { sync_fails_at, ..Faults::default() });
    }

    fn used(&self) -> u64 {
        let fetched = self.fetches.iter().map(|fetching| fetching.fetch.written_bytes());
        self.kept.values().map(|kept| kept.bytes).chain(fetched).sum()
    }

    /// A blob was to be stored: what is said of it is true, and no more is believed than that.
    fn stored(&mut self, blob: usize, said: Stored) -> Checked {
        match said {
            Ok(()) => {
                let kept = Kept { bytes: self::blob(blob).len() as u64, state: State::Whole };
                self.kept.insert(blob, kept);
                // The folder was synced: names are what they are.
                self.settled();
            }
            Err(error) => {
                self.failed(&error)?;
                self.maybe.insert(blob);
            }
        }
        Ok(())
    }

    fn settled(&mut self) {
        self.maybe.clear();
        self.maybe_harmed.clear();
        self.removed.clear();
    }

    /// Only a disk that fails is a reason to fail.
    fn failed(&self, error: &LibraryError) -> Checked {
        match error {
            LibraryError::DiskFull { folder, wanted } => {
                prop_assert!(self.faults.capacity.is_some(), "{error}");
                // It says where and how much, and not which temporary name it had.
                prop_assert_eq!(folder, Path::new(DIR));
                prop_assert!(*wanted <= QUOTA && !error.to_string().contains(".part"), "{error}");
                self.seen.borrow_mut().full += 1;
            }
            LibraryError::Io { .. } => {
                let fails = !self.disk.is_powered() || self.faults.sync_fails_at.is_some();
                prop_assert!(fails, "{error}");
            }
            error => prop_assert!(false, "{error}"),
        }
        Ok(())
    }

    /// Whether so many bytes more are refused, and rightly so.
    fn is_over(&self, said: &Stored, used: u64, wanted: u64) -> Result<bool, TestCaseError> {
        let over = matches!(said, Err(LibraryError::Quota { .. }));
        if self.disk.is_powered() {
            prop_assert!(!over || used + wanted > QUOTA, "refused though there is room: {:?}", said);
            prop_assert!(over || said.is_err() || used + wanted <= QUOTA, "more than the quota");
        }
        self.seen.borrow_mut().over_quota += u32::from(over);
        Ok(over)
    }

    fn put(&mut self, blob: usize) -> Checked {
        let held = self.kept.get(&blob).copied();
        let said = self.library.put(&self::blob(blob)).map(drop);
        if held.is_some_and(|held| held.state == State::Whole) {
            prop_assert!(said.is_ok() || !self.disk.is_powered(), "{said:?}");
            return Ok(());
        }
        if held.is_some() {
            self.lost(blob, held.map(|held| held.state));
        }
        let wanted = self::blob(blob).len() as u64;
        if !self.is_over(&said, self.used(), wanted)? {
            self.stored(blob, said)?;
        }
        Ok(())
    }

    /// The library found out that a blob is not what it was.
    fn lost(&mut self, blob: usize, state: Option<State>) {
        self.kept.remove(&blob);
        self.maybe.insert(blob);
        let mut seen = self.seen.borrow_mut();
        if state == Some(State::Harmed) {
            self.maybe_harmed.insert(blob);
            seen.damaged += 1;
        } else {
            seen.gone += 1;
        }
    }

    fn read(&mut self, blob: usize) -> Checked {
        let state = self.kept.get(&blob).map(|kept| kept.state);
        let read = self.library.read(hash(blob));
        if !self.disk.is_powered() {
            // It may have been moved aside before the power went.
            if state == Some(State::Harmed) {
                self.lost(blob, state);
            }
            return Ok(());
        }
        match (state, read) {
            (Some(State::Whole), Ok(bytes)) => prop_assert_eq!(bytes, self::blob(blob)),
            (Some(State::Harmed), Err(LibraryError::Damaged { .. }))
            | (Some(State::Gone), Err(LibraryError::Missing { .. })) => self.lost(blob, state),
            (None, Err(LibraryError::Missing { .. })) => {}
            (state, read) => prop_assert!(false, "{state:?} was read as {read:?}"),
        }
        Ok(())
    }

    fn fetching(&self, at: usize) -> Option<usize> {
        (!self.fetches.is_empty()).then(|| at % self.fetches.len())
    }

    fn write(&mut self, at: usize, wrong: bool) -> Checked {
        let Some(at) = self.fetching(at) else { return Ok(()) };
        let used = self.used();
        let Fetching { fetch, blob, wrong: is_wrong } = &mut self.fetches[at];
        let bytes = self::blob(*blob);
        let done = usize::try_from(fetch.written_bytes()).expect("small");
        let half = done + (bytes.len().saturating_sub(done)).min(bytes.len() / 2 + 1);
        let mut piece = bytes.get(done..half).unwrap_or_default().to_vec();
        if wrong {
            piece.push(9);
            *is_wrong = true;
        }
        let said = fetch.write(&piece);
        let over = self.is_over(&said, used, piece.len() as u64)?;
        if let Err(error) = said {
            drop(self.fetches.remove(at));
            if !over {
                self.failed(&error)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, at: usize) -> Checked {
        let Some(at) = self.fetching(at) else { return Ok(()) };
        let Fetching { fetch, blob, wrong } = self.fetches.remove(at);
        let is_right = !wrong && fetch.written_bytes() == self::blob(blob).len() as u64;
        let said = self.library.commit(fetch);
        if is_right { self.stored(blob, said) } else { self.is_refused(&said) }
    }

    fn is_refused(&self, said: &Stored) -> Checked {
        self.seen.borrow_mut().wrong_bytes += 1;
        let refused = matches!(said, Err(LibraryError::WrongHash { .. })) || !self.disk.is_powered();
        prop_assert!(refused, "{said:?}");
        Ok(())
    }

    fn adopt(&mut self, blob: usize, wrong: bool) -> Checked {
        let mut bytes = self::blob(blob);
        let (wanted, used) = (bytes.len() as u64, self.used());
        let path = match self.library.fetch_path(hash(blob), wanted) {
            Ok(path) => path,
            Err(error) => return self.is_over(&Err(error), used, wanted).map(drop),
        };
        prop_assert!(used + wanted <= QUOTA, "more than the quota");
        if wrong {
            bytes.push(1);
        }
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let mut disk = self.disk.clone();
        if disk.write_new(&file, &bytes).is_err() {
            // Who fetches removes what it could not write.
            let _ = disk.remove(&file);
            return Ok(());
        }
        let said = self.library.adopt(hash(blob), &path);
        if wrong { self.is_refused(&said) } else { self.stored(blob, said) }
    }

    fn remove(&mut self, blob: usize) -> Checked {
        let state = self.kept.get(&blob).map(|kept| kept.state);
        match self.library.remove(hash(blob)) {
            Ok(was_there) => {
                let expected = state.is_some_and(|state| state != State::Gone);
                prop_assert_eq!(was_there, expected, "removed");
                self.kept.remove(&blob);
                if expected {
                    self.maybe.insert(blob);
                    self.removed.insert(blob);
                }
                if state == Some(State::Harmed) {
                    self.maybe_harmed.insert(blob);
                }
            }
            Err(error) => {
                self.failed(&error)?;
                self.maybe.insert(blob);
                if state == Some(State::Harmed) {
                    self.maybe_harmed.insert(blob);
                }
                self.kept.entry(blob).and_modify(|kept| kept.state = State::Gone);
            }
        }
        Ok(())
    }

    /// Changes a stored blob's file behind the library's back.
    fn harm(&mut self, blob: usize, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(kept) = self.kept.get_mut(&blob).filter(|kept| kept.state == State::Whole)
            && !self::blob(blob).is_empty()
        {
            kept.state = State::Harmed;
            assert!(self.disk.tamper(&name(blob), change), "it is there");
        }
    }

    fn delete(&mut self, blob: usize) {
        let Some(kept) = self.kept.get_mut(&blob).filter(|kept| kept.state != State::Gone) else { return };
        if kept.state == State::Harmed {
            self.maybe_harmed.insert(blob);
        }
        kept.state = State::Gone;
        self.maybe.insert(blob);
        // Where the power goes, it may have gone or not.
        let _ = self.disk.clone().remove(&name(blob));
    }

    /// Another process, which knows what the disk says.
    fn reopen(&mut self) -> Checked {
        mem::take(&mut self.fetches).into_iter().for_each(mem::forget);
        let names = self.disk.snapshot().0;
        let parts = names.keys().filter(|name| Path::new(name).extension().is_some_and(|end| end == "part"));
        self.seen.borrow_mut().left_parts += u32::from(parts.count() > 0);
        let opened = Library::open_on(SimFolder(self.disk.clone()), DIR, QUOTA);
        let library = match opened {
            Ok(library) => library,
            Err(error) => {
                self.failed(&error)?;
                if self.disk.is_powered() {
                    // Of a sync that failed: the next process has a disk that goes on.
                    self.fail(Faults::default());
                    return self.reopen();
                }
                return self.recover();
            }
        };
        self.library = library;
        let before = mem::take(&mut self.kept);
        let files = self.disk.snapshot().0;
        for (hash, bytes) in self.library.list() {
            let blob = number(hash);
            let content = &files[&name(blob)];
            prop_assert_eq!(bytes, content.len() as u64);
            let known = before.get(&blob);
            prop_assert!(known.is_some() || self.maybe.contains(&blob), "{blob} comes from nowhere");
            let is_whole = *content == self::blob(blob);
            let may_be_harmed =
                self.maybe_harmed.contains(&blob) || known.is_some_and(|kept| kept.state == State::Harmed);
            prop_assert!(is_whole || may_be_harmed, "{blob} is half written and taken for whole");
            let state = if is_whole { State::Whole } else { State::Harmed };
            self.kept.insert(blob, Kept { bytes, state });
        }
        let mut seen = self.seen.borrow_mut();
        for (blob, kept) in before {
            let is_lost = !self.kept.contains_key(&blob);
            prop_assert!(!is_lost || kept.state == State::Gone, "{blob} was acknowledged, and is lost");
            self.maybe.remove(&blob);
        }
        for blob in &self.maybe {
            let count = match (self.kept.contains_key(blob), self.removed.contains(blob)) {
                (true, true) => &mut seen.back_again,
                (true, false) => &mut seen.kept_unacknowledged,
                (false, _) => &mut seen.lost_unacknowledged,
            };
            *count += 1;
        }
        drop(seen);
        self.settled();
        self.holds()
    }

    /// The power is back.
    fn recover(&mut self) -> Checked {
        self.disk.restart();
        self.seen.borrow_mut().power_cuts += 1;
        let power_cut_at = self.again.take();
        self.seen.borrow_mut().cuts_in_recovery += u32::from(power_cut_at.is_some());
        self.fail(Faults { power_cut_at, ..Faults::default() });
        self.reopen()
    }

    fn kill(&mut self) -> Checked {
        let left = |at: Option<u64>, now| at.and_then(|at| at.checked_sub(now));
        let faults = Faults {
            power_cut_at: left(self.faults.power_cut_at, self.disk.operations()),
            sync_fails_at: left(self.faults.sync_fails_at, self.disk.syncs()),
            ..self.faults.clone()
        };
        self.disk.reopen();
        self.fail(faults);
        self.reopen()
    }

    /// What it lists, counts and holds is the same, and no file is left over.
    fn holds(&self) -> Checked {
        let mut listed: Vec<_> = self.kept.iter().map(|(blob, kept)| (hash(*blob), kept.bytes)).collect();
        listed.sort();
        prop_assert_eq!(self.library.list(), listed);
        prop_assert_eq!(self.library.used_bytes(), self.used());
        let there =
            self.kept.iter().filter(|(_, kept)| kept.state != State::Gone).map(|(blob, _)| name(*blob));
        let temps = self.fetches.iter().map(|fetching| {
            let name = fetching.fetch.temp_path().file_name().expect("a name");
            name.to_str().expect("of ours").to_owned()
        });
        let mut files: Vec<_> = there.chain(temps).collect();
        files.sort();
        let mut found = self.disk.list().expect("the power is on");
        found.retain(|name| !name.ends_with(".damaged"));
        prop_assert_eq!(found, files, "files that are left over, or missing");
        Ok(())
    }

    pub(crate) fn step(&mut self, step: &Step) -> Checked {
        match *step {
            Step::Put(blob) => self.put(blob)?,
            Step::Begin(blob) => match self.library.begin_fetch(hash(blob)) {
                Ok(fetch) => self.fetches.push(Fetching { fetch, blob, wrong: false }),
                Err(error) => self.failed(&error)?,
            },
            Step::Write(at, wrong) => self.write(at, wrong)?,
            Step::Commit(at) => self.commit(at)?,
            Step::Drop(at) => drop(self.fetching(at).map(|at| self.fetches.remove(at))),
            Step::Adopt(blob, wrong) => self.adopt(blob, wrong)?,
            Step::Remove(blob) => self.remove(blob)?,
            Step::Read(blob) => self.read(blob)?,
            Step::Flip(blob, at) => self.harm(blob, |bytes| {
                let at = at % bytes.len();
                bytes[at] ^= 1;
            }),
            Step::Cut(blob, at) => self.harm(blob, |bytes| bytes.truncate(at % bytes.len())),
            Step::Delete(blob) => self.delete(blob),
            Step::Kill => self.kill()?,
            Step::PowerCut(at, again) => self.cut_at(at, again),
            Step::FailSync(at) => self.sync_fails_at(at),
            Step::Full(room) => {
                let used: usize = self.disk.snapshot().0.values().map(Vec::len).sum();
                self.fail(Faults { capacity: Some(used as u64 + room), ..Faults::default() });
            }
            Step::Heal => self.fail(Faults::default()),
        }
        if self.disk.is_powered() { self.holds() } else { self.recover() }
    }

    /// All that is kept can be read after one more power cut.
    pub(crate) fn end(&mut self) -> Checked {
        self.seen.borrow_mut().failed_syncs += self.disk.happened().failed_syncs;
        self.again = None;
        self.recover()?;
        self.seen.borrow_mut().power_cuts -= 1;
        for blob in 0..BLOBS {
            self.read(blob)?;
        }
        Ok(())
    }
}
