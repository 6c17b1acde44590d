//! Which valid blocks count.
//!
//! A pure function of the valid blocks, evaluated once from the root of authority down. A grant's
//! **rank** is its depth in the tree of admissions, then its place in ledger order; smaller is
//! higher. Whether a grant counts depends only on grants of higher rank, so the evaluation is
//! well-founded whatever the members write about each other: of two admins that revoke each other,
//! the one of higher rank wins.
//!
//! Voidness travels through the grant that a block uses, never through `parents`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    block::{Block, Order},
    id::{Author, BlockId, Session},
    ledger::Ledger,
    op::{Payload, Revoked},
};

/// A grant's static place in the tree of authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Admissions between the genesis block and this grant.
    pub(crate) tree: u32,
    pub(crate) order: Order,
}

/// What the effective blocks say of one grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether the block that gives the grant counts.
    pub(crate) given: bool,
    /// Once revoked: the last effective block of each session. A session not named has none.
    pub(crate) cut: Option<BTreeMap<Session, u64>>,
}

impl Standing {
    /// Whether the grant still makes its device a member.
    pub(crate) fn is_active(&self) -> bool {
        self.given && self.cut.is_none()
    }

    fn allows(&self, session: &Session, seq: u64) -> bool {
        self.given && within(self.cut.as_ref(), session, seq)
    }
}

fn within(cut: Option<&BTreeMap<Session, u64>>, session: &Session, seq: u64) -> bool {
    cut.is_none_or(|cut| seq <= cut.get(session).copied().unwrap_or(0))
}

/// What the effective blocks say of one invitation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InvitationStanding {
    /// The smallest effective withdrawal.
    pub(crate) withdrawn: Option<Order>,
    /// Devices that it admitted, at most as many as its uses.
    pub(crate) admitted: BTreeSet<Author>,
    /// Devices whose admission would count, had a use been left.
    pub(crate) surplus: BTreeSet<Author>,
}

/// The effective state of authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standings {
    pub(crate) grants: BTreeMap<BlockId, Standing>,
    pub(crate) invitations: BTreeMap<BlockId, InvitationStanding>,
}

impl Standings {
    /// Evaluates all authority blocks of a ledger.
    pub(crate) fn evaluate(ledger: &Ledger) -> Self {
        let mut standings = Self::default();
        for (rank, id) in ledger.grants_by_rank() {
            let given = standings.is_given(ledger, id);
            let cut = if given { standings.cut_of(ledger, id, rank) } else { None };
            standings.grants.insert(id, Standing { given, cut });
            standings.apply_withdrawals(ledger, id, rank);
        }
        standings
    }

    /// Whether a valid block counts.
    pub(crate) fn counts(&self, ledger: &Ledger, block: &Block) -> bool {
        if ledger.chain_fork(&block.chain()).is_some_and(|fork| block.seq() >= fork) {
            return false;
        }
        // The genesis block is its author's grant.
        let grant = if block.is_genesis_shaped() { block.id() } else { block.grant() };
        self.grants.get(&grant).is_some_and(|standing| standing.allows(&block.chain().session, block.seq()))
    }

    /// Whether the block that gives a grant counts, and so uses its invitation. Uses are spent in the
    /// order of rank: what a void admission says spends none, so a revoked holder of a ticket cannot
    /// crowd out others, and ledger order alone would make verdicts depend on each other in a circle.
    fn is_given(&mut self, ledger: &Ledger, grant: BlockId) -> bool {
        let Some(block) = ledger.get(&grant) else { return false };
        let Payload::Admitted(op) = block.payload() else {
            // A genesis block counts unless its author forked at it.
            return ledger.chain_fork(&block.chain()).is_none_or(|fork| block.seq() < fork);
        };
        let Some(invitation) = ledger.get(&op.invitation) else { return false };
        let Payload::Invited(invited) = invitation.payload() else { return false };
        if !self.counts(ledger, invitation) || !self.counts(ledger, block) {
            return false;
        }
        let standing = self.invitations.entry(op.invitation).or_default();
        if standing.withdrawn.is_some_and(|withdrawn| withdrawn < block.order()) {
            return false;
        }
        if standing.admitted.contains(&op.device) {
            return true;
        }
        let fits = standing.admitted.len() < invited.uses as usize;
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
            if self.counts(ledger, block) {
                let standing = self.invitations.entry(op.invitation).or_default();
                let order = block.order();
                standing.withdrawn = Some(standing.withdrawn.map_or(order, |known| known.min(order)));
            }
        }
    }

    /// What revocations by higher ranks, then by the device itself, leave of a grant's sessions.
    fn cut_of(&self, ledger: &Ledger, grant: BlockId, rank: Rank) -> Option<BTreeMap<Session, u64>> {
        let mut cut = None;
        for block in ledger.revocations_of(&grant) {
            let higher = ledger.rank_of(&block.grant()).is_some_and(|revoker| revoker < rank);
            if higher && self.counts(ledger, block) {
                tighten(ledger, &mut cut, block);
            }
        }
        // A device may always leave: its own revocations count as far as it counts itself.
        for block in ledger.revocations_of(&grant).filter(|block| block.grant() == grant) {
            let forked = ledger.chain_fork(&block.chain()).is_some_and(|fork| block.seq() >= fork);
            if !forked && within(cut.as_ref(), &block.chain().session, block.seq()) {
                tighten(ledger, &mut cut, block);
            }
        }
        cut
    }
}

/// Several revocations of one grant: the minimum of their pins, session by session.
fn tighten(ledger: &Ledger, cut: &mut Option<BTreeMap<Session, u64>>, block: &Block) {
    let Payload::Revoked(op) = block.payload() else { return };
    let pins = expand_pins(ledger, op);
    match cut {
        None => *cut = Some(pins),
        Some(cut) => {
            cut.retain(|session, _| pins.contains_key(session));
            for (session, seq) in cut {
                *seq = (*seq).min(pins.get(session).copied().unwrap_or(0));
            }
        }
    }
}

/// The pins named, and those that follow from them: a pinned session's first block cites the heads
/// of its author's earlier sessions, which so count up to there. A first block that has a rival is
/// void and cites nothing: else a revoked device could sign one that cites its later blocks.
fn expand_pins(ledger: &Ledger, op: &Revoked) -> BTreeMap<Session, u64> {
    let named: BTreeMap<_, _> = op.pins.iter().map(|pin| (pin.session, pin.seq)).collect();
    let mut pins = named.clone();
    let Some(device) = op.grants.first().and_then(|grant| ledger.device_of(grant)) else { return pins };
    let mut open: Vec<_> = named.iter().filter(|(_, seq)| **seq > 0).map(|(session, _)| *session).collect();
    let mut seen: BTreeSet<_> = open.iter().copied().collect();
    while let Some(session) = open.pop() {
        let Some(first) = ledger.first_block(device, session) else { continue };
        for parent in first.parents().iter().filter(|parent| parent.author == device) {
            if named.contains_key(&parent.session) {
                continue;
            }
            let pin = pins.entry(parent.session).or_default();
            *pin = parent.seq.max(*pin);
            if seen.insert(parent.session) {
                open.push(parent.session);
            }
        }
    }
    pins
}
