//! Reading entries: what needs no change of the ledger, and so may happen on several cores.

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::{Admission, Ledger};
use crate::{
    block::{Block, Reject, entry_id},
    early::Sender,
    id::{Author, BlockId, FleetId},
    layered::Layered,
    limits,
    memo::Memo,
    op,
};

/// Reads entries without looking at the ledger, which changes meanwhile.
pub(super) struct Reader {
    fleet: FleetId,
    keys: Arc<Layered<Author, Arc<VerifyingKey>>>,
    verify: bool,
    memo: Option<Memo>,
}

/// An entry of which is known whether it is here.
pub(super) enum Sighted<E> {
    Known,
    Waiting,
    New(BlockId, E),
    TooLarge(usize),
}

/// What an entry is.
pub(super) enum Read {
    Known,
    Waiting,
    Block(Arc<Block>),
}

/// What [`Ledger::replay_journal`] could not admit at once.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Why entries were refused.
    pub refused: Vec<Reject>,
    /// Blocks that had to wait for others, and who signed them. They may have been admitted later, or given up.
    pub early: Vec<(BlockId, Author)>,
}

impl<E: AsRef<[u8]> + Into<Box<[u8]>>> Sighted<E> {
    /// All that can be said of the entry without adding any.
    pub(super) fn read(self, reader: &Reader) -> Result<Read, Reject> {
        match self {
            Self::Known => Ok(Read::Known),
            Self::Waiting => Ok(Read::Waiting),
            Self::TooLarge(bytes) => Err(Reject::TooLarge(bytes)),
            Self::New(id, entry) => reader.read(id, entry),
        }
    }
}

impl Reader {
    fn read(&self, id: BlockId, entry: impl AsRef<[u8]> + Into<Box<[u8]>>) -> Result<Read, Reject> {
        if let Some(block) = self.memo.as_ref().and_then(|memo| memo.block(&id)) {
            return Ok(Read::Block(block));
        }
        let block = Block::decode(id, entry)?;
        if self.verify {
            self.check_signature(&block)?;
        }
        if block.is_genesis_shaped() && id != BlockId(self.fleet.0) {
            return Err(Reject::OtherFleet);
        }
        let block = Arc::new(block);
        if let Some(memo) = self.memo.as_ref().filter(|_| self.verify) {
            memo.verified(&block);
        }
        Ok(Read::Block(block))
    }

    fn check_signature(&self, block: &Block) -> Result<(), Reject> {
        let fresh;
        let key = match self.keys.get(&block.author()) {
            Some(key) => key,
            None => {
                fresh = op::usable_key(&block.author()).ok_or(Reject::WeakKey)?;
                &fresh
            }
        };
        block.verify(&self.fleet, key)
    }
}

impl Ledger {
    pub(super) fn reader(&self, verify: bool) -> Reader {
        Reader { fleet: self.fleet, keys: Arc::clone(&self.keys), verify, memo: self.memo.clone() }
    }

    /// Whether an entry is here already: then it need not be read.
    pub(super) fn sight<E: AsRef<[u8]>>(&self, entry: E) -> Sighted<E> {
        let bytes = entry.as_ref();
        if bytes.len() > limits::ENTRY_BYTES_MAX {
            return Sighted::TooLarge(bytes.len());
        }
        let id = entry_id(bytes);
        match (self.holds(&id), self.early.contains(&id)) {
            (true, _) => Sighted::Known,
            (_, true) => Sighted::Waiting,
            _ => Sighted::New(id, entry),
        }
    }

    /// Takes entries in their order. While one group of them is added, which one core can do, the next one
    /// is read on the others.
    pub(super) fn take_all(
        &mut self,
        entries: &[impl AsRef<[u8]> + Sync],
        sender: Sender,
        verify: bool,
    ) -> Vec<Result<Admission, Reject>> {
        if entries.len() < limits::PARALLEL_MIN {
            let take = |entry: &_| {
                let read = self.sight(AsRef::<[u8]>::as_ref(entry)).read(&self.reader(verify))?;
                self.place(read, sender)
            };
            return entries.iter().map(take).collect();
        }
        let mut answers = Vec::with_capacity(entries.len());
        let groups = entries.chunks(limits::PARALLEL_MAX);
        let groups = groups.map(|group| group.iter().map(AsRef::as_ref).collect());
        self.take_groups(groups, verify, |ledger, read| {
            answers.push(read.and_then(|read| ledger.place(read, sender)));
        });
        answers
    }

    /// [`Ledger::replay`], of all entries of a journal in their order. The ledger keeps their bytes where they are, so
    /// that a start needs no more room than it ends with.
    pub fn replay_journal(&mut self, entries: Vec<Vec<u8>>) -> Replayed {
        let mut entries = entries.into_iter();
        let groups = std::iter::from_fn(move || {
            let group: Vec<_> = entries.by_ref().take(limits::PARALLEL_MAX).collect();
            (!group.is_empty()).then_some(group)
        });
        let mut replayed = Replayed::default();
        self.take_groups(groups, false, |ledger, read| {
            let block = match &read {
                Ok(Read::Block(block)) => Some((block.id(), block.author())),
                _ => None,
            };
            match read.and_then(|read| ledger.place(read, None)) {
                Ok(Admission::Early { .. }) => replayed.early.extend(block),
                Ok(_) => {}
                Err(reject) => replayed.refused.push(reject),
            }
        });
        replayed
    }

    fn take_groups<E: AsRef<[u8]> + Into<Box<[u8]>> + Send>(
        &mut self,
        groups: impl Iterator<Item = Vec<E>>,
        verify: bool,
        mut place: impl FnMut(&mut Self, Result<Read, Reject>) + Send,
    ) {
        let mut before = Vec::new();
        for group in groups {
            let sighted: Vec<_> = group.into_par_iter().map(|entry| self.sight(entry)).collect();
            let reader = self.reader(verify);
            let read = || sighted.into_par_iter().map(|entry| entry.read(&reader)).collect();
            let place = || std::mem::take(&mut before).into_iter().for_each(|read| place(self, read));
            let (next, ()): (Vec<_>, ()) = rayon::join(read, place);
            before = next;
        }
        before.into_iter().for_each(|read| place(self, read));
    }
}
