//! What of a quiet fleet's traffic need not be simulated: a day of it is a thousand million frames that say nothing.

use std::sync::Arc;

use osiris_ledger::Author;
use osiris_mesh::proto::sync::{Frame, RowsFrame};
use serde_bytes::ByteBuf;

use crate::{
    node::{Input, Node},
    sim::{queue::NodeId, world::World},
};

/// What a digest's frame begins with; 32 bytes follow.
const DIGEST: &[u8] = b"\xa1\x66digest\x58\x20";
/// What frames about rows begin with.
const ROWS: &[u8] = b"\xa1\x64rows";
/// A core without a claim is called once in this time.
const CALLED_MS: u64 = 1_000;
/// The core of a member that decides nothing and writes nothing is.
const SELDOM_MS: u64 = 10_000;

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
        if !writes && !self.is_deaf() && self.now < self.last_written + GOSSIP_MS {
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
        let grid = if day.only_calls(node) && !self.is_deaf() { SELDOM_MS } else { CALLED_MS };
        // Not all at the same moment.
        let phase = u64::from(node) * 619 % grid;
        (at + grid - phase).div_ceil(grid) * grid + phase - grid
    }

    /// A process gossips its row.
    pub(in crate::sim) fn gossip_row(&mut self, node: NodeId, bytes: Vec<u8>) {
        if let Some(day) = self.day.as_mut() {
            day.rows.push((node, bytes));
        }
    }

    /// Rows of the last second reach those who look at them: whoever may decide about a function. They come as from
    /// some connected peer, all at once.
    pub(super) fn carry_rows(&mut self) {
        let Some(day) = self.day.as_mut() else { return };
        let rows = std::mem::take(&mut day.rows);
        let hosts = day.hosts();
        if rows.is_empty() {
            return;
        }
        for to in hosts {
            let Some(running) = self.devices[to as usize].running.as_ref() else { continue };
            if !running.serves {
                continue;
            }
            let reach = rows.iter().filter(|(from, _)| *from != to && self.network.reaches(*from, to));
            let reach: Vec<_> = reach.map(|(_, bytes)| ByteBuf::from(bytes.clone())).collect();
            let connected = |peer: &NodeId| self.network.is_told(to, *peer);
            let Some(peer) = self.network.peers(to).into_iter().find(connected) else { continue };
            if reach.is_empty() {
                continue;
            }
            let peer = Node::peer(&Author(*self.devices[peer as usize].peer.as_bytes()));
            self.input(to, Input::Frame(peer, Frame::Rows(RowsFrame::Rows(reach)).encode()));
        }
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
