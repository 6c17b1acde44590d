//! Anti-entropy: how two replicas find and exchange the blocks that one of them lacks.
//!
//! ```text
//! A → B  Digest            on connect, a moment after an own block, and every few seconds
//! B → A  Vector            when B's digest differs; where B knows many chains, Buckets instead
//! A → B  Part              Buckets answered: the vector of the chains in buckets that differ
//! A → B  Blocks, Gaps      what B lacks; the chains on which B has something that A lacks
//! B → A  Blocks            from the highest rung that both hold (and Gaps, where B lacks a rung)
//! B → A  Pages             where B holds something that A lacks as summaries alone: by which pages
//! each receiver of Blocks  → Vector if there was more, else Digest: so both learn that they agree
//! ```
//!
//! Gossip is a hint; this is the guarantee. Every frame is bounded, every answer is one frame of
//! each kind, and a peer that makes no progress is asked again only in the next period.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use osiris_ledger::{
    Admission, Author, Batch, BlobHash, Block, BlockId, Buckets, Gap, Ledger, Mono, Now, Reject, Vector,
    counter::RowNote, limits,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::quota::Quotas;
use crate::{PeerId, limits::FRAME_BYTES_MAX};

/// Time between two digests to one peer; up to half as much again is added at random.
pub const PERIOD: Duration = Duration::from_secs(3);
/// How soon after an own block a peer that did not confirm it gets a digest.
pub const NUDGE: Duration = Duration::from_millis(120);
/// Exchanges that one peer may cause in a period before it has to wait for the next.
pub const ROUNDS_MAX: u32 = 64;
/// Chains whose whole vector is at most about as large as the hashes of all buckets, 4 KiB.
pub const VECTOR_AT_ONCE_MAX: usize = 128;
/// Blocks of one author, of those that came at once, to which receipts are sent one by one.
pub const RECEIPTS_MAX: usize = 16;
/// Pages that one frame names, and that a replica which joins from pages takes in: each may have 1 MiB.
pub const PAGES_MAX: usize = 128;
/// The reason of what is no block at all: a message that says nothing known, in [`Sync::reasons`].
pub const BROKEN_MESSAGE: &str = "Message";

/// One frame of `osiris/sync/1`, in CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// [`Ledger::digest`].
    Digest(ByteBuf),
    /// [`Ledger::vector`], in full where the flag says so.
    Vector(bool, Vector),
    /// [`Ledger::bucket_hashes`]: the digests differ; in which chains?
    Buckets(ByteBuf),
    /// [`Ledger::vector_of`] some buckets, 32 bytes; in full where the flag says so.
    Part(bool, ByteBuf, Vector),
    /// Chains of which the sender lacks something.
    Gaps(Vec<Gap>),
    /// Entries in ledger order, packed ([`super::pack`]), and whether there are more.
    Blocks(#[serde(with = "super::pack")] Vec<ByteBuf>, bool),
    /// Pages by which the sender holds blocks that the receiver lacks, each with its bytes: at most [`PAGES_MAX`]. They
    /// are fetched by name.
    Pages(Vec<(BlobHash, u32)>),
    /// The sender holds these blocks, durably.
    Receipt(Vec<BlockId>),
    /// About counters, which are no blocks.
    Rows(RowsFrame),
    /// About states of machines, which are no blocks. Between spawners alone.
    States(StatesFrame),
}

/// How two spawners bring each other to the same states of machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatesFrame {
    /// Which ones the sender keeps: at most [`limits::STATES_MAX`].
    Notes(Vec<StateNote>),
    /// Intents of which the sender has none, or an earlier one.
    Wanted(Vec<BlockId>),
    /// Records ([`osiris_ledger::state`]).
    Records(Vec<ByteBuf>),
}

/// One record: the intent, the claim under which it was written, and its serial.
pub type StateNote = (BlockId, BlockId, u64);

/// How two replicas of the table of counters compare theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowsFrame {
    /// [`Counters::digest`](osiris_ledger::counter::Counters::digest).
    Digest(ByteBuf),
    /// [`Counters::notes`](osiris_ledger::counter::Counters::notes).
    Notes(Vec<RowNote>),
    /// Rows.
    Rows(Vec<ByteBuf>),
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
    pub rejects: Vec<Reject>,
}

/// Anti-entropy with all connected peers.
#[derive(Debug)]
pub struct Sync {
    peers: BTreeMap<PeerId, Peer>,
    /// Invalid blocks and broken messages, by the member whose fault they are and the reason.
    rejected: BTreeMap<PeerId, BTreeMap<&'static str, u64>>,
    /// Blocks over their author's quota that were left with it.
    held_back: BTreeMap<PeerId, u64>,
    quotas: Quotas,
    random: u64,
}

impl Sync {
    /// No peers yet. `seed` spreads the periods of different nodes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            rejected: BTreeMap::new(),
            held_back: BTreeMap::new(),
            quotas: Quotas::default(),
            random: seed,
        }
    }

    /// A peer is connected; the digest to send it.
    pub fn peer_up(&mut self, now: Now, peer: PeerId, ledger: &mut Ledger) -> Frame {
        let next_digest = now.mono.plus(self.period());
        if self.peers.is_empty() {
            self.quotas.catch_up(now.mono);
        }
        let fresh = Peer { next_digest, rounds: 0, period_end: now.mono.plus(PERIOD), digest: None };
        self.peers.insert(peer, fresh);
        digest(ledger)
    }

    /// A peer is gone.
    pub fn peer_down(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Invalid blocks and broken messages of a member since this node started.
    #[must_use]
    pub fn rejected(&self, peer: &PeerId) -> u64 {
        self.reasons(peer).map(|(_, count)| count).sum()
    }

    /// How often each reason was one, by its name: [`Reject::name`], or [`BROKEN_MESSAGE`].
    pub fn reasons(&self, peer: &PeerId) -> impl Iterator<Item = (&'static str, u64)> {
        self.rejected.get(peer).into_iter().flatten().map(|(name, count)| (*name, *count))
    }

    /// How often a block of a member was left with it because it was over its author's quota.
    #[must_use]
    pub fn held_back(&self, peer: &PeerId) -> u64 {
        self.held_back.get(peer).copied().unwrap_or(0)
    }

    /// A member broke a protocol: what it sent says nothing known. Only for members, so that the list stays
    /// as long as theirs.
    pub fn malformed(&mut self, peer: PeerId) {
        self.count(peer, BROKEN_MESSAGE);
    }

    fn count(&mut self, peer: PeerId, reason: &'static str) {
        *self.rejected.entry(peer).or_default().entry(reason).or_default() += 1;
    }

    /// Connected peers.
    pub fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.keys()
    }

    /// Whether a peer is connected.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Connected peers that count and whose last digest is this replica's.
    pub fn agreeing(&self, ledger: &mut Ledger, counts: impl Fn(&PeerId) -> bool) -> usize {
        let digest = ledger.digest();
        self.peers.iter().filter(|(id, peer)| peer.digest == Some(digest) && counts(id)).count()
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

    /// Counts a frame of a peer, and says whether questions in it are to be answered: it is connected, and asked
    /// no more than [`ROUNDS_MAX`] times in this period.
    pub fn may_ask(&mut self, now: Now, from: &PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(from) else { return false };
        if now.mono >= peer.period_end {
            peer.period_end = now.mono.plus(PERIOD);
            peer.rounds = 0;
        }
        peer.rounds += 1;
        peer.rounds <= ROUNDS_MAX
    }

    /// Handles a frame of a connected peer.
    pub fn handle(&mut self, now: Now, from: PeerId, frame: Frame, ledger: &mut Ledger) -> Outcome {
        let mut outcome = Outcome::default();
        // Blocks and receipts are always taken in; questions are answered at a bounded rate.
        let may_answer = self.may_ask(now, &from);
        let Some(peer) = self.peers.get_mut(&from) else { return outcome };
        match frame {
            Frame::Digest(theirs) => {
                peer.digest = theirs.as_slice().try_into().ok();
                outcome.agrees = peer.digest == Some(ledger.digest());
                if outcome.agrees {
                    self.quotas.caught_up();
                } else if may_answer {
                    outcome.answers.push(described(ledger));
                }
            }
            Frame::Vector(full, vector) if may_answer => {
                let (batch, gaps) = ledger.compare(&vector, limits::BATCH_BYTES_MAX);
                if is_empty(&batch) && gaps.is_empty() && !full {
                    // The digests differ and the short ids do not: compare whole ids.
                    outcome.answers.push(Frame::Vector(true, ledger.vector(true)));
                }
                answer(&mut outcome, ledger, batch, gaps);
            }
            Frame::Buckets(hashes) if may_answer => {
                if let Some(buckets) = ledger.differing(&hashes).filter(|buckets| !buckets.is_empty()) {
                    outcome.answers.push(part(ledger, buckets, false));
                }
            }
            Frame::Part(full, buckets, vector) if may_answer => {
                if let Some(buckets) = Buckets::from_bytes(&buckets) {
                    let (batch, gaps) = ledger.compare_within(&buckets, &vector, limits::BATCH_BYTES_MAX);
                    if is_empty(&batch) && gaps.is_empty() && !full {
                        outcome.answers.push(part(ledger, buckets, true));
                    }
                    answer(&mut outcome, ledger, batch, gaps);
                }
            }
            Frame::Gaps(gaps) if may_answer => {
                let (batch, gaps) = ledger.fill(&gaps, limits::BATCH_BYTES_MAX);
                answer(&mut outcome, ledger, batch, gaps);
            }
            Frame::Vector(..) | Frame::Buckets(_) | Frame::Part(..) | Frame::Gaps(_) => {}
            Frame::Blocks(entries, more) => {
                let (entries, held_back) = self.within_quota(now, from, entries, ledger);
                self.admit_all(from, ledger, &entries, &mut outcome);
                self.charge(now, &outcome.admitted, Some(from), ledger);
                // What is over a quota is asked for again in the next period, not at once.
                if may_answer && !held_back && (more || !outcome.admitted.is_empty()) {
                    // Nothing new in a cut batch: on a forked chain short ids may hide what is held.
                    let full = outcome.admitted.is_empty();
                    let next = if more { Frame::Vector(full, ledger.vector(full)) } else { digest(ledger) };
                    outcome.answers.push(next);
                }
            }
            Frame::Receipt(ids) => outcome.confirmed = ids,
            // The node's own affair.
            Frame::Rows(_) | Frame::Pages(_) | Frame::States(_) => {}
        }
        outcome
    }

    /// Handles what a peer that is not connected answered to the question what ended this device's membership:
    /// blocks, which come through the same door as all others. Says whether the peer has more.
    pub fn ending(&mut self, now: Now, from: PeerId, frame: Frame, ledger: &mut Ledger) -> (Outcome, bool) {
        let mut outcome = Outcome::default();
        let Frame::Blocks(entries, more) = frame else {
            self.malformed(from);
            return (outcome, false);
        };
        let (entries, held_back) = self.within_quota(now, from, entries, ledger);
        self.admit_all(from, ledger, &entries, &mut outcome);
        self.charge(now, &outcome.admitted, Some(from), ledger);
        (outcome, more && !held_back)
    }

    /// Handles a gossip hint: one entry. Returns what was admitted; where something that it names is
    /// missing, peers are asked soon.
    pub fn hint(&mut self, now: Now, entry: &[u8], ledger: &mut Ledger) -> Vec<Arc<Block>> {
        let author = Block::author_of(entry);
        let mut is_left = |author| {
            self.quotas.allowed(now.mono, &author, [entry.len()].into_iter()) == 0
                || (ledger.left_to_write(&author) == 0 && self.quotas.allowed_beyond(now.mono, author) == 0)
        };
        if author.is_some_and(&mut is_left) {
            return Vec::new();
        }
        match ledger.admit(entry) {
            Ok(Admission::New { admitted, rejected }) => {
                self.charge(now, &admitted, None, ledger);
                for refused in rejected {
                    self.blame(refused.sender, &refused.reject);
                }
                admitted
            }
            Ok(Admission::Early { .. }) => {
                self.nudge(now);
                Vec::new()
            }
            Ok(Admission::Known) => Vec::new(),
            // A hint does not say who sent it; what an author certainly signed is its own fault.
            Err(reject) => {
                let author = author.filter(|author| reject.is_the_authors() && ledger.knows(author));
                self.blame(author, &reject);
                Vec::new()
            }
        }
    }

    /// Leaves out what the sender itself wrote beyond its quota, and what anybody wrote beyond its budget, as far as it
    /// is too much at once. Says whether there was any.
    fn within_quota(
        &mut self,
        now: Now,
        from: PeerId,
        mut entries: Vec<ByteBuf>,
        ledger: &Ledger,
    ) -> (Vec<ByteBuf>, bool) {
        let sender = Author(from.to_bytes());
        let is_own = |entry: &ByteBuf| Block::author_of(entry) == Some(sender);
        let sizes = entries.iter().filter(|entry| is_own(entry)).map(|entry| entry.len());
        let mut left = self.quotas.allowed(now.mono, &sender, sizes);
        let mut beyond = self.quotas.allowed_beyond(now.mono, sender);
        // What each author may still write, this batch counted.
        let mut budgets: BTreeMap<Author, u64> = BTreeMap::new();
        let before = entries.len();
        entries.retain(|entry| {
            let Some(author) = Block::author_of(entry) else { return true };
            let own = author == sender;
            if own && left == 0 {
                return false;
            }
            left -= usize::from(own);
            let budget = budgets.entry(author).or_insert_with(|| ledger.left_to_write(&author));
            if *budget >= before as u64 || ledger.holds(&Block::id_of(entry)) {
                return true;
            }
            if *budget > 0 {
                *budget -= 1;
                return true;
            }
            let passes = if own { beyond > 0 } else { self.quotas.brings_beyond(now.mono, sender) };
            if own && passes {
                beyond -= 1;
                // Here and not once it is admitted: what waits for others would pass for nothing.
                self.quotas.charge_beyond(now.mono, author);
            }
            passes
        });
        let held_back = before - entries.len();
        if held_back > 0 {
            *self.held_back.entry(from).or_default() += held_back as u64;
        }
        (entries, held_back > 0)
    }

    /// Charges authors for what was admitted. What an author sent itself beyond its budget was charged at the door.
    fn charge(&mut self, now: Now, admitted: &[Arc<Block>], from: Option<PeerId>, ledger: &Ledger) {
        let mut brought: BTreeMap<Author, u64> = BTreeMap::new();
        for block in admitted {
            self.quotas.charge(now.mono, block.author(), block.entry().len());
            if from.is_none_or(|from| from.to_bytes() != block.author().0) {
                *brought.entry(block.author()).or_default() += 1;
            }
        }
        for (author, count) in brought {
            let beyond = ledger.written_beyond(&author).min(count);
            (0..beyond).for_each(|_| self.quotas.charge_beyond(now.mono, author));
        }
    }

    fn blame(&mut self, member: Option<Author>, reject: &Reject) {
        if let Some(member) = member {
            self.count(PeerId::from_bytes(member.0), reject.name());
        }
    }

    /// Admits what a peer sent. An early block that turns out invalid is the fault of who sent it, not of
    /// who sent what it waited for.
    fn admit_all(&mut self, from: PeerId, ledger: &mut Ledger, entries: &[ByteBuf], outcome: &mut Outcome) {
        let sender = Author(from.to_bytes());
        for answer in ledger.admit_all_from(sender, entries) {
            match answer {
                Ok(Admission::New { admitted, rejected }) => {
                    outcome.admitted.extend(admitted);
                    for refused in rejected {
                        self.blame(refused.sender, &refused.reject);
                        if refused.sender == Some(sender) {
                            outcome.rejects.push(refused.reject);
                        }
                    }
                }
                Ok(Admission::Known | Admission::Early { .. }) => {}
                Err(reject) => {
                    self.blame(Some(sender), &reject);
                    outcome.rejects.push(reject);
                }
            }
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

/// What this replica holds, for a peer whose digest differs.
#[must_use]
pub fn described(ledger: &mut Ledger) -> Frame {
    match ledger.chains_held() <= VECTOR_AT_ONCE_MAX {
        true => Frame::Vector(false, ledger.vector(false)),
        false => Frame::Buckets(ByteBuf::from(ledger.bucket_hashes())),
    }
}

fn part(ledger: &Ledger, buckets: Buckets, full: bool) -> Frame {
    Frame::Part(full, ByteBuf::from(buckets.as_bytes()), ledger.vector_of(&buckets, full))
}

fn is_empty(batch: &Batch) -> bool {
    batch.blocks.is_empty() && batch.pages.is_empty()
}

fn answer(outcome: &mut Outcome, ledger: &Ledger, batch: Batch, gaps: Vec<Gap>) {
    // First, so that the receiver fetches them before it judges the blocks.
    if !batch.pages.is_empty() {
        let named = ledger.pages().filter(|page| batch.pages.contains(&page.hash()));
        outcome
            .answers
            .push(Frame::Pages(named.map(|page| (page.hash(), page.size())).take(PAGES_MAX).collect()));
    }
    if !batch.blocks.is_empty() {
        let entries = batch.blocks.iter().map(|block| ByteBuf::from(block.entry().to_vec())).collect();
        outcome.answers.push(Frame::Blocks(entries, batch.more));
    }
    if !gaps.is_empty() {
        outcome.answers.push(Frame::Gaps(gaps));
    }
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
