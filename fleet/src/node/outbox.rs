//! The order in which effects are performed: what follows a `Persist` waits until it is durable.
//!
//! Who performs effects, on a real disk or a simulated one, asks here first, so that both keep to the
//! same rule: a block leaves this node, and a request is acknowledged, only after its fsync.

use std::{collections::VecDeque, sync::Arc};

use osiris_ledger::{BlobHash, Block, BlockId};

use super::{Effect, Refusal};

/// Blocks to be made durable together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number: 1, 2, 3 and so on.
    pub number: u64,
    /// The blocks.
    pub blocks: Vec<Arc<Block>>,
    /// Pages, durable already, by which further blocks are here.
    pub pages: Vec<BlobHash>,
    /// Whether the journal is written anew with these alone: then all of the blocks were given before.
    pub anew: bool,
}

/// What is to be done now.
#[derive(Debug)]
pub enum Step {
    /// Write and sync these blocks; [`Outbox::durable`] or [`Outbox::fail`] says what came of it.
    Write(Group),
    /// Perform this effect, which is never a `Persist`.
    Perform(Effect),
}

/// Effects on their way out of the core.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Groups handed to the journal, and the last one that is durable.
    written: u64,
    durable: u64,
    /// Effects behind a write, each with the group it waits for.
    held: VecDeque<(u64, Effect)>,
    /// Bytes of the frames among those.
    held_bytes: usize,
    /// Groups that are not durable yet.
    pending: VecDeque<Group>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    why: String,
    /// Whether the core has heard of it. What it decided before may rest on what was lost.
    told: bool,
}

impl Outbox {
    /// Takes the core's next effect. `None`: it waits for a group.
    pub fn push(&mut self, effect: Effect) -> Option<Step> {
        let (blocks, pages, anew) = match effect {
            Effect::Persist(blocks) => (blocks, Vec::new(), false),
            Effect::PersistPages(pages, blocks) => (blocks, pages, false),
            Effect::Compact(pages, blocks) => (blocks, pages, true),
            effect => return self.follow(effect),
        };
        let failed = match &self.failure {
            Some(failure) if failure.told => return None,
            failure => failure.is_some(),
        };
        let group = Group { number: self.written + 1, blocks, pages, anew };
        self.pending.push_back(group.clone());
        if failed {
            return None;
        }
        self.written += 1;
        Some(Step::Write(group))
    }

    /// Takes an effect that is no write.
    fn follow(&mut self, effect: Effect) -> Option<Step> {
        match &self.failure {
            Some(failure) if !failure.told => after_failure(effect, &failure.why).map(Step::Perform),
            _ if self.written > self.durable => {
                self.held_bytes += frame_bytes(&effect);
                self.held.push_back((self.written, effect));
                None
            }
            _ => Some(Step::Perform(effect)),
        }
    }

    /// A group is durable, and all before it. Returns what waited for it, in order.
    #[must_use]
    pub fn durable(&mut self, number: u64) -> Vec<Effect> {
        if self.failure.is_some() {
            return Vec::new();
        }
        self.durable = number;
        let durable = self.pending.partition_point(|group| group.number <= number);
        self.pending.drain(..durable);
        let ready = self.held.partition_point(|(group, _)| *group <= number);
        let freed: Vec<_> = self.held.drain(..ready).map(|(_, effect)| effect).collect();
        self.held_bytes -= freed.iter().map(frame_bytes).sum::<usize>();
        freed
    }

    /// The journal failed. Nothing is written any more; what waited for it must not happen, and its
    /// requests are refused. Returns what is left of it. The core has to be told next.
    #[must_use]
    pub fn fail(&mut self, why: &str) -> Vec<Effect> {
        self.durable = self.written;
        self.failure.get_or_insert_with(|| Failure { why: why.to_owned(), told: false });
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        held.into_iter().filter_map(|(_, effect)| after_failure(effect, why)).collect()
    }

    /// The core is about to be told of the failure: what it decides from here on takes it into account.
    /// Returns the blocks that it was not given as durable, for [`super::Input::StoreFailed`].
    #[must_use]
    pub fn core_told(&mut self) -> Vec<BlockId> {
        if let Some(failure) = &mut self.failure {
            failure.told = true;
        }
        let lost = std::mem::take(&mut self.pending).into_iter().filter(|group| !group.anew);
        let lost = lost.flat_map(|group| group.blocks);
        lost.map(|block| block.id()).collect()
    }

    /// Whether the journal failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Bytes of frames that wait for a write.
    #[must_use]
    pub fn frame_bytes_held(&self) -> usize {
        self.held_bytes
    }

    /// Groups that are being written or wait for it.
    #[must_use]
    pub fn groups_waiting(&self) -> u64 {
        self.written - self.durable
    }

    /// Whether a write is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.written > self.durable
    }
}

fn frame_bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Send(_, frame) | Effect::Hint(frame) | Effect::HintRow(frame) => frame.len(),
        _ => 0,
    }
}

/// What happens of an effect that was decided before the core knew of the failure.
fn after_failure(effect: Effect, why: &str) -> Option<Effect> {
    match effect {
        Effect::Reply(token, Ok(_)) => Some(Effect::Reply(token, Err(Refusal::in_doubt(why)))),
        Effect::Reply(..) => Some(effect),
        Effect::Published(_) => Some(effect),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::BlobHash;

    use super::*;

    fn hint(n: u8) -> Effect {
        Effect::Hint(vec![n])
    }

    fn is_hint(effect: &Effect, n: u8) -> bool {
        matches!(effect, Effect::Hint(bytes) if *bytes == [n])
    }

    fn write(outbox: &mut Outbox) -> u64 {
        match outbox.push(Effect::Persist(Vec::new())) {
            Some(Step::Write(group)) => group.number,
            other => panic!("a write, not {other:?}"),
        }
    }

    #[test]
    fn what_follows_a_write_waits_for_that_write_and_no_other() {
        let mut outbox = Outbox::default();
        assert!(matches!(outbox.push(hint(0)), Some(Step::Perform(_))));
        let first = write(&mut outbox);
        assert!(outbox.push(hint(1)).is_none());
        let second = write(&mut outbox);
        assert!(outbox.push(hint(2)).is_none());
        let freed = outbox.durable(first);
        assert!(freed.len() == 1 && is_hint(&freed[0], 1));
        assert!(outbox.is_waiting());
        assert_eq!((outbox.frame_bytes_held(), outbox.groups_waiting()), (1, 1));
        assert!(outbox.push(hint(3)).is_none(), "the second write is still under way");
        let freed = outbox.durable(second);
        assert!(freed.len() == 2 && is_hint(&freed[0], 2) && is_hint(&freed[1], 3));
        assert!(matches!(outbox.push(hint(4)), Some(Step::Perform(_))));
    }

    #[test]
    fn after_a_failure_nothing_leaves_that_rested_on_the_lost_write() {
        let mut outbox = Outbox::default();
        write(&mut outbox);
        outbox.push(hint(1));
        outbox.push(Effect::Reply(7, Ok(super::super::Reply::Drained { stopped: 0, left: Vec::new() })));
        let left = outbox.fail("the disk is full");
        assert!(matches!(left.as_slice(), [Effect::Reply(7, Err(_))]), "{left:?}");
        assert!(outbox.push(hint(2)).is_none(), "decided before the core knew");
        assert!(outbox.push(Effect::Persist(Vec::new())).is_none());
        assert!(outbox.core_told().is_empty(), "the groups were empty");
        assert!(matches!(outbox.push(hint(3)), Some(Step::Perform(_))));
        assert!(matches!(outbox.push(Effect::ReadManifest(BlobHash::ZERO)), Some(Step::Perform(_))));
        assert!(outbox.push(Effect::Persist(Vec::new())).is_none(), "nothing is written any more");
        assert!(outbox.durable(1).is_empty());
    }
}
