//! How memberships ended, and what a device has to hold to see by itself that its own did.

use std::{collections::BTreeSet, sync::Arc};

use super::Ledger;
use crate::{
    block::Block,
    chain::Chain,
    effective::Standing,
    id::{Author, BlockId},
    op::Payload,
    vector::{Batch, Vector},
};

/// What ended a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The device itself left.
    Itself,
    /// Another member revoked it.
    Revocation,
    /// The invitation, or user, that admitted it was withdrawn.
    Withdrawal,
    /// Its admission does not count: there was one too many by its invitation, or who invited it counts no more.
    Void,
}

/// How a device stopped being a member.
#[derive(Clone, Debug)]
pub struct Ending {
    /// What ended it.
    pub by: EndedBy,
    /// The block that did. Of [`EndedBy::Void`] there is not always one.
    pub block: Option<Arc<Block>>,
}

impl Ledger {
    /// Devices that an admission, recovery or genesis block names, and of which none stands. As of the last
    /// [`Ledger::publish`].
    pub(crate) fn ended_devices(&self) -> BTreeSet<Author> {
        let mut ended: BTreeSet<_> = self.grants.values().map(|grant| grant.device).collect();
        for (id, grant) in &self.grants {
            if self.standings.grants.get(id).is_some_and(Standing::is_active) {
                ended.remove(&grant.device);
            }
        }
        ended
    }

    /// How a device's membership ended; none while it is a member or where it never was one. Of several grants
    /// the last in order says it. As of the last [`Ledger::publish`].
    #[must_use]
    pub fn ending(&self, device: &Author) -> Option<Ending> {
        let grants = self.ended_grants(device)?;
        let last = grants.into_iter().max_by_key(|id| self.rank_of(id).map(|rank| rank.order))?;
        let standing = self.standings.grants.get(&last);
        if standing.is_some_and(|standing| standing.given) {
            // The revocations that count: those by others come first, the device's own word is the last resort.
            let mut revocations: Vec<_> =
                self.revocations_of(&last).filter(|block| self.is_effective(block)).cloned().collect();
            revocations.sort_by_key(|block| (block.author() == *device, block.order()));
            let block = revocations.into_iter().next();
            let own = block.as_ref().is_some_and(|block| block.author() == *device);
            return Some(Ending { by: if own { EndedBy::Itself } else { EndedBy::Revocation }, block });
        }
        let Some(Payload::Admitted(op)) = self.get(&last).map(|block| block.payload()) else {
            return Some(Ending { by: EndedBy::Void, block: None });
        };
        let offer = self.standings.offers.get(&op.invitation);
        let withdrawal = offer.and_then(|offer| offer.withdrawn.iter().find_map(|id| self.get(id)));
        Some(match withdrawal {
            Some(block) => Ending { by: EndedBy::Withdrawal, block: Some(Arc::clone(block)) },
            None => Ending { by: EndedBy::Void, block: None },
        })
    }

    /// What a device that is no member any more needs so that its own ledger says so: the blocks that ended its
    /// grants, with all that they name and so on, as far as the device's vector does not show that it holds them.
    /// The first in ledger order that fit into `bytes_max`. Nothing else of the ledger is in it. None for a
    /// member, and for a device that never was one. As of the last [`Ledger::publish`].
    #[must_use]
    pub fn ending_for(&self, device: &Author, theirs: &Vector, bytes_max: usize) -> Option<Batch> {
        let mut ends = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = self.ended_grants(device)?;
        while let Some(grant) = open.pop() {
            if seen.insert(grant) {
                self.note_ends(grant, &mut ends);
                open.extend(self.givers(&grant));
            }
        }
        Some(self.lacks_below(theirs, &ends, bytes_max))
    }

    /// The grants of a device, where none stands.
    fn ended_grants(&self, device: &Author) -> Option<Vec<BlockId>> {
        let own = self.grants.iter().filter(|(_, grant)| grant.device == *device);
        let grants: Vec<_> = own.map(|(id, _)| *id).collect();
        let stands = |id: &BlockId| self.standings.grants.get(id).is_some_and(Standing::is_active);
        (!grants.is_empty() && !grants.iter().any(stands)).then_some(grants)
    }

    /// The grants that an admission rests on: the inviter's and the redeemer's.
    fn givers(&self, grant: &BlockId) -> Vec<BlockId> {
        let Some(block) = self.get(grant) else { return Vec::new() };
        let Payload::Admitted(op) = block.payload() else { return Vec::new() };
        let inviter = self.get(&op.invitation).map(|invitation| invitation.grant());
        inviter.into_iter().chain([block.grant()]).filter(|id| *id != *grant).collect()
    }

    /// The blocks that can keep a grant from counting: it itself, its revocations and withdrawals that count, both
    /// sides of forks at or below its blocks, and the admissions that spent the uses before it.
    fn note_ends(&self, grant: BlockId, ends: &mut BTreeSet<BlockId>) {
        ends.insert(grant);
        ends.extend(
            self.revocations_of(&grant).filter(|block| self.is_effective(block)).map(|block| block.id()),
        );
        let Some(Payload::Admitted(op)) = self.get(&grant).map(|block| block.payload()) else { return };
        if let Some(offer) = self.standings.offers.get(&op.invitation) {
            ends.extend(&offer.withdrawn);
            if offer.surplus.contains(&op.device) {
                ends.extend(self.admissions_by(&op.invitation));
            }
        }
        for block in [grant, op.invitation].iter().filter_map(|id| self.held(id)) {
            let proof = self.chains.get(&block.chain()).and_then(Chain::fork_proof);
            ends.extend(
                proof.filter(|(seq, _)| *seq <= block.seq()).into_iter().flat_map(|(_, proof)| proof),
            );
        }
    }
}
