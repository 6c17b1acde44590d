//! Blocks that arrived before one they name. Their signatures are checked; they wait, bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{block::Block, id::BlockId, limits};

#[derive(Debug, Default)]
pub(crate) struct Early {
    waiting: BTreeMap<BlockId, Block>,
    /// Missing block → the blocks that wait for it. Each waiting block is listed under one missing
    /// block only, and is looked at again when that one comes.
    by_missing: BTreeMap<BlockId, BTreeSet<BlockId>>,
    arrival: VecDeque<BlockId>,
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

    pub(crate) fn insert(&mut self, block: Block, missing: BlockId) {
        while self.waiting.len() >= limits::EARLY_BLOCKS_MAX {
            let Some(oldest) = self.arrival.pop_front() else { break };
            if self.waiting.remove(&oldest).is_some() {
                self.evicted += 1;
            }
        }
        let id = block.id();
        self.by_missing.entry(missing).or_default().insert(id);
        if self.waiting.insert(id, block).is_none() {
            self.arrival.push_back(id);
        }
        self.forget_the_gone();
    }

    /// Takes every block that waited for `id`.
    pub(crate) fn take(&mut self, id: &BlockId) -> Vec<Block> {
        let waiting = self.by_missing.remove(id).unwrap_or_default();
        waiting.into_iter().filter_map(|id| self.waiting.remove(&id)).collect()
    }

    /// Keeps the two indexes within a constant factor of what waits.
    fn forget_the_gone(&mut self) {
        if self.arrival.len() <= 2 * limits::EARLY_BLOCKS_MAX {
            return;
        }
        let waiting = &self.waiting;
        self.arrival.retain(|id| waiting.contains_key(id));
        self.by_missing.retain(|_, blocks| {
            blocks.retain(|id| waiting.contains_key(id));
            !blocks.is_empty()
        });
    }
}
