//! The ledger of one replica: the one door through which blocks come in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use ed25519_dalek::VerifyingKey;

mod digest;
mod ending;
mod fork;
mod lineage;
mod own;
mod pages;
mod read;
mod recheck;
mod settle;

pub use digest::Buckets;
use digest::TipsDigest;
pub use ending::{EndedBy, Ending};
pub use pages::PageFault;
use pages::Pages;
use read::Read;
pub use read::Replayed;
pub use recheck::Checked;
use settle::Beginning;

use crate::{
    authority::{Role, Roles},
    block::{Block, Order, Reject},
    chain::Chain,
    document::Document,
    early::{Early, Sender},
    effective::{Rank, Standing, Standings, Void},
    held::Held,
    id::{Author, BlockId, ChainId, FleetId},
    layered::Layered,
    lease::{self, Leases},
    memo::{Key, Memo, SetSum},
    op::{self, Payload},
    said::Said,
    view::{Registers, View},
};

/// Register blocks that are noted to be folded later, one by one. Beyond that, as when a ledger is loaded, to fold all
/// blocks costs less than to look each of them up.
const UNAPPLIED_MAX: usize = 4_096;

/// What became of an entry.
#[derive(Debug)]
pub enum Admission {
    /// The block was valid and new. It and the early blocks that it released, in an order in which
    /// each follows all it names; then the early blocks that turned out invalid.
    New {
        /// Admitted blocks.
        admitted: Vec<Arc<Block>>,
        /// Early blocks that were dropped.
        rejected: Vec<Refused>,
    },
    /// The block is already here.
    Known,
    /// The block waits for these, which it names and this replica lacks.
    Early {
        /// What is missing.
        missing: Vec<BlockId>,
    },
}

/// A block that waited and turned out invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The block.
    pub id: BlockId,
    /// Why every node refuses it.
    pub reject: Reject,
    /// Who sent it; not whoever sent the block that it waited for. None where that is not known.
    pub sender: Option<Author>,
}

/// A grant as the valid blocks define it.
#[derive(Clone, Copy, Debug)]
struct Grant {
    device: Author,
    roles: Roles,
    rank: Rank,
}

/// One replica of a fleet's ledger.
#[derive(Debug)]
pub struct Ledger {
    fleet: FleetId,
    /// Blocks that are here in full; the others are in `pages`.
    blocks: Layered<BlockId, Arc<Block>>,
    pages: Pages,
    chains: BTreeMap<ChainId, Chain>,
    by_actor: BTreeMap<[u8; 16], ChainId>,
    /// Blocks of each author, in full or as summaries.
    written: BTreeMap<Author, u64>,
    /// Shared with what reads entries on other cores.
    keys: Arc<Layered<Author, Arc<VerifyingKey>>>,
    early: Early,
    grants: Layered<BlockId, Grant>,
    authority: Layered<Order, Arc<Block>>,
    authority_sum: SetSum,
    /// Grant → the revocations that name it.
    revocations: BTreeMap<BlockId, BTreeSet<Order>>,
    /// Grant → the withdrawals made by it.
    withdrawals: BTreeMap<BlockId, BTreeSet<Order>>,
    /// Invitation or user → the admissions by it.
    admissions: Layered<BlockId, BTreeSet<BlockId>>,
    /// Withdrawal → the admissions that stand after it.
    stands: BTreeMap<BlockId, BTreeSet<BlockId>>,
    /// Chain → the place of its last authority block.
    last_authority: BTreeMap<ChainId, u64>,
    /// Valid blocks about leases and machines, counting or not.
    leases: Leases,
    standings: Arc<Standings>,
    /// What the standings follow from, where a memo is shared.
    settled: Key,
    registers: Registers,
    /// Of a replica that has a beginning with others: what its blocks say.
    beginning: Option<Arc<Beginning>>,
    document: Document,
    /// Authority blocks or forks came in since the standings were evaluated.
    authority_stale: bool,
    forks_stale: bool,
    /// Grants by admissions that came in since then, where no other authority block did.
    joined: Vec<BlockId>,
    reevaluate: bool,
    /// Register blocks that came in since then; of many only that all have to be folded again.
    unapplied: Vec<BlockId>,
    refold: bool,
    digest: TipsDigest,
    memo: Option<Memo>,
    said: Said,
    /// Standings or forks changed since the view was published: none of it can be kept.
    view_stale: bool,
    view: Arc<ArcSwap<View>>,
}

impl Ledger {
    /// An empty replica of a fleet. Its genesis block comes in like any other.
    #[must_use]
    pub fn new(fleet: FleetId) -> Self {
        Self {
            fleet,
            blocks: Layered::default(),
            pages: Pages::default(),
            chains: BTreeMap::new(),
            by_actor: BTreeMap::new(),
            written: BTreeMap::new(),
            keys: Arc::default(),
            early: Early::default(),
            grants: Layered::default(),
            authority: Layered::default(),
            authority_sum: SetSum::default(),
            revocations: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
            admissions: Layered::default(),
            stands: BTreeMap::new(),
            last_authority: BTreeMap::new(),
            leases: Leases::default(),
            standings: Arc::default(),
            settled: Key::default(),
            registers: Registers::default(),
            beginning: None,
            document: Document::default(),
            authority_stale: false,
            forks_stale: false,
            joined: Vec::new(),
            reevaluate: false,
            unapplied: Vec::new(),
            refold: false,
            digest: TipsDigest::default(),
            memo: None,
            said: Said::default(),
            view_stale: false,
            view: Arc::new(ArcSwap::from_pointee(View::empty(fleet))),
        }
    }

    /// An empty replica that shares what was checked with others.
    #[must_use]
    pub fn sharing(memo: Memo) -> Self {
        Self { memo: Some(memo.clone()), ..Self::new(memo.fleet()) }
    }

    /// What it shares with others.
    #[must_use]
    pub fn memo(&self) -> Option<&Memo> {
        self.memo.as_ref()
    }

    /// Keeps no automerge document from here on: it says nothing that the blocks do not.
    pub fn leave_out_document(&mut self) {
        self.document = Document::left_out();
    }

    /// Takes an entry from a peer, or from anywhere else that is not trusted.
    ///
    /// # Errors
    /// The [`Reject`] names the one cause for which every node refuses these bytes, for ever.
    pub fn admit(&mut self, entry: &[u8]) -> Result<Admission, Reject> {
        self.take(entry, true)
    }

    /// [`Ledger::admit_all`], of entries that a member sent: where they have to wait, they take of its share
    /// of the room for early blocks, and what turns out invalid later is its fault.
    pub fn admit_all_from(
        &mut self,
        sender: Author,
        entries: &[impl AsRef<[u8]> + Sync],
    ) -> Vec<Result<Admission, Reject>> {
        self.take_all(entries, Some(sender), true)
    }

    /// Takes an entry from this replica's own journal, whose checksum held: the signature was
    /// checked when it came in and is not checked again. [`Ledger::check_signatures`] and [`Ledger::verify`]
    /// do, any time later.
    ///
    /// # Errors
    /// As [`Ledger::admit`].
    pub fn replay(&mut self, entry: &[u8]) -> Result<Admission, Reject> {
        self.take(entry, false)
    }

    /// Takes entries as [`Ledger::admit`] does, one after the other, but reads them and checks their
    /// signatures on all cores, ahead of that. Answers in the order of the entries.
    pub fn admit_all(&mut self, entries: &[impl AsRef<[u8]> + Sync]) -> Vec<Result<Admission, Reject>> {
        self.take_all(entries, None, true)
    }

    /// [`Ledger::replay`], of many entries: they are read on all cores.
    pub fn replay_all(&mut self, entries: &[impl AsRef<[u8]> + Sync]) -> Vec<Result<Admission, Reject>> {
        self.take_all(entries, None, false)
    }

    fn take(&mut self, entry: &[u8], verify: bool) -> Result<Admission, Reject> {
        let read = self.sight(entry).read(&self.reader(verify))?;
        self.place(read, None)
    }

    /// Adds a block whose own bytes are in order, if it is still new.
    fn place(&mut self, read: Read, sender: Sender) -> Result<Admission, Reject> {
        let block = match read {
            Read::Known => return Ok(Admission::Known),
            Read::Waiting => return Ok(Admission::Early { missing: Vec::new() }),
            Read::Block(block) if self.holds(&block.id()) => return Ok(Admission::Known),
            Read::Block(block) if self.early.contains(&block.id()) => {
                return Ok(Admission::Early { missing: Vec::new() });
            }
            Read::Block(block) => block,
        };
        let mut known = Vec::new();
        let missing = self.missing(&block, &mut known);
        if let Some(first) = missing.first() {
            self.early.insert(block, sender, *first);
            if known.is_empty() {
                return Ok(Admission::Early { missing });
            }
            // Its summaries came in, and others may have waited for those.
            let mut admitted = Vec::new();
            let rejected = self.release_early(known, &mut admitted);
            return Ok(Admission::New { admitted, rejected });
        }
        self.check(&block)?;
        known.push(block.id());
        let mut admitted = vec![self.insert(block)];
        let rejected = self.release_early(known, &mut admitted);
        Ok(Admission::New { admitted, rejected })
    }

    /// Adds a block that this replica has just made and checked.
    pub(crate) fn take_own(&mut self, block: Block) -> Result<Arc<Block>, Reject> {
        let block = Arc::new(block);
        self.check(&block)?;
        if let Some(memo) = &self.memo {
            memo.verified(&block);
        }
        Ok(self.insert(block))
    }

    /// What a block names that is neither here nor can be taken in from a page. `known` gets the ids of
    /// the summaries that were taken in for it.
    fn missing(&mut self, block: &Block, known: &mut Vec<BlockId>) -> Vec<BlockId> {
        let mut missing = Vec::new();
        for id in block.needs() {
            // Nearly every block names its grant; there are few of those.
            if !self.grants.contains_key(&id)
                && !self.holds(&id)
                && let Err(lacks) = self.pull(id, known)
            {
                missing.push(lacks);
            }
        }
        missing
    }

    /// Admits the early blocks that waited for blocks now known, and those that waited for them in turn.
    fn release_early(&mut self, mut known: Vec<BlockId>, admitted: &mut Vec<Arc<Block>>) -> Vec<Refused> {
        let mut rejected = Vec::new();
        while let Some(id) = known.pop() {
            for (block, sender) in self.early.take(&id) {
                // It came in as a summary meanwhile.
                if self.holds(&block.id()) {
                    continue;
                }
                let missing = self.missing(&block, &mut known);
                match missing.first() {
                    Some(missing) => self.early.insert(block, sender, *missing),
                    None => match self.check(&block) {
                        Ok(()) => {
                            known.push(block.id());
                            admitted.push(self.insert(block));
                        }
                        Err(reject) => rejected.push(Refused { id: block.id(), reject, sender }),
                    },
                }
            }
        }
        rejected
    }

    /// Whether a block is valid, all blocks that it names being here.
    fn check(&self, block: &Arc<Block>) -> Result<(), Reject> {
        if block.is_genesis_shaped() {
            return check_founding(block);
        }
        self.check_place(block)?;
        self.check_authority(block)?;
        self.check_references(block)
    }

    /// Whether a block stands where its links say.
    fn check_place(&self, block: &Arc<Block>) -> Result<(), Reject> {
        let parents = block.parents().map(|id| self.held(&id));
        check_links(Held::Full(block), self.held(&block.prev()), parents)
    }

    /// Whether the grant that a block uses is its author's and has a role, where one is needed.
    fn check_grant(&self, block: Held<'_>, needed: Option<Role>) -> Result<Roles, Reject> {
        let grant = self.grants.get(&block.grant()).ok_or(Reject::Grant)?;
        if grant.device != block.author() {
            return Err(Reject::Grant);
        }
        if grant.rank.order.depth >= block.order().depth {
            return Err(Reject::ReferenceDepth);
        }
        if needed.is_none_or(|role| grant.roles.has(role)) { Ok(grant.roles) } else { Err(Reject::Role) }
    }

    fn check_authority(&self, block: &Arc<Block>) -> Result<(), Reject> {
        let leaves = match block.payload() {
            Payload::Revoked(op) => op.grants == [block.grant()],
            _ => false,
        };
        // Whoever has a grant may end it, whatever it allows.
        let needed = (!leaves).then(|| block.payload().needs());
        let roles = self.check_grant(Held::Full(block), needed)?;
        if block.payload().may_be_offered_by(roles) { Ok(()) } else { Err(Reject::Role) }
    }

    fn check_references(&self, block: &Block) -> Result<(), Reject> {
        let depth = block.order().depth;
        let mut references = Vec::new();
        for id in block.payload().references() {
            let held = self.held(&id).ok_or(Reject::ReferenceKind)?;
            if held.order().depth >= depth {
                return Err(Reject::ReferenceDepth);
            }
            references.push(held);
        }
        let fits = match block.payload() {
            Payload::Founded(_)
            | Payload::Invited(_)
            | Payload::User(_)
            | Payload::Voters(_)
            | Payload::Spawning(_)
            | Payload::Bounded(_)
            | Payload::Scaled(_)
            | Payload::Labelled(_)
            | Payload::Budgeted(_)
            | Payload::Draining(_) => true,
            Payload::Claimed(_)
            | Payload::Activated(_)
            | Payload::Intent(_)
            | Payload::Released(_)
            | Payload::Retired(_) => lease::refers_rightly(block, references.first().copied()),
            Payload::Sealed(_) => references[0].full().is_some_and(|held| votes_by(held, &block.author())),
            Payload::Withdrawn(op) => {
                references[0].payload().is_some_and(|payload| payload.offer().is_some())
                    && references[1..].iter().all(|held| admits_by(*held, &op.invitation))
            }
            Payload::Admitted(op) => return self.check_admission(block.id(), references[0], op),
            Payload::Recovered(op) => return self.check_recovery(op),
            Payload::Revoked(op) => {
                let device = self.device_of(&op.grants[0]);
                let pins = &references[op.grants.len()..];
                let sessions: BTreeSet<_> = pins.iter().map(|pin| pin.session()).collect();
                device.is_some()
                    && op.grants.iter().all(|grant| self.device_of(grant) == device)
                    && pins.iter().all(|pin| Some(pin.author()) == device)
                    && sessions.len() == pins.len()
            }
            Payload::Deployed(op::Deployed { name, .. }) | Payload::Removed(op::Removed { name, .. }) => {
                references.iter().all(|held| held.payload().and_then(register_name) == Some(name))
            }
            Payload::Serving(_) | Payload::Stopped(_) => {
                matches!(references[0].payload(), Some(Payload::Deployed(_)))
            }
        };
        if fits { Ok(()) } else { Err(Reject::ReferenceKind) }
    }

    fn check_revision(&self, revision: &BlockId, depth: u64) -> Result<(), Reject> {
        let revision = self.blocks.get(revision).ok_or(Reject::ReferenceKind)?;
        if revision.order().depth >= depth {
            return Err(Reject::ReferenceDepth);
        }
        match revision.payload() {
            Payload::Deployed(_) => Ok(()),
            _ => Err(Reject::ReferenceKind),
        }
    }

    fn check_admission(&self, id: BlockId, invitation: Held<'_>, op: &op::Admitted) -> Result<(), Reject> {
        let offer = invitation.payload().and_then(Payload::offer).ok_or(Reject::ReferenceKind)?;
        if offer.device.is_some_and(|device| device != op.device) {
            return Err(Reject::Proof);
        }
        if self.memo.as_ref().is_some_and(|memo| memo.is_proven(&id)) {
            return Ok(());
        }
        let message = op::join_proof_message(&self.fleet, &op.invitation, &op.device);
        if !op::verify(&offer.key, &message, &op.proof) {
            return Err(Reject::Proof);
        }
        if let Some(memo) = &self.memo {
            memo.proven(id);
        }
        Ok(())
    }

    fn check_recovery(&self, op: &op::Recovered) -> Result<(), Reject> {
        let genesis = self.blocks.get(&BlockId(self.fleet.0)).map(|block| block.payload());
        let Some(Payload::Founded(founded)) = genesis else { return Err(Reject::ReferenceKind) };
        let message = op::recovery_message(&self.fleet, op.generation, &op.device);
        if op::verify(&founded.recovery, &message, &op.certificate) { Ok(()) } else { Err(Reject::Proof) }
    }

    fn insert(&mut self, mut block: Arc<Block>) -> Arc<Block> {
        self.said.share(&mut block);
        self.pages.came_in_full(&block.id());
        self.blocks.insert(block.id(), Arc::clone(&block));
        if !self.link(block.chain(), block.seq(), block.id(), block.prev()) {
            self.document.add(&block, self.chain_fork(&block.chain()));
        }
        if block.payload().is_authority() {
            self.insert_authority(&block);
        } else if !self.leases.insert(&block) {
            self.apply_or_wait(Held::Full(&block));
        }
        block
    }

    /// Adds a block to its chain. Returns whether it is the first to fork it there.
    fn link(&mut self, chain_id: ChainId, seq: u64, id: BlockId, prev: BlockId) -> bool {
        self.remember_key(chain_id.author);
        *self.written.entry(chain_id.author).or_default() += 1;
        let chain = self.chains.entry(chain_id).or_insert_with(|| Chain::new(chain_id.short_actor()));
        if seq == 1 {
            self.by_actor.insert(*chain.actor(), chain_id);
        }
        self.digest.changed(chain.actor());
        let (fork_before, proof_before) = (chain.fork(), chain.fork_proof());
        chain.insert(seq, id, prev);
        let forks = chain.fork() != fork_before;
        // A third block at the fork voids nothing more, but may be one of the two that are shown.
        self.view_stale |= chain.fork_proof() != proof_before;
        if forks {
            self.document.forked(chain_id, seq);
            self.forks_stale = true;
        }
        forks
    }

    /// Folds a block of a register, now or once the standings are up to date.
    fn apply_or_wait(&mut self, held: Held<'_>) {
        if !self.authority_stale && !self.forks_stale {
            if self.standings.counts(self, held) {
                self.registers.apply(held);
            }
        } else if self.unapplied.len() < UNAPPLIED_MAX {
            self.unapplied.push(held.id());
        } else {
            self.refold = true;
        }
    }

    fn insert_authority(&mut self, block: &Arc<Block>) {
        self.authority_stale = true;
        self.authority.insert(block.order(), Arc::clone(block));
        self.authority_sum.add(&block.id());
        self.reevaluate |= !matches!(block.payload(), Payload::Admitted(_));
        let order = block.order();
        let last = self.last_authority.entry(block.chain()).or_default();
        *last = (*last).max(block.seq());
        match block.payload() {
            Payload::Founded(_) => {
                let rank = Rank { tree: 0, order };
                self.grants.insert(block.id(), Grant { device: block.author(), roles: Roles::ALL, rank });
            }
            Payload::Admitted(op) => {
                let Some(invitation) = self.blocks.get(&op.invitation) else { return };
                let Some(offer) = invitation.payload().offer() else { return };
                let tree = |grant: &BlockId| self.grants.get(grant).map_or(0, |grant| grant.rank.tree);
                let tree = 1 + tree(&invitation.grant()).max(tree(&block.grant()));
                let grant = Grant { device: op.device, roles: offer.roles, rank: Rank { tree, order } };
                self.grants.insert(block.id(), grant);
                if self.joined.len() < UNAPPLIED_MAX {
                    self.joined.push(block.id());
                } else {
                    self.reevaluate = true;
                }
                self.admissions.entry_or_default(op.invitation).insert(block.id());
                self.remember_key(op.device);
            }
            Payload::Recovered(op) => {
                let rank = Rank { tree: -i64::from(op.generation), order };
                self.grants.insert(block.id(), Grant { device: op.device, roles: Roles::ALL, rank });
                self.remember_key(op.device);
            }
            Payload::Revoked(op) => {
                for grant in &op.grants {
                    self.revocations.entry(*grant).or_default().insert(order);
                }
            }
            Payload::Withdrawn(op) => {
                self.withdrawals.entry(block.grant()).or_default().insert(order);
                let mut stands = self.admissions_below(&op.invitation, &[block.id()]);
                stands.extend(&op.stands);
                self.stands.insert(block.id(), stands);
            }
            _ => {}
        }
    }

    fn remember_key(&mut self, author: Author) {
        if self.keys.contains_key(&author) {
            return;
        }
        let key = match &self.memo {
            Some(memo) => memo.key(&author),
            None => op::usable_key(&author).map(Arc::new),
        };
        if let Some(key) = key {
            Arc::make_mut(&mut self.keys).insert(author, key);
        }
    }

    /// Publishes what the admitted blocks say now, and returns it. Readers that hold
    /// [`Ledger::views`] see it at once, without a lock.
    pub fn publish(&mut self) -> Arc<View> {
        self.settle();
        let touched = self.registers.take_touched();
        let leases = self.leases.take_touched();
        let view = match std::mem::take(&mut self.view_stale) {
            true => View::build(self),
            false => View::after(self, &self.view.load(), &touched, leases.as_ref()),
        };
        let view = Arc::new(view);
        self.view.store(Arc::clone(&view));
        view
    }

    /// The published view, for readers on other threads.
    #[must_use]
    pub fn views(&self) -> Arc<ArcSwap<View>> {
        Arc::clone(&self.view)
    }

    /// Applies all waiting changes to the automerge document and returns its heads, sorted.
    pub fn document_heads(&mut self) -> Vec<[u8; 32]> {
        self.follow_document(usize::MAX);
        self.document.heads()
    }

    /// Applies the changes of at most `count` waiting blocks to the automerge document, the earliest first.
    /// Where a fork below what was applied has come to light, it is begun again.
    pub fn follow_document(&mut self, count: usize) {
        let mut document = std::mem::take(&mut self.document);
        document.follow(self, count);
        self.document = document;
    }

    /// The automerge document, all changes applied, as automerge saves it. Where there are more changes than are
    /// held ([`Ledger::hold_document`]), it is made for this, which takes nearly 1 kB a block meanwhile.
    pub fn document_bytes(&mut self) -> Vec<u8> {
        self.document_heads();
        self.document.save(self)
    }

    /// Holds the automerge document in memory while it has at most so many changes, one a block; of a larger one
    /// nothing but the heads. Without this: [`limits::DOCUMENT_HELD_MAX`].
    pub fn hold_document(&mut self, changes_max: usize) {
        self.document.hold(changes_max);
    }

    /// Checks every signature, link and rule again, as if the blocks came from a stranger; of summaries all
    /// but the signature. Returns how many blocks hold.
    ///
    /// # Errors
    /// The first block that does not hold, and why.
    pub fn verify(&self) -> Result<u64, (BlockId, Reject)> {
        let mut again = Self::new(self.fleet);
        for page in self.pages() {
            again.offer(page);
        }
        let blocks = self.in_order();
        let entries: Vec<_> = blocks.iter().map(|block| block.entry()).collect();
        for (block, answer) in blocks.iter().zip(again.admit_all(&entries)) {
            match answer {
                Ok(Admission::New { .. }) => {}
                Ok(_) => return Err((block.id(), Reject::Malformed)),
                Err(reject) => return Err((block.id(), reject)),
            }
        }
        again.take_offered();
        if let Some(fault) = again.page_fault() {
            return Err((fault.block, fault.reject.clone()));
        }
        Ok(again.len())
    }

    /// The fleet this is the ledger of.
    #[must_use]
    pub fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// Whether the genesis block is here.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.blocks.contains_key(&BlockId(self.fleet.0))
    }

    /// Number of admitted blocks, in full and as summaries.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.blocks.len() + self.pages.len()) as u64
    }

    /// Whether no block was admitted yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Blocks that wait for others, and those given up for lack of room.
    #[must_use]
    pub fn early(&self) -> (usize, u64) {
        (self.early.len(), self.early.evicted())
    }

    /// Blocks of one author that wait for others, in their order. Those of this device were in a journal that was
    /// damaged in front of them.
    #[must_use]
    pub fn early_by(&self, author: Author) -> Vec<Arc<Block>> {
        self.early.by(&author)
    }

    /// What early blocks hold, bytes; at most [`limits::EARLY_BYTES_MAX`].
    #[must_use]
    pub fn early_bytes(&self) -> usize {
        self.early.bytes()
    }

    /// Blocks whose changes wait to be applied to the automerge document. Each is an admitted block, so what
    /// waits takes a pointer a block beside what the ledger holds anyway.
    #[must_use]
    pub fn document_pending(&self) -> usize {
        self.document.pending(self)
    }

    /// Whether the next look at the automerge document begins it again, because of a fork below what was
    /// applied, and how often that has happened.
    #[must_use]
    pub fn document_rebuilds(&self) -> (bool, u64) {
        self.document.rebuilds()
    }

    /// Heads of the automerge document as it was last brought up to date.
    #[must_use]
    pub fn document_heads_before(&self) -> Vec<[u8; 32]> {
        self.document.heads()
    }

    /// Whether a device has a block or a grant here, counting or not.
    #[must_use]
    pub fn knows(&self, device: &Author) -> bool {
        self.keys.contains_key(device)
    }

    /// An admitted block that is here in full.
    #[must_use]
    pub fn get(&self, id: &BlockId) -> Option<&Arc<Block>> {
        self.blocks.get(id)
    }

    /// All admitted blocks that are here in full, in ledger order.
    #[must_use]
    pub fn in_order(&self) -> Vec<Arc<Block>> {
        let mut blocks: Vec<_> = self.blocks.values().cloned().collect();
        blocks.sort_unstable_by_key(|block| block.order());
        blocks
    }

    /// Whether an admitted block counts. Call after [`Ledger::publish`].
    #[must_use]
    pub fn is_effective(&self, block: &Arc<Block>) -> bool {
        self.standings.counts(self, Held::Full(block))
    }

    /// Whether a block that is here, in full or as a summary, counts. Call after [`Ledger::publish`].
    #[must_use]
    pub fn counts(&self, id: &BlockId) -> bool {
        self.held(id).is_some_and(|held| self.standings.counts(self, held))
    }

    /// The heads of all chains.
    #[must_use]
    pub fn heads(&self) -> Vec<BlockId> {
        self.chains.values().filter_map(Chain::head).map(|(id, _)| id).collect()
    }

    /// Whether every one of these blocks was admitted.
    #[must_use]
    pub fn contains_all(&self, ids: &[BlockId]) -> bool {
        ids.iter().all(|id| self.holds(id))
    }

    /// Admissions between the genesis block and a grant: fewer rank higher. Below zero for a recovery.
    #[must_use]
    pub fn tree_of(&self, grant: &BlockId) -> Option<i64> {
        self.rank_of(grant).map(|rank| rank.tree)
    }

    /// Why a block of this ledger does not count; none where it does. As of the last
    /// [`Ledger::publish`].
    #[must_use]
    pub fn why_void(&self, block: Held<'_>) -> Option<Void> {
        self.standings().why_void(self, block)
    }

    pub(crate) fn chains(&self) -> &BTreeMap<ChainId, Chain> {
        &self.chains
    }

    pub(crate) fn chain_by_actor(&self, actor: &[u8; 16]) -> Option<(ChainId, &Chain)> {
        let id = self.by_actor.get(actor)?;
        Some((*id, self.chains.get(id)?))
    }

    pub(crate) fn chain_fork(&self, chain: &ChainId) -> Option<u64> {
        self.chains.get(chain).and_then(Chain::fork)
    }

    pub(crate) fn grants_by_rank(&self) -> BTreeMap<Rank, BlockId> {
        self.grants.iter().map(|(id, grant)| (grant.rank, *id)).collect()
    }

    pub(crate) fn rank_of(&self, grant: &BlockId) -> Option<Rank> {
        self.grants.get(grant).map(|grant| grant.rank)
    }

    pub(crate) fn device_of(&self, grant: &BlockId) -> Option<Author> {
        self.grants.get(grant).map(|grant| grant.device)
    }

    pub(crate) fn revocations_of(&self, grant: &BlockId) -> impl Iterator<Item = &Arc<Block>> {
        let orders = self.revocations.get(grant);
        orders.into_iter().flatten().filter_map(|order| self.authority.get(order))
    }

    pub(crate) fn withdrawals_by(&self, grant: &BlockId) -> impl Iterator<Item = &Arc<Block>> {
        let orders = self.withdrawals.get(grant);
        orders.into_iter().flatten().filter_map(|order| self.authority.get(order))
    }

    /// The place of a chain's last authority block; zero where it has none.
    pub(crate) fn last_authority(&self, chain: &ChainId) -> u64 {
        self.last_authority.get(chain).copied().unwrap_or(0)
    }

    pub(crate) fn standings(&self) -> &Standings {
        &self.standings
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Every grant: its block, device, roles, whether it counts and whether it is still active.
    pub(crate) fn grant_rows(&self) -> impl Iterator<Item = (BlockId, Author, Roles, bool, bool)> + '_ {
        self.grants.iter().map(|(id, grant)| {
            let standing = self.standings.grants.get(id);
            let given = standing.is_some_and(|standing| standing.given);
            (*id, grant.device, grant.roles, given, standing.is_some_and(Standing::is_active))
        })
    }

    /// The grants that make a device a member, each with its roles.
    pub(crate) fn active_grants(&self, device: Author) -> impl Iterator<Item = (BlockId, Roles)> + '_ {
        let own = self.grants.iter().filter(move |(_, grant)| grant.device == device);
        let active = own.filter(|(id, _)| self.standings.grants.get(id).is_some_and(Standing::is_active));
        active.map(|(id, grant)| (*id, grant.roles))
    }
}

/// Whether a block stands where its links say, given what they lead to.
fn check_links<'a>(
    block: Held<'_>,
    prev: Option<Held<'a>>,
    parents: impl Iterator<Item = Option<Held<'a>>>,
) -> Result<(), Reject> {
    let mut below = 0;
    if let Some(prev) = prev {
        if prev.chain() != block.chain() {
            return Err(Reject::OtherChain);
        }
        if prev.seq().checked_add(1) != Some(block.seq()) {
            return Err(Reject::Seq { expected: prev.seq().saturating_add(1), got: block.seq() });
        }
        below = prev.order().depth;
    }
    for parent in parents {
        below = below.max(parent.ok_or(Reject::Parents)?.order().depth);
    }
    let (expected, got) = (below.saturating_add(1), block.order().depth);
    if got == expected { Ok(()) } else { Err(Reject::Depth { expected, got }) }
}

fn check_founding(block: &Block) -> Result<(), Reject> {
    let Payload::Founded(op) = block.payload() else { return Err(Reject::Malformed) };
    let message = op::Founded::certificate(&op.nonce, &block.author(), &op.recovery);
    if op::verify(&op.admin, &message, &op.certificate) { Ok(()) } else { Err(Reject::Proof) }
}

/// Whether a block makes a device one of those that seal pages.
fn votes_by(block: &Block, device: &Author) -> bool {
    match block.payload() {
        Payload::Founded(_) => block.author() == *device,
        Payload::Voters(op) => op.devices.contains(device),
        _ => false,
    }
}

/// Whether a block admits a device by this invitation or user.
fn admits_by(block: Held<'_>, offer: &BlockId) -> bool {
    matches!(block.payload(), Some(Payload::Admitted(op)) if op.invitation == *offer)
}

/// The function whose register an operation belongs to.
pub(crate) fn register_name(payload: &Payload) -> Option<&String> {
    match payload {
        Payload::Deployed(op) => Some(&op.name),
        Payload::Removed(op) => Some(&op.name),
        _ => None,
    }
}
