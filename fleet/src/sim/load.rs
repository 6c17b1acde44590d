//! Calls, as far as scaling sees them: how many wait and run on which node. None is made; each node is told the
//! figures that its functions would have.

use std::collections::BTreeMap;

use osiris_ledger::{Block, Payload, counter::Figures, op};

use crate::{
    node::{Input, scale::MachineLoad},
    policy::Terms,
};

use super::{
    queue::{NodeId, What},
    random::Random,
    workload::NAMES,
    world::World,
};

/// Pause between two moments at which nodes are told what their functions do, as in the engine.
pub(super) const LOAD_MS: u64 = 1_000;
/// Invocations that a replica runs side by side, as the simulated host says.
pub(super) const SIDE_BY_SIDE: u64 = 4;

/// Thresholds in a simulation: shorter than the defaults, so that a run of minutes sees many decisions.
pub(super) fn terms() -> Terms {
    let seconds = std::time::Duration::from_secs;
    Terms {
        window: seconds(2),
        stagger: seconds(4),
        age: seconds(5),
        cool_up: seconds(4),
        cool_down: seconds(8),
        start_max: seconds(15),
        ..Terms::default()
    }
}

/// What is called, and what came of it.
#[derive(Debug)]
pub(super) struct Load {
    random: Random,
    /// Milliseconds from one quiet time to the next.
    period: u64,
    /// Invocations that wait for a replica, by function.
    waiting: BTreeMap<String, u64>,
    ended: BTreeMap<(NodeId, String), u64>,
    told: BTreeMap<(NodeId, u32), Vec<(String, Figures)>>,
    /// When each process last wrote a count, and which.
    counts: BTreeMap<(NodeId, u32, String), (u64, u32)>,
    /// Machines that do something else now and then.
    machines: Random,
    /// Whether a machine is busy, and which process was told so.
    busy: BTreeMap<NodeId, (bool, u32)>,
    /// Sums over the run, by name.
    pub(super) sums: BTreeMap<&'static str, u64>,
}

impl Load {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 9);
        Self {
            period: random.between(50_000, 90_000),
            random,
            waiting: BTreeMap::new(),
            ended: BTreeMap::new(),
            told: BTreeMap::new(),
            counts: BTreeMap::new(),
            machines: Random::new(seed, 14),
            busy: BTreeMap::new(),
            sums: BTreeMap::new(),
        }
    }

    /// Invocations of a function that want to run now: none for half of the time, then more and more up to the most
    /// and less again, and now and then a burst.
    fn demand(&mut self, now: u64, number: u64, most: u64) -> u64 {
        let at = (now + number * self.period / 3) % self.period;
        let half = self.period / 2;
        let day = at.checked_sub(half).map_or(0, |at| most * at.min(half - at) / (half / 2).max(1));
        let burst = if day > 0 && self.random.chance(30) { most } else { 0 };
        day + burst
    }
}

impl World<'_> {
    /// Tells every node what its functions do.
    pub(super) fn load(&mut self) {
        let nodes = self.belonging();
        let mut figures: BTreeMap<NodeId, Vec<(String, Figures)>> =
            nodes.iter().map(|node| (*node, Vec::new())).collect();
        let mut woken = Vec::new();
        for number in 0..NAMES {
            let name = format!("f{number}");
            let Some(most) = self.scaled_most(&nodes, &name) else { continue };
            let demand = match self.healed {
                true => 0,
                false => self.load.demand(self.now, number, self.options.load.into()),
            };
            let serving: Vec<_> =
                nodes.iter().copied().filter(|node| self.serves_here(*node, &name)).collect();
            woken.extend(self.share(&name, demand, &serving, &nodes, &mut figures).map(|node| (node, name)));
            self.sum(demand, serving.len() as u64, most);
        }
        for (node, figures) in figures {
            let Some(process) = self.run_of(node) else { continue };
            if self.load.told.get(&(node, process.run)) != Some(&figures) {
                self.say(format_args!("load {node} {}", figures.len()));
                self.load.told.insert((node, process.run), figures.clone());
                self.input(node, Input::Observed(figures));
            }
        }
        if self.day.is_none() {
            self.load_machines(&nodes);
        }
        for (node, name) in woken {
            self.say(format_args!("called {node} {name}"));
            self.input(node, Input::Called(name));
        }
        if !self.healed {
            self.queue.at(self.now + LOAD_MS, What::Load);
        }
    }

    /// Some machines become busy, others are so no more: one in a hundred a second, for a quarter of a minute.
    fn load_machines(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            let Some(process) = self.run_of(*node) else { continue };
            let told = self.load.busy.get(node).copied();
            let was = told.is_some_and(|(busy, _)| busy);
            let turns = self.load.machines.chance(if was { 66 } else { 10 });
            let now = (was != turns && !self.healed, process.run);
            self.load.busy.insert(*node, now);
            if told != Some(now) {
                self.say(format_args!("busy {node} {}", now.0));
                let cpu = if now.0 { 95 } else { 20 };
                self.input(*node, Input::Machine(MachineLoad { cpu, memory: 40 }));
            }
        }
    }

    /// Gives each serving node its part of what runs and waits. Where nobody serves, all waits at one node, which is
    /// returned.
    fn share(
        &mut self,
        name: &str,
        demand: u64,
        serving: &[NodeId],
        nodes: &[NodeId],
        figures: &mut BTreeMap<NodeId, Vec<(String, Figures)>>,
    ) -> Option<NodeId> {
        let waiting = self.load.waiting.get(name).copied().unwrap_or(0);
        // Who waits for too long goes away.
        let there = (waiting + demand).min(8 * u64::from(self.options.load));
        let running = there.min(SIDE_BY_SIDE * serving.len() as u64);
        let left = if self.healed { 0 } else { there - running };
        self.load.waiting.insert(name.to_owned(), left);
        let at = match serving {
            [] => self.load.random.pick(nodes).filter(|_| left > 0),
            _ => None,
        };
        let parts = serving.len() as u64;
        for (place, node) in serving.iter().copied().chain(at).enumerate() {
            let part = |all: u64| match parts {
                0 => all,
                _ => all / parts + u64::from((place as u64) < all % parts),
            };
            let ended = self.load.ended.entry((node, name.to_owned())).or_default();
            *ended += part(running);
            let row = Figures { backlog: part(left), in_flight: part(running), done: *ended, failed: 0 };
            figures.entry(node).or_default().push((name.to_owned(), row));
        }
        *self.load.sums.entry("calls waiting, seconds").or_default() += left;
        *self.load.sums.entry("calls running, seconds").or_default() += running;
        at
    }

    fn sum(&mut self, demand: u64, serving: u64, most: u32) {
        let needed = demand.div_ceil(SIDE_BY_SIDE).min(most.into());
        *self.load.sums.entry("replicas, seconds").or_default() += serving;
        // Who knows the future starts and stops replicas in no time, and never too many.
        *self.load.sums.entry("replicas of an oracle, seconds").or_default() += needed;
    }

    /// The most replicas of a function, as any of these nodes knows; none where it is not scaled.
    fn scaled_most(&self, nodes: &[NodeId], name: &str) -> Option<u32> {
        let views = nodes.iter().filter_map(|node| self.devices[*node as usize].running.as_ref());
        let mut functions = views.filter_map(|running| running.node.view().function(name)?.newest.clone());
        functions.find_map(|newest| Some(self.manifests.get(&newest.manifest)?.scale.as_ref()?.max))
    }

    pub(super) fn serves_here(&self, node: NodeId, name: &str) -> bool {
        let device = &self.devices[node as usize];
        let Some(running) = device.running.as_ref() else { return false };
        let function = running.node.view().function(name);
        function.is_some_and(|function| {
            function.served.iter().any(|revision| revision.is_served_by(&device.author))
        })
    }

    /// A node wrote a count: within the bounds that it knows, and not before its pause is over.
    pub(super) fn count_written(&mut self, node: NodeId, block: &Block) {
        let Payload::Scaled(op::Scaled { name, replicas, past }) = block.payload() else { return };
        let (now, replicas) = (self.now, *replicas);
        if !past.is_empty() {
            self.branches.count("passed over");
        }
        let terms = if self.day.is_some() { Terms::default() } else { terms() };
        let Some(running) = self.devices[node as usize].running.as_ref() else { return };
        let newest = running.node.view().function(name).and_then(|function| function.newest.clone());
        let manifest = newest.and_then(|newest| self.manifests.get(&newest.manifest));
        let Some(keys) = manifest.and_then(|manifest| manifest.scale.clone()) else {
            return self.check.violated(now, format_args!("node {node} scaled {name}, which is not scaled"));
        };
        if replicas < keys.min || replicas > keys.max {
            self.check.violated(
                now,
                format_args!("node {node} scaled {name} to {replicas}, not {} to {}", keys.min, keys.max),
            );
        }
        // Another's count may have come in between: whether there are more or fewer now is told from the last one.
        let others = running.node.ledger().in_order();
        let below = others.iter().rev().skip_while(|other| other.order() >= block.order());
        let last = below.into_iter().find_map(|other| match other.payload() {
            Payload::Scaled(op) if op.name == *name => Some(op.replicas),
            _ => None,
        });
        let key = (node, running.run, name.clone());
        let before = self.load.counts.insert(key, (now, replicas));
        // A machine that stands ready is used at once.
        let at_once = self.day.is_some();
        let soon = before.is_some_and(|(at, count)| {
            let count = last.unwrap_or(count);
            if at_once && replicas > count {
                return false;
            }
            let pause = if replicas < count { terms.cool_down } else { terms.cool_up };
            // The first call is waited for by nobody.
            count > 0 && now - at < u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
        });
        if soon {
            self.check
                .violated(now, format_args!("node {node} scaled {name} again before its pause was over"));
        }
        self.branches.count(match before.map(|(_, count)| count) {
            _ if replicas == 0 => "scaled to none",
            Some(0) => "woken",
            Some(count) if replicas < count => "scaled down",
            Some(_) => "scaled up",
            None => "scaled first",
        });
    }
}
