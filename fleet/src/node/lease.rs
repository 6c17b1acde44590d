//! Leases: how this node wins the right to make, and to look after, the machine of a slot.
//!
//! The rule is [`rule`], a pure function; here it meets the ledger, the connections and the clock. What it promises,
//! and what it cannot, is in `docs/leases.md`.
//!
//! **D**, how long a block of this node takes to another spawner, is at least [`DELAY_MIN`] for each hop: the longest
//! pause between two digests to a peer, and an exchange. Gossip is quicker and counts for nothing. Each claim is
//! measured besides: until every connected spawner has confirmed to hold it, D is the time that this has taken so
//! far; and the slowest of the last [`MEASURES`] claims is the least that the next one starts from.

mod delay;
pub mod rule;
mod spawn;
mod spend;
mod states;
#[cfg(test)]
mod tests;
mod want;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use osiris_ledger::{
    Author, BlockId, Mono, Now, Payload, Role, View,
    lease::{Claim, draw},
    op,
};
use osiris_mesh::PeerId;

use self::{
    delay::{Delays, Measure},
    rule::{Loss, Mine, Next, Phase, Rival, Terms},
    spawn::Machines,
    states::States,
};
use super::{Node, Refusal, Reply, Token};
use crate::api::codes;

pub use delay::{DELAY_MIN, MEASURES, hops};
pub use spawn::{
    Errand, Job, LOOK_AGAIN, MISSING_LOOKS, MachineCounts, Provisioning, REAP_EVERY, RETRY_FIRST, RETRY_MAX,
    SPEND_PATIENCE, Spawn,
};
pub use spend::{LeaseFacts, OwnLease};
pub use states::Share;
pub use want::Want;

/// How often a node looks after an own claim. Well below [`Terms::standstill`], so that a look that comes late says
/// something.
pub const LOOK: Duration = Duration::from_millis(250);

/// An own claim, with what is known of it.
#[derive(Debug)]
struct Own {
    claim: BlockId,
    activation: Option<BlockId>,
    mine: Mine,
    measure: Measure,
    /// Whether the slot's last lease expired without a word.
    takes_over: bool,
    /// What it is for.
    wants: Want,
    /// The functions that a machine made by it is for; none: for any.
    functions: Vec<String>,
    /// Whether the machine is not wanted yet: the claim waits beside the policy, which sees whether the need lasts.
    ahead: bool,
    /// The intent that was written by it.
    intent: Option<BlockId>,
}

/// Another member's live claim.
#[derive(Clone, Copy, Debug)]
struct Heard {
    slot: u32,
    round: u64,
    author: Author,
    /// When this node last heard of it: the claim, or a renewal.
    last: Mono,
}

/// How often what happened to claims of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Claims made.
    pub claimed: u64,
    /// Claims that won.
    pub won: u64,
    /// Of those: of slots whose last lease had expired without a word.
    pub taken_over: u64,
    /// Claims that were outdrawn or overtaken.
    pub lost: u64,
    /// Claims that ended because this process stood still, was suspended, or was too slow.
    pub missed: u64,
    /// Claims made ahead of a need that then did not last.
    pub unneeded: u64,
    /// Wishes that came to nothing because no majority of the voters was connected.
    pub no_majority: u64,
}

/// Leases as this node has them.
#[derive(Debug)]
pub(super) struct Leases {
    terms: Terms,
    /// Machines that the fleet may have for this node to make one; 0: it makes none.
    machines_max: u32,
    own: BTreeMap<u32, Own>,
    heard: BTreeMap<BlockId, Heard>,
    /// Claims of earlier processes of this device: nobody acts on them any more.
    orphans: Vec<BlockId>,
    delays: Delays,
    /// The view that this was last brought in line with.
    followed: Option<Arc<View>>,
    counts: LeaseCounts,
    /// Why the last wish or claim came to nothing, in a sentence.
    says: Option<String>,
    machines: Machines,
    states: States,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self {
            terms: Terms::default(),
            machines_max: 0,
            own: BTreeMap::new(),
            heard: BTreeMap::new(),
            orphans: Vec::new(),
            delays: Delays::default(),
            followed: None,
            counts: LeaseCounts::default(),
            says: None,
            machines: Machines::default(),
            states: States::default(),
        }
    }

    /// When own claims, or machines, are looked after next.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let claims = self.own.values().map(|own| own.mine.looked.plus(LOOK));
        claims.chain(self.machines.deadline()).min()
    }

    /// Tells the row which claims it renews.
    fn renew_by(&self, telemetry: &mut super::Telemetry) {
        telemetry.renew(self.own.values().map(|own| own.claim).collect());
    }

    /// Notes whose claims are live, and which own ones nobody looks after.
    fn follow(&mut self, now: Mono, view: &Arc<View>, me: &Author) {
        if self.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, view)) {
            return;
        }
        self.followed = Some(Arc::clone(view));
        self.orphans.clear();
        // What is void stays until it expires: its author may not have heard that it is.
        self.heard.retain(|id, heard| {
            let Some(slot) = view.slots().get(&heard.slot) else { return true };
            let said = slot.claims.iter().find(|claim| claim.id == *id);
            slot.round <= heard.round && said.is_none_or(|claim| !claim.released)
        });
        for slot in view.slots().values() {
            for claim in slot.claims.iter().filter(|claim| !claim.released) {
                if claim.author != *me {
                    let heard =
                        Heard { slot: slot.number, round: slot.round, author: claim.author, last: now };
                    self.heard.entry(claim.id).or_insert(heard);
                } else if self.own.values().all(|own| own.claim != claim.id) {
                    self.orphans.push(claim.id);
                }
            }
        }
    }

    /// A member's row renews its claims.
    pub(super) fn heard(&mut self, now: Mono, owner: &Author, claims: &[BlockId]) {
        for id in claims {
            if let Some(heard) = self.heard.get_mut(id).filter(|heard| heard.author == *owner) {
                heard.last = now;
            }
        }
    }

    /// This node's row renewed these.
    pub(super) fn renewed(&mut self, now: Mono, claims: &[BlockId]) {
        for own in self.own.values_mut().filter(|own| claims.contains(&own.claim)) {
            own.mine.renewed = now;
        }
    }

    /// What rows of this node are to renew.
    fn claims(&self) -> Vec<BlockId> {
        self.own.values().map(|own| own.claim).collect()
    }

    /// A spawner is connected from now on: what it claimed before is not known here yet.
    pub(super) fn peer_up(&mut self, now: Mono, peer: PeerId) {
        for own in self.own.values_mut().filter(|own| own.mine.phase == Phase::Claiming) {
            own.mine.since = now;
            own.measure.await_peer(now, peer);
        }
    }

    pub(super) fn peer_down(&mut self, peer: &PeerId) {
        for own in self.own.values_mut() {
            own.measure.peer_down(peer);
        }
    }

    /// A peer confirmed to hold these blocks durably; none: all own ones.
    pub(super) fn confirmed(&mut self, now: Mono, peer: PeerId, ids: Option<&[BlockId]>) {
        for own in self.own.values_mut().filter(|own| ids.is_none_or(|ids| ids.contains(&own.claim))) {
            own.measure.confirmed(now, peer);
        }
    }

    /// What follows for the own claim of a slot.
    fn next(&self, now: Mono, own: &Own, slot: u32, view: &View, members: usize) -> Next {
        let delay = self.delays.least(members).max(own.measure.so_far(now));
        let Some(slot) = view.slots().get(&slot) else { return Next::Release(Loss::Void) };
        let said = slot.claims.iter().find(|claim| claim.id == own.claim);
        if slot.round <= own.mine.round && said.is_none() {
            return Next::Release(Loss::Void);
        }
        let mine = Mine { released: said.is_some_and(|claim| claim.released), ..own.mine };
        let rival = |claim: &Claim| Rival {
            round: slot.round,
            lot: (draw(slot.number, slot.round, &claim.author), claim.id),
            activated: claim.activated,
            released: claim.released,
        };
        let rivals = slot.claims.iter().filter(|claim| claim.id != own.claim).map(rival);
        rule::look(&self.terms, now, &mine, delay, rivals)
    }
}

impl Node {
    /// Lets this node make machines while the fleet has fewer than `machines`; 0, as at first: none. The fleet's
    /// policy may allow less.
    pub fn allow_machines(&mut self, machines: u32) {
        self.leases.machines_max = machines;
    }

    /// Whether a connected peer may have claims of its own.
    pub(super) fn is_spawner(&self, peer: &PeerId) -> bool {
        let member = self.view.members().get(&Author(peer.to_bytes()));
        member.is_some_and(|member| member.active && member.roles.has(Role::Spawner))
    }

    /// Brings own claims in line with what is known: they win, go on or are over. Before and after every input, so
    /// that nothing is done by a lease that is lost.
    pub(super) fn look_after_leases(&mut self, now: Now) {
        let view = Arc::clone(&self.view);
        self.leases.follow(now.mono, &view, &self.me);
        let slots: Vec<_> = self.leases.own.keys().copied().collect();
        for slot in slots {
            let Some(own) = self.leases.own.get(&slot) else { continue };
            let may_write = self.read_only.is_none() && self.view.is_member(&self.me);
            let next = match may_write {
                true => self.leases.next(now.mono, own, slot, &view, self.active_members()),
                false => Next::Release(Loss::Void),
            };
            match next {
                Next::Wait => self.looked_after(now, slot),
                Next::Activate if !own.ahead => self.activate(now, slot),
                Next::Activate if own.functions.iter().any(|name| self.scale.presses(name)) => {
                    self.looked_after(now, slot);
                }
                Next::Activate => self.lose(now, slot, Loss::Unneeded),
                Next::Release(Loss::Late) if own.ahead => self.lose(now, slot, Loss::Unneeded),
                Next::Release(loss) => self.lose(now, slot, loss),
            }
        }
        self.release_orphans(now);
        let claims = self.leases.claims();
        self.telemetry.renew(claims);
    }

    fn looked_after(&mut self, now: Now, slot: u32) {
        if let Some(own) = self.leases.own.get_mut(&slot) {
            own.mine.looked = now.mono;
        }
    }

    /// The machine was suspended: whatever was held is lost, whatever the monotonic clock says.
    pub(super) fn suspended(&mut self, now: Now) {
        let slots: Vec<_> = self.leases.own.keys().copied().collect();
        for slot in slots {
            self.lose(now, slot, Loss::Suspended);
        }
    }

    /// The process ends: nothing is claimed any more, and nobody has to wait until what is held expires.
    pub(super) fn stopping(&mut self, now: Now) {
        self.leases.machines = Machines::default();
        self.leases.machines_max = 0;
        self.release_all(now);
    }

    /// Gives up all leases, in order.
    pub(super) fn release_all(&mut self, now: Now) {
        for own in std::mem::take(&mut self.leases.own).into_values() {
            // Where it cannot be said, silence says so later.
            let _ = self.append(now, Payload::Released(op::Released { claim: own.claim }));
        }
        self.telemetry.renew(Vec::new());
    }

    fn activate(&mut self, now: Now, slot: u32) {
        let Some(claim) = self.leases.own.get(&slot).map(|own| own.claim) else { return };
        let Ok(block) = self.append(now, Payload::Activated(op::Activated { claim })) else {
            return self.lose(now, slot, Loss::Void);
        };
        let leases = &mut self.leases;
        let Some(own) = leases.own.get_mut(&slot) else { return };
        own.mine.phase = Phase::Held;
        own.mine.looked = now.mono;
        own.activation = Some(block.id());
        leases.delays.measured(own.measure.slowest());
        leases.counts.won += 1;
        leases.counts.taken_over += u64::from(own.takes_over);
        leases.says = None;
    }

    fn lose(&mut self, now: Now, slot: u32, loss: Loss) {
        let Some(own) = self.leases.own.remove(&slot) else { return };
        let counts = &mut self.leases.counts;
        match loss {
            Loss::Outdrawn | Loss::Overtaken | Loss::Void => counts.lost += 1,
            Loss::Late | Loss::StoodStill | Loss::Suspended | Loss::Lapsed => counts.missed += 1,
            Loss::Unneeded => counts.unneeded += 1,
        }
        if own.mine.phase == Phase::Claiming {
            self.leases.delays.measured(own.measure.so_far(now.mono));
        }
        let round = own.mine.round;
        self.leases.says = Some(format!("Slot {slot}, round {round}: {}.", loss.says()));
        // Who cannot say so any more is not heard of any more.
        let _ = self.append(now, Payload::Released(op::Released { claim: own.claim }));
    }

    /// What earlier processes of this device claimed is lost with them: others need not wait for its expiry. A
    /// process that runs for a command leaves that to the node.
    fn release_orphans(&mut self, now: Now) {
        if !self.started || !self.serves || self.leases.orphans.is_empty() {
            return;
        }
        for claim in std::mem::take(&mut self.leases.orphans) {
            let _ = self.append(now, Payload::Released(op::Released { claim }));
        }
    }

    fn active_members(&self) -> usize {
        let others = usize::try_from(self.others).unwrap_or(usize::MAX);
        others.saturating_add(usize::from(self.view.is_member(&self.me)))
    }

    /// An own lease ends at its holder's wish.
    pub(super) fn release(
        &mut self,
        now: Now,
        token: Token,
        slot: u32,
        timeout_ms: u64,
    ) -> Result<Option<Reply>, Refusal> {
        let Some(own) = self.leases.own.remove(&slot) else {
            return Err(no_lease(slot));
        };
        self.write(now, token, Payload::Released(op::Released { claim: own.claim }), timeout_ms, false)
    }
}

fn no_lease(slot: u32) -> Refusal {
    let message = format!("This node holds no lease of slot {slot}.");
    Refusal::new(codes::CONFLICT, message, "`osiris lease ls` shows who holds which slot.")
}
