//! The audit: which blocks fit a question, and by what each was written.

use std::sync::Arc;

use osiris_ledger::{Block, BlockId, Held, Payload};

use super::{LogQuery, Logged, Node};

impl Node {
    pub(super) fn log(&self, query: &LogQuery) -> Vec<Logged> {
        let newest = self.ledger.in_order().into_iter().rev();
        let fits = newest.filter(|block| self.fits(query, block)).take(query.limit);
        let logged = fits.map(|block| {
            let grant = if block.grant() == BlockId::ZERO { block.id() } else { block.grant() };
            Logged {
                void: self.ledger.why_void(Held::Full(&block)),
                granted_by: self.ledger.get(&grant).cloned(),
                user: self.ledger.user_of(&grant),
                block,
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
            (Logged { void, user, granted_by: Some(Arc::clone(&block)), block }, tree)
        };
        ranked.into_iter().map(row).collect()
    }

    fn fits(&self, query: &LogQuery, block: &Block) -> bool {
        let wall_ms = block.wall().0;
        query.since_ms.is_none_or(|since| wall_ms >= since)
            && query.until_ms.is_none_or(|until| wall_ms < until)
            && query.authors.as_ref().is_none_or(|authors| authors.contains(&block.author()))
            && query.op.as_ref().is_none_or(|op| op == block.payload().name())
            && query.function.as_ref().is_none_or(|name| self.function_of(block.payload()) == Some(name))
            && query.users.as_ref().is_none_or(|users| {
                self.ledger.user_of(&block.grant()).is_some_and(|user| users.contains(&user))
            })
    }

    fn function_of<'a>(&'a self, payload: &'a Payload) -> Option<&'a String> {
        let revision = match payload {
            Payload::Deployed(op) => return Some(&op.name),
            Payload::Removed(op) => return Some(&op.name),
            Payload::Bounded(op) => return op.name.as_ref(),
            Payload::Scaled(op) => return Some(&op.name),
            Payload::Serving(op) => op.revision,
            Payload::Stopped(op) => op.revision,
            _ => return None,
        };
        match self.ledger.get(&revision)?.payload() {
            Payload::Deployed(op) => Some(&op.name),
            _ => None,
        }
    }
}
