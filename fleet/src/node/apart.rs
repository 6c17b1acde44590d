//! Taking in history from pages, where a peer holds blocks as summaries alone.
//!
//! A peer that drops blocks names the pages that list them ([`Frame::Pages`]). Whether to believe a page follows from
//! blocks that may hang below what it lists, so this node builds a replica **apart**: what it holds itself, the pages,
//! and all else that the peer sends. Nothing relies on that replica until its own blocks vouch for every page
//! ([`osiris_ledger::Ledger::vouched`]); then it takes the ledger's place, durably. Meanwhile the ledger goes on with
//! all other peers. A peer whose pages come to nothing is not listened to about pages for a while, so that one that
//! lies delays others and nothing more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{Author, BlobHash, Ledger, Mono, Now, Page, limits};
use osiris_mesh::{
    PeerId,
    proto::sync::{Frame, PAGES_MAX, Sync, described},
};

use super::{Effect, Node};

/// How long nothing new may come until a replica apart is given up.
pub const APART_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take as a whole: shorter than unused bytes are kept in the library.
pub const APART_MAX: Duration = Duration::from_secs(300);
/// Time between two looks whether it is vouched for, where no frame is the reason.
const APART_LOOK: Duration = Duration::from_secs(2);
/// How long a peer is not listened to about pages that it did not give, or gave in vain.
const NOT_AGAIN: Duration = Duration::from_secs(10);
/// How long where nothing vouched for its pages, or one broke a rule.
const DISTRUST: Duration = Duration::from_secs(600);
/// Pages that are fetched at the same time.
const FETCHES_MAX: usize = 4;

/// Why a replica apart is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A page could not be had.
    NotGiven,
    /// What the pages list is here already.
    NothingNew,
    /// Nothing came any more, and nothing vouches for the pages.
    NotVouched,
    /// A page says what no valid block can be.
    Fault,
}

/// A replica that nothing relies on yet.
#[derive(Debug)]
pub(super) struct Apart {
    /// Who named the pages.
    source: PeerId,
    ledger: Ledger,
    sync: Sync,
    /// Pages that were named and are not taken in, with their bytes.
    wanted: BTreeMap<BlobHash, u32>,
    /// Those of them that were asked for.
    asked: BTreeSet<BlobHash>,
    /// Bytes of the pages that were taken in.
    page_bytes: u64,
    /// When it is given up, if nothing new comes, and whatever comes.
    until: Mono,
    end: Mono,
    /// When it is looked at next, and how many blocks it had when it was.
    look: Mono,
    looked_at: u64,
}

impl Apart {
    pub(super) fn deadline(&self) -> Mono {
        self.until.min(self.end).min(self.look)
    }

    pub(super) fn is_with(&self, peer: &PeerId) -> bool {
        self.source == *peer
    }

    fn came(&mut self, now: Now) {
        self.until = now.mono.plus(APART_PATIENCE);
    }
}

/// Whether a replica holds all that another one holds in full, and all that a device wrote.
fn keeps_all(replica: &Ledger, of: &Ledger, author: Author) -> bool {
    let own = of.held_by(author).map(|held| held.order().id);
    own.chain(of.in_order().iter().map(|block| block.id())).all(|id| replica.holds(&id))
}

impl Node {
    /// A connected peer named pages by which it holds blocks that this node lacks.
    pub(super) fn pages_named(&mut self, now: Now, peer: PeerId, mut named: Vec<(BlobHash, u32)>) {
        let distrusted = self.distrusted.get(&peer).is_some_and(|until| now.mono < *until);
        if distrusted || self.read_only.is_some() || self.view.was_member(&self.me) {
            return;
        }
        named.truncate(PAGES_MAX);
        named.retain(|(_, bytes)| *bytes as usize <= limits::PAGE_BYTES_MAX);
        if self.apart.is_none() {
            let mut ledger = self.ledger.apart_by_sealed_pages();
            let mut sync = Sync::new(self.seed);
            let _ = sync.peer_up(now, peer, &mut ledger);
            let (until, end) = (now.mono.plus(APART_PATIENCE), now.mono.plus(APART_MAX));
            self.apart = Some(Box::new(Apart {
                source: peer,
                ledger,
                sync,
                wanted: BTreeMap::new(),
                asked: BTreeSet::new(),
                page_bytes: 0,
                until,
                end,
                look: now.mono.plus(APART_LOOK),
                looked_at: 0,
            }));
        }
        let Some(apart) = self.apart.as_mut().filter(|apart| apart.source == peer) else { return };
        let taken: BTreeSet<_> = apart.ledger.pages().map(|page| page.hash()).collect();
        apart.wanted.extend(named.into_iter().filter(|(hash, _)| !taken.contains(hash)));
        if taken.len() + apart.wanted.len() > PAGES_MAX {
            self.effects.push_back(Effect::Warn(format!(
                "A member holds what is missing here in more than {PAGES_MAX} pages; so many cannot be taken in. A member \
                 that retains all blocks has to give them."
            )));
            return self.give_up_apart(now, Why::NotGiven);
        }
        self.ask_for_pages(now);
    }

    /// Whether a page is waited for that a peer named.
    pub(super) fn apart_wants(&self, hash: &BlobHash) -> bool {
        self.apart.as_ref().is_some_and(|apart| apart.wanted.contains_key(hash))
    }

    /// Asks for the next pages; where all are here, for blocks.
    fn ask_for_pages(&mut self, _now: Now) {
        let Some(apart) = self.apart.as_mut() else { return };
        let source = apart.source;
        if apart.wanted.is_empty() {
            apart.ledger.take_offered();
            let question = described(&mut apart.ledger);
            return self.send(source, &question);
        }
        for (hash, bytes) in &apart.wanted {
            if apart.asked.len() >= FETCHES_MAX || apart.asked.contains(hash) {
                continue;
            }
            apart.asked.insert(*hash);
            self.effects.push_back(match self.functions.holds(hash) {
                true => Effect::ReadPage(*hash),
                false => {
                    let from = vec![Author(source.to_bytes())];
                    Effect::Fetch { hash: *hash, size: (*bytes).into(), from }
                }
            });
        }
    }

    /// A page that the peer named is in the library.
    pub(super) fn apart_page(&mut self, now: Now, page: &Arc<Page>) {
        let Some(apart) = self.apart.as_mut() else { return };
        apart.wanted.remove(&page.hash());
        apart.asked.remove(&page.hash());
        apart.ledger.offer(page);
        apart.page_bytes += page.encode().len() as u64;
        apart.came(now);
        self.ask_for_pages(now);
    }

    /// Bytes that a replica apart holds beside blocks: pages, and what waits in it.
    #[must_use]
    pub fn apart_bytes(&self) -> u64 {
        self.apart.as_ref().map_or(0, |apart| apart.page_bytes + apart.ledger.early_bytes() as u64)
    }

    /// Whether a frame of this peer is about the replica apart.
    pub(super) fn is_apart_with(&mut self, peer: &PeerId, frame: &Frame) -> bool {
        let Some(apart) = &self.apart else { return false };
        if apart.source != *peer || matches!(frame, Frame::Receipt(_) | Frame::Rows(_)) {
            return false;
        }
        let equal = match frame {
            Frame::Digest(theirs) => theirs.as_slice() == self.ledger.digest(),
            _ => false,
        };
        if equal {
            // Others gave in full what the pages list.
            self.apart = None;
        }
        !equal
    }

    /// Handles a frame of the peer that named the pages: what it asks and what it sends is about the replica apart.
    pub(super) fn apart_frame(&mut self, now: Now, peer: PeerId, frame: Frame) {
        let Some(apart) = self.apart.as_mut() else { return };
        let last = matches!(frame, Frame::Blocks(_, false));
        let before = apart.ledger.len();
        let outcome = apart.sync.handle(now, peer, frame, &mut apart.ledger);
        if apart.ledger.len() > before {
            apart.came(now);
        }
        let waits = !apart.wanted.is_empty();
        let mut answers = Vec::new();
        for frame in outcome.answers {
            match frame {
                Frame::Blocks(..) => answers.push(frame),
                // It asks on once the pages are here.
                _ if waits => {}
                // Nothing here is durable, so it asks and promises nothing.
                Frame::Digest(_) => answers.push(described(&mut apart.ledger)),
                frame => answers.push(frame),
            }
        }
        for _ in &outcome.rejects {
            self.malformed(peer);
        }
        if (last || outcome.agrees) && self.take_over_apart(now) {
            return;
        }
        answers.iter().for_each(|frame| self.send(peer, frame));
    }

    /// What is due about the replica apart.
    pub(super) fn look_at_apart(&mut self, now: Now) {
        let Some(apart) = &mut self.apart else { return };
        if now.mono >= apart.until.min(apart.end) {
            return self.give_up_apart(now, Why::NotVouched);
        }
        if now.mono >= apart.look {
            apart.look = now.mono.plus(APART_LOOK);
            if apart.ledger.len() != apart.looked_at {
                self.take_over_apart(now);
            }
        }
    }

    pub(super) fn give_up_apart(&mut self, now: Now, why: Why) {
        let Some(apart) = self.apart.take() else { return };
        let pause = match why {
            Why::NotGiven | Why::NothingNew => NOT_AGAIN,
            Why::NotVouched | Why::Fault => DISTRUST,
        };
        self.distrusted.retain(|_, until| now.mono < *until);
        self.distrusted.insert(apart.source, now.mono.plus(pause));
        if matches!(why, Why::NotVouched | Why::Fault) {
            let member = Author(apart.source.to_bytes());
            let label = self.view.members().get(&member).map(|member| member.label.clone());
            self.effects.push_back(Effect::Warn(format!(
                "{} named pages that nothing here vouches for; they were not taken in.",
                label.unwrap_or_else(|| member.short())
            )));
        }
    }

    /// Lets the replica apart take the ledger's place, if every page in it is vouched for. Returns whether it did.
    fn take_over_apart(&mut self, now: Now) -> bool {
        let Some(apart) = self.apart.as_mut().filter(|apart| apart.wanted.is_empty()) else { return false };
        apart.looked_at = apart.ledger.len();
        apart.ledger.take_offered();
        apart.ledger.publish();
        if apart.ledger.page_fault().is_some() {
            self.give_up_apart(now, Why::Fault);
            return false;
        }
        if apart.ledger.vouched().is_err() {
            return false;
        }
        // What came from others, and was written here, meanwhile.
        apart.ledger.follow_by_sealed_pages(&self.ledger);
        apart.ledger.publish();
        let (before, after) = (self.ledger.len(), apart.ledger.len());
        if after <= before
            || apart.ledger.vouched().is_err()
            || !keeps_all(&apart.ledger, &self.ledger, self.me)
        {
            self.give_up_apart(now, Why::NothingNew);
            return false;
        }
        let Some(apart) = self.apart.take() else { return false };
        let known: BTreeSet<_> = self.ledger.pages().map(|page| page.hash()).collect();
        let fresh: Vec<_> = apart.ledger.in_order();
        let fresh: Vec<_> =
            fresh.into_iter().filter(|block| self.ledger.get(&block.id()).is_none()).collect();
        self.ledger.take_over(apart.ledger);
        let pages =
            self.ledger.pages().map(|page| page.hash()).filter(|page| !known.contains(page)).collect();
        self.effects.push_back(Effect::PersistPages(pages, fresh.clone()));
        self.came_in(now, &fresh);
        self.sync.hurry(now);
        true
    }
}
