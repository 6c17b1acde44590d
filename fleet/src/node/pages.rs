//! Pages of summaries (`docs/ledger.md`, Pages), as a node uses them: a voter seals them, and a node that retains
//! current blocks alone drops what sealed pages list.
//!
//! One page at a time, and one step at a look. A page's bytes are in the library, durably, before a seal names it or
//! anything rests on it, so every member that drops blocks can give others the page.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{Author, BlobHash, Mono, Now, Page, Role, SealedPage, limits};

use super::{Effect, Node, QUIET};

/// Time between two looks at what could be sealed or dropped.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Longest time that a look waits for a moment in which no block comes.
pub const LOOK_LATEST: Duration = Duration::from_secs(60);
/// Time between two looks while there is something to do.
const LOOK_SOON: Duration = Duration::from_millis(500);
/// How long a page may take to be written, read or fetched.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);
/// How long after a failure the same page is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What a node keeps of blocks that sealed pages list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// All of them, in full.
    #[default]
    All,
    /// Summaries.
    Current,
}

impl Retain {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Current => "current",
        }
    }
}

/// What a core does about pages.
#[derive(Clone, Copy, Debug)]
pub struct PageRules {
    /// Whether it seals and drops at all. A process that ends in a moment does not.
    pub works: bool,
    /// What is kept of blocks that sealed pages list.
    pub retain: Retain,
    /// Summaries that fill a page: the same on all voters of a fleet.
    pub rows: usize,
    /// How far below the deepest block, in depth, those lie that are proposed: the same on all voters.
    pub margin: u64,
    /// Time between two looks.
    pub look_every: Duration,
}

impl Default for PageRules {
    fn default() -> Self {
        Self {
            works: false,
            retain: Retain::All,
            rows: limits::PAGE_ROWS_MAX,
            margin: limits::PAGE_MARGIN_DEPTH,
            look_every: LOOK_EVERY,
        }
    }
}

/// Where a core is with pages.
#[derive(Debug)]
pub(super) struct Pages {
    rules: PageRules,
    due: Option<Mono>,
    /// When the last look was, and when the last block came.
    looked: Mono,
    came: Option<Mono>,
    /// Sealed pages that there is nothing left to do about.
    done: BTreeSet<BlobHash>,
    /// The page that is being written, read or fetched, and how long that may take.
    busy: Option<(BlobHash, Mono)>,
    /// Pages that could not be had, and when they are tried again.
    retry: BTreeMap<BlobHash, Mono>,
    /// The page that this voter proposes.
    proposed: Option<Arc<Page>>,
    /// How many blocks were here when the last page was looked for in vain.
    nothing_at: u64,
}

impl Pages {
    pub(super) fn new(rules: PageRules, now: Now) -> Self {
        Self {
            rules,
            due: rules.works.then(|| now.mono.plus(rules.look_every)),
            looked: now.mono,
            came: None,
            done: BTreeSet::new(),
            busy: None,
            retry: BTreeMap::new(),
            proposed: None,
            nothing_at: 0,
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due
    }

    pub(super) fn retain(&self) -> Retain {
        self.rules.retain
    }

    pub(super) fn blocks_came(&mut self, now: Now) {
        self.came = Some(now.mono);
    }

    /// Whether a look is due. While blocks come it is put off, but not without end.
    fn starts(&mut self, now: Now) -> bool {
        if self.due.is_none_or(|due| now.mono < due) {
            return false;
        }
        let quiet = self.came.map(|came| came.plus(QUIET)).filter(|quiet| now.mono < *quiet);
        if let Some(quiet) = quiet.filter(|_| now.mono < self.looked.plus(LOOK_LATEST)) {
            self.due = Some(quiet);
            return false;
        }
        self.looked = now.mono;
        self.due = Some(now.mono.plus(self.rules.look_every));
        true
    }

    fn soon(&mut self, now: Now) {
        if self.rules.works {
            self.due = Some(now.mono.plus(LOOK_SOON.min(self.rules.look_every)));
        }
    }

    fn wait_for(&mut self, now: Now, page: BlobHash) {
        self.busy = Some((page, now.mono.plus(PAGE_PATIENCE)));
    }

    /// Whether this page is waited for.
    fn waits_for(&self, page: &BlobHash) -> bool {
        self.busy.is_some_and(|(busy, _)| busy == *page)
    }
}

impl Node {
    /// Looks, where that is due, for the next page to seal or to drop by.
    pub(super) fn look_at_pages(&mut self, now: Now) {
        if !self.pages.starts(now) || self.read_only.is_some() || !self.view.is_member(&self.me) {
            return;
        }
        if self.pages.busy.is_some_and(|(_, until)| now.mono < until) {
            return;
        }
        self.pages.busy = None;
        let voter = self.is_voter();
        if self.pages.rules.retain == Retain::All && !voter {
            return;
        }
        match self.sealed_and_not_done() {
            Some(sealed) => self.get_page(now, &sealed),
            // What is sealed is not proposed again, so all of it has to be known first.
            None if voter => self.propose(now),
            None => {}
        }
    }

    fn is_voter(&self) -> bool {
        let named = self.view.voters().is_some_and(|voters| voters.devices.contains(&self.me));
        let able = self.view.members().get(&self.me).is_some_and(|me| me.roles.has(Role::Voter));
        named && able
    }

    /// The sealed page to be taken next; one that could not be had comes behind the others.
    fn sealed_and_not_done(&self) -> Option<SealedPage> {
        let pages = self.view.pages().iter();
        let left = pages.filter(|page| page.sealed && !self.pages.done.contains(&page.page));
        left.min_by_key(|page| self.pages.retry.get(&page.page).copied()).cloned()
    }

    fn get_page(&mut self, now: Now, sealed: &SealedPage) {
        let hash = sealed.page;
        if self.pages.retry.get(&hash).is_some_and(|at| now.mono < *at) {
            return;
        }
        let known = self.ledger.pages().find(|page| page.hash() == hash).cloned();
        if let Some(page) = known {
            return self.take_sealed(now, &page);
        }
        self.pages.wait_for(now, hash);
        if self.functions.holds(&hash) {
            self.effects.push_back(Effect::ReadPage(hash));
            return;
        }
        // Who sealed it had it then; whoever is connected may have it now.
        let connected = self.sync.peers().map(|peer| Author(peer.to_bytes()));
        let mut from: Vec<_> = sealed.by.iter().copied().filter(|member| *member != self.me).collect();
        from.extend(connected.filter(|member| !sealed.by.contains(member)));
        self.effects.push_back(Effect::Fetch { hash, size: sealed.size.into(), from });
    }

    fn propose(&mut self, now: Now) {
        let held = self.ledger.len();
        if held == self.pages.nothing_at {
            return;
        }
        let PageRules { rows, margin, .. } = self.pages.rules;
        let is_mine = |hash: &BlobHash| {
            self.view.pages().iter().any(|page| page.page == *hash && page.by.contains(&self.me))
        };
        match self.ledger.next_page_of(rows, margin).filter(|page| !is_mine(&page.hash())) {
            Some(page) => {
                let page = Arc::new(page);
                self.pages.wait_for(now, page.hash());
                self.pages.proposed = Some(Arc::clone(&page));
                self.effects.push_back(Effect::WritePage(page));
            }
            None => self.pages.nothing_at = held,
        }
    }

    /// Bytes came into the library. Whether a page was waited for.
    pub(super) fn page_held(&mut self, hash: BlobHash) {
        if self.pages.waits_for(&hash) || self.apart_wants(&hash) {
            self.effects.push_back(Effect::ReadPage(hash));
        }
    }

    /// Bytes could not be fetched. Returns whether they are a page's that was waited for.
    pub(super) fn page_failed(&mut self, now: Now, hash: BlobHash) -> bool {
        let waited = self.pages.waits_for(&hash);
        if waited {
            self.pages.busy = None;
            self.pages.retry.insert(hash, now.mono.plus(RETRY_AFTER));
        }
        let apart = self.apart_wants(&hash);
        if apart {
            self.give_up_apart(now, super::apart::Why::NotGiven);
        }
        waited || apart
    }

    /// A page was written to the library or read from there.
    pub(super) fn page_read(&mut self, now: Now, hash: BlobHash, page: Result<Arc<Page>, String>) {
        let page = match page {
            Ok(page) if page.hash() == hash => page,
            other => {
                let why = other.err().unwrap_or_else(|| "it is another page".to_owned());
                // It is not there, or damaged and moved aside; then it is fetched again.
                self.functions.blob_gone(&hash);
                if self.page_failed(now, hash) {
                    let page = hash.short();
                    self.effects.push_back(Effect::Warn(format!("The page {page} cannot be used: {why}.")));
                }
                return;
            }
        };
        self.functions.blob_held(hash);
        if self.apart_wants(&hash) {
            self.apart_page(now, &page);
        }
        if !self.pages.waits_for(&hash) {
            return;
        }
        self.pages.busy = None;
        self.pages.retry.remove(&hash);
        if self.ledger.is_sealed(&hash) {
            self.take_sealed(now, &page);
        } else if self.pages.proposed.as_ref().is_some_and(|proposed| proposed.hash() == hash) {
            self.seal(now, &page);
        }
    }

    /// The page is durable here: this voter vouches for it.
    fn seal(&mut self, now: Now, page: &Page) {
        self.pages.proposed = None;
        if self.read_only.is_some() {
            return;
        }
        // Blocks may have come meanwhile that voters name others by; what the page says holds all the same.
        if let Some(said) = self.ledger.seal_of(&self.me, page)
            && let Err(refusal) = self.append(now, said)
        {
            self.effects.push_back(Effect::Warn(format!("A page was not sealed: {}", refusal.message)));
        }
        self.pages.soon(now);
    }

    /// A sealed page is durable here.
    fn take_sealed(&mut self, now: Now, page: &Arc<Page>) {
        self.pages.done.insert(page.hash());
        self.pages.nothing_at = 0;
        self.pages.soon(now);
        if self.pages.rules.retain == Retain::All {
            return self.ledger.cover(page);
        }
        match self.ledger.prune(page) {
            Ok(0) => {}
            Ok(_) => {
                // What is dropped leaves a gap in the document's chains, so it begins anew.
                self.idle.blocks_came(now);
                let pages = self.ledger.pages().map(|page| page.hash()).collect();
                // Own blocks that a damaged journal holds and that wait for one which is lost may be nowhere else.
                let mut blocks = self.ledger.in_order();
                blocks.extend(self.ledger.early_by(self.me));
                self.effects.push_back(Effect::Compact(pages, blocks));
            }
            Err(block) => self.effects.push_back(Effect::Warn(format!(
                "The sealed page {} says something else of block {} than the block itself, which is here: nothing is \
                 dropped by it. More than two thirds of the voters of one block sealed it; do not trust them.",
                page.hash().short(),
                block.short()
            ))),
        }
    }
}
