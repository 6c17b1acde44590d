//! Which own blocks another member has confirmed, and the note that outlasts a restart.
//!
//! Whoever holds a block holds all blocks before it in its chain. So a note of the last confirmed blocks of the own
//! chains says all; one for each session that wrote something. Nothing in the ledger rests on it: without the note,
//! blocks count as unseen until the next agreement.

use std::collections::BTreeSet;

use osiris_ledger::{Author, BlobHash, BlockId, Ledger};

use super::Node;

/// Own blocks that the note does not cover.
pub(super) fn unseen(ledger: &Ledger, me: Author, note: &[BlockId]) -> BTreeSet<BlockId> {
    let mut unseen: BTreeSet<_> = ledger.held_by(me).map(|block| block.id()).collect();
    for noted in note {
        let mut id = *noted;
        // Where it was removed already, so were those before it.
        while unseen.remove(&id) {
            id = ledger.held(&id).map_or(BlockId::ZERO, |block| block.prev());
        }
    }
    unseen
}

impl Node {
    /// Components and manifests of revisions that this device deployed, that still matter, and that no other member is
    /// known to have: nobody else serves them, or nobody has confirmed their block. Component first.
    #[must_use]
    pub fn lonely_artifacts(&self) -> Vec<BlobHash> {
        let functions = self.view.functions().values().filter(|function| !function.removed);
        let current = functions.flat_map(|function| function.live.iter().chain(&function.newest));
        let lonely = current.filter(|revision| {
            let served = revision.serving.iter().any(|serving| serving.device != self.me);
            revision.by == self.me && (!served || self.unseen.contains(&revision.id))
        });
        let mut known = BTreeSet::new();
        let artifacts = lonely.flat_map(|revision| [revision.component, revision.manifest]);
        artifacts.filter(|artifact| known.insert(*artifact)).collect()
    }

    /// Own blocks that no other member confirmed.
    #[must_use]
    pub fn unseen(&self) -> Vec<BlockId> {
        self.unseen.iter().copied().collect()
    }

    /// Those of these blocks that do not count.
    pub fn void_among(&self, blocks: &[BlockId]) -> impl Iterator<Item = BlockId> {
        let held = blocks.iter().filter_map(|id| self.ledger.held(id));
        held.filter(|block| self.ledger.why_void(*block).is_some()).map(|block| block.id())
    }

    /// The last own blocks that another member confirmed, one for each end of a chain, in ascending order.
    /// Kept, and given to [`super::Config`] at the next start.
    #[must_use]
    pub fn confirmed(&self) -> Vec<BlockId> {
        let confirmed = || self.ledger.held_by(self.me).filter(|block| !self.unseen.contains(&block.id()));
        let followed: BTreeSet<_> = confirmed().map(|block| block.prev()).collect();
        let mut ends: Vec<_> =
            confirmed().map(|block| block.id()).filter(|id| !followed.contains(id)).collect();
        ends.sort_unstable();
        ends
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Now, Payload, Roles, Session, Writer, op};
    use osiris_mesh::{PeerId, proto::sync::Frame};

    use super::*;
    use crate::node::{
        Config, Input,
        sample::{author, founded, key},
    };

    fn restarted(ledger: &Ledger, confirmed: Vec<BlockId>) -> Node {
        let mut replica = Ledger::new(ledger.fleet());
        for block in ledger.in_order() {
            replica.replay(block.entry()).expect("valid");
        }
        let config = Config {
            serves: false,
            seed: 1,
            confirmed,
            idle_work: false,
            pages: crate::node::PageRules::default(),
        };
        Node::new(Now::default(), &config, replica, Writer::new(key(1), Session([7; 16])))
    }

    fn invite(seed: u8) -> Payload {
        let (key, note) = (author(seed), String::new());
        Payload::Invited(op::Invited { key, uses: 1, roles: Roles::NODE, device: None, note })
    }

    #[test]
    fn who_gave_all_that_was_missing_is_known_to_hold_the_rest() {
        let (mut first, mut ledger) = founded(Now::default());
        let mut node = restarted(&ledger, Vec::new());
        let missing = first.append(&mut ledger, Now::default(), invite(50)).expect("allowed");
        let peer = PeerId::from_bytes(author(9).0);
        let mut handle = |input| {
            node.handle(Now::default(), input);
            while node.poll_effect().is_some() {}
            node.unseen.len()
        };
        handle(Input::PeerUp(peer));
        let digest = Frame::Digest(ledger.digest().to_vec().into());
        assert_ne!(handle(Input::Frame(peer, digest.encode())), 0, "it holds something else");
        let blocks = Frame::Blocks(vec![missing.entry().to_vec().into()], false);
        assert_eq!(handle(Input::Frame(peer, blocks.encode())), 0, "before its next digest");
    }

    #[test]
    fn a_start_counts_as_unseen_what_the_note_does_not_cover_and_no_more() {
        let (mut first, mut ledger) = founded(Now::default());
        let mut blocks = Vec::new();
        for seed in 50..53 {
            blocks.push(first.append(&mut ledger, Now::default(), invite(seed)).expect("allowed").id());
        }
        let mut second = Writer::new(key(1), Session([2; 16]));
        for seed in 60..62 {
            blocks.push(second.append(&mut ledger, Now::default(), invite(seed)).expect("allowed").id());
        }
        let all = ledger.blocks_by(author(1)).count();
        assert_eq!(restarted(&ledger, Vec::new()).unseen.len(), all, "without a note");
        // The middle of the first session and the first block of the second are confirmed.
        let mut node = restarted(&ledger, vec![blocks[1], blocks[3]]);
        assert_eq!(node.unseen, [blocks[2], blocks[4]].into());
        // It meets nobody and starts again, any number of times.
        for _ in 0..2 {
            node = restarted(&ledger, node.confirmed());
            assert_eq!(node.unseen, [blocks[2], blocks[4]].into());
        }
        // A note of a block that was lost says nothing of others.
        let node = restarted(&ledger, vec![BlockId([9; 32])]);
        assert_eq!((node.unseen.len(), node.confirmed()), (all, Vec::new()));
    }
}
