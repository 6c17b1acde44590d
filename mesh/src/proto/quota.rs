//! How fast one member's ledger may grow: a token bucket an author, over blocks and over bytes.
//!
//! A quota means "later", never a verdict: what is over it stays with who sent it and comes with a later
//! round. Every new block of an author is charged, whoever brought it, but only what the **author itself**
//! sends is held back. What other members bring has passed their quota, and holding it back would stall
//! honest blocks that cite it. So an author that sends different blocks to each of many members runs into
//! debt with all of them as they tell each other.
//!
//! History is not growth: while a node catches up ([`Quotas::caught_up`]) nothing is charged.
//!
//! Beyond an author's **budget** ([`osiris_ledger::View::budget`]) all that becomes a trickle, and nothing is free:
//! whoever brings such a block is charged for it, also while a node catches up. The budget is a fact of the ledger and
//! so is what an author has written, so no restart forgives it; an admin does, by a larger budget, or ends it by a
//! revocation.

use std::collections::BTreeMap;

use osiris_ledger::{Author, Mono};

use crate::limits::{
    AUTHOR_BLOCKS_BURST, AUTHOR_BLOCKS_PER_SECOND, AUTHOR_BYTES_BURST, AUTHOR_BYTES_PER_SECOND,
    BROUGHT_BLOCK_INTERVAL_MS, BROUGHT_BLOCKS_BURST, CATCH_UP_MAX, SPENT_BLOCK_INTERVAL_MS,
    SPENT_BLOCKS_BURST,
};

/// A bucket; a debt is a level below zero. Thousandths, so that time in milliseconds gives whole numbers.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    blocks: i64,
    bytes: i64,
    filled: Mono,
}

const FULL: (i64, i64) = (1_000 * AUTHOR_BLOCKS_BURST, 1_000 * AUTHOR_BYTES_BURST);

impl Bucket {
    fn fill(&mut self, now: Mono) {
        let ms = i64::try_from(now.since(self.filled).as_millis()).unwrap_or(i64::MAX);
        self.blocks = ms.saturating_mul(AUTHOR_BLOCKS_PER_SECOND).saturating_add(self.blocks).min(FULL.0);
        self.bytes = ms.saturating_mul(AUTHOR_BYTES_PER_SECOND).saturating_add(self.bytes).min(FULL.1);
        self.filled = self.filled.max(now);
    }
}

/// A bucket over blocks alone, for what lies beyond budgets, counted in the milliseconds that a block costs.
#[derive(Clone, Copy, Debug)]
struct Trickle {
    level: i64,
    filled: Mono,
}

/// What one block of a trickle costs, and how many come at once.
#[derive(Clone, Copy, Debug)]
struct Flow {
    interval: i64,
    burst: i64,
}

/// What an author sends beyond its own budget.
const SPENT: Flow = Flow { interval: SPENT_BLOCK_INTERVAL_MS, burst: SPENT_BLOCKS_BURST };
/// What a member brings beyond the budgets of others.
const BROUGHT: Flow = Flow { interval: BROUGHT_BLOCK_INTERVAL_MS, burst: BROUGHT_BLOCKS_BURST };

impl Trickle {
    fn full(now: Mono, flow: Flow) -> Self {
        Self { level: flow.interval * flow.burst, filled: now }
    }

    fn fill(&mut self, now: Mono, flow: Flow) {
        let ms = i64::try_from(now.since(self.filled).as_millis()).unwrap_or(i64::MAX);
        self.level = ms.saturating_add(self.level).min(flow.interval * flow.burst);
        self.filled = self.filled.max(now);
    }

    /// A debt has an end here as well: at most one burst.
    fn take(&mut self, flow: Flow) {
        self.level = (self.level - flow.interval).max(-flow.interval * flow.burst);
    }
}

/// The quotas of all authors.
#[derive(Debug, Default)]
pub struct Quotas {
    /// Those that are not full. Only authors of valid blocks are in it, so at most as many as the ledger
    /// has members.
    buckets: BTreeMap<Author, Bucket>,
    /// Authors that have spent their budget.
    spent: BTreeMap<Author, Trickle>,
    /// Members that brought blocks of those. Only members are connected.
    brought: BTreeMap<Author, Trickle>,
    catching_up: Option<Mono>,
}

impl Quotas {
    /// The first peer is connected after a time without any: what comes now is history.
    pub fn catch_up(&mut self, now: Mono) {
        self.catching_up = Some(now.plus(CATCH_UP_MAX));
    }

    /// A peer holds just what this node holds: what comes from now on is growth.
    pub fn caught_up(&mut self) {
        self.catching_up = None;
    }

    fn is_catching_up(&self, now: Mono) -> bool {
        self.catching_up.is_some_and(|until| now < until)
    }

    /// How many blocks of so many bytes each, in this order, may be taken from their author now.
    pub fn allowed(&mut self, now: Mono, author: &Author, sizes: impl Iterator<Item = usize>) -> usize {
        if self.is_catching_up(now) {
            return usize::MAX;
        }
        let Some(bucket) = self.buckets.get_mut(author) else {
            return within(sizes, FULL);
        };
        bucket.fill(now);
        within(sizes, (bucket.blocks, bucket.bytes))
    }

    /// A new block of an author was admitted.
    pub fn charge(&mut self, now: Mono, author: Author, bytes: usize) {
        if self.is_catching_up(now) {
            return;
        }
        let full = Bucket { blocks: FULL.0, bytes: FULL.1, filled: now };
        let bucket = self.buckets.entry(author).or_insert(full);
        bucket.fill(now);
        // A debt has an end, so that whoever stops is forgiven: at most one burst.
        bucket.blocks = bucket.blocks.saturating_sub(1_000).max(-FULL.0);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(1_000);
        bucket.bytes = bucket.bytes.saturating_sub(bytes).max(-FULL.1);
    }
}

impl Quotas {
    /// How many blocks of an author that has spent its budget may be taken from it now.
    pub fn allowed_beyond(&mut self, now: Mono, author: Author) -> usize {
        let spent = self.spent.entry(author).or_insert_with(|| Trickle::full(now, SPENT));
        spent.fill(now, SPENT);
        usize::try_from(spent.level / SPENT.interval).unwrap_or(0)
    }

    /// Whether a member may bring a block of another author that has spent its budget. It is charged where it may.
    pub fn brings_beyond(&mut self, now: Mono, bringer: Author) -> bool {
        let brought = self.brought.entry(bringer).or_insert_with(|| Trickle::full(now, BROUGHT));
        brought.fill(now, BROUGHT);
        let may = brought.level >= BROUGHT.interval;
        if may {
            brought.take(BROUGHT);
        }
        may
    }

    /// A new block of an author that has spent its budget was admitted, whoever brought it.
    pub fn charge_beyond(&mut self, now: Mono, author: Author) {
        let spent = self.spent.entry(author).or_insert_with(|| Trickle::full(now, SPENT));
        spent.fill(now, SPENT);
        spent.take(SPENT);
    }
}

fn within(sizes: impl Iterator<Item = usize>, (mut blocks, mut bytes): (i64, i64)) -> usize {
    sizes
        .take_while(|size| {
            blocks -= 1_000;
            bytes = bytes.saturating_sub(i64::try_from(*size).unwrap_or(i64::MAX).saturating_mul(1_000));
            blocks >= 0 && bytes >= 0
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODER: Author = Author([1; 32]);

    fn blocks(n: usize) -> impl Iterator<Item = usize> {
        std::iter::repeat_n(300, n)
    }

    #[test]
    fn a_burst_then_the_rate_and_nobody_else_pays() {
        let mut quotas = Quotas::default();
        let burst = AUTHOR_BLOCKS_BURST as usize;
        let start = Mono(5);
        assert_eq!(quotas.allowed(start, &FLOODER, blocks(burst + 9)), burst);
        for _ in 0..burst {
            quotas.charge(start, FLOODER, 300);
        }
        assert_eq!(quotas.allowed(start, &FLOODER, blocks(9)), 0);
        assert_eq!(quotas.allowed(start, &Author([2; 32]), blocks(9)), 9);
        let later = Mono(5 + 1_000);
        assert_eq!(quotas.allowed(later, &FLOODER, blocks(burst)), AUTHOR_BLOCKS_PER_SECOND as usize);
        // What others bring of it is charged too, as a debt with an end.
        for _ in 0..5 * burst {
            quotas.charge(later, FLOODER, 1);
        }
        let forgiven = burst as u64 * 1_000 / AUTHOR_BLOCKS_PER_SECOND as u64;
        assert_eq!(quotas.allowed(Mono(later.0 + forgiven), &FLOODER, blocks(9)), 0);
        assert_eq!(quotas.allowed(Mono(later.0 + forgiven + 1_000), &FLOODER, blocks(9)), 9);
    }

    #[test]
    fn beyond_a_budget_a_trickle_is_left_whoever_brings_it() {
        let (author, other) = (FLOODER, Author([2; 32]));
        let mut quotas = Quotas::default();
        let sent = |quotas: &mut Quotas, now: u64| {
            let allowed = quotas.allowed_beyond(Mono(now), author);
            (0..allowed).for_each(|_| quotas.charge_beyond(Mono(now), author));
            allowed as i64
        };
        quotas.catch_up(Mono(0));
        assert_eq!(sent(&mut quotas, 5), SPENT_BLOCKS_BURST, "history is no reason");
        assert_eq!(sent(&mut quotas, 6), 0);
        let day = 24 * 3_600_000;
        assert_eq!(sent(&mut quotas, day), SPENT_BLOCKS_BURST);
        assert_eq!(sent(&mut quotas, day + 10 * SPENT_BLOCK_INTERVAL_MS as u64), 10);
        // Others bring what they took in at that pace, and much at once: months of it.
        let brought = |quotas: &mut Quotas, now: u64| {
            (0..2 * BROUGHT_BLOCKS_BURST).take_while(|_| quotas.brings_beyond(Mono(now), other)).count()
                as i64
        };
        assert_eq!(brought(&mut quotas, day), BROUGHT_BLOCKS_BURST);
        assert_eq!(brought(&mut quotas, day + 60_000), 60_000 / BROUGHT_BLOCK_INTERVAL_MS);
        // It is charged to the author too, as a debt with an end.
        for _ in 0..1_000 {
            quotas.charge_beyond(Mono(2 * day), author);
        }
        let forgiven = 2 * day + (SPENT_BLOCKS_BURST * SPENT_BLOCK_INTERVAL_MS) as u64;
        assert_eq!(sent(&mut quotas, forgiven), 0);
        assert_eq!(sent(&mut quotas, forgiven + SPENT_BLOCK_INTERVAL_MS as u64), 1);
        assert_eq!(sent(&mut quotas, forgiven + SPENT_BLOCK_INTERVAL_MS as u64), 0);
    }

    #[test]
    fn bytes_count_too() {
        let mut quotas = Quotas::default();
        let large = AUTHOR_BYTES_BURST as usize / 2;
        assert_eq!(quotas.allowed(Mono(0), &FLOODER, [large, large, 1].into_iter()), 2);
        quotas.charge(Mono(0), FLOODER, 2 * large);
        assert_eq!(quotas.allowed(Mono(0), &FLOODER, [1].into_iter()), 0);
    }

    #[test]
    fn history_is_free_until_somebody_agrees_and_not_for_ever() {
        let many = 10 * AUTHOR_BLOCKS_BURST as usize;
        let mut quotas = Quotas::default();
        quotas.catch_up(Mono(0));
        assert!(quotas.allowed(Mono(1), &FLOODER, blocks(many)) >= many);
        let after = Mono(0).plus(CATCH_UP_MAX);
        assert!(quotas.allowed(after, &FLOODER, blocks(many)) < many);
        quotas.catch_up(Mono(0));
        quotas.caught_up();
        assert!(quotas.allowed(Mono(1), &FLOODER, blocks(many)) < many);
    }
}
