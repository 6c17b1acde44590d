//! Processes that stand still for a while, and machines that are suspended. What comes for one meanwhile waits, its
//! peers give it up after a while, and then it goes on with what it knew: nothing may be done by a lease that was
//! lost meanwhile.

use crate::node::{
    Input,
    lease::rule::{Phase, Terms},
};

use super::{
    mesh::IDLE_MS,
    network::on,
    queue::{NodeId, Process, What},
    world::World,
};

/// A process that stands still.
#[derive(Debug)]
pub(super) struct Still {
    since: u64,
    /// Whether its machine sleeps: then its monotonic clock stands still as well.
    suspended: bool,
    /// What came for it since, in order. A pause has an end, and peers give it up after [`IDLE_MS`].
    waiting: Vec<What>,
}

impl What {
    /// The process that has to be awake for this to happen.
    fn who(&self) -> Option<NodeId> {
        match self {
            Self::Tick(process)
            | Self::Synced(process, _)
            | Self::Input(process, _)
            | Self::Asked(process, _)
            | Self::Keep(process)
            | Self::Roster(process)
            | Self::Dialled { from: process, .. } => Some(process.node),
            Self::Up { pair, side, .. } | Self::Down { pair, side, .. } => Some(on(*pair, *side)),
            Self::Frame { pair, to, .. } => Some(on(*pair, *to)),
            Self::Hint { to, .. } => Some(*to),
            _ => None,
        }
    }
}

impl World<'_> {
    fn still(&self, node: NodeId) -> Option<&Still> {
        self.devices[node as usize].running.as_ref()?.still.as_ref()
    }

    pub(super) fn is_still(&self, node: NodeId) -> bool {
        self.still(node).is_some()
    }

    /// Whether a node has been silent for so long that its peers gave it up.
    pub(super) fn is_given_up(&self, node: NodeId) -> bool {
        self.still(node).is_some_and(|still| self.now - still.since >= IDLE_MS)
    }

    /// What happens to a process that stands still happens when it goes on. Returns the rest.
    pub(super) fn unless_still(&mut self, what: What) -> Option<What> {
        let running = what.who().and_then(|node| self.devices[node as usize].running.as_mut());
        let Some(still) = running.and_then(|running| running.still.as_mut()) else { return Some(what) };
        still.waiting.push(what);
        None
    }

    /// A process stands still from now on. Nothing is counted where there is none, or it does already.
    pub(super) fn stand_still(&mut self, node: NodeId, suspended: bool, for_ms: u64) {
        let now = self.now;
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        if running.still.is_some() {
            return;
        }
        running.still = Some(Still { since: now, suspended, waiting: Vec::new() });
        let process = Process { node, run: running.run };
        self.faults.count(if suspended { "suspend" } else { "pause" });
        self.say(format_args!("stands still {node} {suspended}"));
        let links = self.network.links_of(node);
        self.silence(links);
        self.queue.at(now + for_ms, What::Wake(process));
    }

    /// It goes on. The real node's inputs are chosen by chance, but that it hears of a suspend before all else.
    pub(super) fn wake(&mut self, process: Process) {
        let Process { node, run } = process;
        let (now, wall) = (self.now, self.wall(node));
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        if running.run != run {
            return;
        }
        let Some(Still { since, suspended, waiting }) = running.still.take() else { return };
        let gone = now - since;
        if suspended {
            running.slept(gone);
        }
        running.tick_at = None;
        let facts = running.lease_facts(now, wall);
        self.say(format_args!("goes on {node} after {gone}"));
        let terms = Terms::default();
        let limit = |phase| match phase {
            _ if suspended => std::time::Duration::ZERO,
            Phase::Claiming => terms.standstill,
            Phase::Held => terms.keep,
        };
        let is_lost = |phase| u128::from(gone) > limit(phase).as_millis();
        for own in facts.own.values().filter(|own| is_lost(own.phase)) {
            self.branches.count(if suspended { "lease lost by a suspend" } else { "lease lost by a pause" });
            self.lost_meanwhile(own.claim);
        }
        if suspended {
            self.input(node, Input::Suspended);
        } else if self.random.chance(500) {
            self.input(node, Input::Tick);
        }
        for what in waiting {
            self.happen(what);
        }
        self.arrange_tick(node);
    }
}
