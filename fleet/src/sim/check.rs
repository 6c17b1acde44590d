//! The promises, checked while a run goes on.

use std::collections::{BTreeMap, BTreeSet};

use osiris_ledger::{Author, Block, BlockId, Session, View};

use super::{queue::NodeId, report::VIOLATIONS_MAX};

/// What honest nodes did, and what must never be.
#[derive(Debug, Default)]
pub(super) struct Checker {
    honest: BTreeMap<Author, NodeId>,
    /// Every block that an honest core made, and whether it was ever durable where it was made.
    log: BTreeMap<BlockId, bool>,
    /// What hostile members made and no node may take in.
    forbidden: BTreeMap<BlockId, &'static str>,
    /// The view's hash of a set of blocks, by their digest, and who had it first.
    views: BTreeMap<[u8; 32], ([u8; 32], NodeId)>,
    pub(super) compared: u64,
    pub(super) violations: Vec<String>,
    pub(super) violated: u64,
}

impl Checker {
    pub(super) fn honest(&mut self, author: Author, node: NodeId) {
        self.honest.insert(author, node);
    }

    /// Notes a broken promise.
    pub(super) fn violated(&mut self, at: u64, what: std::fmt::Arguments<'_>) {
        self.violated += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(format!("At {at} ms {what}."));
        }
    }

    /// Blocks in the signing log.
    pub(super) fn written(&self) -> u64 {
        self.log.len() as u64
    }

    /// An honest device made a block. Returns whether it is durable there for the first time.
    pub(super) fn made(&mut self, id: BlockId, durable: bool) -> bool {
        let known = self.log.entry(id).or_default();
        let fresh = durable && !*known;
        *known |= durable;
        fresh
    }

    /// Whether an honest device's block was ever durable where it was made.
    pub(super) fn was_durable(&self, id: &BlockId) -> bool {
        self.log.get(id).copied().unwrap_or(false)
    }

    /// A hostile member made bytes that are no valid block.
    pub(super) fn forged(&mut self, entry: &[u8], how: &'static str) {
        self.forbidden.insert(Block::id_of(entry), how);
    }

    /// A node took a block in. `session` is that of its own running process.
    pub(super) fn admitted(&mut self, at: u64, node: NodeId, me: Author, session: Session, block: &Block) {
        let id = block.id();
        if let Some(how) = self.forbidden.get(&id) {
            let how = *how;
            self.violated(
                at,
                format_args!("node {node} took in block {}, which is forged: {how}", id.short()),
            );
        }
        let chain = block.chain();
        if chain.author == me && chain.session == session {
            self.made(id, false);
            return;
        }
        let Some(author) = self.honest.get(&chain.author).copied() else { return };
        match self.log.get(&id) {
            Some(true) => {}
            Some(false) => self.violated(
                at,
                format_args!(
                    "node {node} took in block {} of node {author}, which was never durable there",
                    id.short()
                ),
            ),
            None => self.violated(
                at,
                format_args!(
                    "node {node} took in block {} in the name of node {author}, which never made it",
                    id.short()
                ),
            ),
        }
    }

    /// A node published a view of a set of blocks.
    pub(super) fn published(&mut self, at: u64, node: NodeId, digest: [u8; 32], view: &View) {
        for fork in view.forks() {
            if let Some(author) = self.honest.get(&fork.author).copied() {
                self.violated(at, format_args!("node {node} holds a fork by the honest node {author}"));
            }
        }
        let hash = view.hash();
        match self.views.get(&digest).copied() {
            None => {
                self.views.insert(digest, (hash, node));
            }
            Some((known, first)) if first != node => {
                self.compared += 1;
                if known != hash {
                    self.violated(
                        at,
                        format_args!("nodes {first} and {node} hold equal blocks and have unequal views"),
                    );
                }
            }
            Some((known, _)) if known != hash => {
                self.violated(at, format_args!("node {node} made two views of the same blocks"));
            }
            Some(_) => {}
        }
    }

    /// A node starts with what its journal holds; what it had promised must be there.
    pub(super) fn recovered(
        &mut self,
        at: u64,
        node: NodeId,
        promised: &BTreeSet<BlockId>,
        holds: impl Fn(&BlockId) -> bool,
    ) {
        for id in promised.iter().filter(|id| !holds(id)) {
            self.violated(
                at,
                format_args!(
                    "node {node} recovered without its block {}, which had left it or was acknowledged",
                    id.short()
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unequal_view_of_equal_blocks_is_a_violation() {
        let mut checker = Checker::default();
        let view = View::default();
        checker.published(1, 0, [1; 32], &view);
        checker.published(2, 1, [1; 32], &view);
        assert_eq!((checker.compared, checker.violated), (1, 0));
        checker.views.insert([2; 32], ([9; 32], 0));
        checker.published(3, 1, [2; 32], &view);
        assert_eq!((checker.compared, checker.violated), (2, 1));
    }

    #[test]
    fn a_promise_that_is_not_in_the_journal_is_a_violation() {
        let mut checker = Checker::default();
        let promised = BTreeSet::from([BlockId([1; 32]), BlockId([2; 32])]);
        checker.recovered(1, 0, &promised, |id| *id == BlockId([1; 32]));
        assert_eq!(checker.violated, 1);
    }
}
