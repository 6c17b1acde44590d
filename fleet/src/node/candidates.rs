//! Who may serve a revision, in the order of its placement.
//!
//! The order depends on the members and on the fleet's machines alone, and is asked for at each input. In a fleet of
//! 1,000 nodes hashing all of them each time would be most of what a core does, so it is kept until these change.

use std::{collections::BTreeMap, sync::Arc};

use osiris_ledger::{Author, BlockId, Role, View};

use crate::placement;

/// Revisions whose order is kept; when there are more, all are forgotten.
const ORDERED_MAX: usize = 256;

/// Members that run functions, and their order for the revisions that were asked for.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The view that the rest was made of. Views share what did not change, and while this one is held, no other
    /// members and slots are where its own are.
    followed: Option<Arc<View>>,
    nodes: Vec<Author>,
    /// Devices of machines that were made for functions, and which.
    made: BTreeMap<Author, Vec<String>>,
    ordered: BTreeMap<BlockId, Arc<[Author]>>,
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
        if !same_members {
            let nodes =
                view.members().values().filter(|member| member.active && member.roles.has(Role::Node));
            self.nodes = nodes.map(|member| member.device).collect();
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
    pub(super) fn ordered(&mut self, name: &str, revision: &BlockId) -> Arc<[Author]> {
        if let Some(ordered) = self.ordered.get(revision) {
            return Arc::clone(ordered);
        }
        if self.ordered.len() >= ORDERED_MAX {
            self.ordered.clear();
        }
        let ranked = placement::ranked(revision, self.nodes.iter().copied());
        let stay = ranked.iter().filter(|member| !self.made.contains_key(*member));
        let made = ranked.iter().filter(|member| self.was_made_for(member, name));
        let ordered: Arc<[Author]> = stay.chain(made).copied().collect();
        self.ordered.insert(*revision, Arc::clone(&ordered));
        ordered
    }
}

fn machines_with_functions(view: &View) -> BTreeMap<Author, Vec<String>> {
    let machines = view.slots().values().flat_map(|slot| &slot.machines);
    let with = machines.filter(|machine| !machine.functions.is_empty());
    with.filter_map(|machine| Some((machine.device?, machine.functions.clone()))).collect()
}
