//! The automerge document that embeds the chains.
//!
//! A function of the admitted blocks: each block outside a fork becomes the one change that every
//! node derives from it, so equal sets of blocks give equal automerge heads. It is a cache of the
//! journal; nothing that a peer sent is ever applied to it as automerge bytes.
//!
//! Applying a block costs more than admitting it, and nothing waits for the document. So it follows:
//! admitted blocks are kept pending, which costs a pointer each, and are applied in slices when there is
//! time ([`Ledger::follow_document`]), and all of them when somebody asks for the heads.
//!
//! automerge holds nearly 1 kB for each block beside the ledger's own, which a small device has not. Each change
//! follows the last one of its chain and nothing else, so the heads are the last change of each chain, and no
//! document is needed to know them. Therefore a document of more than [`limits::DOCUMENT_HELD_MAX`] changes is not held:
//! its changes are derived and counted, and it is made from the blocks when its bytes are asked for.
//!
//! Layout: root key `"<actor hex>/<segment>"` → a list of at most [`limits::SEGMENT_ENTRIES`]
//! entries. The actor is `blake3(author ‖ session)`; a block is one change, whose only dependency is
//! the chain's previous change.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU64,
    sync::Arc,
};

use automerge::{ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjType, ScalarValue, legacy};

use crate::{block::Block, id::ChainId, ledger::Ledger, limits};

/// Where the derivation of a chain's changes stands.
#[derive(Clone, Debug, Default)]
struct ChainState {
    /// The last sequence number derived.
    seq: u64,
    /// Blocks derived. Where none of the chain's was dropped, the same.
    count: u64,
    last_change: Option<ChangeHash>,
    /// Operations so far; the next change starts one above.
    operations: u64,
    /// The current segment's list and the last element in it.
    list: Option<legacy::OpId>,
    element: Option<legacy::OpId>,
}

/// The automerge document of one replica.
#[derive(Debug)]
pub struct Document {
    /// None before the first change, and where there are more than `held_max`.
    document: Option<Automerge>,
    held_max: usize,
    /// Changes that were derived.
    changes: usize,
    chains: BTreeMap<ChainId, ChainState>,
    /// Blocks whose changes are not derived yet, each behind its predecessor.
    pending: VecDeque<Arc<Block>>,
    /// A fork came to light below what was derived, or blocks were taken out: the document is built again.
    stale: bool,
    rebuilds: u64,
    left_out: bool,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            document: None,
            held_max: limits::DOCUMENT_HELD_MAX,
            changes: 0,
            chains: BTreeMap::new(),
            pending: VecDeque::new(),
            stale: false,
            rebuilds: 0,
            left_out: false,
        }
    }
}

impl Document {
    /// One that stays empty.
    pub(crate) fn left_out() -> Self {
        Self { left_out: true, ..Self::default() }
    }

    /// An empty one of the same kind.
    pub(crate) fn another(&self) -> Self {
        Self { left_out: self.left_out, held_max: self.held_max, ..Self::default() }
    }

    /// One of the same kind, for a replica with the same blocks that has applied none.
    pub(crate) fn afresh(&self, ledger: &Ledger) -> Self {
        let mut afresh = self.another();
        if !self.left_out {
            let mut blocks: VecDeque<_> = outside_forks(ledger).cloned().collect();
            blocks.make_contiguous().sort_unstable_by_key(|block| block.order());
            afresh.pending = blocks;
        }
        afresh
    }

    /// Holds so many changes at most from here on.
    pub(crate) fn hold(&mut self, changes_max: usize) {
        // One that was let go does not come back by itself.
        self.stale |= changes_max > self.held_max && self.document.is_none() && self.changes > 0;
        self.held_max = changes_max;
    }

    /// Whether there are more changes than are held.
    fn is_let_go(&self) -> bool {
        self.changes + self.pending.len() > self.held_max
    }

    /// Takes a block, to be applied later. Blocks at or above their chain's fork have no place here.
    pub(crate) fn add(&mut self, block: &Arc<Block>, fork: Option<u64>) {
        if self.left_out || self.stale || fork.is_some_and(|fork| block.seq() >= fork) {
            return;
        }
        self.pending.push_back(Arc::clone(block));
    }

    /// A chain was found to be forked from `seq` on. What is pending of it is left out when its turn comes.
    pub(crate) fn forked(&mut self, chain: ChainId, seq: u64) {
        if self.chains.get(&chain).is_some_and(|state| state.seq >= seq) {
            self.stale = true;
            self.pending = VecDeque::new();
        }
    }

    /// Blocks were taken out of the ledger, or dropped to summaries: the document starts anew, without them, when it
    /// follows next.
    pub(crate) fn restart(&mut self) {
        *self = Self { stale: !self.left_out, rebuilds: self.rebuilds, ..self.another() };
    }

    /// Applies the first `count` blocks that wait; after a fork, begins the document again from the ledger's
    /// blocks.
    pub(crate) fn follow(&mut self, ledger: &Ledger, count: usize) {
        if self.stale {
            *self = Self { rebuilds: self.rebuilds + 1, ..self.another() };
            self.pending.extend(outside_forks(ledger).cloned());
        }
        let mut left = count.min(self.pending.len());
        while left > 0 {
            let batch = left.min(limits::DOCUMENT_BATCH);
            self.apply(ledger, batch);
            left -= batch;
        }
        if self.pending.is_empty() {
            // A start leaves room for all blocks in it.
            self.pending = VecDeque::new();
        }
    }

    /// Applies the next `count` pending blocks in one batch.
    fn apply(&mut self, ledger: &Ledger, count: usize) {
        if self.is_let_go() {
            self.document = None;
        }
        let holds = !self.is_let_go() && (self.document.is_some() || self.changes == 0);
        let below_fork =
            |block: &Arc<Block>| ledger.chain_fork(&block.chain()).is_none_or(|fork| block.seq() < fork);
        let blocks = self.pending.drain(..count).filter(below_fork);
        let derived = blocks.map(|block| derive(&block, self.chains.entry(block.chain()).or_default()));
        if holds {
            let changes: Vec<_> = derived.collect();
            self.changes += changes.len();
            apply_to(self.document.get_or_insert_with(empty), changes);
        } else {
            self.changes += derived.count();
        }
    }

    /// Blocks whose changes are not applied yet; all, where it is to be built again.
    pub(crate) fn pending(&self, ledger: &Ledger) -> usize {
        if self.stale { usize::try_from(ledger.len()).unwrap_or(usize::MAX) } else { self.pending.len() }
    }

    /// Whether the next look builds it again, and how often that has happened.
    pub(crate) fn rebuilds(&self) -> (bool, u64) {
        (self.stale, self.rebuilds)
    }

    /// The heads, sorted.
    pub(crate) fn heads(&self) -> Vec<[u8; 32]> {
        let last = self.chains.values().filter_map(|state| state.last_change);
        let mut heads: Vec<_> = last.map(|hash| hash.0).collect();
        heads.sort_unstable();
        debug_assert!(self.document.as_ref().is_none_or(|document| heads == sorted_heads(document)));
        heads
    }

    /// The document with all changes, as automerge saves it. Where it is not held it is made for this, and dropped.
    pub(crate) fn save(&self, ledger: &Ledger) -> Vec<u8> {
        if self.left_out || self.changes == 0 {
            return Vec::new();
        }
        if let Some(document) = self.document.as_ref().filter(|_| !self.stale && self.pending.is_empty()) {
            return document.save();
        }
        let mut whole = Self { held_max: usize::MAX, ..Self::default() };
        whole.pending.extend(outside_forks(ledger).cloned());
        whole.follow(ledger, usize::MAX);
        whole.document.as_ref().map(Automerge::save).unwrap_or_default()
    }
}

/// The blocks that belong in the document, each behind its predecessor.
fn outside_forks(ledger: &Ledger) -> impl Iterator<Item = &Arc<Block>> {
    ledger.chains().values().flat_map(|chain| {
        let end = chain.fork().unwrap_or(chain.len() + 1);
        (1..end).flat_map(|seq| chain.at(seq)).filter_map(|id| ledger.get(&id))
    })
}

/// `Automerge::new` draws a random actor; no transaction is ever made, so a fixed one serves.
fn empty() -> Automerge {
    Automerge::new().with_actor(ActorId::from([0_u8; 32]))
}

fn sorted_heads(document: &Automerge) -> Vec<[u8; 32]> {
    let mut heads: Vec<_> = document.get_heads().into_iter().map(|hash| hash.0).collect();
    heads.sort_unstable();
    heads
}

fn apply_to(document: &mut Automerge, changes: Vec<Change>) {
    document
        .apply_changes(changes)
        .expect("changes that this build derived apply in the order of their chain");
}

/// The canonical change of a block, given where its chain stands.
fn derive(block: &Block, state: &mut ChainState) -> Change {
    let chain = block.chain();
    let actor = ActorId::from(chain.actor());
    let start = state.operations + 1;
    let mut operations = Vec::with_capacity(2);
    if state.count.is_multiple_of(limits::SEGMENT_ENTRIES) {
        let key = format!("{}/{}", actor.to_hex_string(), state.count / limits::SEGMENT_ENTRIES);
        operations.push(legacy::Op {
            action: legacy::OpType::Make(ObjType::List),
            obj: legacy::ObjectId::Root,
            key: legacy::Key::Map(key.into()),
            pred: legacy::SortedVec::new(),
            insert: false,
        });
        state.list = Some(legacy::OpId::new(start, &actor));
        state.element = None;
    }
    let list = state.list.clone().expect("the first block of a chain opens a segment");
    let after = state.element.take().map_or(legacy::ElementId::Head, legacy::ElementId::Id);
    operations.push(legacy::Op {
        action: legacy::OpType::Put(ScalarValue::Bytes(block.entry().to_vec())),
        obj: legacy::ObjectId::Id(list),
        key: legacy::Key::Seq(after),
        pred: legacy::SortedVec::new(),
        insert: true,
    });
    state.operations += operations.len() as u64;
    state.element = Some(legacy::OpId::new(state.operations, &actor));
    state.seq = block.seq();
    state.count += 1;
    let change = Change::from(ExpandedChange {
        operations,
        actor_id: actor,
        hash: None,
        seq: state.count,
        start_op: NonZeroU64::new(start).expect("one above a count"),
        // automerge's time is signed; what lies beyond it is shown as its end.
        time: i64::try_from(block.wall().0).unwrap_or(i64::MAX),
        message: None,
        deps: state.last_change.into_iter().collect(),
        extra_bytes: Vec::new(),
        author: None,
    });
    state.last_change = Some(change.hash());
    change
}
