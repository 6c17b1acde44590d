//! Who may serve a revision, in the order of its placement.
//!
//! The order depends on the members alone, and is asked for at each input. In a fleet of 1,000 nodes hashing all of
//! them each time would be most of what a core does, so it is kept until the members change. Cores of one process, as in
//! a simulation, may keep it together ([`Orders`]).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use osiris_ledger::{Author, BlockId, Member, Role, View};

use crate::placement;

/// Revisions whose order is kept; when there are more, all are forgotten.
const RANKED_MAX: usize = 256;

type Members = BTreeMap<Author, Member>;
type Order = Arc<[Author]>;

/// Members that run functions, and their order for the revisions that were asked for.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The members that the rest was made of.
    members: Arc<Members>,
    nodes: Order,
    ranked: BTreeMap<BlockId, Order>,
    shared: Option<Orders>,
}

impl Candidates {
    /// Takes notice of a view. Views whose members are the same share them.
    pub(super) fn follow(&mut self, view: &View) {
        if Arc::ptr_eq(&self.members, view.shared_members()) {
            return;
        }
        self.members = Arc::clone(view.shared_members());
        let nodes = || {
            let nodes = self.members.values().filter(|member| member.active && member.roles.has(Role::Node));
            nodes.map(|member| member.device).collect()
        };
        self.nodes = match &self.shared {
            Some(shared) => shared.nodes(&self.members, nodes),
            None => nodes(),
        };
        self.ranked.clear();
    }

    /// Whether a member runs functions.
    pub(super) fn contains(&self, member: &Author) -> bool {
        self.nodes.binary_search(member).is_ok()
    }

    /// Members that run functions, the one that serves the revision first in front.
    pub(super) fn ranked(&mut self, revision: &BlockId) -> Order {
        if let Some(ranked) = self.ranked.get(revision) {
            return Arc::clone(ranked);
        }
        if self.ranked.len() >= RANKED_MAX {
            self.ranked.clear();
        }
        let rank = || placement::ranked(revision, self.nodes.iter().copied()).into();
        let ranked = match &self.shared {
            Some(shared) => shared.ranked(&self.members, revision, rank),
            None => rank(),
        };
        self.ranked.insert(*revision, Arc::clone(&ranked));
        ranked
    }

    pub(super) fn share(&mut self, orders: Orders) {
        self.shared = Some(orders);
    }
}

/// Orders that several cores of one process keep together; for simulations. They follow from the members, so it makes
/// no difference who works one out. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Orders(Arc<Mutex<Vec<OfMembers>>>);

/// What follows from one map of members, while somebody uses it.
#[derive(Debug)]
struct OfMembers {
    members: Weak<Members>,
    nodes: Option<Order>,
    ranked: BTreeMap<BlockId, Order>,
}

impl Orders {
    fn nodes(&self, members: &Arc<Members>, make: impl FnOnce() -> Order) -> Order {
        self.of(members, |known| Arc::clone(known.nodes.get_or_insert_with(make)))
    }

    fn ranked(&self, members: &Arc<Members>, revision: &BlockId, make: impl FnOnce() -> Order) -> Order {
        self.of(members, |known| {
            if known.ranked.len() >= RANKED_MAX {
                known.ranked.clear();
            }
            Arc::clone(known.ranked.entry(*revision).or_insert_with(make))
        })
    }

    fn of<T>(&self, members: &Arc<Members>, ask: impl FnOnce(&mut OfMembers) -> T) -> T {
        // Each change is one insertion, so what a panic left behind is whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // While it is listed, no other map can have its place in memory.
        let at = known.iter().position(|of| of.members.as_ptr() == Arc::as_ptr(members));
        let at = at.unwrap_or_else(|| {
            known.retain(|of| of.members.strong_count() > 0);
            let members = Arc::downgrade(members);
            known.push(OfMembers { members, nodes: None, ranked: BTreeMap::new() });
            known.len() - 1
        });
        ask(&mut known[at])
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::Now;

    use super::*;
    use crate::node::sample::founded;

    #[test]
    fn orders_that_are_shared_are_those_of_the_same_members() {
        let (_, mut ledger) = founded(Now::default());
        let (view, orders) = (ledger.publish(), Orders::default());
        let mut candidates = [(); 3].map(|()| Candidates::default());
        candidates[..2].iter_mut().for_each(|one| one.share(orders.clone()));
        let ranked = candidates.each_mut().map(|one| {
            one.follow(&view);
            one.ranked(&BlockId([7; 32]))
        });
        assert!(Arc::ptr_eq(&ranked[0], &ranked[1]) && ranked[0] == ranked[2] && ranked[0].len() == 1);
        assert!(candidates.iter().all(|one| one.contains(&ranked[0][0])));
        // Other members have other orders, and those that nobody uses are forgotten.
        let [mut one, two, three] = candidates;
        drop((two, three, view, ledger));
        one.follow(&View::default());
        assert_eq!(one.ranked(&BlockId([7; 32])).len(), 0);
        assert_eq!(orders.0.lock().expect("whole").len(), 1);
    }
}
