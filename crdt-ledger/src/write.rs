//! Making blocks: founding a fleet and appending to one's own chain.

use std::{collections::BTreeMap, sync::Arc};

use ed25519_dalek::SigningKey;

use crate::{
    authority::{Role, Roles},
    block::{Block, Body, Reject, VERSION},
    counter::{Row, RowWriter},
    held::Held,
    id::{Author, BlockId, ChainId, FleetId, Session},
    ledger::{Admission, Ledger},
    limits,
    op::{Founded, Payload, sign},
    time::Now,
};

/// Why a block was not appended. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The device has no grant that counts.
    #[error("this device is not a member of the fleet, or was revoked; join with a new ticket")]
    NotMember,
    /// No grant of the device has the role.
    #[error(
        "this device holds no grant with the role {0}; ask an admin for an invitation that names this device and the role"
    )]
    Denied(Role),
    /// The device has the role that the operation needs, and not these that it would give.
    #[error("this device does not hold the role(s) {0} itself, and nobody gives what they do not hold")]
    Lacks(Roles),
    /// The target stands above the author in the tree of admissions.
    #[error(
        "this device's grant ranks below what the operation would end; ask the member that admitted it, or one above"
    )]
    Rank,
    /// Another process signed blocks of this session: what follows them is void.
    #[error(
        "a copy of this device wrote in the same session; restart to open a new one, and remove the copy"
    )]
    Forked,
    /// The block would be invalid.
    #[error("the operation is not allowed: {0}")]
    Invalid(#[from] Reject),
}

/// The end of one's own chain in this session.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: u64,
    id: BlockId,
}

/// Signs blocks of one device in one session. A process makes one at its start with a fresh random
/// session, under the exclusive lock of its folder; so an honest device never forks a chain.
pub struct Writer {
    key: SigningKey,
    session: Session,
    last: Option<Last>,
    /// How far this chain has cited each other chain.
    cited: BTreeMap<ChainId, u64>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("chain", &self.chain())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// What a new fleet is founded with.
#[derive(Debug)]
pub struct Founding<'a> {
    /// The fleet's name.
    pub name: String,
    /// The founding device's name.
    pub label: String,
    /// The founder's key, kept apart from the device's.
    pub admin: &'a SigningKey,
    /// Public half of the recovery key.
    pub recovery: Author,
    /// Sixteen random bytes.
    pub nonce: Session,
}

impl Writer {
    /// A writer for a device's key. `session` is random and never used before.
    #[must_use]
    pub fn new(key: SigningKey, session: Session) -> Self {
        Self { key, session, last: None, cited: BTreeMap::new() }
    }

    /// The device.
    #[must_use]
    pub fn author(&self) -> Author {
        Author(self.key.verifying_key().to_bytes())
    }

    /// Signs this device's next row of counters.
    #[must_use]
    pub fn sign_row(&self, rows: &mut RowWriter) -> Row {
        rows.write(&self.key)
    }

    /// The chain that this writer appends to.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        ChainId { author: self.author(), session: self.session }
    }

    /// The place of the last block in this session; zero before the first.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.last.map_or(0, |last| last.seq)
    }

    /// Founds a fleet: the ledger that holds its genesis block, and that block.
    ///
    /// # Errors
    /// [`Reject`] where a name is not allowed.
    pub fn found(&mut self, now: Now, founding: Founding<'_>) -> Result<(Ledger, Arc<Block>), Reject> {
        let Founding { name, label, admin, recovery, nonce } = founding;
        let certificate = sign(admin, &Founded::certificate(&nonce, &self.author(), &recovery));
        let admin = Author(admin.verifying_key().to_bytes());
        let payload = Payload::Founded(Founded { name, label, admin, recovery, nonce, certificate });
        let body = Body {
            version: VERSION,
            author: self.author(),
            session: self.session,
            seq: 1,
            prev: BlockId::ZERO,
            parents: Vec::new(),
            depth: 1,
            wall_ms: now.wall.0,
            grant: BlockId::ZERO,
            payload,
        };
        let block = Block::seal(body, &FleetId::ZERO, &self.key)?;
        let mut ledger = Ledger::new(FleetId(block.id().0));
        match ledger.admit(block.entry())? {
            Admission::New { mut admitted, .. } => {
                let block = admitted.remove(0);
                self.advance(&ledger, &block);
                ledger.publish();
                Ok((ledger, block))
            }
            Admission::Known | Admission::Early { .. } => Err(Reject::Malformed),
        }
    }

    /// Signs an operation, adds the block to the ledger and returns it. It may leave this device
    /// only once it is durable.
    ///
    /// # Errors
    /// [`AppendError`] where this device may not do that; the ledger is unchanged.
    pub fn append(
        &mut self,
        ledger: &mut Ledger,
        now: Now,
        mut payload: Payload,
    ) -> Result<Arc<Block>, AppendError> {
        ledger.settle();
        if ledger.chain_fork(&self.chain()).is_some() {
            return Err(AppendError::Forked);
        }
        let grant = self.choose_grant(ledger, &payload)?;
        let own = self.last.and_then(|last| ledger.held(&last.id)).map(Held::order);
        let mut parents = self.choose_parents(ledger, grant);
        let depth_of = |id: &BlockId| ledger.held(id).map_or(0, |block| block.order().depth);
        let prev_depth = own.map_or(0, |own| own.depth);
        let depth = |parents: &[BlockId]| parents.iter().map(depth_of).max().unwrap_or(0).max(prev_depth) + 1;
        if let Payload::Withdrawn(op) = &mut payload {
            parents.truncate(limits::PARENTS_MAX - 1);
            let below = parents.iter().copied().chain(own.iter().map(|own| own.id));
            op.stands = admissions_beside(ledger, &op.invitation, &below.collect::<Vec<_>>());
        }
        // What the block refers to must lie below it: where the chosen heads are shallower, the
        // deepest reference becomes a parent itself.
        let deepest = payload.references().chain([grant]).max_by_key(depth_of);
        if let Some(block) =
            deepest.and_then(|id| ledger.held(&id)).filter(|b| b.order().depth >= depth(&parents))
        {
            parents.truncate(limits::PARENTS_MAX - 1);
            parents.push(block.id());
        }
        let depth = depth(&parents);
        let (seq, prev) = self.last.map_or((1, BlockId::ZERO), |last| (last.seq + 1, last.id));
        let body = Body {
            version: VERSION,
            author: self.author(),
            session: self.session,
            seq,
            prev,
            parents,
            depth,
            wall_ms: now.wall.0,
            grant,
            payload,
        };
        let block = Block::seal(body, &ledger.fleet(), &self.key)?;
        let block = ledger.take_own(block)?;
        self.advance(ledger, &block);
        Ok(block)
    }

    /// Whether this device may write the operation now. Several blocks that belong together are checked
    /// before the first is written.
    ///
    /// # Errors
    /// As [`Writer::append`], for what concerns grants.
    pub fn may_append(&self, ledger: &mut Ledger, payload: &Payload) -> Result<(), AppendError> {
        ledger.settle();
        self.choose_grant(ledger, payload).map(|_| ())
    }

    fn advance(&mut self, ledger: &Ledger, block: &Block) {
        self.last = Some(Last { seq: block.seq(), id: block.id() });
        for parent in block.parents().filter_map(|id| ledger.held(&id)) {
            let cited = self.cited.entry(parent.chain()).or_default();
            *cited = (*cited).max(parent.seq());
        }
    }

    /// The highest-ranking active grant of this device that allows the operation.
    fn choose_grant(&self, ledger: &Ledger, payload: &Payload) -> Result<BlockId, AppendError> {
        let mut held: Vec<_> = ledger.active_grants(self.author()).collect();
        if held.is_empty() {
            return Err(AppendError::NotMember);
        }
        held.sort_unstable_by_key(|(id, _)| ledger.rank_of(id));
        // A device ends its own grant by that grant.
        if let Payload::Revoked(op) = payload
            && let [grant] = op.grants.as_slice()
            && held.iter().any(|(id, _)| id == grant)
        {
            return Ok(*grant);
        }
        let role = payload.needs();
        let mut with_role = held.iter().filter(|(_, roles)| roles.has(role)).peekable();
        let best = with_role.peek().ok_or(AppendError::Denied(role))?.1;
        let able = with_role.find(|(_, roles)| payload.may_be_offered_by(*roles));
        let grant = able.map(|(id, _)| *id).ok_or_else(|| {
            let offered = payload.offer().map_or(Roles::NONE, |offer| offer.roles);
            AppendError::Lacks(offered.without(best))
        })?;
        if outranks(ledger, &grant, payload) { Ok(grant) } else { Err(AppendError::Rank) }
    }

    /// What the block cites of what was admitted since this chain's last block: the newest of one's own
    /// earlier sessions, the heads of chains that brought changes of membership, and of all others the
    /// deepest alone: it gives the block its depth, and to name more would only make it larger.
    fn choose_parents(&self, ledger: &Ledger, grant: BlockId) -> Vec<BlockId> {
        let me = self.chain();
        let grant_chain = ledger.get(&grant).map(|block| block.chain());
        let (mut own, mut membership, mut deepest) = (None, Vec::new(), None);
        for (id, chain) in ledger.chains().iter().filter(|(id, _)| **id != me) {
            let Some((head, seq)) = chain.head() else { continue };
            let cited = self.cited.get(id).copied().unwrap_or(0);
            let Some(block) = ledger.held(&head).filter(|_| seq > cited) else { continue };
            let place = Some((block.order(), block.id()));
            deepest = deepest.max(place);
            if id.author == me.author {
                // Only the deepest: it cites the one before it.
                own = own.max(place);
            } else if Some(*id) == grant_chain || ledger.last_authority(id) > cited {
                membership.extend(place);
            }
        }
        membership.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
        let mut parents: Vec<_> = own.into_iter().chain(membership).map(|(_, id)| id).collect();
        parents.truncate(limits::PARENTS_MAX - 1);
        parents.extend(deepest.map(|(_, id)| id).filter(|id| !parents.contains(id)).as_slice());
        parents
    }
}

/// Whether a revocation or withdrawal by this grant would bind.
fn outranks(ledger: &Ledger, grant: &BlockId, payload: &Payload) -> bool {
    let mine = ledger.rank_of(grant);
    match payload {
        Payload::Revoked(op) => op.grants.iter().all(|target| mine < ledger.rank_of(target)),
        Payload::Withdrawn(op) => {
            let inviter = ledger.get(&op.invitation).and_then(|block| ledger.rank_of(&block.grant()));
            inviter.is_none_or(|inviter| mine <= Some(inviter))
        }
        _ => true,
    }
}

/// Admissions that count and are no ancestors of these blocks: what a withdrawal must name to leave them.
/// The first in ledger order, if they are too many.
fn admissions_beside(ledger: &Ledger, offer: &BlockId, below: &[BlockId]) -> Vec<BlockId> {
    let ancestors = ledger.admissions_below(offer, below);
    let given = |id: &BlockId| ledger.standings().grants.get(id).is_some_and(|standing| standing.given);
    let beside = ledger.admissions_by(offer).filter(|id| !ancestors.contains(id) && given(id));
    let mut beside: Vec<_> = beside.filter_map(|id| ledger.get(id)).collect();
    beside.sort_unstable_by_key(|block| block.order());
    let mut stands: Vec<_> = beside.iter().take(limits::STANDS_MAX).map(|block| block.id()).collect();
    stands.sort_unstable();
    stands
}
