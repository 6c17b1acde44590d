//! Reading entries: what needs no change of the ledger, and so may happen on several cores.

use std::{collections::BTreeMap, sync::Arc};

use ed25519_dalek::VerifyingKey;
use rayon::iter::{IntoParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _};

use super::{Admission, Ledger};
use crate::{
    block::{Block, Reject, entry_id},
    early::Sender,
    id::{Author, BlockId, FleetId},
    limits,
    memo::Memo,
    op,
};

/// Reads entries without looking at the ledger, which changes meanwhile.
pub(super) struct Reader {
    fleet: FleetId,
    keys: Arc<BTreeMap<Author, VerifyingKey>>,
    verify: bool,
    memo: Option<Memo>,
}

/// An entry of which is known whether it is here.
pub(super) enum Sighted<'a> {
    Known,
    Waiting,
    New(BlockId, &'a [u8]),
    TooLarge(usize),
}

/// What an entry is.
pub(super) enum Read {
    Known,
    Waiting,
    Block(Arc<Block>),
}

impl Sighted<'_> {
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
    fn read(&self, id: BlockId, entry: &[u8]) -> Result<Read, Reject> {
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
    pub(super) fn sight<'a>(&self, entry: &'a [u8]) -> Sighted<'a> {
        if entry.len() > limits::ENTRY_BYTES_MAX {
            return Sighted::TooLarge(entry.len());
        }
        let id = entry_id(entry);
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
        let mut before = Vec::new();
        for group in entries.chunks(limits::PARALLEL_MAX) {
            let sighted: Vec<_> = group.par_iter().map(|entry| self.sight(entry.as_ref())).collect();
            let reader = self.reader(verify);
            let read = || sighted.into_par_iter().map(|entry| entry.read(&reader)).collect();
            let place = || self.place_all(std::mem::take(&mut before), sender, &mut answers);
            let (next, ()): (Vec<_>, ()) = rayon::join(read, place);
            before = next;
        }
        self.place_all(before, sender, &mut answers);
        answers
    }

    fn place_all(
        &mut self,
        read: Vec<Result<Read, Reject>>,
        sender: Sender,
        answers: &mut Vec<Result<Admission, Reject>>,
    ) {
        answers.extend(read.into_iter().map(|read| self.place(read?, sender)));
    }
}
