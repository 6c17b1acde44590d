//! The states of machines, which spawners share: so that one that died orphans none of a target without labels.
//!
//! What is sealed, opened and used is the driver's affair. Here records are taken in, handed on and dropped: each is
//! signed by the author of a claim of the machine's slot, one of an intent is kept, and it goes with the intent.
//! Neither ledger nor gossip carries them. Spawners tell each other what they have when they connect and with each
//! digest, and hand on at once what is new to them, so any of them may have been away.

use std::collections::{BTreeMap, BTreeSet};

use osiris_ledger::{
    Author, BlockId, Payload, Role,
    limits::STATES_MAX,
    state::{About, Record},
};
use osiris_mesh::{
    PeerId,
    proto::sync::{Frame, StateNote, StatesFrame},
};
use serde_bytes::ByteBuf;

use super::{
    super::{Effect, Node},
    rule::Phase,
    spawn::Spawn,
};

/// Bytes of records in one frame.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// How the state of a machine is shared by whoever works on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The claim under which records are written.
    pub claim: BlockId,
    /// The serial of the last record under that claim; the next one is above it.
    pub serial: u64,
    /// What is known of the machine's state, where there is anything.
    pub record: Option<Record>,
    /// Whether another member made the machine.
    pub foreign: bool,
}

/// Records as this process keeps them.
#[derive(Debug, Default)]
pub(in super::super) struct States {
    held: BTreeMap<BlockId, Record>,
    /// For whom own states were last asked to be sealed anew.
    asked: BTreeMap<BlockId, BTreeSet<Author>>,
}

impl Node {
    /// Whether this node shares the states of its machines, and reaches those of others by them alone.
    fn goes_by_states(&self) -> bool {
        self.leases.machines.with().is_some_and(|with| with.by_state)
    }

    fn is_spawner_itself(&self) -> bool {
        self.is_spawner(&Self::peer(&self.me))
    }

    /// How the state of a machine is shared. None: not at all.
    pub(super) fn share(&self, machine: &Spawn, claim: BlockId, foreign: bool) -> Option<Share> {
        let record = self.leases.states.held.get(&machine.intent).cloned();
        let serial = record.as_ref().map(Record::about).filter(|about| about.claim == claim);
        let serial = serial.map_or(0, |about| about.serial);
        self.goes_by_states().then_some(Share { claim, serial, record, foreign })
    }

    /// The same for one that is to be taken away: under the lease of its slot, if this node holds that, else under the
    /// one by which this node made it.
    pub(super) fn share_to_remove(&self, machine: &Spawn) -> Option<Share> {
        let slot = self.view.slots().get(&machine.slot)?;
        let known = slot.machines.iter().find(|known| known.intent == machine.intent)?;
        let held = self.leases.own.get(&machine.slot).filter(|own| own.mine.phase == Phase::Held);
        let foreign = known.by != self.me;
        let claim = held.map(|own| own.claim).or_else(|| (!foreign).then_some(known.claim))?;
        self.share(machine, claim, foreign)
    }

    /// Where a record stands among those of its intent; none where this node does not know its machine or its claim.
    fn rank(&self, about: &About) -> Option<(u64, BlockId, u64)> {
        let Payload::Claimed(claimed) = self.ledger.get(&about.claim)?.payload() else { return None };
        let slot = self.view.slots().get(&claimed.slot)?;
        let machine = slot.machines.iter().find(|machine| machine.intent == about.intent)?;
        (claimed.round >= machine.round).then_some((claimed.round, about.claim, about.serial))
    }

    /// Whether a record is by who made the machine, or by who holds its slot now, and is a spawner.
    fn may_speak(&self, record: &Record) -> bool {
        let about = record.about();
        let slots = self.view.slots().values();
        let mut known = slots.flat_map(|slot| slot.machines.iter().map(move |machine| (slot, machine)));
        let Some((slot, machine)) = known.find(|(_, machine)| machine.intent == about.intent) else {
            return false;
        };
        let holds = slot.holder().is_some_and(|holder| holder.id == about.claim);
        (machine.claim == about.claim || holds) && self.is_spawner(&Self::peer(&record.author()))
    }

    /// What an earlier process kept.
    pub(in super::super) fn states_kept(&mut self, records: &[Vec<u8>]) {
        for bytes in records.iter().take(STATES_MAX) {
            if let Ok(record) = Record::read(&self.ledger.fleet(), bytes) {
                self.leases.states.held.insert(record.about().intent, record);
            }
        }
    }

    /// Takes a record in, where it is news. `from` is who sent it; none: this node wrote it.
    pub(in super::super) fn take_state(&mut self, record: Record, from: Option<PeerId>) {
        let about = record.about();
        let Some(rank) = self.rank(&about) else { return };
        let written_by = self.ledger.get(&about.claim).map(|block| block.author());
        let held = &self.leases.states.held;
        let known = held.get(&about.intent).and_then(|known| self.rank(&known.about()));
        let is_full = held.len() >= STATES_MAX && !held.contains_key(&about.intent);
        let may = written_by == Some(record.author()) && self.may_speak(&record);
        if !may || known.is_some_and(|known| known >= rank) || is_full {
            return;
        }
        self.effects.push_back(Effect::KeepState(about.intent, record.clone()));
        let frame = Frame::States(StatesFrame::Records(vec![ByteBuf::from(record.bytes().to_vec())]));
        self.leases.states.held.insert(about.intent, record);
        let peers = self.sync.peers().copied();
        let others: Vec<_> = peers.filter(|peer| Some(*peer) != from && self.is_spawner(peer)).collect();
        others.into_iter().for_each(|peer| self.send(peer, &frame));
    }

    /// What this node keeps, for a spawner that it is connected with; also where that is nothing.
    pub(in super::super) fn tell_states(&mut self, peer: PeerId) {
        if self.is_spawner(&peer) && self.is_spawner_itself() {
            let notes = self.leases.states.held.values().map(|record| note(&record.about())).collect();
            self.send(peer, &Frame::States(StatesFrame::Notes(notes)));
        }
    }

    /// The same with each digest, where there is anything.
    pub(in super::super) fn tell_states_again(&mut self, peer: PeerId) {
        if !self.leases.states.held.is_empty() {
            self.tell_states(peer);
        }
    }

    /// A spawner speaks of states.
    pub(in super::super) fn states_frame(&mut self, peer: PeerId, frame: StatesFrame) {
        if !self.is_spawner(&peer) || !self.is_spawner_itself() {
            return;
        }
        match frame {
            StatesFrame::Notes(notes) => {
                let (lacks, wanted) = self.compare_states(&notes);
                self.send_states(peer, lacks);
                if !wanted.is_empty() {
                    self.send(peer, &Frame::States(StatesFrame::Wanted(wanted)));
                }
            }
            StatesFrame::Wanted(intents) => self.send_states(peer, intents),
            StatesFrame::Records(records) => {
                for bytes in records.into_iter().take(STATES_MAX) {
                    match Record::read(&self.ledger.fleet(), &bytes) {
                        Ok(record) => self.take_state(record, Some(peer)),
                        Err(_) => self.malformed(peer),
                    }
                }
            }
        }
    }

    /// Of which intents the other lacks a record, or has an earlier one; and of which this node does.
    fn compare_states(&self, notes: &[StateNote]) -> (Vec<BlockId>, Vec<BlockId>) {
        let theirs: BTreeMap<_, _> = notes
            .iter()
            .take(STATES_MAX)
            .map(|&(intent, claim, serial)| (intent, About { intent, claim, serial }))
            .collect();
        let held = &self.leases.states.held;
        let rank_of = |about: Option<&About>| about.and_then(|about| self.rank(about));
        let own = |intent: &BlockId| held.get(intent).map(Record::about);
        // What is said of claims that this node has not heard of it cannot judge: it may be later.
        let lacks = held.keys().filter(|intent| {
            let theirs = theirs.get(intent);
            theirs.is_none() || rank_of(theirs).is_some_and(|rank| Some(rank) < rank_of(own(intent).as_ref()))
        });
        let wanted = theirs.iter().filter(|(intent, about)| {
            let rank = self.rank(about);
            rank.is_some() && rank > rank_of(own(intent).as_ref())
        });
        (lacks.copied().collect(), wanted.map(|(intent, _)| *intent).collect())
    }

    /// As many as fit one frame: the next notes bring the rest.
    fn send_states(&mut self, peer: PeerId, intents: Vec<BlockId>) {
        let mut records: Vec<ByteBuf> = Vec::new();
        let mut bytes = 0;
        for record in intents.iter().take(STATES_MAX).filter_map(|intent| self.leases.states.held.get(intent))
        {
            bytes += record.bytes().len();
            if bytes > RECORDS_BYTES_MAX {
                break;
            }
            records.push(ByteBuf::from(record.bytes().to_vec()));
        }
        if !records.is_empty() {
            self.send(peer, &Frame::States(StatesFrame::Records(records)));
        }
    }

    /// Drops what is about machines that are gone, and has own states sealed anew for spawners that came or went.
    pub(super) fn look_after_states(&mut self) {
        let states = &self.leases.states;
        if states.held.is_empty() {
            return;
        }
        let view = std::sync::Arc::clone(&self.view);
        let machines = || view.slots().values().flat_map(|slot| slot.machines.iter().map(move |m| (slot, m)));
        let there: BTreeSet<_> = machines().map(|(_, machine)| machine.intent).collect();
        let gone: Vec<_> = states.held.keys().filter(|intent| !there.contains(*intent)).copied().collect();
        for intent in gone {
            self.leases.states.held.remove(&intent);
            self.leases.states.asked.remove(&intent);
            self.effects.push_back(Effect::DropState(intent));
        }
        if !self.goes_by_states() {
            return;
        }
        let spawners: BTreeSet<Author> = view
            .members()
            .values()
            .filter(|member| member.active && member.roles.has(Role::Spawner))
            .map(|member| member.device)
            .collect();
        for (slot, machine) in machines().filter(|(_, machine)| machine.by == self.me) {
            let states = &mut self.leases.states;
            let Some(record) = states.held.get(&machine.intent) else { continue };
            let opens: BTreeSet<_> = record.wraps().iter().map(|wrap| wrap.device).collect();
            let asked = states.asked.get(&machine.intent);
            if record.author() != self.me || opens == spawners || asked == Some(&spawners) {
                continue;
            }
            states.asked.insert(machine.intent, spawners.clone());
            let machine = Spawn::of(slot.number, machine);
            let share = self.share_to_remove(&machine);
            self.effects.extend(share.map(|share| Effect::SealState(machine, share)));
        }
    }
}

fn note(about: &About) -> StateNote {
    (about.intent, about.claim, about.serial)
}

#[cfg(test)]
#[path = "states_tests.rs"]
mod tests;
