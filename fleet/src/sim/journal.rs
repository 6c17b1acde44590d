//! A node's disk: what was handed to it, and what of that a crash leaves.

use std::{collections::BTreeSet, sync::Arc};

use osiris_ledger::{BlobHash, Block};

use super::random::Random;
use crate::node::Group;

/// What a disk holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// Blocks with which the journal begins, and which journals share: the fleet's first.
    pub(super) first: First,
    /// The blocks behind them, in the order of writing.
    pub(super) blocks: Vec<Arc<Block>>,
    /// Pages by which others are here.
    pub(super) pages: Vec<BlobHash>,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.blocks.len()
    }

    /// All blocks.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.first.iter().chain(&self.blocks)
    }
}

/// Blocks that several journals begin with.
pub(super) type First = Arc<[Arc<Block>]>;

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

/// A record.
#[derive(Clone, Debug)]
enum Record {
    Block(Arc<Block>),
    Page(BlobHash),
}

/// The journal of one node.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Durable, and before all records.
    first: First,
    records: Vec<Record>,
    /// Records that survive a crash.
    durable: usize,
    /// The journal that takes this one's place with the next sync.
    anew: Option<Vec<Record>>,
    /// An older copy of the disk.
    copy: (First, Vec<Record>),
    found: Recovery,
}

fn blocks(records: &[Record]) -> impl Iterator<Item = Arc<Block>> + '_ {
    records.iter().filter_map(|record| match record {
        Record::Block(block) => Some(Arc::clone(block)),
        Record::Page(_) => None,
    })
}

impl Journal {
    /// A journal that holds these blocks, durably.
    pub(super) fn with(blocks: &First) -> Self {
        Self { first: Arc::clone(blocks), ..Self::default() }
    }

    /// All blocks, in the order of writing.
    fn blocks(&self) -> impl Iterator<Item = Arc<Block>> + '_ {
        self.first.iter().cloned().chain(blocks(&self.records))
    }

    /// Another journal takes this one's place. What both begin with stays shared.
    fn replace(&mut self, mut anew: Vec<Record>) {
        let same = |(record, first): (&Record, &Arc<Block>)| match record {
            Record::Block(block) => block.id() == first.id(),
            Record::Page(_) => false,
        };
        match anew.len() >= self.first.len() && anew.iter().zip(&*self.first).all(same) {
            true => drop(anew.drain(..self.first.len())),
            false => self.first = First::default(),
        }
        self.records = anew;
        self.durable = self.records.len();
    }

    /// Writes; durable after the next [`Journal::sync`].
    pub(super) fn write(&mut self, group: &Group) {
        let new = group.blocks.iter().cloned().map(Record::Block);
        let new = new.chain(group.pages.iter().copied().map(Record::Page));
        match (&mut self.anew, group.anew) {
            (_, true) => self.anew = Some(new.collect()),
            (Some(anew), false) => anew.extend(new),
            (None, false) => self.records.extend(new),
        }
    }

    /// What was written is durable. Returns the blocks that became so, and others with them.
    pub(super) fn sync(&mut self) -> Vec<Arc<Block>> {
        if let Some(anew) = self.anew.take() {
            self.replace(anew);
            return self.blocks().collect();
        }
        let before = std::mem::replace(&mut self.durable, self.records.len());
        blocks(&self.records[before..]).collect()
    }

    /// The power goes: of what was not synced a part may be there, its last record cut short. Of a journal that
    /// takes another's place there is all or nothing.
    pub(super) fn crash(&mut self, random: &mut Random) {
        if let Some(anew) = self.anew.take()
            && random.chance(500)
        {
            return self.replace(anew);
        }
        let volatile = (self.records.len() - self.durable) as u64;
        let kept = usize::try_from(random.below(volatile + 1)).expect("an index fits");
        let lost = usize::try_from(volatile).expect("an index fits") - kept;
        self.records.truncate(self.durable + kept);
        self.durable = self.records.len();
        self.found.torn |= lost > 0 && random.chance(500);
        self.found.lost += lost;
    }

    /// Another disk with what is durable on this one.
    pub(super) fn copied(&self) -> Self {
        let (first, records) = self.durably();
        Self { first, records, durable: self.durable, ..Self::default() }
    }

    /// Keeps a copy of the disk as it is.
    pub(super) fn back_up(&mut self) {
        self.copy = self.durably();
    }

    /// What survives a crash.
    fn durably(&self) -> (First, Vec<Record>) {
        (Arc::clone(&self.first), self.records[..self.durable].to_vec())
    }

    /// Puts the last copy in the disk's place.
    pub(super) fn restore(&mut self) {
        let (first, records) = self.copy.clone();
        let held = first.iter().cloned().chain(blocks(&records));
        let held: BTreeSet<_> = held.map(|block| block.id()).collect();
        self.found.missing += self.blocks().filter(|block| !held.contains(&block.id())).count();
        (self.first, self.records) = (first, records);
        self.durable = self.records.len();
    }

    /// One durable record in the middle is unreadable.
    pub(super) fn damage(&mut self, random: &mut Random) {
        let inner = (self.first.len() + self.records.len()).saturating_sub(2) as u64;
        if inner > 0 {
            // The first record is the fleet's genesis; a folder without it is not opened.
            let at = 1 + usize::try_from(random.below(inner)).expect("an index fits");
            if at < self.first.len() {
                let first = std::mem::take(&mut self.first);
                self.records.splice(..0, first.iter().cloned().map(Record::Block));
            }
            self.records.remove(at - self.first.len());
            self.durable = self.records.len();
            self.found.missing += 1;
            self.found.damaged = true;
        }
    }

    /// What a start finds.
    pub(super) fn recover(&mut self) -> (Held, Recovery) {
        let pages = self.records.iter().filter_map(|record| match record {
            Record::Page(page) => Some(*page),
            Record::Block(_) => None,
        });
        let (blocks, pages) = (blocks(&self.records).collect(), pages.collect());
        let held = Held { first: Arc::clone(&self.first), blocks, pages };
        (held, std::mem::take(&mut self.found))
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Author, Founding, Now, Session, SigningKey, Writer};

    use super::*;

    fn block(seed: u8) -> Arc<Block> {
        let key = SigningKey::from_bytes(&[seed; 32]);
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

    fn group(blocks: &[Arc<Block>]) -> Group {
        Group { number: 1, blocks: blocks.to_vec(), pages: Vec::new(), anew: false }
    }

    #[test]
    fn of_a_journal_that_is_written_anew_a_crash_leaves_all_or_nothing() {
        let block = block(1);
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            let mut journal = Journal::with(&[&block, &block].map(Arc::clone).into());
            let page = BlobHash([7; 32]);
            let anew = Group { pages: vec![page], anew: true, ..group(&[Arc::clone(&block)]) };
            journal.write(&anew);
            journal.crash(&mut Random::new(seed, 0));
            let (held, found) = journal.recover();
            assert_eq!((held.all().count() == 2, found.missing), (held.pages.is_empty(), 0));
            seen.insert(held.pages);
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_lose_the_rest() {
        let block = block(1);
        let mut losses = 0;
        for seed in 0..50 {
            let mut random = Random::new(seed, 0);
            let mut journal = Journal::with(&[Arc::clone(&block)].into());
            journal.write(&group(&[Arc::clone(&block), Arc::clone(&block)]));
            journal.sync();
            journal.write(&group(&[Arc::clone(&block), Arc::clone(&block)]));
            journal.crash(&mut random);
            let (held, found) = journal.recover();
            let records = held.all().count();
            assert!((3..=5).contains(&records));
            assert_eq!(found.lost, 5 - records);
            losses += found.lost;
        }
        assert!(losses > 0);
    }

    #[test]
    fn a_restored_copy_is_what_was_there() {
        let (block, other) = (block(1), block(2));
        let mut journal = Journal::with(&[Arc::clone(&block)].into());
        journal.back_up();
        journal.write(&group(&[other]));
        journal.sync();
        journal.restore();
        let (held, found) = journal.recover();
        assert_eq!((held.all().count(), found.missing), (1, 1));
    }

    #[test]
    fn what_journals_begin_with_they_share_until_it_is_damaged() {
        let first: First = [1, 2, 3].map(block).into();
        let mut journal = Journal::with(&first);
        journal.write(&group(&[block(4)]));
        journal.sync();
        let anew: Vec<_> = journal.blocks().collect();
        journal.write(&Group { anew: true, ..group(&anew) });
        let ids = |blocks: &mut dyn Iterator<Item = &Arc<Block>>| {
            blocks.map(|block| block.id()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&mut journal.sync().iter()), ids(&mut anew.iter()), "all of it is durable anew");
        let (held, _) = journal.recover();
        assert!(Arc::ptr_eq(&held.first, &first) && ids(&mut held.all()) == ids(&mut anew.iter()));
        // The second or the third of the four.
        journal.damage(&mut Random::new(1, 0));
        let (held, found) = journal.recover();
        assert_eq!((held.first.len(), held.blocks.len(), found.damaged), (0, 3, true));
        let group = Group { anew: true, ..group(&anew[1..]) };
        journal.write(&group);
        assert_eq!(journal.sync().len(), 3);
    }
}
