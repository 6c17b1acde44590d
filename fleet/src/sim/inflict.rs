//! Faults, inflicted.

use crate::node::Input;

use super::{
    faults::{CLOCK_OFF_MS_MAX, Fault},
    network::pair,
    queue::{NodeId, What},
    world::World,
};

impl World<'_> {
    /// Inflicts a fault, or ends one.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.say(format_args!("fault {fault:?}"));
        let idle = |node: NodeId| self.devices[node as usize].running.is_none() || self.is_still(node);
        if let Some(name) = fault.name().filter(|_| !fault.process().is_some_and(idle)) {
            self.faults.count(name);
        }
        match fault {
            Fault::Crash { node, in_write: true, away_ms } => {
                let device = &mut self.devices[node as usize];
                if device.running.is_some() {
                    device.crash_in_write = Some(away_ms);
                }
            }
            Fault::Crash { node, in_write: false, away_ms } => self.crash(node, away_ms),
            Fault::HolderGone { choice, away_ms } => {
                if let Some(node) = self.some_holder(choice) {
                    self.faults.count("holder gone");
                    self.crash(node, away_ms);
                }
            }
            Fault::Restart { node, away_ms } => {
                if self.devices[node as usize].running.is_some() && !self.is_still(node) {
                    self.stop(node);
                    self.queue.at(self.now + away_ms, What::Start(node));
                }
            }
            Fault::Still { node, suspended, for_ms } => self.stand_still(node, suspended, for_ms),
            Fault::SpawnerStill { choice, suspended, for_ms } => {
                if let Some(node) = self.some_claimant(choice) {
                    self.stand_still(node, suspended, for_ms);
                }
            }
            Fault::Clone { node, for_ms } => self.clone_disk(node, for_ms),
            Fault::Partition(parts) => {
                // Newcomers are on the first side.
                let mut all = parts;
                all.resize(self.devices.len(), 0);
                let silenced = self.network.partition(all);
                self.silence(silenced);
            }
            Fault::Heal => {
                let whole = vec![0; self.devices.len()];
                self.network.partition(whole);
            }
            Fault::Cut { from, to } => {
                let silenced = self.network.cut(from, to);
                self.silence(silenced.into_iter().collect());
            }
            Fault::Mend { from, to } => self.network.mend(from, to),
            Fault::Reset { node, choice } => self.reset(node, choice),
            Fault::Clock { node, offset_ms } => {
                let years = offset_ms.abs() > CLOCK_OFF_MS_MAX / 2;
                self.faults.add("clock off by years", u64::from(years));
                let device = &mut self.devices[node as usize];
                (device.wall_offset, device.clock_changed) = (offset_ms, true);
            }
            Fault::BackUp { node } => self.devices[node as usize].journal.back_up(),
            Fault::Restore { node, away_ms } => {
                self.crash(node, away_ms);
                self.devices[node as usize].journal.restore();
            }
            Fault::DiskFails { node } => self.devices[node as usize].disk_fails = true,
            Fault::Damage { node, away_ms } => {
                self.crash(node, away_ms);
                let device = &mut self.devices[node as usize];
                device.journal.damage(&mut self.random);
            }
            Fault::HintsLagged { node } => self.later(node, 0, Input::HintsLagged),
        }
    }

    /// A node dies at once.
    pub(super) fn crash(&mut self, node: NodeId, away_ms: u64) {
        if self.end(node).is_none() {
            return;
        }
        self.say(format_args!("dies {node}"));
        let device = &mut self.devices[node as usize];
        device.journal.crash(&mut self.random);
        self.vanish(node, false);
        self.queue.at(self.now + away_ms, What::Start(node));
    }

    /// A node is stopped in order: what it wrote is made durable first, and what it knows of confirmations
    /// is kept.
    pub(super) fn stop(&mut self, node: NodeId) {
        self.settle(node);
        let Some(running) = self.end(node) else { return };
        self.say(format_args!("stops {node}"));
        if running.outbox.has_failed() {
            self.devices[node as usize].journal.crash(&mut self.random);
        }
        self.devices[node as usize].confirmed = running.node.confirmed();
        self.vanish(node, true);
    }

    /// A connection of a node breaks; what was on its way is lost.
    fn reset(&mut self, node: NodeId, choice: u64) {
        let peers = self.network.peers(node);
        let Some(at) = usize::try_from(choice).unwrap_or(0).checked_rem(peers.len()) else { return };
        let (pair, _) = pair(node, peers[at]);
        let Some(generation) = self.network.link(&pair).map(|link| link.generation) else { return };
        self.network.kill(&pair);
        for side in [0, 1] {
            let pause = self.random.below(3_000);
            self.queue.at(self.now + pause, What::Down { pair, generation, side });
        }
    }
}
