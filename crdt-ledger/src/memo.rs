//! Entries that were checked once, for several ledgers of one fleet in one process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ed25519_dalek::VerifyingKey;

use crate::{
    block::Block,
    counter::Row,
    id::{Author, BlockId, FleetId},
    op,
};

mod derived;

pub(crate) use derived::{Derived, InUse, Key, SetSum};

/// What ledgers of one fleet found out about bytes: who shares it checks each signature and each proof of membership
/// once, and holds each block and each decoded key once. What follows from equal sets of blocks, such as standings and
/// members, is worked out once and shared. Answers are the same as without it, because they follow from the bytes and
/// the fleet alone. Its blocks grow without end, and it is for simulations. A clone is the same memo.
#[derive(Clone, Debug)]
pub struct Memo {
    fleet: FleetId,
    known: Arc<Mutex<Known>>,
    /// Whether its ledger shares what follows from blocks, too.
    derives: bool,
}

#[derive(Debug, Default)]
struct Known {
    /// Well-formed blocks whose signatures hold.
    blocks: BTreeMap<BlockId, Arc<Block>>,
    /// Admissions whose proof fits the invitation that they name.
    proven: BTreeSet<BlockId>,
    /// Usable keys, decoded.
    keys: BTreeMap<Author, Arc<VerifyingKey>>,
    /// The row of each owner that was checked last.
    rows: BTreeMap<Author, Box<[u8]>>,
    derived: Derived,
}

impl Memo {
    /// An empty one, for ledgers of this fleet.
    #[must_use]
    pub fn new(fleet: FleetId) -> Self {
        Self { fleet, known: Arc::default(), derives: true }
    }

    /// The same, for a ledger that shares what was checked and works out by itself what follows.
    pub(crate) fn checks_alone(self) -> Self {
        Self { derives: false, ..self }
    }

    pub(crate) fn derives(&self) -> bool {
        self.derives
    }

    /// What follows from blocks that a key names, if somebody uses it; else it is made.
    pub(crate) fn derived<T>(
        &self,
        kind: impl Fn(&mut Derived) -> &mut InUse<T>,
        key: Key,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let known = kind(&mut self.known().derived).get(&key);
        known.unwrap_or_else(|| {
            let made = Arc::new(make());
            kind(&mut self.known().derived).note(key, &made);
            made
        })
    }

    /// The grants that standings do not leave as they were by earlier ones.
    pub(crate) fn changed(&self, pair: (Key, Key), compare: impl FnOnce() -> Vec<BlockId>) -> Arc<[BlockId]> {
        let known = self.known().derived.changed.get(&pair).cloned();
        known.unwrap_or_else(|| {
            let changed: Arc<[BlockId]> = compare().into();
            self.known().derived.note_changed(pair, Arc::clone(&changed));
            changed
        })
    }

    pub(crate) fn fleet(&self) -> FleetId {
        self.fleet
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one insertion, so what a panic left behind is whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn block(&self, id: &BlockId) -> Option<Arc<Block>> {
        self.known().blocks.get(id).cloned()
    }

    /// Notes a block whose signature was checked, or that was signed here.
    pub(crate) fn verified(&self, block: &Arc<Block>) {
        self.known().blocks.insert(block.id(), Arc::clone(block));
    }

    /// An author's key, unless it is weak or none.
    pub(crate) fn key(&self, author: &Author) -> Option<Arc<VerifyingKey>> {
        let mut known = self.known();
        if let Some(key) = known.keys.get(author) {
            return Some(Arc::clone(key));
        }
        let key = Arc::new(op::usable_key(author)?);
        known.keys.insert(*author, Arc::clone(&key));
        Some(key)
    }

    pub(crate) fn is_proven(&self, admission: &BlockId) -> bool {
        self.known().proven.contains(admission)
    }

    pub(crate) fn proven(&self, admission: BlockId) {
        self.known().proven.insert(admission);
    }

    /// Whether the row of this owner that was checked last has these bytes.
    pub(crate) fn is_row_verified(&self, owner: &Author, bytes: &[u8]) -> bool {
        self.known().rows.get(owner).is_some_and(|known| **known == *bytes)
    }

    /// Notes a row whose signature was checked, or that was signed here.
    pub fn row_verified(&self, row: &Row) {
        self.known().rows.insert(row.owner(), row.bytes().into());
    }
}
