//! A node's disk: what was handed to it, and what of that a crash leaves.

use std::sync::Arc;

use osiris_ledger::Block;

use super::random::Random;

/// What a start found.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovery {
    /// Whether the last record was cut short.
    pub(super) torn: bool,
    /// Records that were written and not synced, and are gone.
    pub(super) lost: usize,
    /// Records that were durable and are gone: damage, or an older copy of the disk.
    pub(super) missing: usize,
    /// Whether a record is unreadable.
    pub(super) damaged: bool,
}

/// The journal of one node.
#[derive(Debug, Default)]
pub(super) struct Journal {
    records: Vec<Arc<Block>>,
    /// Records that survive a crash.
    durable: usize,
    /// An older copy of the disk: so many records.
    copy: usize,
    found: Recovery,
}

impl Journal {
    /// A journal that holds these blocks, durably.
    pub(super) fn with(blocks: &[Arc<Block>]) -> Self {
        Self { records: blocks.to_vec(), durable: blocks.len(), ..Self::default() }
    }

    /// Writes; durable after the next [`Journal::sync`].
    pub(super) fn write(&mut self, blocks: &[Arc<Block>]) {
        self.records.extend(blocks.iter().cloned());
    }

    /// What was written is durable. Returns the records that became so.
    pub(super) fn sync(&mut self) -> &[Arc<Block>] {
        let before = std::mem::replace(&mut self.durable, self.records.len());
        &self.records[before..]
    }

    /// The power goes: of what was not synced a part may be there, its last record cut short.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let volatile = (self.records.len() - self.durable) as u64;
        let kept = usize::try_from(random.below(volatile + 1)).expect("an index fits");
        let lost = usize::try_from(volatile).expect("an index fits") - kept;
        self.records.truncate(self.durable + kept);
        self.durable = self.records.len();
        self.copy = self.copy.min(self.durable);
        self.found.torn |= lost > 0 && random.chance(500);
        self.found.lost += lost;
    }

    /// Keeps a copy of the disk as it is.
    pub(super) fn back_up(&mut self) {
        self.copy = self.durable;
    }

    /// Puts the last copy in the disk's place.
    pub(super) fn restore(&mut self) {
        self.found.missing += self.records.len() - self.copy;
        self.records.truncate(self.copy);
        self.durable = self.records.len();
    }

    /// One durable record in the middle is unreadable.
    pub(super) fn damage(&mut self, random: &mut Random) {
        let inner = self.records.len().saturating_sub(2) as u64;
        if inner > 0 {
            // The first record is the fleet's genesis; a folder without it is not opened.
            let at = 1 + usize::try_from(random.below(inner)).expect("an index fits");
            self.records.remove(at);
            self.durable = self.records.len();
            self.copy = self.copy.min(self.durable);
            self.found.missing += 1;
            self.found.damaged = true;
        }
    }

    /// What a start finds, in the order of writing.
    pub(super) fn recover(&mut self) -> (Vec<Arc<Block>>, Recovery) {
        (self.records.clone(), std::mem::take(&mut self.found))
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Author, Founding, Now, Session, SigningKey, Writer};

    use super::*;

    fn block() -> Arc<Block> {
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut writer = Writer::new(key, Session([1; 16]));
        let admin = SigningKey::from_bytes(&[2; 32]);
        let recovery = Author(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes());
        let founding = Founding {
            name: "f".to_owned(),
            label: "n".to_owned(),
            admin: &admin,
            recovery,
            nonce: Session::ZERO,
        };
        writer.found(Now::default(), founding).expect("a valid founding").1
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_lose_the_rest() {
        let block = block();
        let mut losses = 0;
        for seed in 0..50 {
            let mut random = Random::new(seed, 0);
            let mut journal = Journal::with(&[Arc::clone(&block)]);
            journal.write(&[Arc::clone(&block), Arc::clone(&block)]);
            journal.sync();
            journal.write(&[Arc::clone(&block), Arc::clone(&block)]);
            journal.crash(&mut random);
            let (records, found) = journal.recover();
            assert!((3..=5).contains(&records.len()));
            assert_eq!(found.lost, 5 - records.len());
            losses += found.lost;
        }
        assert!(losses > 0);
    }

    #[test]
    fn a_restored_copy_is_what_was_there() {
        let block = block();
        let mut journal = Journal::with(&[Arc::clone(&block)]);
        journal.back_up();
        journal.write(&[block]);
        journal.sync();
        journal.restore();
        let (records, found) = journal.recover();
        assert_eq!((records.len(), found.missing), (1, 1));
    }
}
