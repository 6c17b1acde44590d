//! A block as a replica holds it: in full, or as a summary. All that evaluates and links blocks asks this, so
//! nothing can depend on which of the two it is.

use std::sync::Arc;

use crate::{
    block::{Block, Order},
    id::{Author, BlockId, ChainId, Session},
    op::Payload,
    page::Summary,
};

/// A block that is here.
#[derive(Clone, Copy, Debug)]
pub enum Held<'a> {
    /// With its bytes.
    Full(&'a Arc<Block>),
    /// As a summary in a page.
    Summary(Summary<'a>),
}

impl<'a> Held<'a> {
    /// Its id.
    #[must_use]
    pub fn id(self) -> BlockId {
        match self {
            Self::Full(block) => block.id(),
            Self::Summary(summary) => summary.id(),
        }
    }

    /// The chain it belongs to.
    #[must_use]
    pub fn chain(self) -> ChainId {
        match self {
            Self::Full(block) => block.chain(),
            Self::Summary(summary) => summary.chain(),
        }
    }

    /// The device that signed it.
    #[must_use]
    pub fn author(self) -> Author {
        self.chain().author
    }

    pub(crate) fn session(self) -> Session {
        self.chain().session
    }

    /// Its place in its chain, from 1.
    #[must_use]
    pub fn seq(self) -> u64 {
        match self {
            Self::Full(block) => block.seq(),
            Self::Summary(summary) => summary.seq(),
        }
    }

    /// Its place in the order of all blocks.
    #[must_use]
    pub fn order(self) -> Order {
        match self {
            Self::Full(block) => block.order(),
            Self::Summary(summary) => summary.order(),
        }
    }

    /// Its predecessor in its chain; zero for a first block.
    #[must_use]
    pub fn prev(self) -> BlockId {
        match self {
            Self::Full(block) => block.prev(),
            Self::Summary(summary) => summary.prev(),
        }
    }

    /// Heads of other chains that its author had admitted.
    pub fn parents(self) -> impl Iterator<Item = BlockId> + 'a {
        let (full, summary) = match self {
            Self::Full(block) => (Some(block.parents()), None),
            Self::Summary(summary) => (None, Some(summary)),
        };
        full.into_iter().flatten().chain(summary.into_iter().flat_map(Summary::parents))
    }

    /// The grant that it uses; zero for the genesis block.
    #[must_use]
    pub fn grant(self) -> BlockId {
        match self {
            Self::Full(block) => block.grant(),
            Self::Summary(summary) => summary.grant(),
        }
    }

    /// What it says, where it is here in full. Of a summary its kind is known: `serving` or `stopped`.
    #[must_use]
    pub fn payload(self) -> Option<&'a Payload> {
        match self {
            Self::Full(block) => Some(block.payload()),
            Self::Summary(_) => None,
        }
    }

    /// The block, where it is here in full.
    #[must_use]
    pub fn full(self) -> Option<&'a Arc<Block>> {
        match self {
            Self::Full(block) => Some(block),
            Self::Summary(_) => None,
        }
    }

    /// Every block that it names: all have to be here before it is taken in.
    pub(crate) fn needs(self) -> impl Iterator<Item = BlockId> + 'a {
        let (full, summary) = match self {
            Self::Full(block) => (Some(block), None),
            Self::Summary(summary) => (None, Some(summary)),
        };
        let full = full.into_iter().flat_map(|block| block.needs());
        full.chain(summary.into_iter().flat_map(Summary::needs))
    }

    pub(crate) fn is_genesis(self) -> bool {
        self.full().is_some_and(|block| block.is_genesis_shaped())
    }
}
