//! A data folder that was copied and runs twice: two processes with one key. Members talk to whichever said hello
//! last, so both lose their connections again and again. Neither may fork, and the fleet agrees all the same.

use std::collections::BTreeSet;

use crate::node::{Input, roster};

use super::{
    network::pair,
    queue::{NodeId, What},
    world::{Standing, World},
};

impl World<'_> {
    /// The other process with this one's key.
    fn twin(&self, node: NodeId) -> Option<NodeId> {
        self.devices[node as usize].twin
    }

    /// Whether a node believes that it is connected to a device, whichever process of it.
    pub(super) fn believes(&self, node: NodeId, peer: NodeId) -> bool {
        let twin = self.twin(peer).is_some_and(|twin| self.network.believes(node, twin));
        twin || self.network.believes(node, peer)
    }

    /// Which process of a device a node is connected to.
    pub(super) fn connected(&self, node: NodeId, peer: NodeId) -> NodeId {
        self.twin(peer).filter(|twin| self.network.believes(node, *twin)).unwrap_or(peer)
    }

    /// Which process of a device answers at the address that a node tries.
    pub(super) fn some_process(&mut self, peer: NodeId) -> NodeId {
        match self.twin(peer).filter(|twin| self.is_up(*twin)) {
            Some(twin) if !self.is_up(peer) || self.random.chance(500) => twin,
            _ => peer,
        }
    }

    /// A device by the number under which its peers know it.
    pub(super) fn canonical(&self, node: NodeId) -> NodeId {
        self.by_peer.get(&self.devices[node as usize].peer).copied().unwrap_or(node)
    }

    /// A node gets a connection to one process of a device: its connection to the other ends, if that was only just
    /// stopped also, and where the other runs it hears why.
    pub(super) fn replaced(&mut self, node: NodeId, by: NodeId) {
        let key = self.devices[by as usize].peer;
        let others = self.network.peers(node).into_iter();
        let others = others.filter(|other| *other != by && self.devices[*other as usize].peer == key);
        for other in others.collect::<Vec<_>>() {
            let (pair, _) = pair(node, other);
            let Some(generation) = self.network.link(&pair).map(|link| link.generation) else { continue };
            self.say(format_args!("replaced {node} {other} by {by}"));
            self.down(pair, generation, 0);
            self.down(pair, generation, 1);
            if self.twin(by) == Some(other) && self.network.reaches(node, other) {
                let (pause, peer) = (self.network.delay(), self.devices[node as usize].peer);
                self.later(other, pause, Input::Twin(peer));
            }
        }
    }

    /// A running node's folder is copied, and started as well, elsewhere.
    pub(super) fn clone_disk(&mut self, node: NodeId, for_ms: u64) {
        // Who was connected to the last copy in a place has heard of its end before there is another.
        let is_free = |slot: &NodeId| self.twin(*slot).is_none() && self.network.peers(*slot).is_empty();
        let free = (self.nodes() - self.options.copies()..self.nodes()).find(is_free);
        let device = &self.devices[node as usize];
        let (Some(slot), Some(running), None) = (free, device.running.as_ref(), device.twin) else { return };
        if !matches!(device.standing, Standing::Member) || self.healed {
            return;
        }
        let (key, author, peer) = (device.key.clone(), device.author, device.peer);
        let (journal, library, confirmed) =
            (device.journal.copied(), device.library.clone(), device.confirmed.clone());
        let mut known = device.known.clone();
        known.extend(roster(running.node.view(), &BTreeSet::new()));
        let offset = device.wall_offset;
        let twin = &mut self.devices[slot as usize];
        (twin.key, twin.author, twin.peer, twin.known) = (key, author, peer, known);
        (twin.journal, twin.library, twin.confirmed) = (journal, library, confirmed);
        (twin.standing, twin.twin, twin.wall_offset) = (Standing::Member, Some(node), offset);
        twin.was_cloned = true;
        twin.durable.clear();
        twin.promised.clear();
        let device = &mut self.devices[node as usize];
        (device.twin, device.was_cloned) = (Some(slot), true);
        self.faults.count("cloned disk");
        self.say(format_args!("copies {node} to {slot}"));
        self.queue.at(self.now + 100, What::Start(slot));
        self.queue.at(self.now + for_ms, What::CloneEnds(slot));
    }

    /// Somebody stops the copy and throws it away, with what nobody else has heard of.
    pub(super) fn clone_ends(&mut self, slot: NodeId) {
        let Some(node) = self.twin(slot) else { return };
        for one in [node, slot] {
            let running = self.devices[one as usize].running.as_ref();
            self.branches
                .add("twin noticed", u64::from(running.is_some_and(|running| running.node.has_twin())));
        }
        match self.is_still(slot) {
            true => self.vanish_at_once(slot),
            false => self.stop(slot),
        }
        self.devices[slot as usize].standing = Standing::Gone;
        (self.devices[slot as usize].twin, self.devices[node as usize].twin) = (None, None);
        // Until now its peers were connected to either.
        if let Some(process) = self.run_of(node) {
            self.queue.at(self.now, What::Roster(process));
        }
    }

    fn vanish_at_once(&mut self, node: NodeId) {
        if self.end(node).is_some() {
            self.vanish(node, false);
        }
    }

    /// Whoever never had a twin, and whose clock was never changed, must not say that there is one.
    pub(super) fn look_for_false_alarms(&mut self) {
        for node in 0..self.nodes() {
            let device = &self.devices[node as usize];
            let alarmed = device.running.as_ref().is_some_and(|running| running.node.has_twin());
            if alarmed && !device.was_cloned && !device.clock_changed {
                let now = self.now;
                self.check
                    .violated(now, format_args!("node {node} says that it runs twice, and it does not"));
            }
        }
    }
}
