//! Calls: each second they come, wait, run and end in the model, and nodes are told what theirs do.

use std::collections::BTreeMap;

use osiris_ledger::counter::Figures;

use crate::{
    node::Input,
    sim::{
        queue::{NodeId, What},
        world::World,
    },
};

use super::{Had, demand::STEPS_A_SECOND};

/// A node whose figures move without anything that waits is told this often.
const TELL_EVERY_MS: u64 = 10_000;
/// How long a call waits where nobody serves its function.
const PATIENCE_STEPS: u64 = 20 * STEPS_A_SECOND;

/// What a node was told last.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    run: u32,
    at: u64,
    waits: bool,
    figures: Vec<(String, Figures)>,
    /// Calls that ended there, by function.
    ended: BTreeMap<usize, u64>,
}

impl World<'_> {
    /// A second goes by.
    pub(in crate::sim) fn second(&mut self) {
        let now = self.now;
        if self.healed {
            return;
        }
        self.queue.at(now + 1_000, What::Second);
        if now == 1_000 {
            return self.deploy_all();
        }
        self.look_for_claimants();
        let Some(day) = self.day.as_ref() else { return };
        let (hosts, functions) = (day.hosts(), day.releases.len());
        let mut figures: BTreeMap<NodeId, Vec<(String, Figures)>> = BTreeMap::new();
        let mut called = Vec::new();
        for function in 0..functions {
            let Some(day) = self.day.as_ref() else { return };
            let name = day.releases[function].manifest.name.clone();
            let serving: Vec<_> =
                hosts.iter().copied().filter(|node| self.serves_here(*node, &name)).collect();
            serving.iter().for_each(|node| self.note_service(*node));
            let ready = self.serve_second(function, &serving);
            self.share_out(function, &name, &ready, &mut figures, &mut called);
            self.watch_count(function, &name);
        }
        self.tell(figures);
        for (node, name) in called {
            self.input(node, Input::Called(name));
        }
        self.carry_rows();
        self.carry_blocks();
        self.spend();
    }

    /// The founder deploys all functions.
    fn deploy_all(&mut self) {
        let Some(day) = self.day.as_ref() else { return };
        for release in day.releases.clone() {
            self.manifests.insert(release.manifest_hash, release.manifest.clone());
            self.ask(0, crate::sim::workload::Asked::Deploy, release.request());
        }
    }

    /// Moves the queues of a function by a second. Returns who serves on each side.
    fn serve_second(&mut self, function: usize, serving: &[NodeId]) -> [Vec<NodeId>; 2] {
        let now = self.now;
        let Some(day) = self.day.as_mut() else { return Default::default() };
        let shape = day.demand.shapes[function];
        let mut ready = [Vec::new(), Vec::new()];
        for node in serving {
            ready[day.side(*node)].push(*node);
        }
        let far = day.callers[function].iter().filter(|node| day.side(**node) == 1).count() as u64;
        let of = day.callers[function].len().max(1) as u64;
        // The first second of calls begins when the functions are there.
        let first = (now / 1_000 - 2) * STEPS_A_SECOND;
        for at in first..first + STEPS_A_SECOND {
            let calls = day.demand.calls[function].get(usize::try_from(at).expect("it fits"));
            let calls = u64::from(calls.copied().unwrap_or(0));
            day.carry[function] += calls * far;
            let there = (day.carry[function] / of).min(calls);
            day.carry[function] -= there * of;
            for (line, (come, nodes)) in
                day.lines[function].iter_mut().zip([(calls - there, &ready[0]), (there, &ready[1])])
            {
                line.step(at, come, nodes.len() as u64 * shape.side_by_side, shape.steps);
                if nodes.is_empty() {
                    line.give_up(at, PATIENCE_STEPS);
                }
            }
        }
        let had = &mut day.had[function];
        had.most = had.most.max(serving.len() as u64);
        let (near, far) = (&day.lines[function][0], &day.lines[function][1]);
        let said = (near.backlog(), near.in_flight(), far.backlog(), far.in_flight());
        self.say(format_args!("serves {function} {} {} {said:?}", ready[0].len(), ready[1].len()));
        ready
    }

    /// Gives each serving node its part of what runs and waits. Where nobody serves, all waits at one caller.
    fn share_out(
        &mut self,
        function: usize,
        name: &str,
        ready: &[Vec<NodeId>; 2],
        figures: &mut BTreeMap<NodeId, Vec<(String, Figures)>>,
        called: &mut Vec<(NodeId, String)>,
    ) {
        let Some(day) = self.day.as_mut() else { return };
        for (side, nodes) in ready.iter().enumerate() {
            let (backlog, in_flight) =
                (day.lines[function][side].backlog(), day.lines[function][side].in_flight());
            let parts = nodes.len() as u64;
            if parts == 0 {
                let caller = day.callers[function].iter().copied().find(|node| day.side(*node) == side);
                if let Some(node) = caller.filter(|_| backlog > 0) {
                    let row = Figures { backlog, ..Figures::default() };
                    figures.entry(node).or_default().push((name.to_owned(), row));
                    called.push((node, name.to_owned()));
                }
                continue;
            }
            for (place, node) in (0..).zip(nodes) {
                let part = |all: u64| all / parts + u64::from(place < all % parts);
                let told = day.told.entry(*node).or_default();
                let ended = told.ended.entry(function).or_default();
                *ended += part(in_flight);
                let row = Figures {
                    backlog: part(backlog),
                    in_flight: part(in_flight),
                    done: *ended / day.demand.shapes[function].steps,
                    failed: 0,
                };
                figures.entry(*node).or_default().push((name.to_owned(), row));
            }
        }
    }

    /// Tells nodes what their functions do: at once where what waits changed, else now and then.
    fn tell(&mut self, mut figures: BTreeMap<NodeId, Vec<(String, Figures)>>) {
        let now = self.now;
        let Some(day) = self.day.as_ref() else { return };
        // Who has nothing any more is told so.
        for (node, told) in &day.told {
            if !told.figures.is_empty() {
                figures.entry(*node).or_default();
            }
        }
        for (node, figures) in figures {
            let Some(process) = self.run_of(node) else { continue };
            let Some(day) = self.day.as_mut() else { return };
            let told = day.told.entry(node).or_default();
            let waits = figures.iter().any(|(_, figures)| figures.backlog > 0);
            let fewer = figures.len() != told.figures.len();
            let due =
                told.run != process.run || waits || told.waits || fewer || now >= told.at + TELL_EVERY_MS;
            if !due || (told.run == process.run && told.figures == figures) {
                continue;
            }
            (told.run, told.at, told.waits) = (process.run, now, waits);
            told.figures.clone_from(&figures);
            self.input(node, Input::Observed(figures));
        }
    }

    /// Counts what is spent in this second.
    fn spend(&mut self) {
        let Some(day) = self.day.as_mut() else { return };
        for (node, functions) in &day.occupied {
            if !day.made_as.contains_key(node) {
                functions.iter().for_each(|function| day.had[*function].member_ms += 1_000);
            }
        }
        for made in day.machines.values() {
            day.had[made.function].machine_ms += 1_000;
        }
    }

    /// A process prepares a function, or has let go of it.
    pub(in crate::sim) fn occupies(
        &mut self,
        node: NodeId,
        revision: osiris_ledger::BlockId,
        name: Option<&str>,
    ) {
        let Some(day) = self.day.as_mut() else { return };
        let function = name.and_then(|name| day.function(name));
        if let Some(function) = function {
            day.revisions.insert(revision, function);
            day.occupied.entry(node).or_default().insert(function);
        } else if let Some(function) = day.revisions.get(&revision) {
            day.occupied.entry(node).or_default().remove(function);
        }
    }

    /// A process is gone: what ran there fails, unless it was stopped in order.
    pub(in crate::sim) fn day_process_ended(&mut self, node: NodeId) {
        let Some(day) = self.day.as_mut() else { return };
        let side = day.side(node);
        let served: Vec<_> = (0..day.releases.len()).collect();
        day.occupied.remove(&node);
        let hosts = day.hosts();
        for function in served {
            let Some(day) = self.day.as_ref() else { return };
            let name = day.releases[function].manifest.name.clone();
            if !self.serves_here(node, &name) {
                continue;
            }
            let on_side = |other: &&NodeId| day.side(**other) == side && self.serves_here(**other, &name);
            let replicas = hosts.iter().filter(on_side).count() as u64;
            if let Some(day) = self.day.as_mut() {
                day.lines[function][side].lose(replicas);
            }
        }
    }

    pub(super) fn had(&self, function: usize) -> Had {
        self.day.as_ref().map_or_else(Had::default, |day| day.had[function])
    }
}
