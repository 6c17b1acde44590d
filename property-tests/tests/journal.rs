//! The journal against a model of it: a list of entries, and how many of them were acknowledged.

use std::cell::RefCell;

use osiris_fleet::{
    disk::Disk as _,
    sim::disk::{Faults, SimDisk, Snapshot},
    store::{self, JOURNAL, Store},
};
use osiris_ledger::{FleetId, journal};
use osiris_property_tests::strategy::config;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

const FLEET: FleetId = FleetId([3; 32]);

#[derive(Clone, Debug)]
enum Step {
    /// Entries of these sizes as one group.
    Append(Vec<usize>),
    Close,
    /// The process ends at the n-th operation from here, and another starts.
    Kill(u64),
    /// The power goes at the n-th operation from here.
    PowerCut(u64),
    /// The n-th sync from here fails.
    FailSync(u64),
    /// The disk has room for so many more bytes.
    Full(u64),
    /// The folder is copied while the node is stopped.
    Backup,
    /// The copy is put back.
    Restore,
    /// The journal is cut behind a record.
    Cut(prop::sample::Index),
    /// One byte of a record changes.
    Flip(prop::sample::Index, usize),
    /// A record is taken out.
    TakeOut(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => vec(0..900_usize, 1..6).prop_map(Step::Append),
        1 => Just(Step::Close),
        2 => (0..8_u64).prop_map(Step::Kill),
        3 => (0..8_u64).prop_map(Step::PowerCut),
        1 => (0..4_u64).prop_map(Step::FailSync),
        1 => (0..4_000_u64).prop_map(Step::Full),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        1 => any::<prop::sample::Index>().prop_map(Step::Cut),
        1 => (any::<prop::sample::Index>(), 0..30_usize).prop_map(|(at, byte)| Step::Flip(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Step::TakeOut),
    ];
    vec(step, 1..60)
}

/// What happened in all cases.
#[derive(Debug, Default)]
struct Seen {
    torn_tails: u32,
    poisoned: u32,
    full: u32,
    lost_ends: u32,
    damaged: u32,
    restored: u32,
    kept_unacknowledged: u32,
    lost_unacknowledged: u32,
}

/// The journal under test and its model.
struct Journal<'a> {
    disk: SimDisk,
    /// None between the end of a process and the next.
    store: Option<Store<SimDisk>>,
    /// What the journal may hold.
    entries: Vec<Vec<u8>>,
    acknowledged: usize,
    poisoned: bool,
    backup: Option<(Snapshot, Vec<Vec<u8>>)>,
    next: u64,
    seen: &'a RefCell<Seen>,
}

type Checked = Result<(), TestCaseError>;
/// A place in the list of entries, and the others.
type Without = Option<(usize, Vec<Vec<u8>>)>;

impl<'a> Journal<'a> {
    fn new(seed: u64, seen: &'a RefCell<Seen>) -> Self {
        let disk = SimDisk::new(seed);
        let store = Store::create(disk.clone(), &FLEET, &[]).expect("made");
        let (entries, acknowledged, poisoned, backup, next) = (Vec::new(), 0, false, None, 0);
        Self { disk, store: Some(store), entries, acknowledged, poisoned, backup, next, seen }
    }

    fn append(&mut self, sizes: &[usize]) -> Checked {
        let group: Vec<Vec<u8>> = sizes
            .iter()
            .map(|size| {
                self.next += 1;
                [self.next.to_le_bytes().as_slice(), &vec![self.next.to_le_bytes()[0]; *size]].concat()
            })
            .collect();
        let store = self.store.as_mut().expect("open");
        let appended = store.append(group.iter().map(Vec::as_slice));
        prop_assert!(!self.poisoned || appended.is_err(), "acknowledged after a failure");
        if !self.poisoned {
            self.entries.extend(group);
        }
        match appended {
            Ok(()) => self.acknowledged = self.entries.len(),
            Err(poison) => {
                prop_assert_eq!(store.poisoned(), Some(&poison));
                let mut seen = self.seen.borrow_mut();
                seen.poisoned += u32::from(!self.poisoned);
                seen.full += u32::from(!self.poisoned && poison.reason.contains("no space"));
                self.poisoned = true;
                if self.disk.is_powered() {
                    let held = store::inspect(&self.disk).expect("reads go on").entries;
                    prop_assert!(held.len() >= self.acknowledged && self.entries.starts_with(&held));
                }
            }
        }
        Ok(())
    }

    /// Works until something fails or not, and ends the process without a word.
    fn end(&mut self, faults: Faults) -> Checked {
        self.disk.set_faults(faults);
        for size in [10, 300] {
            self.append(&[size, size])?;
        }
        self.store = None;
        Ok(())
    }

    /// Starts again after an honest disk failed.
    fn start(&mut self) -> Checked {
        self.store = None;
        let (store, found) = Store::open(self.disk.clone()).expect("opened");
        prop_assert!(found.damage.is_empty() && found.lost_end.is_none() && !found.head_damaged);
        prop_assert!(found.entries.len() >= self.acknowledged, "acknowledged, and lost");
        prop_assert!(self.entries.starts_with(&found.entries), "not a prefix of what was appended");
        let mut seen = self.seen.borrow_mut();
        seen.torn_tails += u32::from(found.torn_tail.is_some());
        seen.kept_unacknowledged += u32::from(found.entries.len() > self.acknowledged);
        seen.lost_unacknowledged += u32::from(found.entries.len() < self.entries.len());
        drop(seen);
        self.started(store, found.entries);
        Ok(())
    }

    fn started(&mut self, store: Store<SimDisk>, entries: Vec<Vec<u8>>) {
        (self.acknowledged, self.poisoned) = (entries.len(), false);
        (self.store, self.entries) = (Some(store), entries);
    }

    /// Ends the process, changes the journal behind its back, and starts again: what changed is said.
    fn tamper(
        &mut self,
        change: impl FnOnce(&mut Vec<u8>, &[(usize, usize)]),
        held: Vec<Vec<u8>>,
    ) -> Checked {
        self.disk.reopen();
        self.start()?;
        self.store = None;
        let bytes = self.disk.read(JOURNAL).expect("read").expect("the journal");
        let scan = journal::scan(&bytes, None).expect("a journal");
        let end = |record: &journal::Record<'_>| usize::try_from(record.head.bytes).expect("small");
        let places: Vec<_> = scan.records.iter().map(|record| (record.offset, end(record))).collect();
        self.disk.tamper(JOURNAL, |bytes| change(bytes, &places));
        let (store, found) = Store::open(self.disk.clone()).expect("opened");
        prop_assert_eq!(&found.entries, &held);
        prop_assert!(!found.warnings("d".as_ref()).is_empty(), "shorter in silence");
        let mut seen = self.seen.borrow_mut();
        seen.lost_ends += u32::from(found.lost_end.is_some());
        seen.damaged += u32::from(!found.damage.is_empty());
        drop(seen);
        self.started(store, held);
        Ok(())
    }

    /// The record that an index means, and all entries but it, where there is one.
    fn without(&mut self, at: prop::sample::Index) -> Result<Without, TestCaseError> {
        self.disk.reopen();
        self.start()?;
        if self.entries.is_empty() {
            return Ok(None);
        }
        let at = at.index(self.entries.len());
        let mut held = self.entries.clone();
        held.remove(at);
        Ok(Some((at, held)))
    }

    fn step(&mut self, step: Step) -> Checked {
        let now = self.disk.operations();
        match step {
            Step::Append(sizes) => self.append(&sizes)?,
            Step::Close => {
                let closed = self.store.as_mut().expect("open").close();
                prop_assert!(closed.is_ok() || self.poisoned || !self.disk.is_powered());
                self.start()?;
            }
            Step::Kill(at) => {
                self.end(Faults { power_cut_at: Some(now + at), ..Faults::default() })?;
                self.disk.reopen();
                self.start()?;
            }
            Step::PowerCut(at) => {
                self.end(Faults { power_cut_at: Some(now + at), ..Faults::default() })?;
                self.disk.restart();
                self.start()?;
            }
            Step::FailSync(at) => {
                self.end(Faults { sync_fails_at: Some(self.disk.syncs() + at), ..Faults::default() })?;
                self.disk.restart();
                self.start()?;
            }
            Step::Full(room) => {
                let used: usize = self.disk.snapshot().0.values().map(Vec::len).sum();
                self.end(Faults { capacity: Some(used as u64 + room), ..Faults::default() })?;
                self.disk.reopen();
                self.start()?;
            }
            Step::Backup => {
                self.disk.reopen();
                self.start()?;
                self.backup = Some((self.disk.snapshot(), self.entries.clone()));
            }
            Step::Restore => {
                let Some((backup, entries)) = self.backup.clone() else { return Ok(()) };
                self.disk.reopen();
                self.disk.restore(&backup);
                (self.acknowledged, self.entries) = (entries.len(), entries);
                self.start()?;
                self.seen.borrow_mut().restored += 1;
            }
            Step::Cut(at) => {
                if let Some((at, _)) = self.without(at)? {
                    let held = self.entries[..at].to_vec();
                    self.tamper(|bytes, places| bytes.truncate(places[at].0), held)?;
                }
            }
            Step::Flip(at, byte) => {
                if let Some((at, held)) = self.without(at)? {
                    self.tamper(|bytes, places| bytes[places[at].0 + byte] ^= 1, held)?;
                }
            }
            Step::TakeOut(at) => {
                if let Some((at, held)) = self.without(at)? {
                    self.tamper(|bytes, places| drop(bytes.drain(places[at].0..places[at].1)), held)?;
                }
            }
        }
        Ok(())
    }
}

#[test]
fn the_journal_keeps_what_was_acknowledged_and_says_what_is_gone() {
    let seen = RefCell::new(Seen::default());
    let run = TestRunner::new(config(2_000)).run(&(steps(), any::<u64>()), |(steps, seed)| {
        let mut journal = Journal::new(seed, &seen);
        for step in steps {
            journal.step(step)?;
        }
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    eprintln!("{seen:?}");
    let gates = [
        ("torn tails", seen.torn_tails),
        ("poisoned stores", seen.poisoned),
        ("full disks", seen.full),
        ("lost ends", seen.lost_ends),
        ("damaged journals", seen.damaged),
        ("restored backups", seen.restored),
        ("entries kept though nobody was told of them", seen.kept_unacknowledged),
        ("entries lost that nobody was told of", seen.lost_unacknowledged),
    ];
    for (what, count) in gates {
        assert!(count > 0, "in the whole run there were no {what}: {seen:?}");
    }
}
