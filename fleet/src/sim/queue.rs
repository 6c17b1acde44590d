//! What will happen, in order of virtual time; what falls on one moment, in the order in which it was
//! arranged.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use crate::node::{Input, Request};

use osiris_ledger::BlockId;

use super::{
    day::{DayFault, Stage},
    faults::Fault,
    network::Pair,
    workload::Asked,
};

/// A node, by its number.
pub(super) type NodeId = u32;

/// One thing that happens.
#[derive(Debug)]
pub(super) enum What {
    /// A node is started.
    Start(NodeId),
    /// A process's core asked to be called.
    Tick(Process),
    /// A process's disk has done what it was asked, up to this group.
    Synced(Process, u64),
    /// Something that a process waits for.
    Input(Process, Box<Input>),
    /// Somebody asks a process that stood still when they did.
    Asked(Process, Box<(Asked, Request)>),
    /// A process that stood still goes on.
    Wake(Process),
    /// A process's mesh looks whom to dial.
    Keep(Process),
    /// A process's mesh learns that the roster changed.
    Roster(Process),
    /// A dial comes to its end.
    Dialled { from: Process, to: NodeId },
    /// A connection is up for one side.
    Up { pair: Pair, generation: u64, side: usize },
    /// A connection is gone for one side.
    Down { pair: Pair, generation: u64, side: usize },
    /// A connection over which nothing came may have to be given up.
    Idle { pair: Pair, generation: u64 },
    /// A frame arrives.
    Frame { pair: Pair, generation: u64, to: usize, bytes: Arc<[u8]> },
    /// A gossip hint arrives.
    Hint { to: NodeId, bytes: Arc<[u8]> },
    /// A stranger tries to join.
    Join(NodeId),
    /// Something that a person asks for.
    Work,
    /// A spawner wants a machine.
    Want,
    /// Functions are called.
    Load,
    /// A hostile member does something.
    Hostile(NodeId),
    /// A copy of a data folder runs no more.
    CloneEnds(NodeId),
    /// A fault, and its end.
    Fault(Fault),
    /// The fleet is looked at.
    Look,
    /// A second of a day goes by.
    Second,
    /// A fault of a day, and its end.
    DayFault(DayFault),
    /// What happens next to a machine of a day, by its intent.
    Machine(BlockId, Stage),
}

/// One run of a node's process: what belongs to an earlier run comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) node: NodeId,
    pub(super) run: u32,
}

#[derive(Debug)]
struct Event {
    at: u64,
    number: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What will happen.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: BinaryHeap<Reverse<Event>>,
    arranged: u64,
}

impl Queue {
    /// Arranges something for a moment, in milliseconds of virtual time.
    pub(super) fn at(&mut self, at: u64, what: What) {
        self.arranged += 1;
        self.events.push(Reverse(Event { at, number: self.arranged, what }));
    }

    /// What happens next, and when.
    pub(super) fn next(&mut self) -> Option<(u64, What)> {
        self.events.pop().map(|Reverse(event)| (event.at, event.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_in_the_order_of_arrangement() {
        let mut queue = Queue::default();
        for (at, node) in [(5, 0), (3, 1), (5, 2), (3, 3)] {
            queue.at(at, What::Start(node));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.next())
            .map(|(at, what)| match what {
                What::Start(node) => (at, node),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [(3, 1), (3, 3), (5, 0), (5, 2)]);
    }
}
