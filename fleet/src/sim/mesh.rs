//! Connections as the real mesh makes them: whom a node dials, when it dials again, and what its core is
//! told. The choice of neighbours and the pauses are the mesh's own code.

use std::collections::BTreeSet;

use osiris_ledger::{Role, View};
use osiris_mesh::{PeerId, proto::membership::neighbours};

use crate::node::{Input, is_in_roster, kept, roster};

use super::{
    network::{Pair, on, pair},
    process::Running,
    queue::{NodeId, Process, What},
    world::World,
};

/// Silence after which a peer counts as gone ([`osiris_mesh::limits::IDLE_TIMEOUT`]).
pub(super) const IDLE_MS: u64 = 3_000;
/// How long a dial in vain takes ([`osiris_mesh::limits::DIAL_TIMEOUT`]).
const DIAL_MS: u64 = 4_000;
/// How long a mesh sleeps at most ([`osiris_mesh::limits::KEEPER_IDLE`]).
const KEEPER_IDLE_MS: u64 = 30_000;

impl World<'_> {
    /// The roster changed: strangers' connections end, new members are dialled.
    pub(super) fn roster(&mut self, process: Process) {
        if !self.is_current(process) {
            return;
        }
        let node = process.node;
        self.forget_strangers(node);
        self.choose(node);
        for peer in self.network.peers(node) {
            if !self.accepts(node, peer) {
                self.close(node, peer);
            }
        }
        self.keep(process);
    }

    /// What is known of dials to whoever is no member any more goes.
    fn forget_strangers(&mut self, node: NodeId) {
        let Some(running) = self.devices[node as usize].running.as_ref() else { return };
        let strangers: Vec<_> =
            running.dialing.keys().copied().filter(|peer| !self.accepts(node, *peer)).collect();
        if let Some(running) = self.devices[node as usize].running.as_mut() {
            running.dialing.retain(|peer, _| !strangers.contains(peer));
        }
    }

    /// Whom this node's mesh wants to be connected to.
    fn choose(&mut self, node: NodeId) {
        let device = &self.devices[node as usize];
        let Some(running) = device.running.as_ref() else { return };
        let members = roster(running.node.view(), &running.told);
        let is_gone = |peer: &PeerId| {
            let dialing = self.by_peer.get(peer).and_then(|peer| running.dialing.get(peer));
            dialing.is_some_and(|dialing| dialing.backoff.is_gone())
        };
        let mut chosen = neighbours(&device.peer, members.iter(), is_gone);
        chosen.extend(kept(running.node.view(), &device.author, &running.node.lost()));
        let chosen = chosen.iter().filter_map(|peer| self.by_peer.get(peer).copied()).collect();
        if let Some(running) = self.devices[node as usize].running.as_mut() {
            running.chosen = chosen;
        }
    }

    /// Whether a node takes another for a member.
    pub(super) fn accepts(&self, node: NodeId, peer: NodeId) -> bool {
        let device = &self.devices[node as usize];
        let peer = &self.devices[peer as usize].peer;
        let member = |running: &Running| is_in_roster(running.node.view(), &running.told, peer);
        device.hostile || device.running.as_ref().is_some_and(member)
    }

    /// Whom the core misses changed.
    pub(super) fn lost_changed(&mut self, node: NodeId) {
        let changed =
            self.devices[node as usize].running.as_mut().is_some_and(|running| running.node.lost_changed());
        if changed && let Some(process) = self.run_of(node) {
            self.choose(node);
            self.keep(process);
        }
    }

    /// The mesh looks whom to dial.
    pub(super) fn keep(&mut self, process: Process) {
        if !self.is_current(process) {
            return;
        }
        let (node, now) = (process.node, self.now);
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        if running.keep_at == Some(now) {
            running.keep_at = None;
        }
        if std::mem::take(&mut running.chooses) {
            self.choose(node);
        }
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        let (mut next, chosen) = (None, std::mem::take(&mut running.chosen));
        for peer in chosen.iter().copied() {
            if self.believes(node, peer) {
                continue;
            }
            let Some(running) = self.devices[node as usize].running.as_mut() else { return };
            let dialing = running.dialing.entry(peer).or_default();
            if dialing.under_way {
                continue;
            }
            let due = u64::try_from(dialing.backoff.not_before_ms()).unwrap_or(0);
            if due > now {
                next = Some(next.map_or(due, |next: u64| next.min(due)));
                continue;
            }
            dialing.under_way = true;
            let peer = self.some_process(peer);
            let answered = self.is_up(peer) && self.network.reaches(node, peer);
            let pause = if answered { 2 * self.network.delay() } else { DIAL_MS };
            self.queue.at(now + pause, What::Dialled { from: process, to: peer });
        }
        if let Some(running) = self.devices[node as usize].running.as_mut() {
            running.chosen = chosen;
        }
        if let Some(at) = next {
            self.keep_at(process, at);
        }
    }

    /// The mesh looks again at that time, or before.
    fn keep_at(&mut self, process: Process, at: u64) {
        let now = self.now;
        let running = self.devices[process.node as usize].running.as_mut();
        if let Some(running) = running.filter(|run| run.keep_at.is_none_or(|known| at < known || known < now))
        {
            running.keep_at = Some(at);
            self.queue.at(at, What::Keep(process));
        }
    }

    /// Whom a spawner keeps to depends on who made machines: its mesh chooses anew when it looks next.
    pub(super) fn makers(&mut self, node: NodeId, view: &View) {
        let Some(process) = self.run_of(node) else { return };
        let device = &mut self.devices[node as usize];
        let Some(running) = device.running.as_mut() else { return };
        if view.members().get(&device.author).is_none_or(|me| !me.roles.has(Role::Spawner)) {
            return;
        }
        let machines = view.slots().values().flat_map(|slot| &slot.machines);
        let makers: BTreeSet<_> = machines.map(|machine| machine.by).collect();
        if makers != running.makers {
            (running.makers, running.chooses) = (makers, true);
            self.keep_at(process, self.now + KEEPER_IDLE_MS);
        }
    }

    /// A dial comes to its end.
    pub(super) fn dialled(&mut self, from: Process, to: NodeId) {
        if !self.is_current(from) {
            return;
        }
        let (node, now) = (from.node, self.now);
        let reached = self.is_up(to) && self.network.reaches(node, to) && self.network.greets();
        let known = self.canonical(to);
        let believed = self.believes(node, known);
        let accepted = reached && self.accepts(to, node);
        let random = self.random.next();
        let wanted = self.accepts(node, to);
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        let dialing = running.dialing.entry(known).or_default();
        dialing.under_way = false;
        let now_ms = i64::try_from(now).unwrap_or(i64::MAX);
        if believed || !wanted {
            return;
        }
        let was_gone = dialing.backoff.is_gone();
        match (reached, accepted) {
            (false, _) => dialing.backoff.failed(now_ms, random),
            (true, false) => dialing.backoff.refused(now_ms, random),
            (true, true) => dialing.backoff.reset(),
        }
        running.chooses |= dialing.backoff.is_gone() != was_gone;
        if !reached {
            return self.keep(from);
        }
        if !accepted {
            let peer = self.devices[to as usize].peer;
            self.input(node, Input::TurnedAway(peer));
            return self.keep(from);
        }
        let (pair, side) = pair(node, to);
        // What was left of an earlier connection is told first.
        if let Some(generation) = self.network.link(&pair).map(|link| link.generation) {
            self.down(pair, generation, 0);
            self.down(pair, generation, 1);
        }
        self.replaced(to, node);
        self.replaced(node, to);
        if !self.is_current(from) {
            return;
        }
        let mut ready_at = [now + 1; 2];
        ready_at[side] += self.network.delay();
        let generation = self.network.establish(pair, ready_at);
        self.say(format_args!("connect {node}>{to}"));
        for side in [1 - side, side] {
            self.queue.at(ready_at[side], What::Up { pair, generation, side });
        }
    }

    /// A side learns of a connection.
    pub(super) fn up(&mut self, pair: Pair, generation: u64, side: usize) {
        if !self.is_up(on(pair, side)) || !self.network.tell_up(&pair, generation, side) {
            return;
        }
        let (node, peer) = (on(pair, side), on(pair, 1 - side));
        self.say(format_args!("up {node} {peer}"));
        let peer = self.devices[peer as usize].peer;
        self.input(node, Input::PeerUp(peer));
    }

    /// A side learns that a connection is gone.
    pub(super) fn down(&mut self, pair: Pair, generation: u64, side: usize) {
        if !self.network.tell_down(&pair, generation, side) {
            return;
        }
        let (node, peer) = (on(pair, side), on(pair, 1 - side));
        self.say(format_args!("down {node} {peer}"));
        let key = self.devices[peer as usize].peer;
        self.input(node, Input::PeerDown(key));
        // One that stands still looks later.
        let process = self.run_of(node).map(What::Keep).and_then(|keep| self.unless_still(keep));
        if let Some(What::Keep(process)) = process {
            self.keep(process);
        }
    }

    /// Nothing came over a connection for a while: if its path is still cut, or one end stands still, it is given up.
    pub(super) fn idle(&mut self, pair: Pair, generation: u64) {
        let silent = !self.network.reaches(pair.0, pair.1)
            || [pair.0, pair.1].iter().any(|node| self.is_given_up(*node));
        if !silent || self.network.link(&pair).is_none_or(|link| link.generation != generation || !link.alive)
        {
            return;
        }
        self.network.kill(&pair);
        for side in [0, 1] {
            let deaf = !self.network.carries(on(pair, 1 - side), on(pair, side));
            let more = if deaf { 0 } else { self.random.below(IDLE_MS) };
            self.queue.at(self.now + more, What::Down { pair, generation, side });
        }
    }

    /// Connections that a cut silenced are given up unless it heals in time.
    pub(super) fn silence(&mut self, links: Vec<(Pair, u64)>) {
        for (pair, generation) in links {
            self.queue.at(self.now + IDLE_MS, What::Idle { pair, generation });
        }
    }

    /// A node closes a connection: it learns at once, the peer when the news arrives.
    pub(super) fn close(&mut self, node: NodeId, peer: NodeId) {
        let (pair, side) = pair(node, peer);
        let Some(generation) = self.network.link(&pair).map(|link| link.generation) else { return };
        let carried = self.network.carries(node, peer);
        self.network.kill(&pair);
        let pause = if carried { self.network.delay() } else { IDLE_MS };
        self.queue.at(self.now + pause, What::Down { pair, generation, side: 1 - side });
        self.down(pair, generation, side);
    }

    /// A process is gone: its peers learn at once where it said goodbye, else by its silence.
    pub(super) fn vanish(&mut self, node: NodeId, goodbye: bool) {
        for peer in self.network.peers(node) {
            let (pair, side) = pair(node, peer);
            let Some(generation) = self.network.link(&pair).map(|link| link.generation) else { continue };
            let heard = goodbye && self.network.carries(node, peer);
            let pause = if heard { self.network.delay() } else { IDLE_MS };
            self.network.kill(&pair);
            self.network.tell_down(&pair, generation, side);
            self.queue.at(self.now + pause, What::Down { pair, generation, side: 1 - side });
        }
    }
}
