//! Reading entries: what needs no change of the ledger, and so may happen on several cores.

use std::{collections::BTreeMap, sync::Arc};

use ed25519_dalek::VerifyingKey;

use super::pages::Pages;
use crate::{
    block::{Block, Reject, entry_id},
    early::Early,
    id::{Author, BlockId, FleetId},
    limits,
    memo::Memo,
    op,
};

/// Reads entries: all that can be said of them without adding any.
pub(super) struct Reader<'a> {
    pub(super) fleet: FleetId,
    pub(super) blocks: &'a BTreeMap<BlockId, Arc<Block>>,
    pub(super) pages: &'a Pages,
    pub(super) early: &'a Early,
    pub(super) keys: &'a BTreeMap<Author, VerifyingKey>,
    pub(super) verify: bool,
    pub(super) memo: Option<&'a Memo>,
}

/// What an entry is.
pub(super) enum Read {
    Known,
    Waiting,
    Block(Arc<Block>),
}

impl Reader<'_> {
    pub(super) fn read(&self, entry: &[u8]) -> Result<Read, Reject> {
        if entry.len() > limits::ENTRY_BYTES_MAX {
            return Err(Reject::TooLarge(entry.len()));
        }
        let id = entry_id(entry);
        if self.blocks.contains_key(&id) || self.pages.contains(&id) {
            return Ok(Read::Known);
        }
        if self.early.contains(&id) {
            return Ok(Read::Waiting);
        }
        if let Some(block) = self.memo.and_then(|memo| memo.block(&id)) {
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
        if let Some(memo) = self.memo.filter(|_| self.verify) {
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
