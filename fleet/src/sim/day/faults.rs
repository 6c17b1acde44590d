//! What goes wrong in a day: partitions, at busy times and while somebody has a claim; hosts that die, and makers that
//! do so just before or just after their machine is there.

use crate::{
    node::{
        Input,
        lease::{Want, rule::Phase},
    },
    sim::{
        queue::{NodeId, What},
        random::Random,
        world::World,
    },
};

use super::DayOptions;

/// A fault of the day, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sim) enum DayFault {
    /// The network falls into two parts; on the second is no majority of the voters.
    Apart { for_ms: u64 },
    /// It is whole again.
    Whole,
    /// Gossip loses all for a while: blocks come by anti-entropy alone.
    GossipLost { for_ms: u64 },
    /// A host dies for a while.
    HostDies { choice: u64, away_ms: u64 },
    /// Two spawners that reach each other are asked at the same moment to look after one slot.
    Rivals { choice: u64 },
    /// The next moment of a kind is used.
    Arm(Armed),
}

/// A fault that waits for its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Armed {
    /// Somebody waits for a claim: the network falls apart, with it on the side without a majority, or with it.
    ClaimantApart { minority: bool, for_ms: u64 },
    /// Somebody is to make a machine: it dies before it has.
    BeforeApply { away_ms: u64 },
    /// Somebody has made a machine and waits for it: it dies.
    AfterApply { away_ms: u64 },
}

/// Parts of a hundred of hosts and of callers that are on the side without a majority.
const HOSTS_APART: u64 = 40;
const CALLERS_APART: u64 = 55;

/// How long gossip loses all, from the moment on at which all functions are called more.
const GOSSIP_LOST_MS: u64 = 240_000;

/// All faults of a day, each with its moment. `bursts_ms`: when all functions are called more.
pub(super) fn schedule(options: &DayOptions, bursts_ms: &[u64]) -> Vec<(u64, DayFault)> {
    let mut random = Random::new(options.seed, 23);
    let day = options.day_ms();
    let mut faults = Vec::new();
    // As many however long the day is: from morning to evening, when there is something to break.
    let mut place = |of: u64, number: u64| {
        let from = day / 4 + day * 6 / 10 * number / of;
        from + random.below(day * 4 / 10 / of)
    };
    for number in 0..4 {
        let at = place(4, number);
        faults.push((at, DayFault::Apart { for_ms: 0 }));
    }
    for number in 0..4 {
        let minority = number % 2 == 0;
        faults.push((place(4, number), DayFault::Arm(Armed::ClaimantApart { minority, for_ms: 0 })));
    }
    for number in 0..3 {
        faults.push((place(3, number), DayFault::Arm(Armed::BeforeApply { away_ms: 0 })));
        faults.push((place(3, number), DayFault::Arm(Armed::AfterApply { away_ms: 0 })));
    }
    for number in 0..4 {
        faults.push((place(4, number), DayFault::HostDies { choice: 0, away_ms: 0 }));
    }
    for number in 0..6 {
        faults.push((place(6, number), DayFault::Rivals { choice: 0 }));
    }
    // How long each lasts is the same however long the day is: leases do not shorten.
    for (_, fault) in &mut faults {
        match fault {
            DayFault::Apart { for_ms } | DayFault::Arm(Armed::ClaimantApart { for_ms, .. }) => {
                *for_ms = random.between(120_000, 420_000);
            }
            DayFault::Arm(Armed::BeforeApply { away_ms } | Armed::AfterApply { away_ms }) => {
                // A restart, or longer than a lease lasts, or until others have to look after what it left.
                *away_ms = random.pick(&[20_000, 120_000, 1_200_000]).unwrap_or(20_000);
            }
            DayFault::HostDies { choice, away_ms } => {
                (*choice, *away_ms) = (random.next(), random.between(20_000, 300_000));
            }
            DayFault::Rivals { choice } => *choice = random.next(),
            DayFault::Whole | DayFault::GossipLost { .. } => {}
        }
    }
    // When several want a machine at once, and hear of each other late.
    faults.extend(bursts_ms.iter().map(|at| (*at, DayFault::GossipLost { for_ms: GOSSIP_LOST_MS })));
    faults
}

impl World<'_> {
    /// Inflicts a fault of the day, or ends one.
    pub(in crate::sim) fn day_fault(&mut self, fault: DayFault) {
        if self.healed {
            return;
        }
        self.say(format_args!("fault {fault:?}"));
        match fault {
            DayFault::Apart { for_ms } => self.apart(None, for_ms),
            DayFault::Whole => self.whole(),
            DayFault::GossipLost { for_ms } => self.lose_gossip(for_ms),
            DayFault::HostDies { choice, away_ms } => {
                let hosts = self.day.as_ref().map_or(1, |day| u64::from(day.options.hosts()));
                let node = NodeId::try_from(choice % hosts).unwrap_or(0);
                if self.devices[node as usize].running.is_some() {
                    self.faults.count("crash");
                    self.crash(node, away_ms);
                }
            }
            DayFault::Rivals { choice } => self.rivals(choice),
            DayFault::Arm(armed) => {
                if let Some(day) = self.day.as_mut() {
                    day.armed.push(armed);
                }
            }
        }
    }

    /// Two people at two spawners, who do not know of each other, want the same slot looked after: claims that depend on
    /// no load, so that each day has some that are lost.
    fn rivals(&mut self, choice: u64) {
        let Some(day) = self.day.as_ref() else { return };
        let spawners = (0..day.options.nodes).filter(|node| day.spawns(*node));
        let near =
            spawners.filter(|node| day.side(*node) == 0 && self.devices[*node as usize].running.is_some());
        let near: Vec<_> = near.collect();
        let slots = self.view_of(near.first().copied()).map_or(0, |view| view.spawning().machines);
        if near.len() < 2 || slots == 0 {
            return;
        }
        self.faults.count("rivals");
        let number = u64::try_from(near.len()).unwrap_or(u64::MAX);
        let first = usize::try_from(choice % number).unwrap_or(0);
        for node in [near[first], near[(first + 1) % near.len()]] {
            self.input(node, Input::Want(Want::Slot(slots - 1)));
        }
    }

    fn view_of(&self, node: Option<NodeId>) -> Option<&std::sync::Arc<osiris_ledger::View>> {
        self.devices[node? as usize].running.as_ref().map(|running| running.node.view())
    }

    /// The network falls apart, unless it is already. A node that is named is on the side where it is wanted.
    fn apart(&mut self, wanted: Option<(NodeId, bool)>, for_ms: u64) {
        let devices = self.devices.len();
        let Some(day) = self.day.as_mut().filter(|day| day.sides.is_none()) else { return };
        let hosts = day.options.hosts();
        let mut sides = vec![0_u8; devices];
        for (node, side) in (0..).zip(sides.iter_mut()).take(day.options.nodes as usize) {
            let part = if node < hosts { HOSTS_APART } else { CALLERS_APART };
            *side = u8::from(day.random.below(100) < part);
        }
        if let Some((node, minority)) = wanted {
            sides[node as usize] = u8::from(minority);
        }
        // A majority of the voters is on the first side; of those, who is named stays where it is wanted.
        let voters = day.voters();
        let apart = |sides: &[u8]| voters.iter().filter(|voter| sides[**voter as usize] == 1).count();
        for voter in &voters {
            let named = wanted.is_some_and(|(node, _)| node == *voter);
            if 2 * apart(&sides) >= voters.len() && !named {
                sides[*voter as usize] = 0;
            }
        }
        // A machine is where its maker is.
        for made in day.machines.values() {
            if let Some(device) = made.device {
                sides[device as usize] = sides[made.by as usize];
            }
        }
        for function in 0..day.lines.len() {
            let far = |nodes: &[NodeId]| {
                let there = nodes.iter().filter(|node| sides[**node as usize] == 1).count();
                (there * 1_000 / nodes.len().max(1)) as u64
            };
            let callers = far(&day.callers[function]);
            let running = day.occupied.iter().filter(|(_, functions)| functions.contains(&function));
            let running = far(&running.map(|(node, _)| *node).collect::<Vec<_>>());
            let [near, there] = &mut day.lines[function];
            there.join(near.split(callers, running));
        }
        day.sides = Some(sides.clone());
        self.faults.count("partition");
        let silenced = self.network.partition(sides);
        self.silence(silenced);
        self.queue.at(self.now + for_ms, What::DayFault(DayFault::Whole));
    }

    /// Nobody is called late meanwhile: blocks take no longer than leases allow for.
    fn lose_gossip(&mut self, for_ms: u64) {
        let until = self.now + for_ms;
        let Some(day) = self.day.as_mut() else { return };
        day.deaf_until = until;
        self.faults.count("gossip lost");
        for node in 0..self.nodes() {
            self.devices[node as usize].running.iter_mut().for_each(|running| running.tick_at = None);
            self.arrange_tick(node);
        }
    }

    /// Whether gossip loses everything now.
    pub(in crate::sim) fn is_deaf(&self) -> bool {
        self.day.as_ref().is_some_and(|day| self.now < day.deaf_until)
    }

    fn whole(&mut self) {
        let Some(day) = self.day.as_mut() else { return };
        if day.sides.take().is_none() {
            return;
        }
        for [near, far] in &mut day.lines {
            near.join(std::mem::take(far));
        }
        self.network.partition(vec![0; self.devices.len()]);
    }

    /// An armed fault of a kind, if there is one.
    pub(super) fn disarm<T>(&mut self, of: impl Fn(&Armed) -> Option<T>) -> Option<T> {
        let day = self.day.as_mut()?;
        let (at, found) = day.armed.iter().enumerate().find_map(|(at, armed)| Some((at, of(armed)?)))?;
        day.armed.remove(at);
        Some(found)
    }

    /// Who waits for a claim is cut off, where that is armed.
    pub(super) fn look_for_claimants(&mut self) {
        let Some(day) = self.day.as_ref() else { return };
        let is_armed = day.armed.iter().any(|armed| matches!(armed, Armed::ClaimantApart { .. }));
        if !is_armed || day.sides.is_some() {
            return;
        }
        let hosts = day.options.hosts();
        let claims = |node: &NodeId| {
            let running = self.devices[*node as usize].running.as_ref();
            let facts = running.map(|running| running.lease_facts(self.now, self.wall(*node)));
            let claims = |own: &crate::node::lease::OwnLease| own.phase == Phase::Claiming;
            facts.is_some_and(|facts| facts.own.values().any(claims))
        };
        let Some(node) = (0..hosts).find(claims) else { return };
        let armed = self.disarm(|armed| match armed {
            Armed::ClaimantApart { minority, for_ms } => Some((*minority, *for_ms)),
            _ => None,
        });
        if let Some((minority, for_ms)) = armed {
            self.branches.count("partition during a claim");
            self.apart(Some((node, minority)), for_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_follows_from_its_seed_and_ends_with_the_day() {
        let options = |seed| DayOptions { seed, nodes: 20, hours: 2 };
        let faults = schedule(&options(1), &[7]);
        assert_eq!(faults, schedule(&options(1), &[7]));
        assert_ne!(faults, schedule(&options(2), &[7]));
        assert!(faults.iter().all(|(at, _)| *at < options(1).day_ms()));
    }
}
