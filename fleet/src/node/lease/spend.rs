//! Whether a lease may be spent now, and what is known of leases.

use std::{collections::BTreeMap, time::Duration};

use osiris_ledger::{BlockId, Now, Payload, op};

use super::{
    super::{Node, Refusal, Reply, Token},
    LeaseCounts, MachineCounts, Own,
    rule::{self, Phase},
};
use crate::api::codes;

/// Leases as this node knows them, beside the view.
#[derive(Clone, Debug, Default)]
pub struct LeaseFacts {
    /// Own claims, by slot.
    pub own: BTreeMap<u32, OwnLease>,
    /// How long ago each live claim of another member was last heard of.
    pub heard: BTreeMap<BlockId, Duration>,
    /// D, at least, of the next claim.
    pub delay: Duration,
    /// How long the next claim waits, at least.
    pub settle: Duration,
    /// After how long without a renewal another's claim may be taken over.
    pub expiry: Duration,
    /// Machines that the fleet may have for this node to make one, by its own configuration.
    pub machines_here: u32,
    /// Voters connected, this device included, and voters in all.
    pub voters: (usize, usize),
    /// Why the last wish or claim came to nothing, in a sentence.
    pub says: Option<String>,
    /// What happened to claims of this process.
    pub counts: LeaseCounts,
    /// Name of the target that this node makes machines with.
    pub target: Option<String>,
    /// What this process does about machines, by intent, in a word.
    pub machines: BTreeMap<BlockId, &'static str>,
    /// What happened to machines of this process.
    pub machine_counts: MachineCounts,
}

/// An own claim.
#[derive(Clone, Debug)]
pub struct OwnLease {
    /// The `claimed` block.
    pub claim: BlockId,
    /// Its round.
    pub round: u64,
    /// Whether it was activated.
    pub phase: Phase,
    /// Whether its machine is not wanted yet.
    pub ahead: bool,
    /// Since when this node has it.
    pub age: Duration,
    /// Whether a machine may be made by it now, else why not.
    pub spend: Result<(), String>,
}

impl Node {
    /// Leases as this node knows them, beside the view.
    #[must_use]
    pub fn lease_facts(&self, now: Now) -> LeaseFacts {
        let own = self.leases.own.iter().map(|(slot, own)| {
            let lease = OwnLease {
                claim: own.claim,
                round: own.mine.round,
                phase: own.mine.phase,
                ahead: own.ahead,
                age: now.mono.since(own.mine.at),
                spend: self.may_spend(*slot, own),
            };
            (*slot, lease)
        });
        let delay = self.leases.delays.least(self.active_members());
        let heard = self.leases.heard.iter().map(|(id, heard)| (*id, heard.last));
        let live = heard.filter(|(_, last)| rule::is_live(&self.leases.terms, now.mono, *last, delay));
        LeaseFacts {
            own: own.collect(),
            heard: live.map(|(id, last)| (id, now.mono.since(last))).collect(),
            delay,
            settle: self.leases.terms.settle(delay),
            expiry: self.leases.terms.expiry(delay),
            machines_here: self.leases.machines_max,
            voters: self.voters_connected(),
            says: self.leases.says.clone(),
            counts: self.leases.counts,
            target: self.leases.machines.target().map(str::to_owned),
            machines: self.leases.machines.states(),
            machine_counts: self.leases.machines.counts(),
        }
    }

    /// Whether a machine may be made by this lease now.
    pub(super) fn may_spend(&self, slot: u32, own: &Own) -> Result<(), String> {
        if own.mine.phase != Phase::Held {
            return Err("the claim has not won yet".to_owned());
        }
        if slot >= self.slots_max() {
            return Err("the slot is not among those that are allowed".to_owned());
        }
        if self.view.slots().get(&slot).is_some_and(|slot| !slot.machines.is_empty()) {
            return Err("the slot has a machine, which has to be retired first".to_owned());
        }
        let (there, max) = (self.machines(), self.machines_max());
        if there >= max {
            return Err(format!("there are {there} machines, and at most {max} are allowed"));
        }
        let (confirmed, voters) = self.voters_who(|node, peer| {
            node.sync.peers().any(|connected| connected == peer) && own.measure.is_confirmed_by(peer)
        });
        if !self.view.spawning().minority && !rule::is_majority(confirmed, voters) {
            return Err(format!("only {confirmed} of {voters} voters are connected and hold the claim"));
        }
        Ok(())
    }

    /// Voters that are connected, this device included, and voters in all.
    pub(super) fn voters_connected(&self) -> (usize, usize) {
        self.voters_who(|node, peer| node.sync.peers().any(|connected| connected == peer))
    }

    fn voters_who(&self, fits: impl Fn(&Self, &osiris_mesh::PeerId) -> bool) -> (usize, usize) {
        let Some(voters) = self.view.voters() else { return (0, 0) };
        let member = |device: &&osiris_ledger::Author| self.view.is_member(device);
        let some = voters.devices.iter().filter(member);
        let some = some.filter(|device| **device == self.me || fits(self, &Self::peer(device))).count();
        (some, voters.devices.len())
    }

    /// Machines that may be there, in all slots.
    pub(super) fn machines(&self) -> u32 {
        let machines: usize = self.view.slots().values().map(|slot| slot.machines.len()).sum();
        u32::try_from(machines).unwrap_or(u32::MAX)
    }

    /// Machines that the fleet may have, by its policy and by this node's configuration.
    pub(super) fn machines_max(&self) -> u32 {
        self.view.spawning().machines.min(self.leases.machines_max)
    }

    /// Slots that may be claimed: as many as the fleet may have machines.
    pub(super) fn slots_max(&self) -> u32 {
        self.view.spawning().machines
    }

    /// Says that the machine of an intent is gone, by the word of whoever asks.
    pub(in super::super) fn retire(
        &mut self,
        now: Now,
        token: Token,
        intent: BlockId,
        timeout_ms: u64,
    ) -> Result<Option<Reply>, Refusal> {
        let mut machines = self.view.slots().values().flat_map(|slot| &slot.machines);
        if !machines.any(|machine| machine.intent == intent) {
            let message = format!("There is no intent {}, or its machine is gone already.", intent.short());
            return Err(Refusal::new(codes::NOT_FOUND, message, "`osiris lease ls` shows the machines."));
        }
        self.write(now, token, Payload::Retired(op::Retired { intent }), timeout_ms, false)
    }
}
