//! One chain as this replica holds it: usually a list, a tree where its author forked it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::id::BlockId;

#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    /// [`ChainId::short_actor`](crate::id::ChainId::short_actor), so that it is not hashed for each comparison.
    actor: [u8; 16],
    /// The first block that arrived for each sequence number, from 1: those that replicas with one beginning share.
    start: Option<Arc<[BlockId]>>,
    /// And those above them.
    first: Vec<BlockId>,
    /// Every further block, where the chain is forked.
    others: BTreeMap<u64, BTreeSet<BlockId>>,
    /// The block that no block of this chain follows, with its place; none where there are several.
    tip: Option<(BlockId, u64)>,
    /// Those, where the chain is or was forked. Most never are, and a map has room for eleven.
    tips: BTreeMap<BlockId, u64>,
}

impl Chain {
    /// A chain without blocks.
    pub(crate) fn new(actor: [u8; 16]) -> Self {
        Self { actor, ..Self::default() }
    }

    /// The name by which vectors and gaps know the chain.
    pub(crate) fn actor(&self) -> &[u8; 16] {
        &self.actor
    }

    /// Adds a block whose predecessor is here. Returns whether it is the first of its place.
    pub(crate) fn insert(&mut self, seq: u64, id: BlockId, prev: BlockId) -> bool {
        match self.tip.take() {
            Some((tip, _)) if tip == prev => self.tip = Some((id, seq)),
            None if self.tips.is_empty() => self.tip = Some((id, seq)),
            other => {
                self.tips.extend(other);
                self.tips.remove(&prev);
                self.tips.insert(id, seq);
            }
        }
        if seq == self.len() + 1 {
            if self.first.len() == self.first.capacity() {
                // To double it would leave a third of it empty, of all chains.
                self.first.reserve_exact((self.first.len() / 8).max(4));
            }
            self.first.push(id);
            return true;
        }
        self.others.entry(seq).or_default().insert(id);
        false
    }

    /// The longest branch's length.
    pub(crate) fn len(&self) -> u64 {
        (self.shared().len() + self.first.len()) as u64
    }

    /// Lets clones share what is here.
    pub(crate) fn freeze(&mut self) {
        if !self.first.is_empty() {
            self.start = Some(self.shared().iter().chain(&self.first).copied().collect());
            self.first = Vec::new();
        }
    }

    #[inline]
    fn shared(&self) -> &[BlockId] {
        self.start.as_deref().unwrap_or_default()
    }

    /// The first block that arrived for a place.
    #[inline]
    fn first_at(&self, seq: u64) -> Option<BlockId> {
        let at = index(seq.checked_sub(1)?);
        let shared = self.shared();
        shared.get(at).or_else(|| self.first.get(at - shared.len())).copied()
    }

    /// The smallest sequence number that two blocks bear. From there on the chain is void.
    pub(crate) fn fork(&self) -> Option<u64> {
        self.others.keys().next().copied()
    }

    /// The two smallest ids at the fork: the same proof on every node that holds the same blocks.
    pub(crate) fn fork_proof(&self) -> Option<(u64, [BlockId; 2])> {
        let (seq, others) = self.others.iter().next()?;
        let first = self.first_at(*seq)?;
        let mut least: Vec<_> = others.iter().copied().take(2).chain([first]).collect();
        least.sort_unstable();
        Some((*seq, [least[0], least[1]]))
    }

    /// Every block at a place, first arrival first.
    pub(crate) fn at(&self, seq: u64) -> impl Iterator<Item = BlockId> + '_ {
        let first = self.first_at(seq);
        first.into_iter().chain(self.others.get(&seq).into_iter().flatten().copied())
    }

    /// The block at a place whose id begins so.
    pub(crate) fn find(&self, seq: u64, start: &[u8]) -> Option<BlockId> {
        let first = self.first_at(seq);
        let mut least = BlockId::ZERO;
        least.0.get_mut(..start.len())?.copy_from_slice(start);
        let other = || self.others.get(&seq)?.range(least..).next().copied();
        first.filter(|id| id.0.starts_with(start)).or_else(|| other().filter(|id| id.0.starts_with(start)))
    }

    /// Every block from a place on.
    pub(crate) fn from(&self, seq: u64) -> impl Iterator<Item = BlockId> + '_ {
        (seq.max(1)..=self.len()).flat_map(|seq| self.at(seq))
    }

    /// Blocks that nothing follows, with their places.
    pub(crate) fn tips(&self) -> impl Iterator<Item = (BlockId, u64)> + '_ {
        self.tip.into_iter().chain(self.tips.iter().map(|(id, seq)| (*id, *seq)))
    }

    /// How many those are.
    pub(crate) fn tips_len(&self) -> usize {
        usize::from(self.tip.is_some()) + self.tips.len()
    }

    /// The tip of the longest branch; of several, the smallest id.
    pub(crate) fn head(&self) -> Option<(BlockId, u64)> {
        self.tips().max_by_key(|(id, seq)| (*seq, std::cmp::Reverse(*id)))
    }
}

fn index(below: u64) -> usize {
    usize::try_from(below).expect("a place that is held fits in memory")
}
