//! What follows from sets of blocks, worked out once for several ledgers.
//!
//! Of a fleet of ten thousand each node would else make the same map of ten thousand members for each that comes or
//! goes. What is asked for here is a function of the blocks that its key names, and of nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use crate::{
    chain::Chain,
    effective::Standings,
    id::{Author, BlockId, ChainId},
    view::{Invitation, Member, User},
};

/// Answers about pairs of keys that are held; when there are more, all are forgotten.
const PAIRS_MAX: usize = 4_096;

/// A set of blocks, as the sum of their ids. An id is a hash, so two sets have one sum by chance only where they are
/// the same. Somebody who makes blocks for it could find others: so this stands for no set whose blocks are not ours
/// to make, and no digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetSum([u64; 4]);

impl SetSum {
    /// Adds a block that is not in the set.
    pub(crate) fn add(&mut self, id: &BlockId) {
        for (sum, part) in self.0.iter_mut().zip(id.0.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*part));
        }
    }
}

/// What something follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// All authority blocks, and where chains are forked: the standings follow from these, and the members.
    pub(crate) fn of_authority<'a>(
        blocks: &SetSum,
        chains: impl Iterator<Item = (&'a ChainId, &'a Chain)>,
    ) -> Self {
        let mut hasher = hasher(blocks);
        for (id, fork) in chains.filter_map(|(id, chain)| Some((id, chain.fork()?))) {
            hasher.update(&id.author.0);
            hasher.update(&id.session.0);
            hasher.update(&fork.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// These blocks as well.
    pub(crate) fn with(&self, blocks: &SetSum) -> Self {
        let mut hasher = hasher(blocks);
        hasher.update(&self.0);
        Self(*hasher.finalize().as_bytes())
    }
}

fn hasher(blocks: &SetSum) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    for part in blocks.0 {
        hasher.update(&part.to_le_bytes());
    }
    hasher
}

/// What is in use of one kind. It holds none of it itself.
#[derive(Debug)]
pub(crate) struct InUse<T> {
    by_key: BTreeMap<Key, Weak<T>>,
    /// How many there were after those that nobody uses were last forgotten.
    used: usize,
}

impl<T> Default for InUse<T> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), used: 0 }
    }
}

impl<T> InUse<T> {
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.by_key.get(key).and_then(Weak::upgrade)
    }

    pub(crate) fn note(&mut self, key: Key, value: &Arc<T>) {
        if self.by_key.len() > 2 * self.used + 16 {
            self.by_key.retain(|_, value| value.strong_count() > 0);
            self.used = self.by_key.len();
        }
        self.by_key.insert(key, Arc::downgrade(value));
    }
}

/// What ledgers share of what follows from their blocks.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    pub(crate) standings: InUse<Standings>,
    pub(crate) members: InUse<BTreeMap<Author, Member>>,
    pub(crate) ended: InUse<BTreeSet<Author>>,
    pub(crate) invitations: InUse<BTreeMap<BlockId, Invitation>>,
    pub(crate) users: InUse<BTreeMap<BlockId, User>>,
    /// The grants of the first that the standings of the second do not leave as they were.
    pub(crate) changed: BTreeMap<(Key, Key), Arc<[BlockId]>>,
}

impl Derived {
    pub(crate) fn note_changed(&mut self, pair: (Key, Key), changed: Arc<[BlockId]>) {
        if self.changed.len() >= PAIRS_MAX {
            self.changed.clear();
        }
        self.changed.insert(pair, changed);
    }
}
