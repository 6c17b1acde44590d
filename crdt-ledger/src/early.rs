//! Blocks that arrived before one they name. Their signatures are checked; they wait, bounded.
//!
//! Room is shared by who sent them: when it runs out, the sender whose blocks hold the most bytes gives up
//! the one of its own that waits for longest ("longest queue drop", Suter et al., 1998). So nobody pushes
//! out the blocks of a sender that holds less than itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    block::Block,
    id::{Author, BlockId},
    limits,
};

/// The member that sent a block; none where that is not known.
pub(crate) type Sender = Option<Author>;

#[derive(Debug)]
struct Waiting {
    block: Arc<Block>,
    arrival: u64,
    sender: Sender,
    /// The missing block under which it is listed. It is looked at again when that one comes.
    missing: BlockId,
}

/// What one sender's blocks take.
#[derive(Debug, Default)]
struct Share {
    by_arrival: BTreeMap<u64, BlockId>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Early {
    waiting: BTreeMap<BlockId, Waiting>,
    by_missing: BTreeMap<BlockId, BTreeSet<BlockId>>,
    shares: BTreeMap<Sender, Share>,
    /// How many of each author wait.
    written: BTreeMap<Author, u64>,
    bytes: usize,
    arrivals: u64,
    evicted: u64,
}

fn cost(block: &Block) -> usize {
    block.entry().len() + limits::EARLY_OVERHEAD_BYTES
}

impl Early {
    pub(crate) fn contains(&self, id: &BlockId) -> bool {
        self.waiting.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many blocks of one author wait.
    pub(crate) fn written_by(&self, author: &Author) -> u64 {
        self.written.get(author).copied().unwrap_or(0)
    }

    /// Blocks of one author that wait, in their order.
    pub(crate) fn by(&self, author: &Author) -> Vec<Arc<Block>> {
        let waiting = self.waiting.values().map(|waiting| &waiting.block);
        let mut blocks: Vec<_> = waiting.filter(|block| block.author() == *author).cloned().collect();
        blocks.sort_unstable_by_key(|block| block.order());
        blocks
    }

    /// What all waiting blocks take, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Blocks given up for lack of room. Anti-entropy brings them again.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Keeps a block; whoever holds most makes room.
    pub(crate) fn insert(&mut self, block: Arc<Block>, sender: Sender, missing: BlockId) {
        let (id, cost) = (block.id(), cost(&block));
        self.arrivals += 1;
        self.by_missing.entry(missing).or_default().insert(id);
        let share = self.shares.entry(sender).or_default();
        share.by_arrival.insert(self.arrivals, id);
        share.bytes += cost;
        self.bytes += cost;
        *self.written.entry(block.author()).or_default() += 1;
        self.waiting.insert(id, Waiting { block, arrival: self.arrivals, sender, missing });
        while self.waiting.len() > limits::EARLY_BLOCKS_MAX || self.bytes > limits::EARLY_BYTES_MAX {
            let largest = self.shares.values().max_by_key(|share| share.bytes);
            let Some((_, oldest)) = largest.and_then(|share| share.by_arrival.first_key_value()) else {
                return;
            };
            let oldest = *oldest;
            self.remove(&oldest);
            self.evicted += 1;
        }
    }

    /// Takes every block that waited for `id`, each with who sent it.
    pub(crate) fn take(&mut self, id: &BlockId) -> Vec<(Arc<Block>, Sender)> {
        let waiting = self.by_missing.get(id).cloned().unwrap_or_default();
        waiting.iter().filter_map(|id| self.remove(id)).collect()
    }

    fn remove(&mut self, id: &BlockId) -> Option<(Arc<Block>, Sender)> {
        let Waiting { block, arrival, sender, missing } = self.waiting.remove(id)?;
        let cost = cost(&block);
        self.bytes -= cost;
        if let Some(written) = self.written.get_mut(&block.author()) {
            *written -= 1;
            if *written == 0 {
                self.written.remove(&block.author());
            }
        }
        if let Some(share) = self.shares.get_mut(&sender) {
            share.by_arrival.remove(&arrival);
            share.bytes -= cost;
            if share.by_arrival.is_empty() {
                self.shares.remove(&sender);
            }
        }
        if let Some(ids) = self.by_missing.get_mut(&missing) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_missing.remove(&missing);
            }
        }
        Some((block, sender))
    }
}
