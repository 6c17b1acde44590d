//! Who may serve a revision, in the order of its placement.
//!
//! The order depends on the members alone, and is asked for at each input. In a fleet of 1,000 nodes hashing all of
//! them each time would be most of what a core does, so it is kept until the members change.

use std::{collections::BTreeMap, sync::Arc};

use osiris_ledger::{Author, BlockId, Member, Role, View};

use crate::placement;

/// Revisions whose order is kept; when there are more, all are forgotten.
const RANKED_MAX: usize = 256;

/// Members that run functions, and their order for the revisions that were asked for.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The members that the rest was made of.
    members: Arc<BTreeMap<Author, Member>>,
    nodes: Vec<Author>,
    ranked: BTreeMap<BlockId, Arc<[Author]>>,
}

impl Candidates {
    /// Takes notice of a view. Views whose members are the same share them.
    pub(super) fn follow(&mut self, view: &View) {
        if Arc::ptr_eq(&self.members, view.shared_members()) {
            return;
        }
        self.members = Arc::clone(view.shared_members());
        let nodes = self.members.values().filter(|member| member.active && member.roles.has(Role::Node));
        self.nodes = nodes.map(|member| member.device).collect();
        self.ranked.clear();
    }

    /// Whether a member runs functions.
    pub(super) fn contains(&self, member: &Author) -> bool {
        self.nodes.binary_search(member).is_ok()
    }

    /// Members that run functions, the one that serves the revision first in front.
    pub(super) fn ranked(&mut self, revision: &BlockId) -> Arc<[Author]> {
        if let Some(ranked) = self.ranked.get(revision) {
            return Arc::clone(ranked);
        }
        if self.ranked.len() >= RANKED_MAX {
            self.ranked.clear();
        }
        let ranked: Arc<[Author]> = placement::ranked(revision, self.nodes.iter().copied()).into();
        self.ranked.insert(*revision, Arc::clone(&ranked));
        ranked
    }
}
