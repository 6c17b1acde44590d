//! The wire: which nodes reach each other, and what becomes of a frame on the way.
//!
//! A connection belongs to a pair of nodes and has a generation; what was sent on an earlier one is
//! lost. Frames are lost, doubled, delayed and reordered one by one, which is harsher than the streams of
//! the real mesh: those lose only what is queued when a connection breaks.

use std::collections::{BTreeMap, BTreeSet};

use super::{options::Options, queue::NodeId, random::Random};

/// Two nodes, the smaller number first.
pub(super) type Pair = (NodeId, NodeId);

/// The pair of two nodes, and which side the first of them is.
pub(super) fn pair(a: NodeId, b: NodeId) -> (Pair, usize) {
    if a < b { ((a, b), 0) } else { ((b, a), 1) }
}

/// The node on a side of a pair.
pub(super) fn on(pair: Pair, side: usize) -> NodeId {
    if side == 0 { pair.0 } else { pair.1 }
}

/// A connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) generation: u64,
    /// Whether both ends still hold it. What is sent on a dead one is lost.
    pub(super) alive: bool,
    /// Whether a side was told that the peer is up.
    pub(super) told: [bool; 2],
    /// When each side is told; frames wait for that.
    ready_at: [u64; 2],
    /// When the last frame in order arrives at each side.
    last_at: [u64; 2],
    /// The digest that each side was last told while it held just the same.
    agreed: [Option<[u8; 32]>; 2],
}

/// What was sent, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) dropped: u64,
    pub(super) duplicated: u64,
    pub(super) overtaken: u64,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    random: Random,
    delay_ms: (u64, u64),
    loss: u32,
    duplicate: u32,
    reorder: u32,
    /// The part of the fleet that each node is in.
    parts: Vec<u8>,
    /// Directions that carry nothing.
    cuts: BTreeSet<(NodeId, NodeId)>,
    links: BTreeMap<Pair, Link>,
    /// Each node's connected peers.
    of: Vec<BTreeSet<NodeId>>,
    generations: u64,
    pub(super) traffic: Traffic,
}

impl Network {
    pub(super) fn new(options: &Options, nodes: usize) -> Self {
        Self {
            random: Random::new(options.seed, 2),
            delay_ms: options.delay_ms,
            loss: options.loss,
            duplicate: options.duplicate,
            reorder: options.reorder,
            parts: vec![0; nodes],
            cuts: BTreeSet::new(),
            links: BTreeMap::new(),
            of: vec![BTreeSet::new(); nodes],
            generations: 0,
            traffic: Traffic::default(),
        }
    }

    /// One more node, in this part.
    pub(super) fn grow(&mut self, node: NodeId, part: u8) {
        let nodes = node as usize + 1;
        self.parts.resize(nodes, 0);
        self.of.resize(nodes, BTreeSet::new());
        self.parts[node as usize] = part;
    }

    /// Whether a node was told that it is connected to another.
    pub(super) fn is_told(&self, node: NodeId, peer: NodeId) -> bool {
        let (pair, side) = pair(node, peer);
        self.links.get(&pair).is_some_and(|link| link.told[side])
    }

    /// The digest that a node was last told by another while it held just the same; none on a new connection.
    pub(super) fn agreed(&self, from: NodeId, to: NodeId) -> Option<[u8; 32]> {
        let (pair, side) = pair(to, from);
        self.links.get(&pair)?.agreed[side]
    }

    /// Notes it.
    pub(super) fn agrees(&mut self, from: NodeId, to: NodeId, digest: Option<[u8; 32]>) {
        let (pair, side) = pair(to, from);
        if let Some(link) = self.links.get_mut(&pair) {
            link.agreed[side] = digest;
        }
    }

    /// The part of the fleet in which a node is.
    pub(super) fn part(&self, node: NodeId) -> u8 {
        self.parts[node as usize]
    }

    /// Whether a datagram from one node reaches another.
    pub(super) fn carries(&self, from: NodeId, to: NodeId) -> bool {
        self.parts[from as usize] == self.parts[to as usize] && !self.cuts.contains(&(from, to))
    }

    /// Whether two nodes can talk.
    pub(super) fn reaches(&self, a: NodeId, b: NodeId) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    /// Puts nodes into parts that do not reach each other. Returns the connections that are cut.
    pub(super) fn partition(&mut self, parts: Vec<u8>) -> Vec<(Pair, u64)> {
        self.parts = parts;
        let apart = |pair: &Pair| self.parts[pair.0 as usize] != self.parts[pair.1 as usize];
        let cut: Vec<_> = self.links.iter().filter(|(pair, link)| link.alive && apart(pair)).collect();
        cut.into_iter().map(|(pair, link)| (*pair, link.generation)).collect()
    }

    /// Cuts one direction. Returns the connection that this silences.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) -> Option<(Pair, u64)> {
        self.cuts.insert((from, to));
        let (pair, _) = pair(from, to);
        self.links.get(&pair).filter(|link| link.alive).map(|link| (pair, link.generation))
    }

    pub(super) fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cuts.remove(&(from, to));
    }

    /// Heals everything, and loses nothing any more.
    pub(super) fn heal(&mut self) {
        self.parts.fill(0);
        self.cuts.clear();
        (self.loss, self.duplicate, self.reorder) = (0, 0, 0);
        self.delay_ms.1 = self.delay_ms.1.min(100);
        self.delay_ms.0 = self.delay_ms.0.min(self.delay_ms.1);
    }

    /// A time that something takes on the wire.
    pub(super) fn delay(&mut self) -> u64 {
        let delay = self.random.between(self.delay_ms.0, self.delay_ms.1);
        if self.reorder > 0 && self.random.chance(20) { delay * 10 } else { delay }
    }

    /// Whether a dial's handshake, which is tried several times, gets through.
    pub(super) fn greets(&mut self) -> bool {
        !(0..4).all(|_| self.random.chance(self.loss))
    }

    /// A connection, if there is one or was one whose end a side has not heard of.
    pub(super) fn link(&self, pair: &Pair) -> Option<&Link> {
        self.links.get(pair)
    }

    /// Whether a node believes that it is connected to another.
    pub(super) fn believes(&self, node: NodeId, peer: NodeId) -> bool {
        let (pair, side) = pair(node, peer);
        self.links.get(&pair).is_some_and(|link| link.told[side] || (link.alive && link.ready_at[side] > 0))
    }

    /// Nodes with a connection to this one.
    pub(super) fn peers(&self, node: NodeId) -> Vec<NodeId> {
        self.of[node as usize].iter().copied().collect()
    }

    /// The living connections of a node.
    pub(super) fn links_of(&self, node: NodeId) -> Vec<(Pair, u64)> {
        let pairs = self.of[node as usize].iter().map(|peer| pair(node, *peer).0);
        let links = pairs.filter_map(|pair| Some((pair, self.links.get(&pair).filter(|link| link.alive)?)));
        links.map(|(pair, link)| (pair, link.generation)).collect()
    }

    /// A new connection. Returns its generation; each side is to be told at its moment.
    pub(super) fn establish(&mut self, pair: Pair, ready_at: [u64; 2]) -> u64 {
        self.generations += 1;
        let link = Link { generation: self.generations, alive: true, ready_at, ..Link::default() };
        self.links.insert(pair, link);
        self.of[pair.0 as usize].insert(pair.1);
        self.of[pair.1 as usize].insert(pair.0);
        self.generations
    }

    /// A side is told. `false` where the connection is not the current one any more.
    pub(super) fn tell_up(&mut self, pair: &Pair, generation: u64, side: usize) -> bool {
        match self.links.get_mut(pair) {
            Some(link) if link.generation == generation && link.alive => {
                link.told[side] = true;
                true
            }
            _ => false,
        }
    }

    /// A connection breaks: nothing that is sent on it arrives any more.
    pub(super) fn kill(&mut self, pair: &Pair) {
        if let Some(link) = self.links.get_mut(pair) {
            link.alive = false;
        }
    }

    /// A side learns that a connection is gone. `false` where it knew, or has another.
    pub(super) fn tell_down(&mut self, pair: &Pair, generation: u64, side: usize) -> bool {
        let Some(link) = self.links.get_mut(pair).filter(|link| link.generation == generation) else {
            return false;
        };
        link.alive = false;
        let knew = std::mem::replace(&mut link.told[side], false);
        if link.told == [false; 2] {
            self.links.remove(pair);
            self.of[pair.0 as usize].remove(&pair.1);
            self.of[pair.1 as usize].remove(&pair.0);
        }
        knew
    }

    /// What becomes of a frame: the moments at which it arrives.
    pub(super) fn send(
        &mut self,
        now: u64,
        from: NodeId,
        to: NodeId,
    ) -> Option<(Pair, u64, usize, Vec<u64>)> {
        self.traffic.sent += 1;
        let (pair, side) = pair(from, to);
        let other = 1 - side;
        let carried = self.carries(from, to) && !self.random.chance(self.loss);
        let link = self.links.get(&pair).filter(|link| link.alive && carried);
        let Some(link) = link else {
            self.traffic.dropped += 1;
            return None;
        };
        let (generation, ready_at, last_at) = (link.generation, link.ready_at[other], link.last_at[other]);
        let copies = 1 + u32::from(self.random.chance(self.duplicate));
        self.traffic.duplicated += u64::from(copies - 1);
        let mut arrivals = Vec::new();
        let mut last = last_at;
        for _ in 0..copies {
            let mut at = (now + self.delay()).max(ready_at);
            if at < last {
                if self.random.chance(self.reorder) { self.traffic.overtaken += 1 } else { at = last }
            }
            last = last.max(at);
            arrivals.push(at);
        }
        if let Some(link) = self.links.get_mut(&pair) {
            link.last_at[other] = last;
        }
        Some((pair, generation, other, arrivals))
    }
}
