//! Whether two snapshots say the same, without a hash of either.

use std::sync::Arc;

use super::View;

/// What is shared is the same, and costs nothing.
fn same<T: PartialEq + ?Sized>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

impl View {
    /// Whether another snapshot says the same. What both share is not looked at again, so of thousands of replicas in one
    /// process this costs much less than their [hashes](View::hash). Where it does not hold the hashes may be equal all the
    /// same: they leave out which of two blocks said last what both say.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.fleet, &self.name, self.spawning) == (other.fleet, &other.name, other.spawning)
            && same(&self.members, &other.members)
            && self.functions == other.functions
            && same(&self.invitations, &other.invitations)
            && same(&self.users, &other.users)
            && same(&self.forks, &other.forks)
            && same(&self.ended, &other.ended)
            && (&self.voters, &self.pages) == (&other.voters, &other.pages)
            && same(&self.slots, &other.slots)
            && same(&self.scaling, &other.scaling)
            && same(&self.budgets, &other.budgets)
    }
}
