//! How many blocks a device may write.

use serde::{Deserialize, Serialize};

use super::{array_struct, usable_key};
use crate::{id::Author, limits};

array_struct! {
    /// See [`crate::Payload::Budgeted`].
    pub struct Budgeted {
        /// The device.
        device: Author,
        /// Blocks that it may write in all, from its first on.
        blocks: u64,
    }
}

impl Budgeted {
    pub(super) fn check_fields(&self) -> Result<(), &'static str> {
        if usable_key(&self.device).is_none() {
            return Err("the device's key is weak or no key");
        }
        match (1..=limits::BUDGET_BLOCKS_MAX).contains(&self.blocks) {
            true => Ok(()),
            false => Err("the number of blocks is out of range"),
        }
    }
}
