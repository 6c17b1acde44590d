//! Payloads that many blocks share.
//!
//! Of a deploy every node says that it serves it, and later that it does not. These are nearly all blocks of a
//! ledger, and all of one revision say the same, so they can hold it together.

use std::{collections::BTreeMap, sync::Arc};

use crate::{block::Block, id::BlockId, op::Payload};

/// What was last said of each revision. Revisions are blocks that stay, so it grows no faster than these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    by_revision: BTreeMap<BlockId, About>,
}

#[derive(Clone, Debug, Default)]
struct About {
    serving: Option<Arc<Payload>>,
    stopped: Option<Arc<Payload>>,
}

impl Said {
    /// Lets a block share its payload with the last one that said the same. One that others hold already, because
    /// ledgers share a memo, stays as it is.
    pub(crate) fn share(&mut self, block: &mut Arc<Block>) {
        let Some(block) = Arc::get_mut(block) else { return };
        let last = match block.payload() {
            Payload::Serving(op) => &mut self.by_revision.entry(op.revision).or_default().serving,
            Payload::Stopped(op) => &mut self.by_revision.entry(op.revision).or_default().stopped,
            _ => return,
        };
        match last {
            Some(last) if **last == *block.payload() => block.share_payload(last),
            _ => *last = Some(Arc::clone(block.payload_shared())),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        id::{Author, Session},
        ledger::Ledger,
        op::{self, Payload, World},
        time::Now,
        write::{Founding, Writer},
    };
    use ed25519_dalek::SigningKey;
    use std::sync::Arc;

    #[test]
    fn blocks_that_say_the_same_hold_it_once() {
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        let mut writer = Writer::new(key(1), Session([1; 16]));
        let recovery = Author(key(3).verifying_key().to_bytes());
        let (name, label) = ("fleet".to_owned(), "node".to_owned());
        let founding = Founding { name, label, admin: &key(2), recovery, nonce: Session::ZERO };
        let (mut ledger, _) = writer.found(Now::default(), founding).expect("founded");
        let deployed = op::Deployed {
            name: "web".to_owned(),
            component: crate::BlobHash([1; 32]),
            size: 1,
            world: World::Http,
            manifest: crate::BlobHash([2; 32]),
            manifest_size: 1,
            replaces: Vec::new(),
        };
        let mut append =
            |ledger: &mut Ledger, payload| writer.append(ledger, Now::default(), payload).expect("allowed");
        let revision = append(&mut ledger, Payload::Deployed(deployed)).id();
        let stopped = Payload::Stopped(op::Stopped { revision });
        let said = [4, 4, 5, 4].map(|concurrency| {
            append(&mut ledger, stopped.clone());
            append(&mut ledger, Payload::Serving(op::Serving { revision, concurrency }))
        });
        let mut replayed = Ledger::new(ledger.fleet());
        for block in ledger.in_order() {
            replayed.replay(block.entry()).expect("valid");
        }
        for held in [&ledger, &replayed] {
            let said = said.each_ref().map(|block| held.get(&block.id()).expect("admitted"));
            let same = |a: usize, b: usize| Arc::ptr_eq(said[a].payload_shared(), said[b].payload_shared());
            assert!(same(0, 1) && !same(1, 2) && !same(2, 3), "with the last that said the same");
            assert_eq!(
                [4, 4, 5, 4].map(|c| Payload::Serving(op::Serving { revision, concurrency: c })),
                said.map(|block| block.payload().clone())
            );
        }
    }
}
