//! How a fleet begins: all members hold the same first blocks.

use std::{collections::BTreeMap, sync::Arc};

use osiris_ledger::{Author, Block, FleetId, Ledger, Memo, Page};

use crate::node::Orders;

use super::{
    journal::{First, Held},
    options::Options,
};

/// The blocks that all hold from the start.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) blocks: First,
    by_author: BTreeMap<Author, Vec<Arc<Block>>>,
    fleet: FleetId,
    /// A ledger of them that others are forked from, where nodes share what they know.
    ledger: Option<Ledger>,
    /// Whether the nodes that are compared work out by themselves what they know.
    samples_alone: bool,
    orders: Orders,
}

impl Beginning {
    pub(super) fn new(options: &Options, fleet: FleetId, blocks: Vec<Arc<Block>>) -> Self {
        let ledger = options.shares_memo().then(|| {
            let mut ledger = Ledger::sharing(Memo::new(fleet));
            if !options.owns_everything() {
                ledger.leave_out_document();
            }
            // All start from these, out of their own journals, whose blocks nobody checks and notes.
            let known = ledger.admit_all(&blocks.iter().map(|block| block.entry()).collect::<Vec<_>>());
            assert!(known.iter().all(Result::is_ok), "the fleet's first blocks are valid");
            ledger.freeze();
            ledger
        });
        let mut by_author: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for block in &blocks {
            by_author.entry(block.author()).or_default().push(Arc::clone(block));
        }
        let samples_alone = !options.owns_everything();
        Self { blocks: blocks.into(), by_author, fleet, ledger, samples_alone, orders: Orders::default() }
    }

    /// The first blocks of an author.
    pub(super) fn by(&self, author: Author) -> impl Iterator<Item = &Arc<Block>> {
        self.by_author.get(&author).into_iter().flatten()
    }

    /// The blocks of an author that a disk holds. Nearly all are first ones, and not each node looks through these.
    pub(super) fn written<'a>(
        &'a self,
        held: &'a Held,
        author: Author,
    ) -> impl Iterator<Item = &'a Arc<Block>> {
        let shares = Arc::ptr_eq(&held.first, &self.blocks);
        let first = shares.then(|| self.by(author)).into_iter().flatten();
        first.chain(
            held.all()
                .skip(if shares { held.first.len() } else { 0 })
                .filter(move |block| block.author() == author),
        )
    }

    /// A ledger that holds the first blocks, where nodes share them; else an empty one.
    pub(super) fn ledger(&self) -> Ledger {
        self.ledger.as_ref().map_or_else(|| Ledger::new(self.fleet), Ledger::fork)
    }

    /// Where a node finds the orders of members that others worked out; none: it works them out by itself.
    pub(super) fn orders(&self, sampled: bool) -> Option<Orders> {
        let shares = self.ledger.is_some() && !(sampled && self.samples_alone);
        shares.then(|| self.orders.clone())
    }

    /// An empty ledger.
    fn empty(&self) -> Ledger {
        let memo = self.ledger.as_ref().and_then(Ledger::memo).cloned();
        memo.map_or_else(|| Ledger::new(self.fleet), Ledger::sharing)
    }

    /// The ledger of a node that starts with these records and pages, and how many of its blocks were refused. Where a
    /// journal begins with all the first blocks, the replay of these is shared.
    pub(super) fn replayed<'a>(
        &self,
        held: &Held,
        pages: impl Iterator<Item = &'a Arc<Page>>,
        sampled: bool,
    ) -> (Ledger, u64) {
        let alone = sampled && self.samples_alone;
        let shares = !alone && !self.blocks.is_empty() && Arc::ptr_eq(&held.first, &self.blocks);
        let forked = self.ledger.as_ref().filter(|_| shares).map(Ledger::fork);
        let skipped = if forked.is_some() { held.first.len() } else { 0 };
        let mut ledger = forked.unwrap_or_else(|| self.empty());
        if alone {
            ledger.derive_alone();
        }
        if !sampled {
            ledger.leave_out_document();
        }
        pages.for_each(|page| ledger.offer(page));
        let mut refused = 0;
        for block in held.all().skip(skipped) {
            refused += u64::from(ledger.replay(block.entry()).is_err());
        }
        ledger.take_offered();
        ledger.publish();
        (ledger, refused)
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Roles, Session, SigningKey};

    use super::*;
    use crate::sim::payload::{self, Initial, public};

    /// How a fleet of three begins.
    fn beginning(options: &Options) -> Beginning {
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        let others = [5, 6].map(|n| Initial { author: public(&key(n)), roles: Roles::NODE });
        let (ledger, blocks) =
            payload::found(&key(1), Session([1; 16]), Session::ZERO, &others, (None, None));
        Beginning::new(options, ledger.fleet(), blocks)
    }

    fn started(beginning: &Beginning, first: &First, sampled: bool) -> Ledger {
        let blocks = beginning.blocks[first.len()..].to_vec();
        let held = Held { first: Arc::clone(first), blocks, pages: Vec::new() };
        let (ledger, refused) = beginning.replayed(&held, std::iter::empty(), sampled);
        assert_eq!(refused, 0);
        ledger
    }

    #[test]
    fn nodes_share_what_they_begin_with_save_those_that_are_compared_in_a_large_fleet() {
        let small = Options { memo: true, ..Options::healthy(1, 3) };
        for (options, samples_share) in [(small, true), (Options::healthy(1, 60), false)] {
            let beginning = beginning(&options);
            let mut one = started(&beginning, &beginning.blocks, false);
            let mut replayed = started(&beginning, &First::default(), false);
            let mut sampled = started(&beginning, &beginning.blocks, true);
            let (view, other) = (one.publish(), sampled.publish());
            assert!(Arc::ptr_eq(view.shared_members(), replayed.publish().shared_members()));
            assert_eq!(Arc::ptr_eq(view.shared_members(), other.shared_members()), samples_share);
            assert_eq!(beginning.orders(true).is_some(), samples_share);
            assert!(view.says_the_same(&other) && view.hash() == other.hash() && view.members().len() == 3);
            assert_eq!((one.digest(), replayed.digest()), (replayed.digest(), sampled.digest()));
            assert_eq!(sampled.document_heads().len(), 1, "what is compared has a document");
            assert_eq!(one.document_heads().len(), 0);
        }
    }

    #[test]
    fn without_a_memo_nothing_is_shared() {
        let beginning = beginning(&Options::healthy(1, 3));
        let mut one = started(&beginning, &beginning.blocks, true);
        let mut other = started(&beginning, &beginning.blocks, true);
        let (view, same) = (one.publish(), other.publish());
        assert!(!Arc::ptr_eq(view.shared_members(), same.shared_members()) && view.says_the_same(&same));
        assert!(beginning.orders(false).is_none() && beginning.ledger().is_empty());
    }
}
