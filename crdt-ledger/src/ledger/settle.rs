//! Bringing standings and registers up to date with all admitted blocks.

use std::{collections::BTreeMap, mem, sync::Arc};

use super::Ledger;
use crate::{
    effective::{Rank, Standing, Standings},
    held::Held,
    id::{BlockId, ChainId},
    memo::{Derived, InUse, Key, Memo},
    view::Registers,
};

/// What the blocks that replicas share say together, for a replica that folds its blocks again.
#[derive(Debug)]
pub(super) struct Beginning {
    registers: Registers,
    /// The grants that the shared blocks use, each as it stood.
    grants: BTreeMap<BlockId, Option<Standing>>,
    chains: Vec<ChainId>,
}

impl Ledger {
    /// Brings the standings and registers up to date with all admitted blocks.
    pub(crate) fn settle(&mut self) {
        if !self.authority_stale && !self.forks_stale {
            return;
        }
        self.authority_stale = false;
        self.view_stale = true;
        let forked = mem::take(&mut self.forks_stale);
        let unchanged = self.weigh(forked);
        let unapplied = mem::take(&mut self.unapplied);
        let refold = mem::take(&mut self.refold);
        if unchanged && !forked && !refold {
            for id in unapplied {
                let held =
                    self.blocks.get(&id).map(Held::Full).or_else(|| self.pages.get(&id).map(Held::Summary));
                if let Some(held) = held.filter(|held| self.standings.counts(self, *held)) {
                    self.registers.apply(held);
                }
            }
            return;
        }
        // Blocks may have become effective or void, so all are folded again. Revocations and forks
        // are rare, and a fold of 100,000 blocks takes tens of milliseconds.
        let beginning = self.beginning.as_ref().filter(|beginning| self.still_begins(beginning));
        let mut registers = beginning.map_or_else(Registers::default, |known| known.registers.clone());
        let shared = beginning.is_none().then(|| self.blocks.shared_values()).into_iter().flatten();
        let full = shared.chain(self.blocks.own_values()).map(Held::Full);
        let all = full.chain(self.pages.iter().map(Held::Summary));
        for held in all.filter(|held| self.standings.counts(self, *held)) {
            registers.apply(held);
        }
        self.registers = registers;
    }

    /// Brings the standings up to date. Returns whether each block counts as it did before.
    fn weigh(&mut self, forked: bool) -> bool {
        let joined = mem::take(&mut self.joined);
        let all = mem::take(&mut self.reevaluate) || forked;
        let joined = if all { None } else { self.below_all(&joined) };
        let shares = self.memo.as_ref().is_some_and(Memo::derives);
        if let Some(joined) = joined.as_ref().filter(|_| !shares) {
            let mut standings = mem::take(&mut self.standings);
            Arc::make_mut(&mut standings).join(self, joined);
            self.standings = standings;
            return true;
        }
        let (before, old) = (self.settled, Arc::clone(&self.standings));
        if shares {
            self.settled = Key::of_authority(&self.authority_sum, self.chains.iter());
        }
        let make = |ledger: &Self| match &joined {
            Some(joined) => {
                let mut standings = Standings::clone(&old);
                standings.join(ledger, joined);
                standings
            }
            None => Standings::evaluate(ledger),
        };
        self.standings = self.derive(|derived| &mut derived.standings, self.settled, make);
        joined.is_some() || self.leaves_unchanged(before, &old)
    }

    /// These grants by rank, where all that were weighed rank higher. One that comes last in the tree of authority changes
    /// nothing above it, so that a fleet of thousands need not be weighed again for each that joins.
    fn below_all(&self, joined: &[BlockId]) -> Option<BTreeMap<Rank, BlockId>> {
        let ranked = joined.iter().filter_map(|id| Some((self.rank_of(id)?, *id)));
        let ranked: BTreeMap<_, _> = ranked.collect();
        let (highest, _) = ranked.first_key_value()?;
        self.standings.is_below(highest).then_some(ranked)
    }

    /// What follows from blocks that a key names: of ledgers that share a memo, worked out by one of them.
    pub(crate) fn derive<T>(
        &self,
        kind: impl Fn(&mut Derived) -> &mut InUse<T>,
        key: Key,
        make: impl FnOnce(&Self) -> T,
    ) -> Arc<T> {
        match self.memo.as_ref().filter(|memo| memo.derives()) {
            Some(memo) => memo.derived(kind, key, || make(self)),
            None => Arc::new(make(self)),
        }
    }

    /// What the standings and the members follow from; where a memo is shared.
    pub(crate) fn settled(&self) -> Key {
        self.settled
    }

    /// Whether each block counts, or does not, as it did before. A device that left changes its grant, and all its blocks
    /// go on counting: only the blocks of such a device are looked at, not those of the whole fleet.
    fn leaves_unchanged(&self, before: Key, old: &Standings) -> bool {
        let compare = || {
            let now = &self.standings.grants;
            let changed = old.grants.iter().filter(|(id, standing)| now.get(id) != Some(standing));
            changed.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let changed = match self.memo.as_ref().filter(|memo| memo.derives()) {
            Some(memo) => memo.changed((before, self.settled), compare),
            None => compare().into(),
        };
        changed.iter().all(|grant| {
            let counts = |held: &Held<'_>| old.counts(self, *held) == self.standings.counts(self, *held);
            let device = self.grants.get(grant).map(|grant| grant.device);
            device.is_some_and(|device| self.held_by(device).all(|held| counts(&held)))
        })
    }

    /// Whether the shared blocks say what they said: those that counted count, and no others.
    fn still_begins(&self, beginning: &Beginning) -> bool {
        let stands = |(grant, standing): (&BlockId, &Option<Standing>)| {
            self.standings.grants.get(grant) == standing.as_ref()
        };
        beginning.grants.iter().all(stands)
            && beginning.chains.iter().all(|chain| self.chain_fork(chain).is_none())
    }

    /// What the blocks that are here say, all of which replicas share from now on; none where a chain is forked.
    pub(super) fn beginning(&self) -> Option<Arc<Beginning>> {
        if self.chains.values().any(|chain| chain.fork().is_some()) || self.pages.len() > 0 {
            return None;
        }
        let mut registers = self.registers.clone();
        registers.take_touched();
        // The genesis block is its author's grant.
        let grant = |held: Held<'_>| if held.is_genesis() { held.id() } else { held.grant() };
        let used = self.blocks.values().map(|block| grant(Held::Full(block)));
        let grants = used.map(|grant| (grant, self.standings.grants.get(&grant).cloned())).collect();
        let chains = self.chains.keys().copied().collect();
        Some(Arc::new(Beginning { registers, grants, chains }))
    }
}
