//! Who may serve a revision, in the order of its placement.
//!
//! The order depends on the members and on the fleet's machines alone, and is asked for at each input. In a fleet of
//! 1,000 nodes hashing all of them each time would be most of what a core does, so it is kept until these change; and
//! who of them may serve it and is alive, until the view changes, or who is gone. Cores of one process, as in a
//! simulation, may keep what follows from the members together ([`Orders`]).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use osiris_ledger::{Author, BlockId, Member, Role, View};

use crate::{manifest::PlaceKeys, placement};

/// Revisions whose order is kept; when there are more, all are forgotten.
const ORDERED_MAX: usize = 256;

type Members = BTreeMap<Author, Member>;
type Order = Arc<[Author]>;

/// Members that run functions, and their order for the revisions that were asked for.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The view that the rest was made of. Views share what did not change, and while this one is held, no other
    /// members and slots are where its own are.
    followed: Option<Arc<View>>,
    nodes: Order,
    /// Devices of machines that were made for functions, and which.
    made: BTreeMap<Author, Vec<String>>,
    ordered: BTreeMap<BlockId, Order>,
    /// Who was gone when the rest of these was found, ascending.
    gone: Vec<Author>,
    /// Of those of `ordered` who may serve a revision that asks for such places, and was not gone.
    able: BTreeMap<BlockId, (PlaceKeys, Order)>,
    shared: Option<Orders>,
}

impl Candidates {
    /// Takes notice of a view.
    pub(super) fn follow(&mut self, view: &Arc<View>) {
        let before = self.followed.as_ref();
        if before.is_some_and(|before| Arc::ptr_eq(before, view)) {
            return;
        }
        let same_members =
            before.is_some_and(|before| Arc::ptr_eq(before.shared_members(), view.shared_members()));
        let same_slots = before.is_some_and(|before| std::ptr::eq(before.slots(), view.slots()));
        self.followed = Some(Arc::clone(view));
        self.able.clear();
        if !same_members {
            let nodes = || {
                let nodes =
                    view.members().values().filter(|member| member.active && member.roles.has(Role::Node));
                nodes.map(|member| member.device).collect()
            };
            self.nodes = match &self.shared {
                Some(shared) => shared.nodes(view.shared_members(), nodes),
                None => nodes(),
            };
            self.ordered.clear();
        }
        if !same_slots {
            let made = machines_with_functions(view);
            if made != self.made {
                self.made = made;
                self.ordered.clear();
            }
        }
    }

    /// Whether a member runs functions.
    pub(super) fn contains(&self, member: &Author) -> bool {
        self.nodes.binary_search(member).is_ok()
    }

    /// Whether a member is a machine that was made for a function, among others.
    pub(super) fn was_made_for(&self, member: &Author, function: &str) -> bool {
        self.made.get(member).is_some_and(|functions| functions.iter().any(|name| name == function))
    }

    /// Members that may serve a revision of a function, the one that serves it first in front.
    ///
    /// A machine that the fleet made for some functions serves those alone, and comes behind all other members: so
    /// that it is empty when fewer replicas are needed, and takes nothing with it when it goes.
    pub(super) fn ordered(&mut self, name: &str, revision: &BlockId) -> Order {
        if let Some(ordered) = self.ordered.get(revision) {
            return Arc::clone(ordered);
        }
        if self.ordered.len() >= ORDERED_MAX {
            self.ordered.clear();
        }
        let rank = || placement::ranked(revision, self.nodes.iter().copied()).into();
        let members = self.followed.as_ref().map(|view| view.shared_members());
        let ranked: Order = match self.shared.as_ref().zip(members) {
            Some((shared, members)) => shared.ranked(members, revision, rank),
            None => rank(),
        };
        let ordered = if self.made.is_empty() {
            ranked
        } else {
            let stay = ranked.iter().filter(|member| !self.made.contains_key(*member));
            let made = ranked.iter().filter(|member| self.was_made_for(member, name));
            stay.chain(made).copied().collect()
        };
        self.ordered.insert(*revision, Arc::clone(&ordered));
        ordered
    }

    /// Those of [`Candidates::ordered`] who may serve it by the view that was followed last, and are none of those that
    /// are `gone`, which ascend.
    pub(super) fn able(
        &mut self,
        name: &str,
        revision: &BlockId,
        place: &PlaceKeys,
        gone: Vec<Author>,
        may_serve: impl Fn(&Author) -> bool,
    ) -> Order {
        if gone != self.gone || self.able.len() >= ORDERED_MAX {
            self.able.clear();
            self.gone = gone;
        }
        if let Some((_, able)) = self.able.get(revision).filter(|(known, _)| known == place) {
            return Arc::clone(able);
        }
        let ordered = self.ordered(name, revision);
        let is_able = |member: &Author| self.gone.binary_search(member).is_err() && may_serve(member);
        let able: Order = placement::placed(&ordered, usize::MAX, is_able).into();
        self.able.insert(*revision, (place.clone(), Arc::clone(&able)));
        able
    }

    pub(super) fn share(&mut self, orders: Orders) {
        self.shared = Some(orders);
    }
}

fn machines_with_functions(view: &View) -> BTreeMap<Author, Vec<String>> {
    let machines = view.slots().values().flat_map(|slot| &slot.machines);
    let with = machines.filter(|machine| !machine.functions.is_empty());
    with.filter_map(|machine| Some((machine.device?, machine.functions.clone()))).collect()
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
            if known.ranked.len() >= ORDERED_MAX {
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
    use osiris_ledger::{Now, Payload, op};

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
            one.ordered("f", &BlockId([7; 32]))
        });
        assert!(Arc::ptr_eq(&ranked[0], &ranked[1]) && ranked[0] == ranked[2] && ranked[0].len() == 1);
        assert!(candidates.iter().all(|one| one.contains(&ranked[0][0])));
        // Other members have other orders, and those that nobody uses are forgotten.
        let [mut one, two, three] = candidates;
        drop((two, three, view, ledger));
        one.follow(&Arc::new(View::default()));
        assert_eq!(one.ordered("f", &BlockId([7; 32])).len(), 0);
        assert_eq!(orders.0.lock().expect("whole").len(), 1);
    }

    #[test]
    fn who_is_able_is_found_anew_where_the_view_the_places_or_who_is_gone_changes() {
        let (mut writer, mut ledger) = founded(Now::default());
        let (mut candidates, me, revision) = (Candidates::default(), writer.author(), BlockId([7; 32]));
        let view = ledger.publish();
        candidates.follow(&view);
        let shop = PlaceKeys { labels: vec!["site=shop".to_owned()], spread: None };
        let asked = std::cell::Cell::new(0);
        let able = |candidates: &mut Candidates, place: &PlaceKeys, gone: &[Author]| {
            let known = candidates.able("f", &revision, place, gone.to_vec(), |_| {
                asked.set(asked.get() + 1);
                place.labels.is_empty()
            });
            (known.to_vec(), asked.get())
        };
        let anywhere = PlaceKeys::default();
        assert_eq!(able(&mut candidates, &anywhere, &[]), (vec![me], 1));
        assert_eq!(able(&mut candidates, &anywhere, &[]), (vec![me], 1), "kept");
        assert_eq!(able(&mut candidates, &shop, &[]), (vec![], 2));
        assert_eq!(able(&mut candidates, &anywhere, &[me]), (vec![], 2), "gone");
        assert_eq!(able(&mut candidates, &anywhere, &[]), (vec![me], 3));
        let bounded = op::Bounded { name: None, range: None };
        writer.append(&mut ledger, Now::default(), Payload::Bounded(bounded)).expect("allowed");
        candidates.follow(&ledger.publish());
        assert_eq!(able(&mut candidates, &anywhere, &[]), (vec![me], 4));
    }
}
