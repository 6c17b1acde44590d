//! What two replicas compare to find the blocks that one of them lacks.
//!
//! A replica's blocks are determined by the tips of its chains, because each chain is closed under
//! `prev`. So: compare a 32-byte digest of the tips; when it differs, exchange the vector of tips,
//! shortened, and where there are many chains only of the [buckets](Buckets) whose hashes differ; send what the
//! other lacks in ledger order, so that a cut batch leaves no orphans. Of a chain whose remote tip is unknown,
//! ask with a ladder of own ids ([`Gap`]): the answer starts at the highest rung that both hold. That finds a
//! fork of which each side holds one half.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    block::Block,
    chain::Chain,
    held::Held,
    id::{BlobHash, BlockId, ChainId},
    ledger::{Buckets, Ledger},
    limits,
    op::array_struct,
};

/// Bytes of an id in a shortened vector. Two branches of a fork may be made to agree in these, so a
/// difference of digests that a short vector does not explain is followed by a full one.
const SHORT: usize = 8;

array_struct! {
    /// The end of a branch: its place, and its id or the id's first bytes.
    pub struct Tip {
        /// Place in the chain.
        seq: u64,
        /// 8 or 32 bytes.
        id: ByteBuf,
    }
}

array_struct! {
    /// One chain of a [`Vector`].
    pub struct VectorEntry {
        /// The first 16 bytes of the chain's actor.
        chain: ByteBuf,
        /// The ends of its branches; more than one where it is forked.
        tips: Vec<Tip>,
    }
}

/// What a replica holds: the tips of each chain, chains in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vector(pub Vec<VectorEntry>);

array_struct! {
    /// A chain of which the other side holds blocks that this one lacks.
    pub struct Gap {
        /// The first 16 bytes of the chain's actor.
        chain: ByteBuf,
        /// Own blocks of the chain, from the tips down in growing steps. Empty: none.
        ladder: Vec<Tip>,
    }
}

/// Blocks for a peer.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In ledger order.
    pub blocks: Vec<Arc<Block>>,
    /// Pages that list what the peer lacks and what is not here in full.
    pub pages: BTreeSet<BlobHash>,
    /// Whether there was more than fits.
    pub more: bool,
}

impl Ledger {
    /// The tips of all chains, ids shortened unless `full`; at most [`limits::VECTOR_CHAINS_MAX`] chains.
    #[must_use]
    pub fn vector(&self, full: bool) -> Vector {
        self.vector_of(&Buckets::ALL, full)
    }

    /// [`Ledger::vector`] of the chains of some buckets.
    #[must_use]
    pub fn vector_of(&self, buckets: &Buckets, full: bool) -> Vector {
        let len = if full { 32 } else { SHORT };
        let entry = |(actor, chain): (&[u8; 16], &Chain)| VectorEntry {
            chain: ByteBuf::from(actor.to_vec()),
            tips: chain.tips().take(limits::VECTOR_TIPS_MAX).map(|(id, seq)| tip(id, seq, len)).collect(),
        };
        Vector(self.chains_within(buckets).take(limits::VECTOR_CHAINS_MAX).map(entry).collect())
    }

    /// Compares with a peer's vector: the blocks that the peer lacks, at most `bytes_max` of them,
    /// and the chains on which the peer holds something that this replica lacks.
    #[must_use]
    pub fn compare(&self, theirs: &Vector, bytes_max: usize) -> (Batch, Vec<Gap>) {
        self.compare_within(&Buckets::ALL, theirs, bytes_max)
    }

    /// [`Ledger::compare`] where the peer named the chains of some buckets only. What it says of others is
    /// passed over.
    #[must_use]
    pub fn compare_within(&self, within: &Buckets, theirs: &Vector, bytes_max: usize) -> (Batch, Vec<Gap>) {
        let mut lacks = Vec::new();
        let mut gaps = Vec::new();
        let mut named = BTreeSet::new();
        for entry in theirs.0.iter().take(limits::VECTOR_CHAINS_MAX) {
            let Ok(actor) = <[u8; 16]>::try_from(entry.chain.as_slice()) else { continue };
            if !within.contains(actor[0]) || !named.insert(actor) {
                continue;
            }
            let Some((_, chain)) = self.chain_by_actor(&actor) else {
                gaps.push(Gap { chain: entry.chain.clone(), ladder: Vec::new() });
                continue;
            };
            // Nearly all chains end where the peer's do.
            if let [only] = entry.tips.as_slice()
                && chain.tips_len() == 1
                && find(chain, only) == chain.head()
            {
                continue;
            }
            let (known, unknown): (Vec<_>, Vec<_>) = entry
                .tips
                .iter()
                .take(limits::VECTOR_TIPS_MAX)
                .map(|tip| find(chain, tip))
                .partition(Option::is_some);
            if !unknown.is_empty() {
                gaps.push(Gap { chain: entry.chain.clone(), ladder: ladder(chain) });
            }
            // With no common tip the peer is ahead or on another branch; its own gap will tell.
            if !known.is_empty() {
                lacks.push(self.above(chain, &known.into_iter().flatten().collect::<Vec<_>>()));
            }
        }
        for (actor, chain) in self.chains_within(within) {
            if !named.contains(actor) {
                lacks.push(self.above(chain, &[]));
            }
        }
        (self.first_of(lacks, bytes_max), gaps)
    }

    /// Answers gaps: the blocks from the highest rung that both hold, and the chains of which this
    /// replica, in turn, lacks what the ladder shows.
    #[must_use]
    pub fn fill(&self, gaps: &[Gap], bytes_max: usize) -> (Batch, Vec<Gap>) {
        let mut lacks = Vec::new();
        let mut back = Vec::new();
        let mut named = BTreeSet::new();
        for gap in gaps.iter().take(limits::VECTOR_CHAINS_MAX) {
            let Ok(actor) = <[u8; 16]>::try_from(gap.chain.as_slice()) else { continue };
            let Some((_, chain)) = self.chain_by_actor(&actor).filter(|_| named.insert(actor)) else {
                continue;
            };
            let rungs: Vec<_> = gap.ladder.iter().take(2 * 64).map(|tip| find(chain, tip)).collect();
            let known: Vec<_> = rungs.iter().copied().flatten().collect();
            lacks.push(self.above(chain, &known));
            if rungs.iter().any(Option::is_none) {
                back.push(Gap { chain: gap.chain.clone(), ladder: ladder(chain) });
            }
        }
        (self.first_of(lacks, bytes_max), back)
    }

    /// These blocks, and all that they name and so on, as far as a peer's vector does not show that it holds them:
    /// at most `bytes_max` of them, the first in ledger order. Whoever holds a block holds all that it names.
    pub(crate) fn lacks_below(&self, theirs: &Vector, ends: &BTreeSet<BlockId>, bytes_max: usize) -> Batch {
        let known = self.known_to(theirs);
        let holds = |block: Held<'_>| match known.get(&block.chain()) {
            Some(Known::UpTo(seq)) => block.seq() <= *seq,
            Some(Known::These(ids)) => ids.contains(&block.id()),
            None => false,
        };
        let mut lacks = BTreeSet::new();
        let mut open: Vec<_> = ends.iter().filter_map(|id| self.held(id)).collect();
        while let Some(block) = open.pop() {
            if !holds(block) && lacks.insert(block.order()) {
                open.extend(block.needs().filter_map(|id| self.held(&id)));
            }
        }
        let lacks = lacks.into_iter().filter_map(|order| self.held(&order.id));
        self.first_of(vec![Box::new(lacks)], bytes_max)
    }

    /// What a vector shows of the chains that are here.
    fn known_to(&self, theirs: &Vector) -> BTreeMap<ChainId, Known> {
        let mut known = BTreeMap::new();
        for entry in theirs.0.iter().take(limits::VECTOR_CHAINS_MAX) {
            let Ok(actor) = <[u8; 16]>::try_from(entry.chain.as_slice()) else { continue };
            let Some((id, chain)) = self.chain_by_actor(&actor) else { continue };
            let tips = entry.tips.iter().take(limits::VECTOR_TIPS_MAX);
            let tips: Vec<_> = tips.filter_map(|tip| find(chain, tip)).collect();
            let shown = match chain.fork() {
                None => Known::UpTo(tips.iter().map(|(_, seq)| *seq).max().unwrap_or(0)),
                Some(_) => Known::These(self.at_or_below(&tips)),
            };
            known.entry(id).or_insert(shown);
        }
        known
    }

    /// Blocks of a chain, and those below them in it.
    fn at_or_below(&self, tips: &[(BlockId, u64)]) -> BTreeSet<BlockId> {
        let mut held = BTreeSet::new();
        for (id, _) in tips {
            let mut next = self.held(id);
            while let Some(block) = next.filter(|block| held.insert(block.id())) {
                next = self.held(&block.prev());
            }
        }
        held
    }

    /// The blocks of a chain that are neither one of `known` nor below one, in ledger order.
    fn above<'a>(&'a self, chain: &'a Chain, known: &[(BlockId, u64)]) -> Run<'a> {
        if chain.fork().is_none() {
            let from = known.iter().map(|(_, seq)| seq + 1).max().unwrap_or(1);
            return Box::new(chain.from(from).filter_map(|id| self.held(&id)));
        }
        let held = self.at_or_below(known);
        let mut lacks: Vec<_> =
            chain.from(1).filter(|id| !held.contains(id)).filter_map(|id| self.held(&id)).collect();
        lacks.sort_unstable_by_key(|block| block.order());
        Box::new(lacks.into_iter())
    }

    /// The first blocks in ledger order of several runs; work grows with what fits, not with what lacks.
    fn first_of(&self, mut runs: Vec<Run<'_>>, bytes_max: usize) -> Batch {
        let next = |run: &mut Run<'_>, at| run.next().map(|block| Reverse((block.order(), at)));
        let mut heap: BinaryHeap<_> =
            runs.iter_mut().enumerate().filter_map(|(at, run)| next(run, at)).collect();
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(Reverse((order, at))) = heap.pop() {
            heap.extend(next(&mut runs[at], at));
            let Some(block) = self.get(&order.id) else {
                batch.pages.extend(self.page_of(&order.id));
                continue;
            };
            bytes += block.entry().len();
            if bytes > bytes_max && !batch.blocks.is_empty() {
                batch.more = true;
                break;
            }
            batch.blocks.push(Arc::clone(block));
        }
        batch
    }
}

/// What a peer holds of one chain.
enum Known {
    /// All up to this place.
    UpTo(u64),
    /// Of a forked chain: these.
    These(BTreeSet<BlockId>),
}

/// Blocks in ledger order.
type Run<'a> = Box<dyn Iterator<Item = Held<'a>> + 'a>;

fn tip(id: BlockId, seq: u64, len: usize) -> Tip {
    Tip { seq, id: ByteBuf::from(id.0[..len].to_vec()) }
}

/// The block that a tip names, if it is here.
fn find(chain: &Chain, tip: &Tip) -> Option<(BlockId, u64)> {
    let wanted = tip.id.as_slice();
    if wanted.len() != SHORT && wanted.len() != 32 {
        return None;
    }
    chain.find(tip.seq, wanted).map(|id| (id, tip.seq))
}

/// Own ids of a chain with their full length: the tips, then places below the longest in steps that
/// double, down to the first.
fn ladder(chain: &Chain) -> Vec<Tip> {
    let mut rungs: Vec<_> =
        chain.tips().take(limits::VECTOR_TIPS_MAX).map(|(id, seq)| tip(id, seq, 32)).collect();
    let mut step = 1;
    let mut seq = chain.len();
    while seq > step {
        seq -= step;
        step *= 2;
        rungs.extend(chain.at(seq).take(2).map(|id| tip(id, seq, 32)));
    }
    rungs
}
