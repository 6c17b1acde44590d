//! What follows from who descends from whom: ancestors of a block, first blocks of sessions, what admits
//! whom, and what to pin of a device.

use std::collections::{BTreeMap, BTreeSet};

use super::Ledger;
use crate::{
    held::Held,
    id::{Author, BlockId},
    limits,
    op::Payload,
};

impl Ledger {
    /// The admissions by an invitation or user that are ancestors of these blocks. Whatever is no ancestor
    /// of a block when it comes in never becomes one.
    pub(crate) fn admissions_below(&self, offer: &BlockId, from: &[BlockId]) -> BTreeSet<BlockId> {
        let mut found = BTreeSet::new();
        let Some(admissions) = self.admissions.get(offer) else { return found };
        // An admission lies above what it refers to.
        let floor = self.blocks.get(offer).map_or(0, |block| block.order().depth);
        let mut open: Vec<_> = from.iter().filter_map(|id| self.held(id)).collect();
        let mut seen: BTreeSet<_> = open.iter().map(|block| block.id()).collect();
        while let Some(block) = open.pop() {
            if admissions.contains(&block.id()) {
                found.insert(block.id());
                if found.len() == admissions.len() {
                    break;
                }
            }
            for held in block.parents().chain([block.prev()]).filter_map(|id| self.held(&id)) {
                if held.order().depth > floor && seen.insert(held.id()) {
                    open.push(held);
                }
            }
        }
        found
    }

    /// The first block of the chain that a block belongs to, on its branch.
    pub(crate) fn first_below(&self, block: Held<'_>) -> Option<Held<'_>> {
        let chain = self.chains.get(&block.chain())?;
        if chain.fork() != Some(1) {
            return chain.at(1).next().and_then(|id| self.held(&id));
        }
        let mut next = self.held(&block.id())?;
        while next.seq() > 1 {
            next = self.held(&next.prev())?;
        }
        Some(next)
    }

    /// Whether an admission stands after its invitation was withdrawn.
    pub(crate) fn withdrawal_leaves(&self, withdrawal: &BlockId, admission: &BlockId) -> bool {
        self.stands.get(withdrawal).is_some_and(|stands| stands.contains(admission))
    }

    /// The user by whose key a grant was given.
    #[must_use]
    pub fn user_of(&self, grant: &BlockId) -> Option<BlockId> {
        let Payload::Admitted(op) = self.blocks.get(grant)?.payload() else { return None };
        let by_user = matches!(self.blocks.get(&op.invitation)?.payload(), Payload::User(_));
        by_user.then_some(op.invitation)
    }

    /// Admissions by an invitation or user.
    pub(crate) fn admissions_by(&self, offer: &BlockId) -> impl Iterator<Item = &BlockId> {
        self.admissions.get(offer).into_iter().flatten()
    }

    /// What to pin so that all that a device is known to have written goes on counting: the newest block
    /// of each of its sessions, save those that a later session cites. Of a forked session the last block
    /// before the fork. Of more than [`limits::PINS_MAX`] sessions, those that come last in ledger order.
    #[must_use]
    pub fn pins_for(&self, device: &Author) -> Vec<BlockId> {
        let mut cited = BTreeMap::new();
        let mut last = Vec::new();
        for chain in self.chains.iter().filter(|(id, _)| id.author == *device).map(|(_, chain)| chain) {
            let first = (chain.fork() != Some(1)).then(|| chain.at(1).next()).flatten();
            let end = chain.fork().map_or(chain.len(), |fork| fork - 1);
            let (Some(first), Some(end)) = (first, chain.at(end).next()) else { continue };
            let parents = self.held(&first).into_iter().flat_map(Held::parents);
            for parent in parents.filter_map(|id| self.held(&id)).filter(|p| p.author() == *device) {
                let seq = cited.entry(parent.session()).or_insert(0);
                *seq = parent.seq().max(*seq);
            }
            last.extend(self.held(&end));
        }
        last.retain(|block| cited.get(&block.session()).is_none_or(|seq| *seq < block.seq()));
        last.sort_unstable_by_key(|block| std::cmp::Reverse(block.order()));
        let mut pins: Vec<_> = last.iter().take(limits::PINS_MAX).map(|block| block.id()).collect();
        pins.sort_unstable();
        pins
    }
}
