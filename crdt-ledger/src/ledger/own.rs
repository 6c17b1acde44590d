//! What a replica asks of the blocks that it wrote itself.

use std::{collections::BTreeSet, mem, sync::Arc};

use super::{Ledger, read::Read};
use crate::{
    block::Block,
    id::{Author, BlockId},
};

impl Ledger {
    /// Blocks of one author that are here, in full or as summaries, of all its sessions and of every branch.
    #[must_use]
    pub fn written_by(&self, author: &Author) -> u64 {
        self.written.get(author).copied().unwrap_or(0)
    }

    /// How many more blocks an author may write before its budget is spent, by the view that was published last. What
    /// waits for blocks that it names is written already: else a budget would be passed by what comes all at once
    /// when the first of a chain does.
    #[must_use]
    pub fn left_to_write(&self, author: &Author) -> u64 {
        let written = self.written_by(author) + self.early.written_by(author);
        self.view.load().budget(author).saturating_sub(written)
    }

    /// How many blocks an author has written beyond its budget.
    #[must_use]
    pub fn written_beyond(&self, author: &Author) -> u64 {
        self.written_by(author).saturating_sub(self.view.load().budget(author))
    }

    /// The admitted blocks of one author, chain by chain.
    pub fn blocks_by(&self, author: Author) -> impl Iterator<Item = &Arc<Block>> {
        let chains = self.chains.iter().filter(move |(id, _)| id.author == author);
        chains.flat_map(|(_, chain)| chain.from(1)).filter_map(|id| self.blocks.get(&id))
    }

    /// Takes these blocks out again, as if they had never come: for blocks that this replica made and could
    /// not make durable, so that nobody else holds them. Costs a replay of all blocks. Call [`Ledger::publish`] next.
    ///
    /// # Panics
    /// If a block that was admitted before is refused now: what a block names makes it valid, for ever.
    pub fn forget(&mut self, blocks: &BTreeSet<BlockId>) {
        let (mut document, early) = (mem::take(&mut self.document), mem::take(&mut self.early));
        document.restart();
        let (view, memo) = (Arc::clone(&self.view), self.memo.clone());
        let mut rest = Self { view, memo, document, early, ..Self::new(self.fleet) };
        for page in self.pages() {
            rest.offer(page);
        }
        for block in self.in_order().iter().filter(|block| !blocks.contains(&block.id())) {
            // One that follows what is forgotten waits now.
            let again = rest.place(Read::Block(Arc::clone(block)), None);
            assert!(again.is_ok(), "an admitted block stays valid: {again:?}");
        }
        rest.take_offered();
        *self = rest;
    }
}
