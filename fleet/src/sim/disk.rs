//! A disk in memory that fails as disks fail, the same way for the same seed.
//!
//! Two states are kept: what reads see (the page cache), and what a power cut leaves. Between both lie
//! the operations that no sync has covered yet. At a power cut each file keeps some of its first
//! unsynced operations and a part of the next, cut at any byte, and any sector of what was not synced
//! may read as zeros; of unsynced names (creations, renames, removals) any subset is kept. Synced bytes
//! are never touched: a sector is written whole or not at all.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::disk::Disk;

const SECTOR: usize = 512;

/// What became true at power cuts and failures of one disk, for tests that must have seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Power cuts.
    pub cuts: u64,
    /// Writes of which a power cut kept a part.
    pub torn_writes: u64,
    /// Writes that a power cut lost whole.
    pub lost_writes: u64,
    /// Sectors of unsynced writes that read as zeros afterwards.
    pub zeroed_sectors: u64,
    /// Creations that a power cut undid.
    pub lost_creations: u64,
    /// Renames that a power cut undid.
    pub lost_renames: u64,
    /// Removals that a power cut undid.
    pub lost_removals: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Writes that a failed sync lost while it counted them as clean.
    pub clean_but_lost: u64,
    /// Writes that found the disk full.
    pub full: u64,
}

/// What goes wrong, and when. Nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The power goes at this operation, counted from 0 since the last [`SimDisk::restart`]: it begins,
    /// and never ends.
    pub power_cut_at: Option<u64>,
    /// This sync (of a file or of the folder) fails, counted from 0 since the last restart.
    pub sync_fails_at: Option<u64>,
    /// The process is killed by the sync that fails: every later call fails until the next start.
    pub dies_then: bool,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
    /// Syncs say that they succeeded and do nothing.
    pub syncs_lie: bool,
}

#[derive(Clone, Debug)]
enum Write {
    Append(Vec<u8>),
    Truncate(usize),
}

/// A write that is not durable. One that a failed sync lost is never written any more.
#[derive(Clone, Debug)]
struct Pending {
    write: Write,
    lost: bool,
    /// A sync has covered it, and failed: no later sync writes it.
    clean: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Naming {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

#[derive(Clone, Debug)]
struct State {
    random: u64,
    faults: Faults,
    happened: Happened,
    operations: u64,
    syncs: u64,
    powered: bool,
    /// The power goes with the operation that is being performed.
    cut: bool,
    next_file: u64,
    files: BTreeMap<u64, File>,
    cached: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<Naming>,
}

/// A simulated disk with one folder. A clone is a handle on the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

/// The files of a disk at one moment, as a backup keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<String, Vec<u8>>);

impl SimDisk {
    /// An empty disk; all that is left to chance follows from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: seed,
            faults: Faults::default(),
            happened: Happened::default(),
            operations: 0,
            syncs: 0,
            powered: true,
            cut: false,
            next_file: 0,
            files: BTreeMap::new(),
            cached: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
        })))
    }

    /// Another disk in the same state, down to what is not durable, with its own chances.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let state = State { random: seed, ..self.state().clone() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics with the lock held is over.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs one operation. Where the power goes at it, it has begun, and what becomes of it is left to
    /// chance; a sync that has only begun has made nothing sure.
    fn perform(&self, work: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        if !state.powered {
            return Err(io::Error::other("the power is out"));
        }
        state.cut = state.faults.power_cut_at == Some(state.operations);
        state.operations += 1;
        let done = work(&mut state);
        if !state.cut {
            return done;
        }
        state.powered = false;
        Err(io::Error::other("the power went out"))
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Operations since the last restart that change something; reads do not count.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Syncs since the last restart.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Whether the power is on. Without it every call fails.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    /// What went wrong so far.
    #[must_use]
    pub fn happened(&self) -> Happened {
        self.state().happened
    }

    /// Cuts the power now, unless it is cut already, and gives it back: what was not durable is kept in
    /// part. Faults end, counts start anew.
    pub fn restart(&self) {
        let mut state = self.state();
        state.lose_power();
        state.resume();
    }

    /// The process ends and another begins, while the power stays: nothing is lost. Faults end, counts
    /// start anew.
    pub fn reopen(&self) {
        self.state().resume();
    }

    /// All files as reads see them.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot(
            state
                .cached
                .iter()
                .map(|(name, file)| (name.clone(), state.files[file].cached.clone()))
                .collect(),
        )
    }

    /// Replaces everything by an earlier state, durably.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut state = self.state();
        state.files.clear();
        state.cached.clear();
        state.pending.clear();
        for (name, bytes) in &snapshot.0 {
            let id = state.new_file();
            state
                .files
                .insert(id, File { cached: bytes.clone(), durable: bytes.clone(), pending: Vec::new() });
            state.cached.insert(name.clone(), id);
        }
        state.durable = state.cached.clone();
    }

    /// Changes a file's bytes behind everybody's back, durably. False where there is no such file.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let Some(file) = state.cached.get(name).copied().and_then(|id| state.files.get_mut(&id)) else {
            return false;
        };
        change(&mut file.cached);
        file.durable = file.cached.clone();
        file.pending.clear();
        true
    }

    /// Flips one bit of a file. False where there is no such file or byte.
    pub fn flip(&self, name: &str, byte: usize, bit: u8) -> bool {
        let mut flipped = false;
        self.tamper(name, |bytes| {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
                flipped = true;
            }
        }) && flipped
    }
}

impl State {
    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above zero.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random() % end as u64).expect("below a usize")
    }

    fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file
    }

    fn resume(&mut self) {
        self.powered = true;
        self.faults = Faults::default();
        (self.operations, self.syncs) = (0, 0);
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"));
        let id = self.cached.get(name).ok_or_else(missing)?;
        self.files.get_mut(id).ok_or_else(missing)
    }

    /// How many of `wanted` bytes the disk has room for.
    fn room(&mut self, wanted: usize) -> usize {
        let Some(capacity) = self.faults.capacity else { return wanted };
        let used: u64 = self.cached.values().map(|id| self.files[id].cached.len() as u64).sum();
        let room = usize::try_from(capacity.saturating_sub(used)).unwrap_or(usize::MAX);
        self.happened.full += u64::from(room < wanted);
        room.min(wanted)
    }

    /// Writes what there is room for.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?;
        let room = self.room(bytes.len());
        let file = self.file(name)?;
        file.cached.extend_from_slice(&bytes[..room]);
        if room > 0 {
            file.push(Write::Append(bytes[..room].to_vec()));
        }
        if room < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }

    fn sync(&mut self, name: Option<&str>) -> io::Result<()> {
        if self.cut {
            return Ok(());
        }
        let fails = self.faults.sync_fails_at == Some(self.syncs);
        self.syncs += 1;
        if fails {
            self.happened.failed_syncs += 1;
            self.fail_sync(name)?;
            self.powered = !self.faults.dies_then;
            return Err(io::Error::other("input/output error while syncing"));
        }
        if self.faults.syncs_lie {
            return Ok(());
        }
        match name {
            Some(name) => self.file(name)?.make_durable(),
            None => {
                self.pending.clear();
                self.durable = self.cached.clone();
            }
        }
        Ok(())
    }

    /// Each page may have been written or not, and counts as clean from now on. Names stay dirty.
    fn fail_sync(&mut self, name: Option<&str>) -> io::Result<()> {
        let Some(name) = name else { return Ok(()) };
        let dirty = self.file(name)?.pending.iter().filter(|pending| !pending.clean).count();
        let lost: Vec<_> = (0..dirty).map(|_| !self.random().is_multiple_of(4)).collect();
        self.happened.clean_but_lost += lost.iter().filter(|lost| **lost).count() as u64;
        let file = self.file(name)?;
        for (pending, lost) in file.pending.iter_mut().filter(|pending| !pending.clean).zip(lost) {
            (pending.clean, pending.lost) = (true, lost);
        }
        Ok(())
    }

    fn lose_power(&mut self) {
        self.happened.cuts += 1;
        self.powered = false;
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            let mut file = self.files.remove(&id).expect("listed");
            self.lose_content(&mut file);
            self.files.insert(id, file);
        }
        self.lose_names();
        let used: Vec<_> = self.durable.values().copied().collect();
        self.files.retain(|id, _| used.contains(id));
        self.cached = self.durable.clone();
    }

    fn lose_content(&mut self, file: &mut File) {
        let pending = std::mem::take(&mut file.pending);
        let mut synced = file.durable.len();
        let mut kept = self.below(pending.len() + 1);
        // All of it is as likely as any other amount is not.
        if self.random().is_multiple_of(4) {
            kept = pending.len();
        }
        for (at, Pending { write, lost, .. }) in pending.into_iter().enumerate() {
            match write {
                Write::Append(bytes) => {
                    let part = if at < kept { bytes.len() } else { self.below(bytes.len() + 1) };
                    let written = if lost { vec![0; part] } else { bytes[..part].to_vec() };
                    if at >= kept {
                        let count = if part == 0 {
                            &mut self.happened.lost_writes
                        } else {
                            &mut self.happened.torn_writes
                        };
                        *count += 1;
                        file.durable.extend(written);
                        break;
                    }
                    file.durable.extend(written);
                }
                Write::Truncate(len) if at < kept => {
                    file.durable.truncate(len);
                    synced = synced.min(len);
                }
                Write::Truncate(_) => break,
            }
        }
        // Sectors are written in any order: those that were not are zeros within a file that has grown.
        if file.durable.len() > synced && self.random().is_multiple_of(3) {
            let (first, last) = (synced / SECTOR, (file.durable.len() - 1) / SECTOR);
            for sector in first..=last {
                if self.random().is_multiple_of(3) {
                    let end = file.durable.len().min((sector + 1) * SECTOR);
                    file.durable[synced.max(sector * SECTOR)..end].fill(0);
                    self.happened.zeroed_sectors += 1;
                }
            }
        }
        file.cached = file.durable.clone();
    }

    fn lose_names(&mut self) {
        // Most file systems keep the order of names, so that a first part is kept; none promises it.
        let in_order = self.random().is_multiple_of(2);
        let mut lost = false;
        for naming in std::mem::take(&mut self.pending) {
            lost = if in_order {
                lost || self.random().is_multiple_of(3)
            } else {
                self.random().is_multiple_of(2)
            };
            let count = match (&naming, lost) {
                (_, false) => {
                    naming.apply(&mut self.durable);
                    continue;
                }
                (Naming::Create(..), true) => &mut self.happened.lost_creations,
                (Naming::Rename(..), true) => &mut self.happened.lost_renames,
                (Naming::Remove(..), true) => &mut self.happened.lost_removals,
            };
            *count += 1;
        }
    }
}

impl File {
    fn push(&mut self, write: Write) {
        self.pending.push(Pending { write, lost: false, clean: false });
    }

    /// What a failed sync lost leaves a hole where something is written behind it.
    fn make_durable(&mut self) {
        let end = self.pending.iter().rposition(|pending| !pending.clean).map_or(0, |last| last + 1);
        for Pending { write, lost, .. } in self.pending.drain(..end) {
            match write {
                Write::Append(bytes) if lost => self.durable.resize(self.durable.len() + bytes.len(), 0),
                Write::Append(bytes) => self.durable.extend(bytes),
                Write::Truncate(len) => self.durable.truncate(len),
            }
        }
    }
}

impl Naming {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, id) => {
                names.insert(name, id);
            }
            Self::Rename(from, to, id) => {
                if names.get(&from) == Some(&id) {
                    names.remove(&from);
                }
                names.insert(to, id);
            }
            Self::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

impl Disk for SimDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let state = self.state();
        if !state.powered {
            return Err(io::Error::other("the power is out"));
        }
        Ok(state.cached.get(name).map(|id| state.files[id].cached.clone()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.powered {
            return Err(io::Error::other("the power is out"));
        }
        Ok(state.cached.keys().cloned().collect())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.perform(|state| state.write(name, bytes))
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.perform(|state| {
            let file = state.file(name)?;
            let len = file.cached.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            file.cached.truncate(len);
            file.push(Write::Truncate(len));
            Ok(())
        })
    }

    fn write_new(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.perform(|state| {
            if let Ok(file) = state.file(name) {
                file.cached.clear();
                file.push(Write::Truncate(0));
            } else {
                let id = state.new_file();
                state.files.insert(id, File::default());
                state.cached.insert(name.to_owned(), id);
                state.pending.push(Naming::Create(name.to_owned(), id));
            }
            state.write(name, bytes)
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.perform(|state| state.sync(Some(name)))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.perform(|state| {
            state.file(from)?;
            if let Some(id) = state.cached.remove(from) {
                state.cached.insert(to.to_owned(), id);
                state.pending.push(Naming::Rename(from.to_owned(), to.to_owned(), id));
            }
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.perform(|state| {
            if state.cached.remove(name).is_some() {
                state.pending.push(Naming::Remove(name.to_owned()));
            }
            Ok(())
        })
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.perform(|state| state.sync(None))
    }
}
