//! Who may talk to this node's mesh.

use std::collections::BTreeSet;

use osiris_ledger::{Author, Role, View};
use osiris_mesh::PeerId;
use osiris_protocol::PeerAddr;

/// Whether a peer is taken for a member: it is one by the view, or this node was told of it and the view
/// says nothing of it.
///
/// A node is told of peers where its view cannot know them: by a ticket, before it received the ledger;
/// by the addresses that it kept, after its journal was found damaged or shorter. A view that lacks the admission of
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

/// Members that run functions and were lost, which a node goes on dialling; the ones lost last.
const LOST_KEPT_MAX: usize = 64;

/// Whom a node keeps a connection to beside the neighbours that it chooses by hash: a spawner to the voters, without
/// a majority of whom it may make nothing, and to those who made machines, so that it notices when one is gone. In
/// a small fleet all are connected anyway.
///
/// `lost` are peers whose connection was lost and did not come back, the last one in front ([`super::Node::lost`]). A
/// member that runs functions is taken for gone as long as it is one of them, so it is dialled until it answers: after
/// a split the neighbours may be others, and a node that nobody looks for would be missed for ever.
#[must_use]
pub fn kept(view: &View, me: &Author, lost: &[PeerId]) -> BTreeSet<PeerId> {
    let is_active = |device: &&Author| view.members().get(device).is_some_and(|member| member.active);
    let runs_functions = |peer: &&PeerId| is_node(view, &Author(peer.to_bytes()));
    let lost: BTreeSet<_> = lost.iter().filter(runs_functions).take(LOST_KEPT_MAX).copied().collect();
    let spawns = view.members().get(me).is_some_and(|me| me.active && me.roles.has(Role::Spawner));
    if !spawns {
        return lost;
    }
    let voters = view.voters().into_iter().flat_map(|voters| &voters.devices);
    let makers = view.slots().values().flat_map(|slot| slot.machines.iter().map(|machine| &machine.by));
    let others = voters.chain(makers).filter(|device| *device != me).filter(is_active);
    others.map(|device| PeerId::from_bytes(device.0)).chain(lost).collect()
}

/// Of others that are known the members, those in front that may admit. A ticket names few: of many that only call, some
/// that were known by chance could welcome nobody where this node is gone.
#[must_use]
pub fn named_by_tickets(view: &View, me: &Author, mut known: Vec<PeerAddr>) -> Vec<PeerAddr> {
    known.retain(|peer| peer.peer != me.0 && view.is_member(&Author(peer.peer)));
    known.sort_by_key(|peer| !is_node(view, &Author(peer.peer)));
    known
}

/// Whether a device is a member with the role node: it runs functions, and may admit others. Applications' devices, which
/// only call, do neither.
#[must_use]
pub fn is_node(view: &View, device: &Author) -> bool {
    view.members().get(device).is_some_and(|member| member.active && member.roles.has(Role::Node))
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Now, Payload, Roles, join_proof, op};

    use super::*;
    use crate::node::sample::{author, founded, key};

    #[test]
    fn a_spawner_keeps_to_the_voters_and_others_to_nobody() {
        let (mut founder, mut ledger) = founded(Now::default());
        let fleet = ledger.fleet();
        let mut write = |payload| founder.append(&mut ledger, Now::default(), payload).expect("allowed").id();
        let roles =
            [(2, &[Role::Node, Role::Spawner][..]), (3, &[Role::Node][..]), (4, &[Role::Operator][..])];
        for (device, roles) in roles.map(|(device, roles)| (device, Roles::of(roles))) {
            let (key, device) = (key(50), author(device));
            let offer =
                op::Invited { key: author(50), uses: 1, roles, device: Some(device), note: String::new() };
            let invitation = write(Payload::Invited(offer));
            let proof = join_proof(&key, &fleet, &invitation, &device);
            write(Payload::Admitted(op::Admitted { invitation, device, proof, label: "member".to_owned() }));
        }
        let mut voters = vec![author(1), author(3), author(9)];
        voters.sort_unstable();
        write(Payload::Voters(op::Voters { devices: voters }));
        let view = ledger.publish();
        let known = [9, 4, 3, 2, 1].map(|device| PeerAddr { peer: author(device).0, addrs: Vec::new() });
        let named = named_by_tickets(&view, &author(2), known.to_vec());
        let named: Vec<_> = named.into_iter().map(|peer| Author(peer.peer)).collect();
        assert_eq!(named, [3, 1, 4].map(author), "who may not admit comes last, and strangers not at all");
        let peers = |devices: &[u8]| devices.iter().map(|d| PeerId::from_bytes(author(*d).0)).collect();
        assert_eq!(kept(&view, &author(2), &[]), peers(&[1, 3]), "not a voter that is no member");
        assert_eq!(kept(&view, &author(3), &[]), peers(&[]));
        assert_eq!(kept(&view, &author(9), &[]), peers(&[]), "a stranger");
        let lost: Vec<_> = [9, 4, 2, 1].map(|device| PeerId::from_bytes(author(device).0)).into();
        assert_eq!(
            kept(&view, &author(3), &lost),
            peers(&[1, 2]),
            "members that run functions, and no others"
        );
        assert_eq!(kept(&view, &author(2), &lost[2..3]), peers(&[1, 2, 3]));
    }

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
