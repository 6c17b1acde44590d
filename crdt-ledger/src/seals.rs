//! Which pages are sealed: those that more than two thirds of the voters of one `voters` block vouch for.
//!
//! A voter seals only what it holds in full and has compared. So with less than a third of a block's voters
//! hostile, at least one honest device has seen every block of a sealed page.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    block::Order,
    id::{Author, BlobHash, BlockId},
    ledger::Ledger,
    op::{Payload, Sealed},
    page::Page,
};

/// Those whom one block names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VoterSet {
    /// The `voters` block, or the genesis block.
    pub id: BlockId,
    /// The devices, ascending.
    pub devices: Vec<Author>,
}

/// A page that at least one voter sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SealedPage {
    /// blake3 of its bytes.
    pub page: BlobHash,
    /// Its bytes, as the first of its seals says.
    pub size: u32,
    /// Devices that sealed it, ascending: who has it, or had it.
    pub by: Vec<Author>,
    /// Whether enough of the voters of one block did.
    pub sealed: bool,
}

/// Whether so many of a block's voters are enough: more than two thirds.
#[must_use]
pub fn is_enough(seals: usize, voters: usize) -> bool {
    3 * seals > 2 * voters
}

/// Voters and seals, folded from blocks that count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seals {
    voters: BTreeMap<Order, Vec<Author>>,
    pages: BTreeMap<BlobHash, PageSeals>,
}

#[derive(Clone, Debug, Default)]
struct PageSeals {
    /// By the block that names the voters.
    by: BTreeMap<BlockId, BTreeSet<Author>>,
    sizes: BTreeSet<u32>,
}

impl Seals {
    pub(crate) fn name(&mut self, order: Order, devices: &[Author]) {
        self.voters.insert(order, devices.to_vec());
    }

    pub(crate) fn seal(&mut self, op: &Sealed, by: Author) {
        let page = self.pages.entry(op.page).or_default();
        page.by.entry(op.voters).or_default().insert(by);
        page.sizes.insert(op.size);
    }
}

impl Ledger {
    /// Who seals pages now: whom the last `voters` block in ledger order names that counts; before the
    /// first, the founding device alone. Call after [`Ledger::publish`].
    #[must_use]
    pub fn voters(&self) -> Option<VoterSet> {
        if let Some((order, devices)) = self.registers().seals.voters.last_key_value() {
            return Some(VoterSet { id: order.id, devices: devices.clone() });
        }
        let genesis = self.get(&BlockId(self.fleet().0))?;
        Some(VoterSet { id: genesis.id(), devices: vec![genesis.author()] })
    }

    /// Whether a page is sealed: more than two thirds of the voters that one block names sealed it, in blocks
    /// that count. Any `voters` block that counts will do, and the genesis block always: what was once
    /// sealed stays so when others become voters. Call after [`Ledger::publish`].
    #[must_use]
    pub fn is_sealed(&self, page: &BlobHash) -> bool {
        let seals = &self.registers().seals;
        seals.pages.get(page).is_some_and(|page| self.has_enough(seals, page))
    }

    fn has_enough(&self, seals: &Seals, page: &PageSeals) -> bool {
        // A seal is valid only where its `voters` block names its author: so those counted are voters.
        page.by.iter().any(|(id, by)| {
            let Some(block) = self.get(id) else { return false };
            match block.payload() {
                Payload::Founded(_) => is_enough(by.len(), 1),
                Payload::Voters(op) => {
                    seals.voters.contains_key(&block.order()) && is_enough(by.len(), op.devices.len())
                }
                _ => false,
            }
        })
    }

    pub(crate) fn sealed_pages(&self) -> Vec<SealedPage> {
        let seals = &self.registers().seals;
        let row = |(page, said): (&BlobHash, &PageSeals)| {
            let by: BTreeSet<_> = said.by.values().flatten().copied().collect();
            let size = said.sizes.first().copied().unwrap_or(0);
            let sealed = self.has_enough(seals, said);
            SealedPage { page: *page, size, by: by.into_iter().collect(), sealed }
        };
        seals.pages.iter().map(row).collect()
    }

    /// What a voter says of a page that it may seal: it holds every block of it in full, and each summary is
    /// its block's. None where it does not, or is no voter now.
    #[must_use]
    pub fn seal_of(&self, voter: &Author, page: &Page) -> Option<Payload> {
        let voters = self.voters().filter(|voters| voters.devices.contains(voter))?;
        let holds_all = self.confirm(page) == Ok(page.rows());
        holds_all.then_some(Payload::Sealed(Sealed {
            voters: voters.id,
            page: page.hash(),
            size: page.size(),
        }))
    }

    /// Whether every page by which blocks are here is sealed by what counts here, and nothing of them breaks
    /// a rule or hangs in the air. What a replica that took in pages of a stranger must be before anything
    /// relies on it. Call after [`Ledger::take_offered`] and [`Ledger::publish`].
    ///
    /// # Errors
    /// The first page that is not to be believed.
    pub fn vouched(&self) -> Result<(), BlobHash> {
        if let Some(fault) = self.page_fault() {
            return Err(fault.page);
        }
        // A page whose blocks are all here in full says nothing that is not known.
        let mut relied_on = self.pages().filter(|page| self.confirm(page) != Ok(page.rows()));
        match relied_on.find(|page| !self.is_sealed(&page.hash()) || !self.is_whole(page)) {
            Some(page) => Err(page.hash()),
            None => Ok(()),
        }
    }

    /// Whether all blocks of a page are here, and as it says where they are here in full.
    fn is_whole(&self, page: &Page) -> bool {
        self.confirm(page).is_ok() && page.summaries().all(|summary| self.holds(&summary.id()))
    }
}
