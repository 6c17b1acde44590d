//! Operations about new machines: who may make one, who does, and what became of it.

use super::{array_struct, is_function_name, usable_key};
use crate::{
    held::Held,
    id::{Author, BlockId},
    limits,
    op::Payload,
};
use serde::{Deserialize, Serialize};

array_struct! {
    /// See [`Payload::Claimed`].
    pub struct Claimed {
        /// Which of the fleet's slots for machines; from 0.
        slot: u32,
        /// Which attempt at it, from 1. With the slot it names the machine.
        round: u64,
        /// A claim of the round before; none in the first round. So no round is skipped.
        after: Option<BlockId>,
    }
}

array_struct! {
    /// See [`Payload::Activated`].
    pub struct Activated {
        /// The author's claim, made in the same session: a restart has lost it.
        claim: BlockId,
    }
}

array_struct! {
    /// See [`Payload::Intent`].
    pub struct Intent {
        /// The author's activation, made in the same session. Its claim says slot and round.
        activation: BlockId,
        /// Name of the target that makes the machine. What it stands for is configuration of the author.
        target: String,
        /// Functions that the machine is made for, by name; ascending.
        functions: Vec<String>,
        /// Public half of the key that admits the machine: the intent is its invitation, for one device as a node.
        key: Author,
    }
}

array_struct! {
    /// See [`Payload::Released`].
    pub struct Released {
        /// The author's claim, of whatever session.
        claim: BlockId,
    }
}

array_struct! {
    /// See [`Payload::Retired`].
    pub struct Retired {
        /// The `intent` block.
        intent: BlockId,
    }
}

array_struct! {
    /// See [`Payload::Spawning`].
    pub struct Spawning {
        /// Machines that the fleet may have made and not retired, at most; 0: none.
        machines: u32,
        /// Whether one may be made without contact to a majority of the voters.
        minority: bool,
    }
}

impl Claimed {
    pub(super) fn check_fields(&self) -> Result<(), &'static str> {
        match self {
            Self { slot, .. } if *slot >= limits::SLOTS_MAX => Err("the slot is out of range"),
            Self { round: 0, .. } => Err("a round of zero"),
            Self { round, after, .. } if (*round == 1) != after.is_none() => {
                Err("a first round follows none, and every other follows one")
            }
            _ => Ok(()),
        }
    }

    /// Whether it follows this block.
    pub(crate) fn follows(&self, before: Held<'_>) -> bool {
        let Some(Payload::Claimed(before)) = before.payload() else { return false };
        before.slot == self.slot && before.round.checked_add(1) == Some(self.round)
    }
}

impl Intent {
    pub(super) fn check_fields(&self) -> Result<(), &'static str> {
        if !is_function_name(&self.target) {
            return Err("the target's name is not allowed");
        }
        if usable_key(&self.key).is_none() {
            return Err("the machine's key is weak or no key");
        }
        if self.functions.len() > limits::INTENT_FUNCTIONS_MAX {
            return Err("too many functions are named");
        }
        if !self.functions.iter().all(|name| is_function_name(name)) {
            return Err("a function's name is not allowed");
        }
        if super::is_ascending(&self.functions) {
            Ok(())
        } else {
            Err("the functions are not in ascending order")
        }
    }
}

impl Spawning {
    pub(super) fn check_fields(&self) -> Result<(), &'static str> {
        if self.machines <= limits::SLOTS_MAX {
            Ok(())
        } else {
            Err("the number of machines is out of range")
        }
    }
}
