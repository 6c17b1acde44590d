//! Anti-entropy: how two replicas find and exchange the blocks that one of them lacks.
//!
//! ```text
//! A → B  Digest            on connect, a moment after an own block, and every few seconds
//! B → A  Vector            when B's digest differs
//! A → B  Blocks, Gaps      what B lacks; the chains on which B has something that A lacks
//! B → A  Blocks            from the highest rung that both hold (and Gaps, where B lacks a rung)
//! each receiver of Blocks  → Vector if there was more, else Digest: so both learn that they agree
//! ```
//!
//! Gossip is a hint; this is the guarantee. Every frame is bounded, every answer is one frame of
//! each kind, and a peer that makes no progress is asked again only in the next period.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use osiris_ledger::{Admission, Block, BlockId, Gap, Ledger, Mono, Now, Vector, limits};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{PeerId, limits::FRAME_BYTES_MAX};

/// Time between two digests to one peer; up to half as much again is added at random.
pub const PERIOD: Duration = Duration::from_secs(3);
/// How soon after an own block a peer that did not confirm it gets a digest.
pub const NUDGE: Duration = Duration::from_millis(120);
/// Exchanges that one peer may cause in a period before it has to wait for the next.
pub const ROUNDS_MAX: u32 = 64;
/// Blocks in one answer to which receipts are sent one by one.
pub const RECEIPTS_MAX: usize = 16;

/// One frame of `osiris/sync/1`, in CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// [`Ledger::digest`].
    Digest(ByteBuf),
    /// [`Ledger::vector`], in full where the flag says so.
    Vector(bool, Vector),
    /// Chains of which the sender lacks something.
    Gaps(Vec<Gap>),
    /// Entries in ledger order, and whether there are more.
    Blocks(Vec<ByteBuf>, bool),
    /// The sender holds these blocks, durably.
    Receipt(Vec<BlockId>),
}

/// Bytes that are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a frame of osiris/sync/1")]
pub struct FrameError;

impl Frame {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("a Vec takes every write");
        bytes
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`FrameError`] where the bytes are too many or say nothing known.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError);
        }
        ciborium::from_reader(bytes).map_err(|_| FrameError)
    }
}

/// What a peer is known to hold.
#[derive(Debug)]
struct Peer {
    next_digest: Mono,
    rounds: u32,
    period_end: Mono,
    /// The digest it sent last.
    digest: Option<[u8; 32]>,
    rejected: u64,
}

/// What handling a frame came to. The blocks must be durable before the answers leave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Newly admitted blocks, each after all it names.
    pub admitted: Vec<Arc<Block>>,
    /// Frames for the peer.
    pub answers: Vec<Frame>,
    /// Own blocks that the peer confirmed to hold.
    pub confirmed: Vec<BlockId>,
    /// Whether the peer was found to hold exactly what this replica holds.
    pub agrees: bool,
    /// Why blocks of the peer were refused.
    pub rejects: Vec<osiris_ledger::Reject>,
}

/// Anti-entropy with all connected peers.
#[derive(Debug)]
pub struct Sync {
    peers: BTreeMap<PeerId, Peer>,
    rejected: BTreeMap<PeerId, u64>,
    random: u64,
}

impl Sync {
    /// No peers yet. `seed` spreads the periods of different nodes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { peers: BTreeMap::new(), rejected: BTreeMap::new(), random: seed }
    }

    /// A peer is connected; the digest to send it.
    pub fn peer_up(&mut self, now: Now, peer: PeerId, ledger: &mut Ledger) -> Frame {
        let next_digest = now.mono.plus(self.period());
        let fresh =
            Peer { next_digest, rounds: 0, period_end: now.mono.plus(PERIOD), digest: None, rejected: 0 };
        self.peers.insert(peer, fresh);
        digest(ledger)
    }

    /// A peer is gone.
    pub fn peer_down(&mut self, peer: &PeerId) {
        if let Some(gone) = self.peers.remove(peer) {
            *self.rejected.entry(*peer).or_default() += gone.rejected;
        }
    }

    /// Invalid blocks that a peer sent since this node started.
    #[must_use]
    pub fn rejected(&self, peer: &PeerId) -> u64 {
        let before = self.rejected.get(peer).copied().unwrap_or(0);
        before + self.peers.get(peer).map_or(0, |peer| peer.rejected)
    }

    /// Connected peers.
    pub fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.keys()
    }

    /// Connected peers whose last digest is this replica's.
    pub fn agreeing(&self, ledger: &mut Ledger) -> usize {
        let digest = ledger.digest();
        self.peers.values().filter(|peer| peer.digest == Some(digest)).count()
    }

    /// Own blocks were written: peers get a digest soon, unless gossip and receipts are faster.
    pub fn nudge(&mut self, now: Now) {
        let soon = now.mono.plus(NUDGE);
        for peer in self.peers.values_mut() {
            peer.next_digest = peer.next_digest.min(soon);
        }
    }

    /// Hints were lost, or somebody waits: every peer gets a digest at once.
    pub fn hurry(&mut self, now: Now) {
        for peer in self.peers.values_mut() {
            peer.next_digest = now.mono;
        }
    }

    /// When [`Sync::due`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.peers.values().map(|peer| peer.next_digest).min()
    }

    /// The digests that are due.
    pub fn due(&mut self, now: Now, ledger: &mut Ledger) -> Vec<(PeerId, Frame)> {
        let due: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.next_digest <= now.mono).map(|(id, _)| *id).collect();
        let mut frames = Vec::new();
        for id in due {
            let next = now.mono.plus(self.period());
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.next_digest = next;
                frames.push((id, digest(ledger)));
            }
        }
        frames
    }

    /// Handles a frame of a connected peer.
    pub fn handle(&mut self, now: Now, from: PeerId, frame: Frame, ledger: &mut Ledger) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(peer) = self.peers.get_mut(&from) else { return outcome };
        if now.mono >= peer.period_end {
            peer.period_end = now.mono.plus(PERIOD);
            peer.rounds = 0;
        }
        peer.rounds += 1;
        // Blocks and receipts are always taken in; questions are answered at a bounded rate.
        let may_answer = peer.rounds <= ROUNDS_MAX;
        match frame {
            Frame::Digest(theirs) => {
                peer.digest = theirs.as_slice().try_into().ok();
                outcome.agrees = peer.digest == Some(ledger.digest());
                if !outcome.agrees && may_answer {
                    outcome.answers.push(Frame::Vector(false, ledger.vector(false)));
                }
            }
            Frame::Vector(full, vector) if may_answer => {
                let (batch, gaps) = ledger.compare(&vector, limits::BATCH_BYTES_MAX);
                if batch.blocks.is_empty() && gaps.is_empty() && !full {
                    // The digests differ and the short ids do not: compare whole ids.
                    outcome.answers.push(Frame::Vector(true, ledger.vector(true)));
                }
                answer(&mut outcome, batch, gaps);
            }
            Frame::Gaps(gaps) if may_answer => {
                let (batch, gaps) = ledger.fill(&gaps, limits::BATCH_BYTES_MAX);
                answer(&mut outcome, batch, gaps);
            }
            Frame::Vector(..) | Frame::Gaps(_) => {}
            Frame::Blocks(entries, more) => {
                let rejected = admit_all(ledger, &entries, &mut outcome);
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.rejected += rejected;
                }
                if may_answer && (more || !outcome.admitted.is_empty()) {
                    // Nothing new in a cut batch: on a forked chain short ids may hide what is held.
                    let full = outcome.admitted.is_empty();
                    let next = if more { Frame::Vector(full, ledger.vector(full)) } else { digest(ledger) };
                    outcome.answers.push(next);
                }
            }
            Frame::Receipt(ids) => outcome.confirmed = ids,
        }
        outcome
    }

    /// Handles a gossip hint: one entry. Returns what was admitted; where something that it names is
    /// missing, peers are asked soon.
    pub fn hint(&mut self, now: Now, entry: &[u8], ledger: &mut Ledger) -> Vec<Arc<Block>> {
        match ledger.admit(entry) {
            Ok(Admission::New { admitted, .. }) => admitted,
            Ok(Admission::Early { .. }) => {
                self.nudge(now);
                Vec::new()
            }
            // A hint does not say who sent it, so nobody is charged.
            Ok(Admission::Known) | Err(_) => Vec::new(),
        }
    }

    fn period(&mut self) -> Duration {
        // splitmix64 (Steele, Lea, Flood 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let half = u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX) / 2;
        PERIOD + Duration::from_millis(z % half.max(1))
    }
}

fn digest(ledger: &mut Ledger) -> Frame {
    Frame::Digest(ByteBuf::from(ledger.digest().to_vec()))
}

fn answer(outcome: &mut Outcome, batch: osiris_ledger::Batch, gaps: Vec<Gap>) {
    if !batch.blocks.is_empty() {
        let entries = batch.blocks.iter().map(|block| ByteBuf::from(block.entry().to_vec())).collect();
        outcome.answers.push(Frame::Blocks(entries, batch.more));
    }
    if !gaps.is_empty() {
        outcome.answers.push(Frame::Gaps(gaps));
    }
}

fn admit_all(ledger: &mut Ledger, entries: &[ByteBuf], outcome: &mut Outcome) -> u64 {
    for answer in ledger.admit_all(entries) {
        match answer {
            Ok(Admission::New { admitted, rejected }) => {
                outcome.admitted.extend(admitted);
                outcome.rejects.extend(rejected.into_iter().map(|(_, reject)| reject));
            }
            Ok(Admission::Known | Admission::Early { .. }) => {}
            Err(reject) => outcome.rejects.push(reject),
        }
    }
    outcome.rejects.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_garbage_is_refused() {
        let frame = Frame::Receipt(vec![BlockId([3; 32])]);
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        assert_eq!(Frame::decode(b"\xff\xff"), Err(FrameError));
        assert_eq!(Frame::decode(&[]), Err(FrameError));
        assert_eq!(Frame::decode(&vec![0; FRAME_BYTES_MAX + 1]), Err(FrameError));
    }
}
