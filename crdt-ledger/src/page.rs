//! Pages: what is left of blocks whose bytes were dropped.
//!
//! A page lists **summaries**. A summary holds all of a block but its signature and its clock: so whoever
//! holds it evaluates, links and compares as with the block, and checks every rule of validity but the
//! signature. Only `serving` and `stopped` are summarised: they are nearly all of a ledger's volume, and
//! nothing refers to them but links and pins.
//!
//! ```text
//! page    = canonical CBOR [version, fleet, outside, chains, rows]     name = blake3(page)
//! outside = ids that rows refer to and that are no rows, ascending
//! chains  = [author, session] of the rows, ascending
//! row     = [id, chain, seq, depth, grant, prev, parents, revision, concurrency]
//! ```
//!
//! Rows are in ledger order, so each follows all rows that it refers to. `prev` and `parents` number the rows,
//! then `outside`; `grant` and `revision` number `outside` alone. A concurrency of zero is a `stopped`. Every
//! list is strictly ascending and names nothing that is not used: one set of blocks has one page.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    block::{Block, Order},
    codec,
    id::{Author, BlobHash, BlockId, ChainId, FleetId, Session},
    limits,
    op::{Payload, array_struct},
};

const VERSION: u8 = 1;

array_struct! {
    struct WireRow {
        id: BlockId,
        chain: u32,
        seq: u64,
        depth: u64,
        grant: u32,
        prev: Option<u32>,
        parents: Vec<u32>,
        revision: u32,
        concurrency: u32,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WireChain(ChainId);

impl Serialize for WireChain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.0.author, self.0.session).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WireChain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (author, session): (Author, Session) = Deserialize::deserialize(deserializer)?;
        Ok(Self(ChainId { author, session }))
    }
}

array_struct! {
    struct Wire {
        version: u8,
        fleet: FleetId,
        outside: Vec<BlockId>,
        chains: Vec<WireChain>,
        rows: Vec<WireRow>,
    }
}

/// Why bytes are not a page. Each is permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// More than [`limits::PAGE_BYTES_MAX`].
    #[error("the page has {0} bytes; at most {max} are allowed", max = limits::PAGE_BYTES_MAX)]
    TooLarge(usize),
    /// Not the canonical CBOR of a page.
    #[error("the bytes are no page, or not in the one form that a page has")]
    Malformed,
    /// A page of another fleet.
    #[error("the page belongs to another fleet")]
    OtherFleet,
    /// A list out of order, a number of nothing, or something that is listed and not used.
    #[error("the page's lists are out of order or refer to nothing")]
    Lists,
}

/// One summary. Numbers are those of its page.
#[derive(Clone, Debug)]
struct Row {
    id: BlockId,
    seq: u64,
    depth: u64,
    chain: u32,
    grant: u32,
    revision: u32,
    concurrency: u32,
    /// Where its links begin in the page's list of links: `prev` first, where there is one.
    links: u32,
    parents: u8,
}

/// A page, checked for its shape. Whether what it says is true is another matter.
#[derive(Clone, Debug)]
pub struct Page {
    hash: BlobHash,
    outside: Vec<BlockId>,
    chains: Vec<ChainId>,
    rows: Vec<Row>,
    links: Vec<u32>,
    fleet: FleetId,
    bytes: u32,
}

/// A summary in its page.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    page: &'a Page,
    row: &'a Row,
}

/// Whether a block may be dropped in favour of a summary.
#[must_use]
pub fn is_prunable(block: &Block) -> bool {
    said(block).is_some()
}

/// The revision that a `serving` or `stopped` is about, and its concurrency: zero where it stopped.
fn said(block: &Block) -> Option<(BlockId, u32)> {
    match block.payload() {
        Payload::Serving(op) => Some((op.revision, op.concurrency)),
        Payload::Stopped(op) => Some((op.revision, 0)),
        _ => None,
    }
}

impl Page {
    /// The page of the first of these blocks in ledger order that fit into one; those that cannot be
    /// summarised are left out. None where there is none.
    #[must_use]
    pub fn of<'a>(fleet: FleetId, blocks: impl IntoIterator<Item = &'a Block>) -> Option<Self> {
        let mut blocks: Vec<_> = blocks.into_iter().filter(|block| is_prunable(block)).collect();
        blocks.sort_unstable_by_key(|block| block.order());
        blocks.dedup_by_key(|block| block.id());
        blocks.truncate(fitting(&blocks));
        if blocks.is_empty() {
            return None;
        }
        let ids: std::collections::BTreeMap<_, _> =
            blocks.iter().zip(0_u32..).map(|(block, row)| (block.id(), row)).collect();
        let named = |block: &&Block| block.needs().collect::<Vec<_>>();
        let outside: BTreeSet<_> = blocks.iter().flat_map(named).filter(|id| !ids.contains_key(id)).collect();
        let outside: Vec<_> = outside.into_iter().collect();
        let chains: BTreeSet<_> = blocks.iter().map(|block| WireChain(block.chain())).collect();
        let chains: Vec<_> = chains.into_iter().collect();
        let below = |id: &BlockId| outside.binary_search(id).ok().and_then(|at| u32::try_from(at).ok());
        let count = u32::try_from(blocks.len()).ok()?;
        let link = |id: &BlockId| ids.get(id).copied().or_else(|| Some(below(id)? + count));
        let row = |block: &&Block| {
            let (revision, concurrency) = said(block)?;
            let prev = if block.seq() == 1 { None } else { Some(link(&block.prev())?) };
            let mut parents = block.parents().map(|id| link(&id)).collect::<Option<Vec<_>>>()?;
            parents.sort_unstable();
            let chain = chains.binary_search(&WireChain(block.chain())).ok()?;
            Some(WireRow {
                id: block.id(),
                chain: u32::try_from(chain).ok()?,
                seq: block.seq(),
                depth: block.order().depth,
                grant: below(&block.grant())?,
                prev,
                parents,
                revision: below(&revision)?,
                concurrency,
            })
        };
        let rows = blocks.iter().map(row).collect::<Option<Vec<_>>>()?;
        Self::checked(Wire { version: VERSION, fleet, outside, chains, rows }, None).ok()
    }

    /// Reads a page and checks its shape.
    ///
    /// # Errors
    /// [`PageError`] where the bytes are no page of this fleet.
    pub fn decode(fleet: &FleetId, bytes: &[u8]) -> Result<Self, PageError> {
        if bytes.len() > limits::PAGE_BYTES_MAX {
            return Err(PageError::TooLarge(bytes.len()));
        }
        let wire: Wire = codec::decode(bytes).map_err(|_| PageError::Malformed)?;
        if wire.version != VERSION {
            return Err(PageError::Malformed);
        }
        if wire.fleet != *fleet {
            return Err(PageError::OtherFleet);
        }
        Self::checked(wire, Some(bytes))
    }

    fn checked(wire: Wire, bytes: Option<&[u8]>) -> Result<Self, PageError> {
        check_lists(&wire).ok_or(PageError::Lists)?;
        let named = |bytes: &[u8]| (blake3::hash(bytes), bytes.len());
        let (hash, bytes) = bytes.map_or_else(|| named(&codec::encode(&wire)), named);
        let bytes = u32::try_from(bytes).map_err(|_| PageError::Lists)?;
        let mut links = Vec::new();
        let mut rows = Vec::with_capacity(wire.rows.len());
        for row in &wire.rows {
            let start = u32::try_from(links.len()).map_err(|_| PageError::Lists)?;
            links.extend(row.prev.iter().chain(&row.parents));
            rows.push(Row {
                id: row.id,
                seq: row.seq,
                depth: row.depth,
                chain: row.chain,
                grant: row.grant,
                revision: row.revision,
                concurrency: row.concurrency,
                links: start,
                parents: u8::try_from(row.parents.len()).map_err(|_| PageError::Lists)?,
            });
        }
        links.shrink_to_fit();
        let chains = wire.chains.into_iter().map(|chain| chain.0).collect();
        let hash = BlobHash(*hash.as_bytes());
        Ok(Self { hash, outside: wire.outside, chains, rows, links, fleet: wire.fleet, bytes })
    }

    /// The page's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let row = |summary: Summary<'_>| {
            let Row { id, seq, depth, chain, grant, revision, concurrency, .. } = *summary.row;
            let (prev, parents) = summary.links();
            let (prev, parents) = (prev.copied(), parents.to_vec());
            WireRow { id, chain, seq, depth, grant, prev, parents, revision, concurrency }
        };
        let rows = self.summaries().map(row).collect();
        let chains = self.chains.iter().copied().map(WireChain).collect();
        let (fleet, outside) = (self.fleet, self.outside.clone());
        codec::encode(&Wire { version: VERSION, fleet, outside, chains, rows })
    }

    /// blake3 of the page's bytes: its name.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.bytes
    }

    /// How many summaries it lists.
    #[must_use]
    pub fn rows(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// The summaries in ledger order.
    pub fn summaries(&self) -> impl Iterator<Item = Summary<'_>> {
        self.rows.iter().map(|row| Summary { page: self, row })
    }

    pub(crate) fn summary(&self, row: u32) -> Option<Summary<'_>> {
        self.rows.get(row as usize).map(|row| Summary { page: self, row })
    }

    fn name(&self, link: u32) -> BlockId {
        let link = link as usize;
        match self.rows.get(link) {
            Some(row) => row.id,
            None => self.outside.get(link - self.rows.len()).copied().unwrap_or(BlockId::ZERO),
        }
    }
}

/// How many of these blocks, which are in ledger order, fit into one page, whatever the numbers that they get.
fn fitting(blocks: &[&Block]) -> usize {
    // CBOR at its longest: lists and version; a row, with 5 for each parent; a listed id; a listed chain.
    const HEAD: usize = 64;
    const ROW: usize = 79;
    const LINK: usize = 5;
    const ID: usize = 34;
    const CHAIN: usize = 52;
    let (mut ids, mut chains, mut bytes) = (BTreeSet::new(), BTreeSet::new(), HEAD);
    for (at, block) in blocks.iter().take(limits::PAGE_ROWS_MAX).enumerate() {
        // What a row names lies below it: if it becomes no row before this one, it becomes none.
        let listed = block.needs().filter(|id| ids.insert(*id)).count();
        bytes += ROW + LINK * block.parents().len() + ID * listed;
        bytes += if chains.insert(block.chain()) { CHAIN } else { 0 };
        if bytes > limits::PAGE_BYTES_MAX {
            return at;
        }
        ids.insert(block.id());
    }
    blocks.len().min(limits::PAGE_ROWS_MAX)
}

/// Whether all numbers name something and all lists are ascending and used.
fn check_lists(wire: &Wire) -> Option<()> {
    let fits = |holds: bool| holds.then_some(());
    fits((1..=limits::PAGE_ROWS_MAX).contains(&wire.rows.len()))?;
    fits(wire.outside.windows(2).all(|pair| pair[0] < pair[1]))?;
    fits(wire.chains.windows(2).all(|pair| pair[0] < pair[1]))?;
    let order = |row: &WireRow| Order { depth: row.depth, id: row.id };
    fits(wire.rows.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])))?;
    let ids: BTreeSet<_> = wire.rows.iter().map(|row| row.id).collect();
    fits(ids.len() == wire.rows.len() && wire.outside.iter().all(|id| !ids.contains(id)))?;
    let mut used_ids = vec![false; wire.outside.len()];
    let mut used_chains = vec![false; wire.chains.len()];
    for (at, row) in wire.rows.iter().enumerate() {
        fits(row.seq > 0 && (row.seq == 1) == row.prev.is_none())?;
        fits(row.parents.len() <= limits::PARENTS_MAX && (row.seq > 1 || !row.parents.is_empty()))?;
        fits(row.parents.windows(2).all(|pair| pair[0] < pair[1]))?;
        *used_chains.get_mut(row.chain as usize)? = true;
        *used_ids.get_mut(row.grant as usize)? = true;
        *used_ids.get_mut(row.revision as usize)? = true;
        for link in row.prev.iter().chain(&row.parents) {
            let link = *link as usize;
            match link.checked_sub(wire.rows.len()) {
                Some(outside) => *used_ids.get_mut(outside)? = true,
                None => fits(link < at)?,
            }
        }
    }
    fits(used_ids.into_iter().chain(used_chains).all(|used| used))
}

impl<'a> Summary<'a> {
    /// Links to its predecessor and to its parents: numbers of its page's rows, and behind those of what lies outside.
    pub(crate) fn links(self) -> (Option<&'a u32>, &'a [u32]) {
        let has_prev = usize::from(self.row.seq > 1);
        let start = self.row.links as usize;
        let (prev, parents) =
            self.page.links[start..start + has_prev + usize::from(self.row.parents)].split_at(has_prev);
        (prev.first(), parents)
    }

    /// The block that a link of its page leads to.
    pub(crate) fn linked(self, link: u32) -> BlockId {
        self.page.name(link)
    }

    /// The block's id.
    #[must_use]
    pub fn id(self) -> BlockId {
        self.row.id
    }

    /// The chain it belongs to.
    #[must_use]
    pub fn chain(self) -> ChainId {
        self.page.chains[self.row.chain as usize]
    }

    /// Its place in its chain, from 1.
    #[must_use]
    pub fn seq(self) -> u64 {
        self.row.seq
    }

    /// Its place in the order of all blocks.
    #[must_use]
    pub fn order(self) -> Order {
        Order { depth: self.row.depth, id: self.row.id }
    }

    /// Its predecessor in its chain; zero for a first block.
    #[must_use]
    pub fn prev(self) -> BlockId {
        self.links().0.map_or(BlockId::ZERO, |link| self.page.name(*link))
    }

    /// Heads of other chains that it names.
    pub fn parents(self) -> impl Iterator<Item = BlockId> + 'a {
        self.links().1.iter().map(move |link| self.page.name(*link))
    }

    /// The grant it uses.
    #[must_use]
    pub fn grant(self) -> BlockId {
        self.page.outside[self.row.grant as usize]
    }

    /// The revision it is about.
    #[must_use]
    pub fn revision(self) -> BlockId {
        self.page.outside[self.row.revision as usize]
    }

    /// Invocations that its author runs side by side; none where it stopped.
    #[must_use]
    pub fn concurrency(self) -> Option<u32> {
        Some(self.row.concurrency).filter(|concurrency| *concurrency > 0)
    }

    /// Whether it is the summary of this block.
    #[must_use]
    pub fn is_of(self, block: &Block) -> bool {
        let mut parents = block.parents().collect::<Vec<_>>();
        let mut mine: Vec<_> = self.parents().collect();
        parents.sort_unstable();
        mine.sort_unstable();
        block.id() == self.id()
            && block.chain() == self.chain()
            && block.seq() == self.seq()
            && block.prev() == self.prev()
            && block.order() == self.order()
            && block.grant() == self.grant()
            && said(block) == Some((self.revision(), self.row.concurrency))
            && parents == mine
    }

    /// All blocks that must be known before it can be taken in.
    pub(crate) fn needs(self) -> impl Iterator<Item = BlockId> + 'a {
        let prev = Some(self.prev()).filter(|prev| *prev != BlockId::ZERO);
        prev.into_iter().chain([self.grant(), self.revision()]).chain(self.parents())
    }
}
