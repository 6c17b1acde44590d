//! The store failed: what this node says from then on, and what it takes back.
//!
//! fsync-gate (Rebello et al., 2020): after a failed sync nothing is known of what was written, so this process
//! acknowledges nothing any more. Own blocks that were not durable by then never left this node, because
//! everything behind a `Persist` waits for it; their requests are refused, so the blocks are forgotten, and
//! neither view, digest nor any frame knows them. The disk may have kept them: then the next start has them.
//! Calls go on.

use std::collections::BTreeSet;

use osiris_ledger::BlockId;
use osiris_mesh::proto::sync::{Frame, described};

use super::{Effect, Node, Refusal};

impl Node {
    pub(super) fn store_failed(&mut self, why: &str, lost: Vec<BlockId>) {
        self.read_only.get_or_insert_with(|| why.to_owned());
        self.apart = None;
        let own = self.writer.chain();
        let is_own = |id: &BlockId| self.ledger.get(id).is_some_and(|block| block.chain() == own);
        // What others wrote stays in memory: it is valid, and they hold it.
        let lost: BTreeSet<_> = lost.into_iter().filter(is_own).collect();
        for waiting in std::mem::take(&mut self.waiting) {
            let refusal = match waiting.block {
                Some(_) => Refusal::in_doubt(why),
                None => Refusal::storage(why),
            };
            self.effects.push_back(Effect::Reply(waiting.token, Err(refusal)));
        }
        if !lost.is_empty() {
            self.unseen.retain(|id| !lost.contains(id));
            self.ledger.forget(&lost);
            self.publish();
        }
    }

    /// What may still be said. A digest and a receipt confirm that blocks are durable here, and those of others
    /// need not be: so what asks, a vector or hashes, goes out in place of a digest.
    pub(super) fn without_promises(&mut self, frame: &Frame) -> Option<Frame> {
        match frame {
            Frame::Receipt(_) => None,
            Frame::Digest(_) => Some(described(&mut self.ledger)),
            other => Some(other.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{BlobHash, Now, Session, World, Writer};
    use osiris_mesh::PeerId;

    use super::*;
    use crate::node::{
        Config, Input, Outbox, Reply, Request, Step,
        sample::{author, founded, key},
    };

    /// A core whose effects go through an outbox, as they do in a process.
    struct Running {
        node: Node,
        outbox: Outbox,
        groups: Vec<u64>,
        performed: Vec<Effect>,
    }

    impl Running {
        fn new() -> Self {
            let (founder, mut ledger) = founded(Now::default());
            ledger.publish();
            drop(founder);
            let writer = Writer::new(key(1), Session([2; 16]));
            let config = Config {
                serves: false,
                seed: 1,
                confirmed: Vec::new(),
                idle_work: false,
                pages: crate::node::PageRules::default(),
            };
            let node = Node::new(Now::default(), &config, ledger, writer);
            Self { node, outbox: Outbox::default(), groups: Vec::new(), performed: Vec::new() }
        }

        fn handle(&mut self, input: Input) {
            self.node.handle(Now::default(), input);
            while let Some(effect) = self.node.poll_effect() {
                match self.outbox.push(effect) {
                    Some(Step::Write(group)) => self.groups.push(group.number),
                    Some(Step::Perform(effect)) => self.performed.push(effect),
                    None => {}
                }
            }
        }

        fn deploy(&mut self, token: u64, name: &str) {
            self.handle(Input::Request(
                token,
                Request::Deploy {
                    component: BlobHash([1; 32]),
                    size: 1,
                    world: World::Http,
                    manifest: (BlobHash([2; 32]), 1),
                    name: name.to_owned(),
                    timeout_ms: 0,
                    live: false,
                },
            ));
        }

        fn durable(&mut self) {
            let last = *self.groups.last().expect("a group");
            let freed = self.outbox.durable(last);
            self.performed.extend(freed);
        }

        fn fail(&mut self) {
            let left = self.outbox.fail("the disk is gone");
            self.performed.extend(left);
            let lost = self.outbox.core_told();
            self.handle(Input::StoreFailed("the disk is gone".to_owned(), lost));
        }

        fn answer(&self, token: u64) -> Option<&Result<Reply, Refusal>> {
            self.performed.iter().find_map(|effect| match effect {
                Effect::Reply(of, answer) if *of == token => Some(answer),
                _ => None,
            })
        }
    }

    #[test]
    fn what_was_refused_because_the_store_failed_is_shown_nowhere_and_goes_nowhere() {
        let mut running = Running::new();
        running.deploy(1, "kept");
        running.durable();
        assert!(matches!(running.answer(1), Some(Ok(_))));
        let before = (running.node.view().hash(), running.node.digest());
        let heads = running.node.document_heads();
        running.deploy(2, "lost");
        running.deploy(3, "lost-too");
        assert_ne!(running.node.digest(), before.1, "it was in memory");
        running.fail();
        for token in [2, 3] {
            assert!(
                matches!(running.answer(token), Some(Err(refusal)) if refusal.message.contains("next start"))
            );
        }
        assert_eq!((running.node.view().hash(), running.node.digest()), before);
        assert_eq!(running.node.document_heads(), heads);
        assert!(running.node.view().function("lost").is_none());
        assert_eq!(running.node.ledger().blocks_by(author(1)).count(), 2, "the founding and what is durable");
        assert_eq!(running.node.held().unseen, 2);

        // A member that holds nothing gets what is durable, and no word of the rest.
        running.performed.clear();
        let peer = PeerId::from_bytes(author(9).0);
        running.handle(Input::PeerUp(peer));
        let nothing =
            Frame::Vector(false, osiris_ledger::Ledger::new(running.node.ledger().fleet()).vector(false));
        running.handle(Input::Frame(peer, nothing.encode()));
        let sent: Vec<_> = running
            .performed
            .iter()
            .filter_map(|effect| match effect {
                Effect::Send(_, frame) => Some(Frame::decode(frame).expect("sound")),
                _ => None,
            })
            .collect();
        assert!(sent.iter().all(|frame| !matches!(frame, Frame::Digest(_) | Frame::Receipt(_))), "{sent:?}");
        let blocks = sent.iter().filter_map(|frame| match frame {
            Frame::Blocks(entries, _) => Some(entries.len()),
            _ => None,
        });
        assert_eq!(blocks.sum::<usize>() as u64, running.node.ledger().len());
        running.deploy(4, "later");
        assert!(
            matches!(running.answer(4), Some(Err(refusal)) if refusal.message.contains("no more writes"))
        );
    }
}
