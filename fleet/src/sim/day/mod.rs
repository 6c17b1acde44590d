//! A day of a fleet: its load rises and falls, machines are made and taken away, makers die and the network falls
//! apart meanwhile; and what all of that costs is held against one who knew the day in advance.
//!
//! The cores, their leases, their policy and its thresholds are the real ones. What is modelled, and what is left out
//! so that a day of 1,000 nodes can be had, is in `docs/simulator.md`.

mod calls;
pub(super) mod demand;
mod faults;
mod line;
mod machines;
mod oracle;
mod report;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use osiris_ledger::{BlobHash, BlockId, Role, Roles};
use serde::{Deserialize, Serialize};

use self::{
    demand::{Demand, STEPS_A_SECOND, Shape},
    faults::Armed,
    line::Line,
};
pub(super) use faults::DayFault;
pub(super) use machines::{PREPARE_MS, Stage};
pub use report::{DayReport, FunctionDay, MUST_HAPPEN};

use super::{
    Listener, World,
    options::Options,
    payload::Release,
    queue::{NodeId, What},
    random::Random,
};
use crate::manifest::{Replicas, ScaleKeys};

/// How long after the last call every machine has to be gone.
const TAIL_MS: u64 = 90 * 60_000;
/// How long the healed fleet may take to agree.
const LIVENESS_MS: u64 = 300_000;
/// Voters of a fleet that has so many spawners.
const VOTERS: usize = 5;
/// Members that may run functions, at most: the others call, and hold the ledger.
const HOSTS_MAX: u32 = 40;

/// What decides a day. The same options give the same day, to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayOptions {
    /// The seed of every choice.
    pub seed: u64,
    /// Members at the start.
    pub nodes: u32,
    /// Hours from the first call to the last; one curve of a day lies over them.
    pub hours: u32,
}

impl DayOptions {
    /// Checks every field.
    ///
    /// # Errors
    /// A sentence that names the first field that is out of range.
    pub fn validate(&self) -> Result<(), String> {
        match (self.nodes, self.hours) {
            (6..=10_000, 1..=48) => Ok(()),
            (6..=10_000, hours) => Err(format!("`hours` is {hours}; it must lie between 1 and 48")),
            (nodes, _) => Err(format!("`nodes` is {nodes}; it must lie between 6 and 10000")),
        }
    }

    /// Members that may run functions.
    fn hosts(&self) -> u32 {
        (self.nodes / 8).clamp(3, HOSTS_MAX)
    }

    fn functions(&self) -> u64 {
        if self.nodes < 50 { 2 } else { 3 }
    }

    fn day_ms(&self) -> u64 {
        u64::from(self.hours) * 3_600_000
    }

    /// The options of the world in which it happens: without faults but the day's own.
    fn world(&self) -> Options {
        Options {
            safety_ms: self.day_ms() + TAIL_MS,
            liveness_ms: LIVENESS_MS,
            delay_ms: (5, 60),
            memo: true,
            ..Options::healthy(self.seed, self.nodes)
        }
    }

    fn roles(&self, node: NodeId) -> Roles {
        match node {
            n if n >= self.hosts() => Roles::of(&[Role::Invoker]),
            n if n % 4 == 3 => Roles::NODE,
            _ => Roles::of(&[Role::Node, Role::Spawner]),
        }
    }
}

/// What one function has had.
#[derive(Clone, Copy, Debug, Default)]
struct Had {
    /// Milliseconds for which members prepared, ran or drained it.
    member_ms: u64,
    /// Milliseconds for which machines were there for it.
    machine_ms: u64,
    /// Most replicas that were ready at once.
    most: u64,
}

/// The day, as the world knows it.
#[derive(Debug)]
pub(super) struct Day {
    pub(super) options: DayOptions,
    releases: Vec<Release>,
    demand: Demand,
    random: Random,
    /// By function, then by side of the network.
    lines: Vec<[Line; 2]>,
    /// Callers of each function.
    callers: Vec<Vec<NodeId>>,
    /// Thousandths of a call by which a side is ahead of its part.
    carry: Vec<u64>,
    /// The side of each device while the network is apart.
    sides: Option<Vec<u8>>,
    machines: BTreeMap<BlockId, machines::Made>,
    /// The machine that a device is.
    made_as: BTreeMap<NodeId, BlockId>,
    /// Functions that a process prepares, runs or drains.
    occupied: BTreeMap<NodeId, BTreeSet<usize>>,
    revisions: BTreeMap<BlockId, usize>,
    had: Vec<Had>,
    armed: Vec<Armed>,
    /// Until when gossip loses everything.
    deaf_until: u64,
    /// Rows that were gossiped and have not arrived yet.
    rows: BTreeMap<NodeId, Vec<u8>>,
    /// Blocks that were gossiped and have not reached those who only call.
    blocks: Vec<(NodeId, Arc<[u8]>)>,
    told: BTreeMap<NodeId, calls::Told>,
    turns: Vec<report::Turns>,
    /// Wishes that came to nothing for want of a majority, as each process last counted them.
    refused: BTreeMap<(NodeId, u32), u64>,
}

impl Day {
    fn new(options: DayOptions) -> Self {
        let (hosts, functions) = (options.hosts(), options.functions());
        let shapes = Shape::drawn(options.seed, functions, hosts.into());
        let demand = Demand::drawn(options.seed, shapes, options.day_ms() / 1_000 * STEPS_A_SECOND);
        let mut random = Random::new(options.seed, 22);
        let all: Vec<_> = (hosts..options.nodes).collect();
        let callers = (0..functions).map(|_| (0..16).filter_map(|_| random.pick(&all)).collect());
        let count = usize::try_from(functions).expect("few");
        let release = |number: u64| {
            let shape = demand.shapes[usize::try_from(number).expect("few")];
            let min = u32::from(!shape.sleeps);
            let scale = ScaleKeys { min, max: 3 * hosts, backlog: None, idle_s: None, concurrency: None };
            Release::scaled(format!("f{number}"), number, Replicas::Count(1), scale)
        };
        Self {
            releases: (0..functions).map(release).collect(),
            lines: (0..count).map(|_| Default::default()).collect(),
            callers: callers.collect(),
            carry: vec![0; count],
            sides: None,
            machines: BTreeMap::new(),
            made_as: BTreeMap::new(),
            occupied: BTreeMap::new(),
            revisions: BTreeMap::new(),
            had: vec![Had::default(); count],
            armed: Vec::new(),
            deaf_until: 0,
            rows: BTreeMap::new(),
            blocks: Vec::new(),
            told: BTreeMap::new(),
            turns: (0..count).map(|_| report::Turns::default()).collect(),
            refused: BTreeMap::new(),
            demand,
            random,
            options,
        }
    }

    /// Machines that the fleet may have.
    pub(super) fn machines_max(&self) -> u32 {
        2 * self.options.hosts() * u32::try_from(self.options.functions()).unwrap_or(1)
    }

    pub(super) fn roles(&self, node: NodeId) -> Roles {
        self.options.roles(node)
    }

    /// The first spawners are the voters.
    pub(super) fn voters(&self) -> Vec<NodeId> {
        let spawns = |node: &NodeId| self.options.roles(*node).has(Role::Spawner);
        (0..self.options.hosts()).filter(spawns).take(VOTERS).collect()
    }

    /// Whether a member only calls.
    pub(super) fn only_calls(&self, node: NodeId) -> bool {
        (self.options.hosts()..self.options.nodes).contains(&node)
    }

    /// Whether a member may make machines. What the fleet made makes none.
    pub(super) fn spawns(&self, node: NodeId) -> bool {
        node < self.options.hosts() && self.roles(node).has(Role::Spawner)
    }

    fn function(&self, name: &str) -> Option<usize> {
        self.releases.iter().position(|release| release.manifest.name == name)
    }

    /// Hosts, and machines that are there.
    fn hosts(&self) -> Vec<NodeId> {
        let machines = self.machines.values().filter_map(|made| made.device);
        (0..self.options.hosts()).chain(machines).collect()
    }

    /// The side on which a device is.
    fn side(&self, node: NodeId) -> usize {
        let side = self.sides.as_ref().and_then(|sides| sides.get(node as usize));
        usize::from(side.copied().unwrap_or(0))
    }

    fn component(&self, function: usize) -> [BlobHash; 2] {
        let release = &self.releases[function];
        [release.manifest_hash, release.component]
    }
}

/// Simulates a day. `listener` gets each line of the event log.
///
/// # Errors
/// A sentence where an option is out of range.
pub fn run_day(options: &DayOptions, listener: Option<Listener<'_>>) -> Result<DayReport, String> {
    options.validate()?;
    let day = Day::new(*options);
    let mut world = World::new(&options.world(), listener, Some(Box::new(day)));
    let agreed = world.run();
    if agreed.is_some() {
        world.compare();
    }
    Ok(world.day_report(agreed))
}

impl World<'_> {
    /// The day begins.
    pub(super) fn begin_day(&mut self) {
        let Some(day) = self.day.as_ref() else { return };
        let faults = faults::schedule(&day.options, &day.demand.bursts_ms);
        let releases: Vec<_> = (0..day.releases.len()).map(|function| day.component(function)).collect();
        for (at, fault) in faults {
            self.queue.at(at, What::DayFault(fault));
        }
        // Who deploys has the bytes.
        for bytes in releases {
            self.devices[0].library.extend(bytes);
        }
        self.queue.at(1_000, What::Second);
    }
}
