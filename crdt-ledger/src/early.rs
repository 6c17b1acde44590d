//! Blocks that arrived before one they name. Their signatures are checked; they wait, bounded.

use std::collections::{BTreeMap, BTreeSet};

use crate::{block::Block, id::BlockId, limits};

#[derive(Debug)]
struct Waiting {
    block: Block,
    arrival: u64,
    /// The missing block under which it is listed. It is looked at again when that one comes.
    missing: BlockId,
}

#[derive(Debug, Default)]
pub(crate) struct Early {
    waiting: BTreeMap<BlockId, Waiting>,
    by_missing: BTreeMap<BlockId, BTreeSet<BlockId>>,
    by_arrival: BTreeMap<u64, BlockId>,
    arrivals: u64,
    evicted: u64,
}

impl Early {
    pub(crate) fn contains(&self, id: &BlockId) -> bool {
        self.waiting.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Blocks given up because the buffer was full. Anti-entropy brings them again.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Keeps a block; the one that has waited longest makes room.
    pub(crate) fn insert(&mut self, block: Block, missing: BlockId) {
        if self.waiting.len() >= limits::EARLY_BLOCKS_MAX
            && let Some((_, oldest)) = self.by_arrival.pop_first()
        {
            self.remove(&oldest);
            self.evicted += 1;
        }
        let id = block.id();
        self.arrivals += 1;
        self.by_missing.entry(missing).or_default().insert(id);
        self.by_arrival.insert(self.arrivals, id);
        self.waiting.insert(id, Waiting { block, arrival: self.arrivals, missing });
    }

    /// Takes every block that waited for `id`.
    pub(crate) fn take(&mut self, id: &BlockId) -> Vec<Block> {
        let waiting = self.by_missing.get(id).cloned().unwrap_or_default();
        waiting.iter().filter_map(|id| self.remove(id)).collect()
    }

    fn remove(&mut self, id: &BlockId) -> Option<Block> {
        let Waiting { block, arrival, missing } = self.waiting.remove(id)?;
        self.by_arrival.remove(&arrival);
        if let Some(ids) = self.by_missing.get_mut(&missing) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_missing.remove(&missing);
            }
        }
        Some(block)
    }
}
