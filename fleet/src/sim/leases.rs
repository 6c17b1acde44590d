//! Members that want a machine, and what must never come of it: two holders of one slot that heard of each other in
//! time, a machine made without a majority of the voters, a machine that nobody sees any more.

use std::collections::{BTreeMap, BTreeSet};

use osiris_ledger::{Block, BlockId, Payload, Role, View, op};

use crate::node::{
    Input, Node,
    lease::{Errand, Job, LeaseCounts, MachineCounts, Spawn, Want, rule},
};

use super::{
    queue::{NodeId, What},
    world::{Standing, World},
};

/// Machines that the simulated fleet may make, where it may make any.
pub(super) const MACHINES: u32 = 3;
/// What they are made with.
pub(super) const TARGET: &str = "process";

/// A claim, as the simulator saw it made and heard.
#[derive(Clone, Debug)]
struct Made {
    by: NodeId,
    slot: u32,
    round: u64,
    at: u64,
    /// What its author took for D, milliseconds.
    delay: u64,
    /// When each other node took it in, and has not forgotten it since.
    heard: BTreeMap<NodeId, u64>,
}

/// What is known of claims, holders and machines from outside.
#[derive(Debug, Default)]
pub(super) struct Outside {
    claims: BTreeMap<BlockId, Made>,
    /// Node → slot → claim, of those that hold one now.
    holding: BTreeMap<NodeId, BTreeMap<u32, BlockId>>,
    /// Two claims that were held at the same time, until it is known whether they should have been.
    rivals: BTreeSet<(BlockId, BlockId)>,
    /// Machines that are there, by intent: who made each, its slot and round.
    machines: BTreeMap<BlockId, (NodeId, u32, u64)>,
    /// Intents, and whether a majority of the voters was in contact when each was written.
    intents: BTreeMap<BlockId, bool>,
    /// Slot and round of every machine that a driver was sent for.
    ordered: BTreeMap<BlockId, (u32, u64)>,
    /// Claims whose processes stood still for longer than they may.
    lost: BTreeSet<BlockId>,
    /// What a process had counted when it was last looked at.
    counted: BTreeMap<(NodeId, u32), (LeaseCounts, MachineCounts)>,
}

impl Outside {
    /// A process ended, and with it what it held.
    pub(super) fn ended(&mut self, node: NodeId) {
        self.holding.remove(&node);
    }

    /// A process starts: what its disk lost it has not heard.
    pub(super) fn started(&mut self, node: NodeId, holds: impl Fn(&BlockId) -> bool) {
        for (id, made) in &mut self.claims {
            if !holds(id) {
                made.heard.remove(&node);
            }
        }
    }

    /// Whether each of two claims was heard by the other's author within what both took for D.
    fn heard_in_time(&self, a: &BlockId, b: &BlockId) -> bool {
        let (Some(a), Some(b)) = (self.claims.get(a), self.claims.get(b)) else { return false };
        let in_time = |made: &Made, other: &Made| {
            made.heard.get(&other.by).is_some_and(|at| at - made.at <= made.delay.min(other.delay))
        };
        in_time(a, b) && in_time(b, a)
    }
}

impl World<'_> {
    /// A spawner wants one more machine, or looks after those that are there.
    pub(super) fn want(&mut self) {
        if self.healed {
            return;
        }
        let pause = self.options.wants_every_ms;
        self.queue.at(self.now + self.random.between(pause / 2 + 1, pause * 3 / 2), What::Want);
        let able: Vec<_> = self.belonging().into_iter().filter(|node| self.may_spawn(*node)).collect();
        // Often two at once: the same load is seen by both.
        for _ in 0..self.random.between(1, 2) {
            let Some(node) = self.random.pick(&able) else { return };
            let used = self.with_machines(node);
            let slot = self.random.pick(&used).filter(|_| self.random.chance(700));
            let want = slot.map_or(Want::Machine, Want::Slot);
            self.say(format_args!("wants {node} {want:?}"));
            self.input(node, Input::Want(want));
        }
        // Now and then a driver looks what is there, and somebody wants one of them gone.
        if let Some(node) = self.random.pick(&able) {
            self.look_at_machines(node);
            let own = self.leases.machines.iter().filter(|(_, made)| made.0 == node);
            let own: Vec<_> = own.map(|(intent, _)| *intent).collect();
            if let Some(intent) = self.random.pick(&own).filter(|_| self.random.chance(300)) {
                self.input(node, Input::Want(Want::Gone(intent)));
            }
        }
    }

    /// A driver tells its core which machines are there: all, as each reaches what others made.
    fn look_at_machines(&mut self, node: NodeId) {
        let id = |(intent, (_, slot, round)): (&BlockId, &(NodeId, u32, u64))| {
            let (target, functions) = (TARGET.to_owned(), Vec::new());
            Spawn { slot: *slot, round: *round, intent: *intent, target, functions }.id()
        };
        let seen = self.leases.machines.iter().map(id).collect();
        self.input(node, Input::Machines(Ok(seen)));
    }

    fn node(&self, node: NodeId) -> Option<&Node> {
        self.devices[node as usize].running.as_ref().map(|running| &running.node)
    }

    fn may_spawn(&self, node: NodeId) -> bool {
        let author = &self.devices[node as usize].author;
        let member = self.node(node).and_then(|node| node.view().members().get(author));
        member.is_some_and(|member| member.roles.has(Role::Spawner))
    }

    fn with_machines(&self, node: NodeId) -> Vec<u32> {
        let slots = self.node(node).map(|node| node.view().slots().values()).into_iter().flatten();
        slots.filter(|slot| !slot.machines.is_empty()).map(|slot| slot.number).collect()
    }

    /// A core admitted a block: if it is a claim, its author made it or another has heard of it. Of an own intent
    /// it is noted whether it could be written.
    pub(super) fn claim_taken_in(&mut self, node: NodeId, own: bool, block: &Block) {
        if own && let Payload::Intent(op) = block.payload() {
            let ledger = self.node(node).map(Node::ledger);
            let activation =
                ledger.and_then(|ledger| ledger.get(&op.activation)).map(|block| block.payload());
            let Some(Payload::Activated(op::Activated { claim })) = activation else { return };
            let claim = *claim;
            let by_majority = self.has_majority(node, &claim);
            self.leases.intents.insert(block.id(), by_majority);
            return self.acts_by(node, &claim, block);
        }
        if own && let Payload::Activated(op::Activated { claim }) = block.payload() {
            return self.acts_by(node, claim, block);
        }
        let Payload::Claimed(op) = block.payload() else { return };
        let (now, wall, id) = (self.now, self.wall(node), block.id());
        if own {
            let Some(running) = self.devices[node as usize].running.as_ref() else { return };
            let delay = running.lease_facts(now, wall).delay;
            let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            let made =
                Made { by: node, slot: op.slot, round: op.round, at: now, delay, heard: BTreeMap::new() };
            let rivals = self
                .leases
                .claims
                .values()
                .filter(|other| other.by != node && (other.slot, other.round) == (op.slot, op.round));
            self.branches.add("two claimants", u64::from(rivals.count() > 0));
            self.leases.claims.insert(id, made);
        } else if let Some(made) = self.leases.claims.get_mut(&id) {
            made.heard.entry(node).or_insert(now);
            self.judge_rivals();
        }
    }

    /// A claim's process stood still for so long that it must never act on it again.
    pub(super) fn lost_meanwhile(&mut self, claim: BlockId) {
        self.leases.lost.insert(claim);
    }

    /// A node wrote a block by a claim: not by one that it lost while it stood still.
    fn acts_by(&mut self, node: NodeId, claim: &BlockId, block: &Block) {
        if self.leases.lost.contains(claim) {
            let (now, what) = (self.now, block.payload().name());
            self.check.violated(
                now,
                format_args!(
                    "node {node} wrote `{what}` by claim {}, which it had lost while it stood still",
                    claim.short()
                ),
            );
        }
    }

    /// A node that has a claim.
    pub(super) fn some_claimant(&self, choice: u64) -> Option<NodeId> {
        let has_claim = |node: &NodeId| {
            let running = self.devices[*node as usize].running.as_ref();
            let facts = running.map(|running| running.lease_facts(self.now, self.wall(*node)));
            !self.is_still(*node) && facts.is_some_and(|facts| !facts.own.is_empty())
        };
        let able: Vec<_> = (0..self.nodes()).filter(has_claim).collect();
        let at = usize::try_from(choice).unwrap_or(0).checked_rem(able.len())?;
        able.get(at).copied()
    }

    /// A node that holds a slot.
    pub(super) fn some_holder(&self, choice: u64) -> Option<NodeId> {
        let holders = self.leases.holding.iter().filter(|(_, held)| !held.is_empty());
        let holders: Vec<_> = holders.map(|(node, _)| *node).collect();
        let at = usize::try_from(choice).unwrap_or(0).checked_rem(holders.len())?;
        holders.get(at).copied()
    }

    /// Looks at what a node holds, after each input that it handled.
    pub(super) fn look_at_leases(&mut self, node: NodeId) {
        let (now, wall) = (self.now, self.wall(node));
        let Some(running) = self.devices[node as usize].running.as_ref() else { return };
        let makes = self.day.as_ref().map_or(self.options.wants_every_ms > 0, |day| day.spawns(node));
        if !makes {
            return;
        }
        let facts = running.lease_facts(now, wall);
        self.note_refusals(node, &facts);
        let has_claims = !facts.own.is_empty();
        self.devices[node as usize].running.iter_mut().for_each(|running| running.has_claims = has_claims);
        let Some(running) = self.devices[node as usize].running.as_ref() else { return };
        let counted = (facts.counts, facts.machine_counts);
        let (before, made) = self.leases.counted.insert((node, running.run), counted).unwrap_or_default();
        self.branches.add("machine not made", facts.machine_counts.failed - made.failed);
        self.branches.add("machine retired", facts.machine_counts.retired - made.retired);
        self.branches.add("spawn reconciled", facts.machine_counts.reconciled - made.reconciled);
        self.branches.add("lease won", facts.counts.won - before.won);
        self.branches.add("lease lost", facts.counts.lost - before.lost);
        self.branches.add("lease missed", facts.counts.missed - before.missed);
        let taken_over = facts.counts.taken_over - before.taken_over;
        self.branches.add("lease expired and taken over", taken_over);
        let held = facts.own.iter().filter(|(_, own)| own.phase == rule::Phase::Held);
        let held: BTreeMap<_, _> = held.map(|(slot, own)| (*slot, own.claim)).collect();
        if let Some(claim) = held.values().find(|claim| self.leases.lost.contains(claim)) {
            self.check.violated(
                now,
                format_args!(
                    "node {node} holds a slot by claim {}, which it lost while it stood still",
                    claim.short()
                ),
            );
        }
        let known = self.leases.holding.insert(node, held.clone()).unwrap_or_default();
        for (slot, claim) in held.iter().filter(|(slot, claim)| known.get(slot) != Some(claim)) {
            self.say(format_args!("holds {node} {slot} {}", claim.short()));
            self.note_rivals(node, *slot, *claim);
        }
    }

    /// A node holds a slot from now on: whoever else holds it is its rival.
    fn note_rivals(&mut self, node: NodeId, slot: u32, claim: BlockId) {
        let others = self.leases.holding.iter().filter(|(other, _)| **other != node);
        let rivals: Vec<_> = others.filter_map(|(other, held)| Some((*other, *held.get(&slot)?))).collect();
        for (other, rival) in rivals {
            self.branches.count("two holders");
            // Who is cut off goes on until it hears that others took over. Of two that reach each other one may too, for
            // as long as a block takes: that is judged below.
            self.branches.add("two holders in one part", u64::from(self.network.reaches(node, other)));
            self.leases.rivals.insert((claim.min(rival), claim.max(rival)));
        }
        self.judge_rivals();
    }

    /// Of two that heard of each other's claims in time, only one may have believed that it won.
    fn judge_rivals(&mut self) {
        let known: Vec<_> = self.leases.rivals.iter().copied().collect();
        for (a, b) in known {
            if !self.leases.heard_in_time(&a, &b) || !self.all_count(&a, &b) {
                continue;
            }
            self.leases.rivals.remove(&(a, b));
            let (now, made) = (self.now, &self.leases.claims[&a]);
            let (first, second, slot) = (made.by, self.leases.claims[&b].by, made.slot);
            self.check.violated(
                now,
                format_args!(
                    "nodes {first} and {second} held slot {slot} at once, and had heard of each other"
                ),
            );
        }
    }

    /// Whether both claims count for both authors: who has not heard that one was revoked decides by other facts.
    fn all_count(&self, a: &BlockId, b: &BlockId) -> bool {
        let authors = [a, b].map(|id| self.leases.claims.get(id).map(|made| made.by));
        authors.into_iter().flatten().all(|author| {
            self.node(author).is_some_and(|node| [a, b].iter().all(|id| node.ledger().counts(id)))
        })
    }

    /// A driver makes a machine, or takes one away: it takes a while, and fails now and then. Most machines
    /// are there at once, also where the maker dies meanwhile.
    pub(super) fn provision(&mut self, node: NodeId, errand: &Errand) {
        let Spawn { slot, round, intent, .. } = errand.machine;
        self.say(format_args!("provisions {node} {slot}-{round} {} {}", intent.short(), errand.job.word()));
        if self.day.is_some() {
            return self.day_errand(node, errand);
        }
        let fails = self.random.chance(150).then(|| "the simulated target failed".to_owned());
        let result = fails.map_or(Ok(()), Err);
        match errand.job {
            Job::Make(_) => {
                self.promise(node, intent, "spent for");
                self.leases.ordered.insert(intent, (slot, round));
                let pause = self.random.between(500, 20_000);
                if self.random.chance(700) {
                    self.machine_made(node, intent, (slot, round));
                }
                self.later(node, pause, Input::Provisioned(intent, result));
            }
            Job::Remove => {
                if result.is_ok() {
                    self.leases.machines.remove(&intent);
                }
                let pause = self.random.between(100, 10_000);
                self.later(node, pause, Input::Removed(intent, result));
            }
        }
    }

    /// A driver is about to say that it made a machine.
    pub(super) fn provisioned(&mut self, node: NodeId, input: &Input) {
        let Input::Provisioned(intent, Ok(())) = input else { return };
        if self.day.is_some() {
            return;
        }
        let Some(made) = self.leases.ordered.get(intent).copied() else { return };
        self.machine_made(node, *intent, made);
    }

    /// Whether a majority of the voters is connected to a node and has taken in its claim, as seen from outside.
    fn has_majority(&self, node: NodeId, claim: &BlockId) -> bool {
        let Some(view) = self.node(node).map(Node::view) else { return false };
        let Some(voters) = view.voters() else { return false };
        let heard = self.leases.claims.get(claim).map(|made| &made.heard);
        let counts = |device: &&osiris_ledger::Author| {
            let voter = self.by_peer.get(&Node::peer(device)).copied();
            let hears = |voter| {
                self.network.believes(node, voter) && heard.is_some_and(|heard| heard.contains_key(&voter))
            };
            voter.is_some_and(|voter| voter == node || hears(voter))
        };
        rule::is_majority(voters.devices.iter().filter(counts).count(), voters.devices.len())
    }

    /// A machine of a day is there.
    pub(super) fn is_made(&mut self, node: NodeId, intent: BlockId, lease: (u32, u64)) {
        self.leases.ordered.insert(intent, lease);
        self.machine_made(node, intent, lease);
    }

    /// A machine of a day is there no more.
    pub(super) fn is_unmade(&mut self, intent: &BlockId) {
        self.leases.machines.remove(intent);
    }

    /// The intent is durable: the machine may be there.
    fn machine_made(&mut self, node: NodeId, intent: BlockId, lease: (u32, u64)) {
        let (now, (slot, round)) = (self.now, lease);
        if self.leases.machines.insert(intent, (node, slot, round)).is_some() {
            return;
        }
        self.branches.count("machine made");
        if self.leases.intents.get(&intent) != Some(&true) && !self.options.minority {
            self.check.violated(
                now,
                format_args!("node {node} made the machine {slot}-{round} without a majority of the voters"),
            );
        }
        let same = |(of, made): &(&BlockId, &(NodeId, u32, u64))| **of != intent && (made.1, made.2) == lease;
        let twins = self.leases.machines.iter().filter(same);
        let twins: Vec<_> = twins.map(|(intent, made)| (*intent, made.0)).collect();
        for (other, twin) in twins {
            // A disk that was put back forgot the round.
            let excused = [other, intent].iter().any(|intent| self.excused.contains(intent));
            if twin == node && !excused {
                self.check.violated(
                    now,
                    format_args!("node {node} made two machines of the one name {slot}-{round}"),
                );
            }
            self.branches.count("two machines of one name");
            let of = |by: NodeId| {
                let mut claims = self.leases.claims.iter();
                claims.find(|(_, made)| made.by == by && (made.slot, made.round) == lease).map(|(id, _)| *id)
            };
            if let (Some(a), Some(b)) = (of(node), of(twin)) {
                self.leases.rivals.insert((a.min(b), a.max(b)));
            }
        }
        self.judge_rivals();
    }

    /// In the end every machine that was made is seen by everybody until it is retired, and each slot has one holder.
    pub(super) fn machines_are_seen(&mut self, expected: &[NodeId], view: &View) {
        let now = self.now;
        let seen: BTreeSet<_> =
            view.slots().values().flat_map(|slot| &slot.machines).map(|m| m.intent).collect();
        let made: Vec<_> = self.leases.machines.iter().map(|(id, made)| (*id, *made)).collect();
        for (intent, (by, slot, round)) in made {
            let stays =
                matches!(self.devices[by as usize].standing, Standing::Member) && expected.contains(&by);
            if !stays || seen.contains(&intent) || self.excused.contains(&intent) {
                continue;
            }
            // Somebody said that it is gone while it was being made: its maker finds it, and takes it away.
            self.look_at_machines(by);
            let (at, wall) = (self.now, self.wall(by));
            let facts =
                self.devices[by as usize].running.as_ref().map(|running| running.lease_facts(at, wall));
            if !facts.is_some_and(|facts| facts.machines.contains_key(&intent)) {
                self.check.violated(
                    now,
                    format_args!("the machine {slot}-{round} of node {by} is there, and nobody sees it"),
                );
            }
        }
        let mut holders: BTreeMap<u32, NodeId> = BTreeMap::new();
        for node in expected {
            for slot in self.leases.holding.get(node).into_iter().flat_map(BTreeMap::keys).copied() {
                if let Some(other) = holders.insert(slot, *node) {
                    self.check.violated(
                        now,
                        format_args!(
                            "the healed fleet agrees, and nodes {other} and {node} hold slot {slot}"
                        ),
                    );
                }
            }
        }
    }
}
