//! What hostile members do, done.

use std::sync::Arc;

use super::{
    hostile::To,
    queue::{NodeId, What},
    world::{Standing, World},
};

impl World<'_> {
    /// A hostile member does something.
    pub(super) fn hostile(&mut self, node: NodeId) {
        if self.healed {
            return;
        }
        let pause = self.options.hostile_every_ms;
        self.queue.at(self.now + self.random.between(pause / 2 + 1, pause * 3 / 2), What::Hostile(node));
        // It floods in the middle of the run, when there is something to build on.
        let may_flood = self.options.flood && self.now > self.options.safety_ms / 2;
        let Some(hostile) = self.hostiles.get_mut(&node) else { return };
        let deed = hostile.deed(&self.pool, may_flood);
        if deed.sent.is_empty() {
            return;
        }
        self.say(format_args!("deed {node} {}", deed.name));
        self.faults.count(deed.name);
        for (entry, why) in &deed.forged {
            self.check.forged(entry, why);
        }
        let peers = self.network.peers(node);
        let victim = self.random.pick(&peers);
        for sent in deed.sent {
            let bytes: Arc<[u8]> = sent.bytes.into();
            match sent.to {
                To::Gossip => self.spread(node, &bytes),
                To::One => {
                    if let Some(peer) = self.random.pick(&peers) {
                        self.send(node, self.devices[peer as usize].peer, bytes);
                    }
                }
                To::Victim => {
                    if let Some(peer) = victim {
                        self.send(node, self.devices[peer as usize].peer, bytes);
                    }
                }
                To::Half(half) => {
                    for peer in peers.iter().skip(half).step_by(2) {
                        self.send(node, self.devices[*peer as usize].peer, Arc::clone(&bytes));
                    }
                }
            }
        }
    }

    fn spread(&mut self, node: NodeId, bytes: &Arc<[u8]>) {
        for to in 0..self.nodes() {
            let member = matches!(self.devices[to as usize].standing, Standing::Member);
            if to != node && member && self.network.carries(node, to) {
                let delay = self.network.delay();
                self.queue.at(self.now + delay, What::Hint { to, bytes: Arc::clone(bytes) });
            }
        }
    }
}
