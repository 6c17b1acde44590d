//! The audit: which blocks fit a question, and by what each was written.

use std::sync::Arc;

use osiris_ledger::{Block, BlockId, ChainId, Held, Order, Payload};

use super::{LogQuery, Logged, Node, Recorded};

impl Node {
    pub(super) fn log(&self, query: &LogQuery) -> Vec<Logged> {
        let before = query.before.map(|id| self.ledger.held(&id).map(Held::order));
        if before == Some(None) {
            return Vec::new();
        }
        let full = self.ledger.in_order();
        let held = full.iter().map(Held::Full).chain(self.ledger.summaries().map(Held::Summary));
        let is_before = |held: &Held<'_>| before.flatten().is_none_or(|before| held.order() < before);
        let mut fits: Vec<_> = held.filter(|held| is_before(held) && self.fits(query, *held)).collect();
        fits.sort_unstable_by_key(|held| std::cmp::Reverse(held.order()));
        fits.truncate(query.limit);
        let logged = fits.into_iter().map(|held| {
            let grant = if held.grant() == BlockId::ZERO { held.id() } else { held.grant() };
            Logged {
                void: self.ledger.why_void(held),
                granted_by: self.ledger.get(&grant).cloned(),
                user: self.ledger.user_of(&grant),
                block: Recorded::of(held),
            }
        });
        logged.collect()
    }

    pub(super) fn own_grants(&self) -> Vec<(Logged, i64)> {
        let grants = self.view.members().get(&self.me).map(|member| member.grants.as_slice());
        let ranked = grants.unwrap_or_default().iter().filter_map(|(id, ..)| {
            let block = self.ledger.get(id)?.clone();
            let tree = self.ledger.tree_of(id)?;
            Some((tree, block.order(), block))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable_by_key(|(tree, order, _)| (*tree, *order));
        let row = |(tree, _, block): (i64, _, Arc<Block>)| {
            let (void, user) = (self.ledger.why_void(Held::Full(&block)), self.ledger.user_of(&block.id()));
            (Logged { void, user, granted_by: Some(Arc::clone(&block)), block: Recorded::Full(block) }, tree)
        };
        ranked.into_iter().map(row).collect()
    }

    fn fits(&self, query: &LogQuery, held: Held<'_>) -> bool {
        // The clock of a summary was dropped, so no choice by time has it.
        let wall_ms = held.full().map(|block| block.wall().0);
        !(query.summaries_only && wall_ms.is_some())
            && query.since_ms.is_none_or(|since| wall_ms.is_some_and(|wall_ms| wall_ms >= since))
            && query.until_ms.is_none_or(|until| wall_ms.is_some_and(|wall_ms| wall_ms < until))
            && query.authors.as_ref().is_none_or(|authors| authors.contains(&held.author()))
            && query.op.as_ref().is_none_or(|op| op == op_of(held))
            && query.function.as_ref().is_none_or(|name| self.is_about(held, name))
            && query.users.as_ref().is_none_or(|users| {
                self.ledger.user_of(&held.grant()).is_some_and(|user| users.contains(&user))
            })
    }

    /// Whether a block concerns a function.
    fn is_about(&self, held: Held<'_>, name: &str) -> bool {
        let block = match held {
            Held::Full(block) => block,
            Held::Summary(summary) => return self.is_revision_of(&summary.revision(), name),
        };
        match block.payload() {
            Payload::Deployed(op) => op.name == name,
            Payload::Removed(op) => op.name == name,
            Payload::Bounded(op) => op.name.as_deref() == Some(name),
            Payload::Scaled(op) => op.name == name,
            Payload::Intent(op) => op.functions.iter().any(|function| function == name),
            Payload::Serving(op) => self.is_revision_of(&op.revision, name),
            Payload::Stopped(op) => self.is_revision_of(&op.revision, name),
            _ => false,
        }
    }

    fn is_revision_of(&self, revision: &BlockId, name: &str) -> bool {
        let block = self.ledger.get(revision);
        block.is_some_and(|block| matches!(block.payload(), Payload::Deployed(op) if op.name == name))
    }
}

/// Name of the operation.
fn op_of(held: Held<'_>) -> &'static str {
    match held {
        Held::Full(block) => block.payload().name(),
        Held::Summary(summary) if summary.concurrency().is_some() => "serving",
        Held::Summary(_) => "stopped",
    }
}

impl Recorded {
    fn of(held: Held<'_>) -> Self {
        match held {
            Held::Full(block) => Self::Full(Arc::clone(block)),
            Held::Summary(summary) => Self::Summary {
                order: summary.order(),
                chain: summary.chain(),
                seq: summary.seq(),
                revision: summary.revision(),
                concurrency: summary.concurrency(),
            },
        }
    }

    /// Its place among all blocks, with its id.
    #[must_use]
    pub fn order(&self) -> Order {
        match self {
            Self::Full(block) => block.order(),
            Self::Summary { order, .. } => *order,
        }
    }

    /// Its chain, and its place there.
    #[must_use]
    pub fn place(&self) -> (ChainId, u64) {
        match self {
            Self::Full(block) => (block.chain(), block.seq()),
            Self::Summary { chain, seq, .. } => (*chain, *seq),
        }
    }

    /// The block, where it is here in full.
    #[must_use]
    pub fn full(&self) -> Option<&Arc<Block>> {
        match self {
            Self::Full(block) => Some(block),
            Self::Summary { .. } => None,
        }
    }
}
