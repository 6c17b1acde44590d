//! Checking signatures that replay took on trust, in slices.

use std::ops::Bound::{Excluded, Unbounded};

use super::Ledger;
use crate::{id::BlockId, op};

/// What one slice of [`Ledger::check_signatures`] came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Where the next slice goes on; none where this was the last.
    pub last: Option<BlockId>,
    /// Blocks that were looked at.
    pub checked: u64,
    /// Those whose signature is wrong.
    pub forged: Vec<BlockId>,
}

impl Ledger {
    /// Checks the signatures of the first `count` admitted blocks whose ids are above `after`: those that
    /// [`Ledger::replay`] took from the journal were checked when they came in, and the journal could have been
    /// changed since then by somebody who knows its format.
    #[must_use]
    pub fn check_signatures(&self, after: Option<BlockId>, count: usize) -> Checked {
        let from = after.map_or(Unbounded, Excluded);
        let mut done = Checked::default();
        for (id, block) in self.blocks.range((from, Unbounded)).take(count) {
            let key =
                self.keys.get(&block.author()).map(|key| **key).or_else(|| op::usable_key(&block.author()));
            if key.is_none_or(|key| block.verify(&self.fleet, &key).is_err()) {
                done.forged.push(*id);
            }
            done.checked += 1;
            done.last = Some(*id);
        }
        if done.checked < count as u64 {
            done.last = None;
        }
        done
    }
}
