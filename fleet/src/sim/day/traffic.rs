//! What of a quiet fleet's traffic need not be simulated: a day of it is a thousand million frames that say nothing.

use std::sync::Arc;

use osiris_mesh::proto::sync::{Frame, RowsFrame};
use serde_bytes::ByteBuf;

use crate::{
    node::Input,
    sim::{queue::NodeId, world::World},
};

use super::Day;

/// What a digest's frame begins with; 32 bytes follow.
const DIGEST: &[u8] = b"\xa1\x66digest\x58\x20";
/// What frames about rows begin with.
const ROWS: &[u8] = b"\xa1\x64rows";
/// A core without a claim is called once in this time while something waits somewhere, and rows are carried.
const CALLED_MS: u64 = 1_000;
/// So often in a large fleet where nothing waits: only fewer replicas or machines can be decided then, which takes a
/// minute at least. They are decided somewhat later for it, so that a small fleet, which can afford it, does without.
const QUIET_MS: u64 = 5_000;
/// Members from which on a fleet is large.
const LARGE: u32 = 50;
/// The core of a member that decides nothing and writes nothing is called once in this time, and brought blocks.
const SELDOM_MS: u64 = 30_000;

/// By then gossip has brought a block to everybody who is reached.
const GOSSIP_MS: u64 = 1_000;

/// The digest in a frame that holds nothing else.
fn digest_in(frame: &[u8]) -> Option<[u8; 32]> {
    frame.strip_prefix(DIGEST)?.try_into().ok()
}

impl World<'_> {
    /// Whether a frame would say nothing new: a digest to a peer that has had it on this connection while it held
    /// just the same, and still does. Where one of the two writes no blocks, nobody counts on its confirmation, and it
    /// is enough that both hold the same. Rows come by gossip here.
    pub(in crate::sim) fn says_nothing(&mut self, from: NodeId, to: NodeId, bytes: &Arc<[u8]>) -> bool {
        if self.day.is_none() {
            return false;
        }
        if bytes.starts_with(ROWS) {
            return true;
        }
        let Some(digest) = digest_in(bytes) else { return false };
        let day = self.day.as_ref();
        let writes = day.is_some_and(|day| !day.only_calls(from) && !day.only_calls(to));
        // While gossip is on its way they differ, and would exchange what comes anyway; the next one says whether it
        // came.
        let to_be_brought = self.gossips_later() && day.is_some_and(|day| !day.blocks.is_empty());
        let on_its_way = || self.now < self.last_written + GOSSIP_MS || to_be_brought;
        if !writes && !self.is_deaf() && on_its_way() {
            return true;
        }
        let known = !writes || self.network.agreed(from, to) == Some(digest);
        known && self.devices[to as usize].running.as_mut().is_some_and(|run| run.node.digest() == digest)
    }

    /// A frame arrives: if it is a digest, whether the receiver holds just that.
    pub(in crate::sim) fn note_agreement(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        if self.day.is_none() {
            return;
        }
        let Some(digest) = digest_in(bytes) else { return };
        let held = self.devices[to as usize].running.as_mut().map(|run| run.node.digest());
        self.network.agrees(from, to, (held == Some(digest)).then_some(digest));
    }

    /// When a core that asks to be called is called: a driver is late at times, and here often enough that several
    /// things that are due are done at once. Never where it has a claim.
    pub(in crate::sim) fn called_at(&self, node: NodeId, at: u64) -> u64 {
        let Some(day) = self.day.as_ref() else { return at };
        if self.devices[node as usize].running.as_ref().is_some_and(|run| run.has_claims) {
            return at;
        }
        let grid = match () {
            () if self.is_deaf() => CALLED_MS,
            () if day.only_calls(node) => SELDOM_MS,
            () => day.pause_ms(),
        };
        // Not all at the same moment.
        let phase = u64::from(node) * 619 % grid;
        (at + grid - phase).div_ceil(grid) * grid + phase - grid
    }

    /// Whether a core that asked to be called for now has nothing to do any more: something else came meanwhile.
    pub(in crate::sim) fn is_done(&self, node: NodeId) -> bool {
        let running = self.devices[node as usize].running.as_ref();
        self.day.is_some() && running.is_some_and(|run| run.deadline().is_none_or(|at| at > self.now))
    }

    /// A process gossips its row. Of several of one process the last says all.
    pub(in crate::sim) fn gossip_row(&mut self, node: NodeId, bytes: Vec<u8>) {
        if let Some(day) = self.day.as_mut() {
            day.rows.insert(node, bytes);
        }
    }

    /// Whether those who only call are brought blocks now and then, and not at once.
    pub(in crate::sim) fn gossips_later(&self) -> bool {
        self.day.is_some() && !self.healed
    }

    /// A process gossips a block: those who only call hear of it with others.
    pub(in crate::sim) fn gossip_block(&mut self, node: NodeId, entry: &Arc<[u8]>) {
        if let Some(day) = self.day.as_mut() {
            day.blocks.push((node, Arc::clone(entry)));
        }
    }

    /// Blocks of the last half minute reach those who only call, all at once and as from some connected peer.
    pub(super) fn carry_blocks(&mut self) {
        if !self.now.is_multiple_of(SELDOM_MS) {
            return;
        }
        let Some(day) = self.day.as_mut() else { return };
        let blocks = std::mem::take(&mut day.blocks);
        let callers = day.options.hosts()..day.options.nodes;
        let told = self.by_part(blocks, |blocks| Frame::Blocks(blocks, false));
        callers.for_each(|to| self.tell_part(to, &told));
    }

    /// Rows of the last moments reach those who look at them: whoever may decide about a function. They come as from
    /// some connected peer, all at once.
    pub(super) fn carry_rows(&mut self) {
        let now = self.now;
        let Some(day) = self.day.as_mut().filter(|day| now.is_multiple_of(day.pause_ms())) else { return };
        let rows = std::mem::take(&mut day.rows);
        let hosts = day.hosts();
        let told = self.by_part(rows, |rows| Frame::Rows(RowsFrame::Rows(rows)));
        for to in hosts {
            if self.devices[to as usize].running.as_ref().is_some_and(|running| running.serves) {
                self.tell_part(to, &told);
            }
        }
    }

    /// A frame for each part of the network, of what comes from there.
    fn by_part<T: AsRef<[u8]>>(
        &self,
        told: impl IntoIterator<Item = (NodeId, T)>,
        frame: impl Fn(Vec<ByteBuf>) -> Frame,
    ) -> [Option<Vec<u8>>; 2] {
        let mut parts = [Vec::new(), Vec::new()];
        for (from, bytes) in told {
            parts[usize::from(self.network.part(from))].push(ByteBuf::from(bytes.as_ref().to_vec()));
        }
        parts.map(|told| (!told.is_empty()).then(|| frame(told).encode()))
    }

    /// A node is told what is told in its part of the network, as by some peer that it is connected to.
    fn tell_part(&mut self, node: NodeId, told: &[Option<Vec<u8>>; 2]) {
        let Some(bytes) = &told[usize::from(self.network.part(node))] else { return };
        let mut peers = self.network.peers(node).into_iter();
        let Some(peer) = peers.find(|peer| self.network.is_told(node, *peer)) else { return };
        let peer = self.devices[peer as usize].peer;
        self.input(node, Input::Frame(peer, bytes.clone()));
    }
}

impl Day {
    /// How often cores are called that may decide, and rows carried.
    fn pause_ms(&self) -> u64 {
        let waits = self.lines.iter().flatten().any(|line| line.backlog() > 0);
        if waits || self.options.nodes < LARGE { CALLED_MS } else { QUIET_MS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_told_from_other_frames() {
        let bytes = [7; 32];
        assert_eq!(digest_in(&Frame::Digest(ByteBuf::from(bytes.to_vec())).encode()), Some(bytes));
        let rows = Frame::Rows(RowsFrame::Digest(ByteBuf::from(bytes.to_vec()))).encode();
        assert_eq!(digest_in(&rows), None);
        assert!(rows.starts_with(ROWS));
        assert_eq!(digest_in(&Frame::Receipt(Vec::new()).encode()), None);
    }
}
