//! Machines that the policy asked for and that have nothing to do any more: whoever reaches one takes it away, the same
//! way as at a person's wish.
//!
//! Nobody's wish is undone. A machine that the load of a function asked for names the function in its intent; one that
//! a person asked for names none, and stays until a person wants it gone.

use std::sync::Arc;

use osiris_ledger::{Now, lease::Machine};

use super::{super::Node, Want};

impl Node {
    /// Wants gone what the policy says is spare. The maker does so alone: it needs no lease to take away what it made.
    /// Where the maker is gone, another that reaches the target wins the slot first, so that no two do it at once.
    pub(super) fn retire_spare(&mut self, now: Now) {
        let spare = self.spare_machines().clone();
        if spare.is_empty() {
            return;
        }
        let view = Arc::clone(&self.view);
        let mut wanted = None;
        for slot in spare.iter().filter_map(|number| view.slots().get(number)) {
            for machine in slot.machines.iter().filter(|machine| !machine.functions.is_empty()) {
                if self.reaches(slot, machine) {
                    self.leases.machines.unwanted.insert(machine.intent);
                } else if self.may_inherit(now, machine) && !self.leases.own.contains_key(&slot.number) {
                    wanted = wanted.or(Some(slot.number));
                }
            }
        }
        if let Some(slot) = wanted
            && self.leases.machines.is_time_to_reap(now.mono)
        {
            self.want(now, Want::Slot(slot));
        }
    }

    /// Whether this node reaches a machine whose maker is gone.
    pub(super) fn may_inherit(&self, now: Now, machine: &Machine) -> bool {
        let with = self.leases.machines.with.as_ref();
        let reaches = with.is_some_and(|with| with.shared && with.target == machine.target);
        let gone = !self.view.is_member(&machine.by) || !self.is_alive(now, &machine.by);
        reaches && machine.by != self.me && gone
    }
}
