//! Blocks as summaries: dropping the bytes of blocks that a page lists, and taking in blocks from pages.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Ledger;
use crate::{
    authority::Role,
    block::Reject,
    held::Held,
    id::{BlobHash, BlockId},
    limits,
    page::{Page, Summary, is_prunable},
};

/// Where a summary is: its page among the replica's, its row there.
#[derive(Clone, Copy, Debug)]
struct Place {
    page: u32,
    row: u32,
}

/// A page, and which of its rows are here by it.
#[derive(Clone, Debug)]
struct Kept {
    page: Arc<Page>,
    here: Vec<bool>,
}

/// The pages of one replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Kept>,
    /// Blocks that are here as summaries.
    held: BTreeMap<BlockId, Place>,
    /// Summaries that were offered and are not taken in: what they name is not here yet.
    offered: BTreeMap<BlockId, Place>,
    /// Blocks that pages list and that are here in full, so that no further page need list them.
    covered: BTreeSet<BlockId>,
    /// The first summary that breaks a rule.
    fault: Option<PageFault>,
}

/// A summary that no valid block can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The page.
    pub page: BlobHash,
    /// The block that it makes up.
    pub block: BlockId,
    /// The rule that it breaks.
    pub reject: Reject,
}

impl Pages {
    fn summary(&self, place: Place) -> Option<Summary<'_>> {
        self.pages.get(place.page as usize)?.page.summary(place.row)
    }

    /// A block is here as a summary from now on.
    fn hold(&mut self, id: BlockId, place: Place) {
        self.held.insert(id, place);
        self.pages[place.page as usize].here[place.row as usize] = true;
    }

    /// What a link of a page leads to, where that is a row which is here by the same page: most links do, and then
    /// nothing has to be looked up.
    fn row(&self, page: u32, link: u32) -> Option<Summary<'_>> {
        let kept = self.pages.get(page as usize)?;
        kept.page.summary(link).filter(|_| kept.here[link as usize])
    }

    pub(super) fn get(&self, id: &BlockId) -> Option<Summary<'_>> {
        self.held.get(id).and_then(|place| self.summary(*place))
    }

    pub(super) fn contains(&self, id: &BlockId) -> bool {
        self.held.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Summary<'_>> {
        self.held.values().filter_map(|place| self.summary(*place))
    }

    /// Every row of every page.
    fn places(&self) -> impl Iterator<Item = (&Kept, Place)> {
        self.pages
            .iter()
            .zip(0..)
            .flat_map(|(kept, page)| (0..kept.page.rows()).map(move |row| (kept, Place { page, row })))
    }

    /// The block came in full: its summary is not needed.
    pub(super) fn came_in_full(&mut self, id: &BlockId) {
        self.offered.remove(id);
    }

    /// Keeps a page, once.
    fn keep(&mut self, page: &Arc<Page>) -> u32 {
        let known = self.pages.iter().position(|kept| kept.page.hash() == page.hash());
        let at = known.unwrap_or_else(|| {
            self.pages.push(Kept { page: Arc::clone(page), here: vec![false; page.rows() as usize] });
            self.pages.len() - 1
        });
        u32::try_from(at).expect("fewer pages than blocks")
    }
}

impl Ledger {
    /// Drops the bytes of all blocks that a page lists and that are here in full. Nothing that counts, no
    /// answer to a later block and no digest changes. Blocks of a forked chain stay: their signatures are
    /// the proof. Returns how many were dropped. The page must outlast the replica that relies on it: hold
    /// it durably first.
    ///
    /// # Errors
    /// The first block here that the page's summary is not of: then nothing is dropped.
    pub fn prune(&mut self, page: &Arc<Page>) -> Result<u64, BlockId> {
        self.confirm(page)?;
        let droppable = |summary: &Summary<'_>| {
            self.blocks.contains_key(&summary.id()) && self.chain_fork(&summary.chain()).is_none()
        };
        let drop: Vec<_> = page.summaries().zip(0..).filter(|(summary, _)| droppable(summary)).collect();
        if drop.is_empty() {
            return Ok(0);
        }
        let at = self.pages.keep(page);
        for (summary, row) in &drop {
            self.blocks.remove(&summary.id());
            self.pages.covered.remove(&summary.id());
            self.pages.hold(summary.id(), Place { page: at, row: *row });
        }
        self.document.restart();
        Ok(drop.len() as u64)
    }

    /// Checks a page's summaries against the blocks that are here in full. Returns how many of them are.
    ///
    /// # Errors
    /// The first block that the page's summary is not of.
    pub fn confirm(&self, page: &Page) -> Result<u32, BlockId> {
        let mut full = 0;
        for summary in page.summaries() {
            match self.blocks.get(&summary.id()) {
                Some(block) if !summary.is_of(block) => return Err(summary.id()),
                Some(_) => full += 1,
                None => {}
            }
        }
        Ok(full)
    }

    /// The page that a voter would seal next: of all blocks that are here in full, can be summarised, lie
    /// in no sealed page and at least [`limits::PAGE_MARGIN_DEPTH`] below the deepest block, the first in
    /// ledger order. None while they would not fill a page. Replicas that hold the same blocks below the
    /// margin name the same page.
    #[must_use]
    pub fn next_page(&self) -> Option<Page> {
        self.next_page_of(limits::PAGE_ROWS_MAX, limits::PAGE_MARGIN_DEPTH)
    }

    /// [`Ledger::next_page`] where a page is full with so many rows, at most [`limits::PAGE_ROWS_MAX`], and lies so
    /// far below the deepest block. All voters of a fleet have to go by the same figures.
    #[must_use]
    pub fn next_page_of(&self, rows: usize, margin: u64) -> Option<Page> {
        // What is listed already cannot fill another one; so most looks end here.
        if self.blocks.len() < rows + self.pages.covered.len() {
            return None;
        }
        let deepest = self.chains.values().filter_map(|chain| self.held(&chain.head()?.0));
        let deepest = deepest.map(|head| head.order().depth).max()?;
        let below = deepest.checked_sub(margin)?;
        let fits = |block: &&Arc<crate::Block>| {
            is_prunable(block)
                && block.order().depth <= below
                && self.chain_fork(&block.chain()).is_none()
                && !self.pages.covered.contains(&block.id())
        };
        let mut blocks: Vec<_> = self.blocks.values().filter(fits).map(AsRef::as_ref).collect();
        if blocks.len() < rows {
            return None;
        }
        blocks.sort_unstable_by_key(|block: &&crate::Block| block.order());
        blocks.truncate(rows);
        Page::of(self.fleet, blocks)
    }

    /// Notes what a sealed page lists, so that [`Ledger::next_page`] does not list it again. For replicas
    /// that keep all blocks in full.
    pub fn cover(&mut self, page: &Page) {
        let full = page.summaries().map(Summary::id).filter(|id| self.blocks.contains_key(id));
        self.pages.covered.extend(full);
    }

    /// Offers a page whose blocks may be taken in as summaries: at once what names only blocks that are
    /// here, the rest as soon as a block needs it or [`Ledger::take_offered`] is called. Every rule but the
    /// signature is checked. Whether to believe a page is the caller's decision: see [`Ledger::is_sealed`].
    pub fn offer(&mut self, page: &Arc<Page>) {
        let at = self.pages.keep(page);
        for (summary, row) in page.summaries().zip(0..) {
            let id = summary.id();
            if !self.blocks.contains_key(&id) && !self.pages.contains(&id) {
                self.pages.offered.entry(id).or_insert(Place { page: at, row });
            }
        }
    }

    /// Takes in all offered summaries whose links are here, in ledger order. Returns the blocks in full that
    /// had waited for them, and those of them that turned out invalid.
    pub fn take_offered(&mut self) -> (Vec<Arc<crate::Block>>, Vec<super::Refused>) {
        let mut offered: Vec<_> = self
            .pages
            .places()
            .filter(|(kept, place)| !kept.here[place.row as usize])
            .map(|(_, place)| place)
            .collect();
        // Each page is in this order already, and pages follow each other: so a stable sort has little to do.
        offered.sort_by_key(|place| self.pages.summary(*place).map(Summary::order));
        let (mut admitted, mut rejected) = (Vec::new(), Vec::new());
        for place in offered {
            let Some(id) = self.pages.summary(place).map(Summary::id) else { continue };
            // What waited for it comes in before the next, which may name that.
            let mut known = Vec::new();
            let _ = self.pull(id, &mut known);
            rejected.extend(self.release_early(known, &mut admitted));
        }
        (admitted, rejected)
    }

    /// Takes in an offered summary and all offered ones below it that it needs. `known` gets the ids.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn pull(&mut self, id: BlockId, known: &mut Vec<BlockId>) -> Result<(), BlockId> {
        let mut open = vec![id];
        while let Some(id) = open.last().copied() {
            // What is offered is not here.
            let Some(place) = self.pages.offered.get(&id).copied() else {
                if self.holds(&id) {
                    open.pop();
                    continue;
                }
                return Err(id);
            };
            let page = Arc::clone(&self.pages.pages[place.page as usize].page);
            let summary = page.summary(place.row).ok_or(id)?;
            if let Some(need) = self.lacks(place.page, summary) {
                // Strictly downward, so this ends whatever the pages say.
                let below = self.pages.offered.get(&need).and_then(|place| self.pages.summary(*place));
                let below = below.ok_or(need)?;
                if below.order().depth >= summary.order().depth {
                    let reject = Reject::ReferenceDepth;
                    self.pages.fault.get_or_insert(PageFault { page: page.hash(), block: id, reject });
                    return Err(need);
                }
                open.push(need);
                continue;
            }
            if let Err(reject) = self.check_summary(place.page, summary) {
                self.pages.fault.get_or_insert(PageFault { page: page.hash(), block: id, reject });
                return Err(id);
            }
            self.pages.offered.remove(&id);
            self.pages.hold(id, place);
            self.link(summary.chain(), summary.seq(), id, summary.prev());
            self.apply_or_wait(Held::Summary(summary));
            known.push(id);
            open.pop();
        }
        Ok(())
    }

    /// What a summary of a page leads to by a link.
    fn linked(&self, page: u32, summary: Summary<'_>, link: u32) -> Option<Held<'_>> {
        self.pages.row(page, link).map(Held::Summary).or_else(|| self.held(&summary.linked(link)))
    }

    /// Something that a summary names and that is not here.
    fn lacks(&self, page: u32, summary: Summary<'_>) -> Option<BlockId> {
        let (prev, parents) = summary.links();
        let mut links = prev.into_iter().chain(parents);
        let lacks = links.find(|link| self.linked(page, summary, **link).is_none());
        lacks.map(|link| summary.linked(*link)).or_else(|| {
            let named = [summary.grant(), summary.revision()];
            named.into_iter().find(|id| !self.grants.contains_key(id) && !self.holds(id))
        })
    }

    fn check_summary(&self, page: u32, summary: Summary<'_>) -> Result<(), Reject> {
        let held = Held::Summary(summary);
        let (prev, parents) = summary.links();
        let linked = |link: &u32| self.linked(page, summary, *link);
        super::check_links(held, prev.and_then(linked), parents.iter().map(linked))?;
        self.check_grant(held, Some(Role::Node))?;
        self.check_revision(&summary.revision(), held.order().depth)
    }

    /// The first summary among the offered pages that no valid block can have.
    #[must_use]
    pub fn page_fault(&self) -> Option<&PageFault> {
        self.pages.fault.as_ref()
    }

    /// Summaries that were offered and not taken in.
    #[must_use]
    pub fn offered(&self) -> usize {
        self.pages.offered.len()
    }

    /// A replica apart that holds what this one holds, for pages that are not believed yet: nothing relies on it
    /// until it is [vouched](Ledger::vouched) for and [taken over](Ledger::take_over).
    #[must_use]
    pub fn apart(&self) -> Self {
        let mut apart = self.empty();
        apart.follow(self);
        apart
    }

    /// The same without what is here by pages that are not sealed by what counts here. The seals of a voter whose disk
    /// was damaged may be lost before anybody had them, and so may be all that vouched for its own pages. What others
    /// hold in full is better, and nothing vouches for the rest. Call after [`Ledger::publish`].
    #[must_use]
    pub fn apart_by_sealed_pages(&self) -> Self {
        let mut apart = self.empty();
        apart.follow_by_sealed_pages(self);
        apart
    }

    fn empty(&self) -> Self {
        let mut empty = Self { memo: self.memo.clone(), ..Self::new(self.fleet) };
        empty.document = self.document.another();
        empty
    }

    /// Takes in what another replica holds and this one does not.
    ///
    /// # Panics
    /// If a block that was admitted there is refused here: what a block names makes it valid, for ever.
    pub fn follow(&mut self, other: &Self) {
        self.follow_by(other, other.pages());
    }

    /// The same without what it holds by pages that are not sealed by what counts there; what names that waits. Call
    /// after [`Ledger::publish`] of the other.
    ///
    /// # Panics
    /// As [`Ledger::follow`].
    pub fn follow_by_sealed_pages(&mut self, other: &Self) {
        self.follow_by(other, other.pages().filter(|page| other.is_sealed(&page.hash())));
    }

    fn follow_by<'a>(&mut self, other: &Self, pages: impl Iterator<Item = &'a Arc<Page>>) {
        pages.for_each(|page| self.offer(page));
        let lacks = other.blocks.values().filter(|block| !self.blocks.contains_key(&block.id()));
        let mut lacks: Vec<_> = lacks.cloned().collect();
        lacks.sort_unstable_by_key(|block| block.order());
        for block in lacks {
            let again = self.place(super::Read::Block(block), None);
            assert!(again.is_ok(), "an admitted block stays valid: {again:?}");
        }
        self.take_offered();
    }

    /// Takes over what a replica [apart](Ledger::apart) came to. Those who read this one's views go on. Call
    /// [`Ledger::publish`] next.
    ///
    /// # Panics
    /// If that replica is another fleet's.
    pub fn take_over(&mut self, apart: Self) {
        assert_eq!(self.fleet, apart.fleet, "replicas of one fleet");
        let view = Arc::clone(&self.view);
        *self = Self { view, view_stale: true, ..apart };
    }

    /// The pages that this replica relies on.
    pub fn pages(&self) -> impl Iterator<Item = &Arc<Page>> {
        self.pages.pages.iter().map(|kept| &kept.page)
    }

    /// The blocks that are here as summaries alone, in no order.
    pub fn summaries(&self) -> impl Iterator<Item = Summary<'_>> {
        self.pages.iter()
    }

    /// The page by which a block is here, where it is not here in full.
    #[must_use]
    pub fn page_of(&self, id: &BlockId) -> Option<BlobHash> {
        let place = self.pages.held.get(id)?;
        self.pages.pages.get(place.page as usize).map(|kept| kept.page.hash())
    }

    /// A block as it is here, in full or as a summary.
    #[must_use]
    pub fn held(&self, id: &BlockId) -> Option<Held<'_>> {
        self.blocks.get(id).map(Held::Full).or_else(|| self.pages.get(id).map(Held::Summary))
    }

    /// All blocks of one author, in full and as summaries, chain by chain.
    pub fn held_by(&self, author: crate::id::Author) -> impl Iterator<Item = Held<'_>> {
        let chains = self.chains.iter().filter(move |(id, _)| id.author == author);
        chains.flat_map(|(_, chain)| chain.from(1)).filter_map(|id| self.held(&id))
    }

    /// Whether a block is here, in full or as a summary.
    #[must_use]
    pub fn holds(&self, id: &BlockId) -> bool {
        self.blocks.contains_key(id) || self.pages.contains(id)
    }

    /// Blocks that are here in full.
    #[must_use]
    pub fn len_full(&self) -> u64 {
        self.blocks.len() as u64
    }
}
