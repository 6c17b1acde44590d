//! Machines that are really there: made by their maker's driver, they boot, join by their intent, serve, and are
//! drained, leave and end when somebody sends for them.

use osiris_ledger::{BlockId, SigningKey};
use osiris_protocol::limits::TICKET_PEERS_MAX;

use crate::{
    node::{
        Input, is_node,
        lease::{Errand, Job, LeaseFacts, Spawn},
    },
    sim::{
        queue::{NodeId, Process, What},
        workload::{Asked, Ticket},
        world::{Standing, World},
    },
};

use super::faults::Armed;

/// From the moment at which a machine is asked for until its node asks to join.
pub(super) const BOOT_MS: u64 = 60_000;
/// How long after that a maker's driver waits until it serves.
const JOIN_PATIENCE_MS: u64 = 120_000;
/// Until a replica is fetched, compiled and ready.
pub(in crate::sim) const PREPARE_MS: u64 = 4_000;
/// How long a machine drains, how long others have to hear that it left, and until it is destroyed.
const DRAIN_MS: u64 = 10_000;
const LEAVE_MS: u64 = 3_000;
const DESTROY_MS: u64 = 2_000;
/// Machines of a thousand that cannot be made.
const FAILS: u32 = 50;

/// What is to happen to a machine.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) enum Stage {
    /// Its node asks to join.
    Boots,
    /// Its maker's driver looks whether it serves.
    Looked { by: Process, until: u64 },
    /// It is drained, and leaves.
    Leaves { by: Process },
    /// It is destroyed.
    Ends { by: Process },
    /// It is, and whoever sent for it is told.
    Ended { by: Process },
}

/// A machine that is there.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) by: NodeId,
    pub(super) device: Option<NodeId>,
    pub(super) function: usize,
    pub(super) served: bool,
    name: (u32, u64),
    ticket: Ticket,
}

impl World<'_> {
    /// A driver makes a machine of the day, or takes one away.
    pub(in crate::sim) fn day_errand(&mut self, node: NodeId, errand: &Errand) {
        match &errand.job {
            Job::Make(key) => self.make(node, &errand.machine, key),
            Job::Remove => self.send_for(node, errand.machine.intent),
        }
    }

    fn make(&mut self, node: NodeId, spawn: &Spawn, key: &SigningKey) {
        let intent = spawn.intent;
        self.promise(node, intent, "spent for");
        let dies = self.disarm(|armed| match armed {
            Armed::BeforeApply { away_ms } => Some(*away_ms),
            _ => None,
        });
        if let Some(away_ms) = dies {
            self.branches.count("maker died before its machine was there");
            return self.crash(node, away_ms);
        }
        if self.random.chance(FAILS) {
            let failed = Err("the simulated target failed".to_owned());
            return self.later(node, 10_000, Input::Provisioned(intent, failed));
        }
        let Some(by) = self.run_of(node) else { return };
        let (heads, peers) = (by_heads(self, node), self.ticket_peers(node));
        self.is_made(node, intent, (spawn.slot, spawn.round));
        let Some(day) = self.day.as_mut() else { return };
        let function = spawn.functions.first().and_then(|name| day.function(name)).unwrap_or(0);
        let ticket = Ticket { invitation: intent, key: key.clone(), heads, peers: Some(peers) };
        let name = (spawn.slot, spawn.round);
        let made = Made { by: node, device: None, function, served: false, name, ticket };
        day.machines.insert(intent, made);
        self.queue.at(self.now + BOOT_MS, What::Machine(intent, Stage::Boots));
        let until = self.now + BOOT_MS + JOIN_PATIENCE_MS;
        self.queue.at(self.now + BOOT_MS, What::Machine(intent, Stage::Looked { by, until }));
        let dies = self.disarm(|armed| match armed {
            Armed::AfterApply { away_ms } => Some(*away_ms),
            _ => None,
        });
        if let Some(away_ms) = dies {
            self.branches.count("maker died when its machine was there");
            self.crash(node, away_ms);
        }
    }

    /// Whom a ticket of a node names: itself, and others that it knows and that may admit.
    fn ticket_peers(&self, node: NodeId) -> Vec<NodeId> {
        let Some(running) = self.devices[node as usize].running.as_ref() else { return Vec::new() };
        let admits = |peer: &NodeId| is_node(running.node.view(), &self.devices[*peer as usize].author);
        let others = self.network.peers(node).into_iter().filter(admits);
        std::iter::once(node).chain(others).take(TICKET_PEERS_MAX).collect()
    }

    /// Something happens to a machine, if it is there.
    pub(in crate::sim) fn machine(&mut self, intent: BlockId, stage: Stage) {
        if !self.day.as_ref().is_some_and(|day| day.machines.contains_key(&intent)) {
            if let Stage::Ended { by } | Stage::Ends { by } | Stage::Leaves { by } = stage {
                self.tell_removed(by, intent);
            }
            return;
        }
        match stage {
            Stage::Boots => self.boots(intent),
            Stage::Looked { by, until } => self.look_whether_it_serves(intent, by, until),
            Stage::Leaves { by } => self.leaves(intent, by),
            Stage::Ends { by } => {
                // Who sent for it died meanwhile, and its provisioner with it: somebody else comes again.
                if self.is_current(by) {
                    self.queue.at(self.now + DESTROY_MS, What::Machine(intent, Stage::Ended { by }));
                }
            }
            Stage::Ended { by } => {
                if self.is_current(by) {
                    self.destroy(intent);
                    self.tell_removed(by, intent);
                }
            }
        }
    }

    fn boots(&mut self, intent: BlockId) {
        let Some(made) = self.day.as_ref().and_then(|day| day.machines.get(&intent)) else { return };
        let (by, ticket) = (made.by, made.ticket.clone());
        let device = self.add_stranger();
        self.say(format_args!("boots {device} {}", intent.short()));
        self.devices[device as usize].standing = Standing::Stranger { ticket: Some(ticket), tries: 0 };
        if let Some(day) = self.day.as_mut() {
            let side = day.sides.as_ref().map_or(0, |sides| sides[by as usize]);
            if let Some(sides) = day.sides.as_mut() {
                sides.resize(device as usize + 1, 0);
                sides[device as usize] = side;
            }
            self.network.grow(device, side);
            day.made_as.insert(device, intent);
            if let Some(made) = day.machines.get_mut(&intent) {
                made.device = Some(device);
            }
        }
        self.queue.at(self.now + 100, What::Join(device));
    }

    fn look_whether_it_serves(&mut self, intent: BlockId, by: Process, until: u64) {
        if !self.is_current(by) {
            return;
        }
        let device = self.day.as_ref().and_then(|day| day.machines.get(&intent)).and_then(|made| made.device);
        let is_node = device.is_some_and(|device| {
            let device = &self.devices[device as usize];
            let belongs =
                |run: &crate::sim::process::Running| run.serves && run.node.view().is_member(&device.author);
            matches!(device.standing, Standing::Member) && device.running.as_ref().is_some_and(belongs)
        });
        if is_node {
            self.branches.count("machine joined");
            self.later(by.node, 100, Input::Provisioned(intent, Ok(())));
        } else if self.now >= until {
            self.branches.count("machine did not join");
            let why = Err("it did not join in time".to_owned());
            self.later(by.node, 100, Input::Provisioned(intent, why));
        } else {
            self.queue.at(self.now + 1_000, What::Machine(intent, Stage::Looked { by, until }));
        }
    }

    /// Somebody sends for a machine: one on the other side of the network cannot be reached.
    fn send_for(&mut self, node: NodeId, intent: BlockId) {
        let Some(by) = self.run_of(node) else { return };
        let Some(day) = self.day.as_ref() else { return };
        let Some(made) = day.machines.get(&intent) else {
            return self.later(node, 1_000, Input::Removed(intent, Ok(())));
        };
        if day.side(node) != day.side(made.by) {
            let why = Err("the target is not reached".to_owned());
            return self.later(node, 5_000, Input::Removed(intent, why));
        }
        let device = made.device.filter(|device| self.devices[*device as usize].running.is_some());
        let member =
            device.filter(|device| matches!(self.devices[*device as usize].standing, Standing::Member));
        match member {
            Some(device) => {
                let since = self.now;
                self.ask(device, Asked::Drain { since }, crate::node::Request::Drain);
                self.queue.at(self.now + DRAIN_MS, What::Machine(intent, Stage::Leaves { by }));
            }
            None => self.queue.at(self.now + DESTROY_MS, What::Machine(intent, Stage::Ended { by })),
        }
    }

    fn leaves(&mut self, intent: BlockId, by: Process) {
        if !self.is_current(by) {
            return;
        }
        let device = self.day.as_ref().and_then(|day| day.machines.get(&intent)).and_then(|made| made.device);
        if let Some(device) = device {
            self.ask(device, Asked::Leave, crate::sim::payload::leave());
        }
        // It waits for another member to have heard, as long as a request does.
        self.queue.at(self.now + LEAVE_MS + DESTROY_MS, What::Machine(intent, Stage::Ends { by }));
    }

    fn destroy(&mut self, intent: BlockId) {
        let Some(made) = self.day.as_mut().and_then(|day| day.machines.remove(&intent)) else { return };
        self.say(format_args!("ends {}-{} {}", made.name.0, made.name.1, intent.short()));
        self.branches.count("machine destroyed");
        self.is_unmade(&intent);
        if let Some(device) = made.device {
            if self.devices[device as usize].running.is_some() {
                self.branches.count("machine destroyed before it had left");
                self.vanish(device, false);
                self.end(device);
            }
            self.devices[device as usize].standing = Standing::Gone;
        }
    }

    fn tell_removed(&mut self, by: Process, intent: BlockId) {
        if self.is_current(by) {
            self.later(by.node, 100, Input::Removed(intent, Ok(())));
        }
    }

    /// Whether a machine serves its function now, for the first time.
    pub(super) fn note_service(&mut self, node: NodeId) {
        let Some(day) = self.day.as_mut() else { return };
        let Some(made) = day.made_as.get(&node).and_then(|intent| day.machines.get_mut(intent)) else {
            return;
        };
        if !std::mem::replace(&mut made.served, true) {
            self.branches.count("machine served");
        }
    }

    /// Wishes of a spawner that came to nothing because it is connected to too few voters.
    pub(in crate::sim) fn note_refusals(&mut self, node: NodeId, facts: &LeaseFacts) {
        let Some(run) = self.run_of(node).map(|process| process.run) else { return };
        let Some(day) = self.day.as_mut() else { return };
        let before = day.refused.insert((node, run), facts.counts.no_majority).unwrap_or(0);
        let fresh = facts.counts.no_majority.saturating_sub(before);
        if day.side(node) == 1 {
            self.branches.add("minority side wanted a machine", fresh);
        }
    }
}

fn by_heads(world: &World<'_>, node: NodeId) -> Vec<BlockId> {
    let running = world.devices[node as usize].running.as_ref();
    running.map(|running| running.node.ledger().heads()).unwrap_or_default()
}
