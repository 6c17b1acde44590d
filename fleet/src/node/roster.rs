//! Who may talk to this node's mesh.

use std::collections::BTreeSet;

use osiris_ledger::{Author, View};
use osiris_mesh::PeerId;

/// Whether a peer is taken for a member: it is one by the view, or this node was told of it and the view
/// says nothing of it.
///
/// A node is told of peers where its view cannot know them: by a ticket, before it received the ledger;
/// by the addresses that it kept, after its journal was found damaged. A view that lacks the admission of
/// everyone else would else turn away all who could repair it. What the view does say comes first: who
/// was revoked is no member, whoever told of it.
#[must_use]
pub fn is_in_roster(view: &View, told: &BTreeSet<PeerId>, peer: &PeerId) -> bool {
    match view.members().get(&Author(peer.to_bytes())) {
        Some(member) => member.active,
        None => told.contains(peer),
    }
}

/// Everyone for whom [`is_in_roster`] holds.
#[must_use]
pub fn roster(view: &View, told: &BTreeSet<PeerId>) -> Vec<PeerId> {
    let active = view.members().values().filter(|member| member.active);
    let unknown = told.iter().filter(|peer| !view.members().contains_key(&Author(peer.to_bytes())));
    active.map(|member| PeerId::from_bytes(member.device.0)).chain(unknown.copied()).collect()
}

#[cfg(test)]
mod tests {
    use osiris_ledger::Now;

    use super::*;
    use crate::node::sample::founded;

    #[test]
    fn whom_the_view_does_not_know_is_taken_on_what_was_told() {
        let (writer, mut ledger) = founded(Now::default());
        let view = ledger.publish();
        let founder = PeerId::from_bytes(writer.author().0);
        let (told, stranger) = (PeerId::from_bytes([7; 32]), PeerId::from_bytes([8; 32]));
        let all_told = BTreeSet::from([founder, told]);
        assert!(is_in_roster(&view, &BTreeSet::new(), &founder));
        assert!(is_in_roster(&view, &all_told, &told) && !is_in_roster(&view, &BTreeSet::new(), &told));
        assert!(!is_in_roster(&view, &all_told, &stranger));
        assert_eq!(roster(&view, &all_told).len(), 2, "the founder once");
        assert_eq!(roster(&View::default(), &all_told).len(), 2);
    }
}
