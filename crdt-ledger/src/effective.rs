//! Which valid blocks count.
//!
//! A pure function of the valid blocks, evaluated once from the root of authority down. A grant's
//! **rank** is its depth in the tree of admissions, then its place in ledger order; smaller is
//! higher. Whether a grant counts depends only on grants of higher rank, so the evaluation is
//! well-founded whatever the members write about each other: of two admins that revoke each other,
//! the one of higher rank wins.
//!
//! Voidness travels through the grant that a block uses, never through `parents`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    block::{Block, Order},
    held::Held,
    id::{Author, BlockId, Session},
    ledger::Ledger,
    op::Payload,
};

/// A grant's static place in the tree of authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Admissions between the genesis block and this grant. Recoveries stand above the genesis block: the
    /// negative of their generation.
    pub(crate) tree: i64,
    pub(crate) order: Order,
}

/// How far a session of a revoked device counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    seq: u64,
    /// Of a chain that is forked at or below `seq`: where, and the blocks from there up to the pin.
    branch: Option<(u64, BTreeSet<BlockId>)>,
}

impl Limit {
    /// Up to this block, and no other branch of its chain.
    fn at(ledger: &Ledger, pin: Held<'_>) -> Self {
        let branch = ledger.chain_fork(&pin.chain()).filter(|fork| pin.seq() >= *fork).map(|fork| {
            let mut branch = BTreeSet::new();
            let mut next = ledger.held(&pin.id());
            while let Some(block) = next.filter(|block| block.seq() >= fork) {
                branch.insert(block.id());
                next = ledger.held(&block.prev());
            }
            (fork, branch)
        });
        Self { seq: pin.seq(), branch }
    }

    fn allows(&self, block: Held<'_>) -> bool {
        let on_branch =
            |(fork, branch): &(u64, BTreeSet<BlockId>)| block.seq() < *fork || branch.contains(&block.id());
        block.seq() <= self.seq && self.branch.as_ref().is_none_or(on_branch)
    }
}

/// What revocations leave of a grant: a session that is not named has nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    sessions: BTreeMap<Session, Vec<Limit>>,
    /// Whether a higher rank set it. Then it also says which branch of a fork counts; a device's own word
    /// does not, or it could heal its own fork.
    by_higher: bool,
}

impl Cut {
    fn allows(&self, block: Held<'_>) -> bool {
        let limits = self.sessions.get(&block.session());
        limits.is_some_and(|limits| limits.iter().all(|limit| limit.allows(block)))
    }

    /// Several revocations of one grant leave what all of them leave.
    fn tighten(&mut self, pins: BTreeMap<Session, Limit>) {
        self.sessions.retain(|session, _| pins.contains_key(session));
        for (session, limit) in pins {
            if let Some(limits) = self.sessions.get_mut(&session)
                && !limits.contains(&limit)
            {
                limits.push(limit);
            }
        }
    }
}

/// What the effective blocks say of one grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether the block that gives the grant counts.
    pub(crate) given: bool,
    /// Once revoked: what is left.
    pub(crate) cut: Option<Cut>,
}

impl Standing {
    /// Whether the grant still makes its device a member.
    pub(crate) fn is_active(&self) -> bool {
        self.given && self.cut.is_none()
    }

    fn allows(&self, ledger: &Ledger, block: Held<'_>) -> bool {
        self.given && within(ledger, self.cut.as_ref(), block)
    }
}

/// Whether a block counts, given what revocations of its grant leave.
fn within(ledger: &Ledger, cut: Option<&Cut>, block: Held<'_>) -> bool {
    match cut {
        Some(cut) if cut.by_higher => cut.allows(block),
        Some(cut) => cut.allows(block) && below_fork(ledger, block),
        None => below_fork(ledger, block),
    }
}

/// Whether the block's author signed no other block at its place or at one before it. The genesis block
/// needs no such proof: the fleet's id names it.
fn below_fork(ledger: &Ledger, block: Held<'_>) -> bool {
    block.is_genesis() || ledger.chain_fork(&block.chain()).is_none_or(|fork| block.seq() < fork)
}

/// Why a valid block does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// The grant that it names was never given: its offer or its admission is void, withdrawn or surplus.
    NotGiven,
    /// A revocation of its grant does not leave it.
    Revoked,
    /// Its author signed two blocks at its place, or at one before it.
    Forked,
}

/// What the effective blocks say of one invitation or user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfferStanding {
    /// Effective withdrawals.
    pub(crate) withdrawn: BTreeSet<BlockId>,
    /// Devices that it admitted, at most as many as its uses.
    pub(crate) admitted: BTreeSet<Author>,
    /// Devices whose admission would count, had a use been left.
    pub(crate) surplus: BTreeSet<Author>,
}

/// The effective state of authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standings {
    pub(crate) grants: BTreeMap<BlockId, Standing>,
    pub(crate) offers: BTreeMap<BlockId, OfferStanding>,
    /// The last of the grants, which ranks below all others.
    lowest: Option<Rank>,
}

impl Standings {
    /// Evaluates all authority blocks of a ledger.
    pub(crate) fn evaluate(ledger: &Ledger) -> Self {
        let mut standings = Self::default();
        for (rank, id) in ledger.grants_by_rank() {
            standings.weigh(ledger, rank, id);
        }
        standings
    }

    /// What one more grant comes to, those above it being weighed.
    fn weigh(&mut self, ledger: &Ledger, rank: Rank, id: BlockId) {
        let given = self.is_given(ledger, id);
        let cut = if given { self.cut_of(ledger, id, rank) } else { None };
        self.grants.insert(id, Standing { given, cut });
        self.apply_withdrawals(ledger, id, rank);
        self.lowest = Some(rank);
    }

    /// Whether a grant of this rank ranks below all that were weighed, so that it changes nothing of them.
    pub(crate) fn is_below(&self, rank: &Rank) -> bool {
        self.lowest.is_some_and(|lowest| lowest < *rank)
    }

    /// Adds grants that rank below all others, in the order of their rank: nothing else may have come.
    pub(crate) fn join(&mut self, ledger: &Ledger, grants: &BTreeMap<Rank, BlockId>) {
        for (rank, id) in grants {
            self.weigh(ledger, *rank, *id);
        }
    }

    /// Whether a valid block counts.
    pub(crate) fn counts(&self, ledger: &Ledger, block: Held<'_>) -> bool {
        // The genesis block is its author's grant.
        let grant = if block.is_genesis() { block.id() } else { block.grant() };
        self.grants.get(&grant).is_some_and(|standing| standing.allows(ledger, block))
    }

    /// Why a valid block does not count, where it does not.
    pub(crate) fn why_void(&self, ledger: &Ledger, block: Held<'_>) -> Option<Void> {
        if self.counts(ledger, block) {
            return None;
        }
        let grant = if block.is_genesis() { block.id() } else { block.grant() };
        let given = self.grants.get(&grant).filter(|standing| standing.given);
        Some(match given.map(|standing| &standing.cut) {
            None => Void::NotGiven,
            Some(Some(cut)) if !cut.allows(block) => Void::Revoked,
            Some(_) => Void::Forked,
        })
    }

    /// Whether the block that gives a grant counts, and so uses its invitation. Uses are spent in the
    /// order of rank: what a void admission says spends none, so a revoked holder of a ticket cannot
    /// crowd out others, and ledger order alone would make verdicts depend on each other in a circle.
    fn is_given(&mut self, ledger: &Ledger, grant: BlockId) -> bool {
        let Some(block) = ledger.get(&grant) else { return false };
        let op = match block.payload() {
            // The fleet's id names the one; the recovery key vouches for the other, whoever carries it.
            Payload::Founded(_) | Payload::Recovered(_) => return true,
            Payload::Admitted(op) => op,
            _ => return false,
        };
        let Some(invitation) = ledger.get(&op.invitation) else { return false };
        let Some(offer) = invitation.payload().offer() else { return false };
        if !self.counts(ledger, Held::Full(invitation)) || !self.counts(ledger, Held::Full(block)) {
            return false;
        }
        let standing = self.offers.entry(op.invitation).or_default();
        if !standing.withdrawn.iter().all(|withdrawal| ledger.withdrawal_leaves(withdrawal, &grant)) {
            return false;
        }
        if standing.admitted.contains(&op.device) {
            return true;
        }
        let fits = standing.admitted.len() < offer.uses as usize;
        let devices = if fits { &mut standing.admitted } else { &mut standing.surplus };
        devices.insert(op.device);
        fits
    }

    /// Withdrawals by this grant. They bind only below it, so all that they touch comes later.
    fn apply_withdrawals(&mut self, ledger: &Ledger, grant: BlockId, rank: Rank) {
        for block in ledger.withdrawals_by(&grant) {
            let Payload::Withdrawn(op) = block.payload() else { continue };
            let Some(invitation) = ledger.get(&op.invitation) else { continue };
            if ledger.rank_of(&invitation.grant()).is_none_or(|inviter| rank > inviter) {
                continue;
            }
            if self.counts(ledger, Held::Full(block)) {
                self.offers.entry(op.invitation).or_default().withdrawn.insert(block.id());
            }
        }
    }

    /// What revocations by higher ranks, then by the device itself, leave of a grant's sessions.
    fn cut_of(&self, ledger: &Ledger, grant: BlockId, rank: Rank) -> Option<Cut> {
        let mut cut: Option<Cut> = None;
        for block in ledger.revocations_of(&grant) {
            let higher = ledger.rank_of(&block.grant()).is_some_and(|revoker| revoker < rank);
            if higher && self.counts(ledger, Held::Full(block)) {
                cut = Some(tightened(cut, expand_pins(ledger, block, None), true));
            }
        }
        // A device may always leave: its own word counts as far as it counts itself. The first in order
        // does: a device leaves once, and following each of many through all sessions would cost n².
        let own = ledger.revocations_of(&grant).filter(|block| block.grant() == grant);
        for block in own {
            if within(ledger, cut.as_ref(), Held::Full(block)) {
                let by_higher = cut.as_ref().is_some_and(|cut| cut.by_higher);
                return Some(tightened(cut, expand_pins(ledger, block, Some(block)), by_higher));
            }
        }
        cut
    }
}

fn tightened(cut: Option<Cut>, pins: BTreeMap<Session, Limit>, by_higher: bool) -> Cut {
    match cut {
        None => {
            let sessions = pins.into_iter().map(|(session, limit)| (session, vec![limit])).collect();
            Cut { sessions, by_higher }
        }
        Some(mut cut) => {
            cut.tighten(pins);
            cut
        }
    }
}

/// The pins named, and those that follow from them: a pinned session's first block cites the heads
/// of its author's earlier sessions, which so count up to there. `own` is the revocation itself where a
/// device ends its own grant: it pins its session.
fn expand_pins(ledger: &Ledger, revocation: &Block, own: Option<&Arc<Block>>) -> BTreeMap<Session, Limit> {
    let Payload::Revoked(op) = revocation.payload() else { return BTreeMap::new() };
    let mut named: BTreeMap<Session, Held<'_>> =
        op.pins.iter().filter_map(|pin| ledger.held(pin)).map(|pin| (pin.session(), pin)).collect();
    if let Some(own) = own {
        named.insert(own.chain().session, Held::Full(own));
    }
    let mut pins = named.clone();
    let mut open: Vec<_> = named.keys().copied().collect();
    let mut seen: BTreeSet<_> = open.iter().copied().collect();
    while let Some(session) = open.pop() {
        let Some(first) = pins.get(&session).and_then(|pin| ledger.first_below(*pin)) else { continue };
        // By id: a summary lists them in another order than its block, and the order decides which branch of a
        // session that is forked at its first block is followed.
        let parents: BTreeSet<_> = first.parents().collect();
        let parents = parents.iter().filter_map(|id| ledger.held(id));
        for cited in parents.filter(|parent| parent.author() == first.author()) {
            let session = cited.session();
            if named.contains_key(&session) {
                continue;
            }
            let pin = pins.entry(session).or_insert(cited);
            if (cited.seq(), cited.id()) > (pin.seq(), pin.id()) {
                *pin = cited;
            }
            if seen.insert(session) {
                open.push(session);
            }
        }
    }
    pins.into_iter().map(|(session, pin)| (session, Limit::at(ledger, pin))).collect()
}
