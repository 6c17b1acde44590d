//! Users, recovery, withdrawals, and what pins protect.

mod support;

use std::sync::Arc;

use osiris_ledger::{
    AppendError, Block, BlockId, InvitationState, Ledger, Now, Payload, Reject, Role, Roles, Writer,
    recovery_certificate,
};
use support::{
    FOUNDER, Fixture, NODE, OPERATOR, RECOVERY, admitted, append, author, copy, deploy, enrol, fingerprint,
    found, invited, is_new, key, merge, replica, revoked, serving, session, user, withdrawn,
};

fn device(n: u8) -> Writer {
    Writer::new(key(n), session(n))
}

fn effective(ledger: &mut Ledger, block: &Arc<Block>) -> bool {
    ledger.publish();
    ledger.is_effective(block)
}

fn recovered(ledger: &Ledger, by: u8, generation: u32, device: u8) -> Payload {
    let certificate = recovery_certificate(&key(by), &ledger.fleet(), generation, &author(device));
    let label = "rescued".to_owned();
    Payload::Recovered(osiris_ledger::op::Recovered {
        device: author(device),
        label,
        generation,
        certificate,
    })
}

#[test]
fn a_user_admits_devices_by_a_key_of_its_own() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    let isis = append(&mut ledger, &mut founder, user(2, 2, Roles::of(&[Role::Node, Role::Operator]))).id();
    // A plain node redeems for a new laptop, and for itself: it becomes the user's device, too.
    let mut node = device(NODE);
    let laptop = append(&mut ledger, &mut node, Payload::Admitted(admitted(&fleet, &isis, 2, 20))).id();
    let own = append(&mut ledger, &mut node, Payload::Admitted(admitted(&fleet, &isis, 2, NODE))).id();
    let view = ledger.publish();
    let known = &view.users()[&isis];
    assert_eq!((known.name.as_str(), known.state, known.used), ("isis", InvitationState::UsedUp, 2));
    let mut devices = vec![(laptop, author(20)), (own, author(NODE))];
    devices.sort_unstable();
    assert_eq!(known.devices, devices);
    assert_eq!(view.members()[&author(NODE)].roles, Roles::of(&[Role::Node, Role::Operator]));
    assert_eq!(view.members()[&author(20)].users, [isis]);
    // What they write names the user's grant; what a node may write anyway need not.
    let deployed = append(&mut ledger, &mut node, deploy("hello", 1, &[]));
    assert_eq!((deployed.grant(), ledger.user_of(&deployed.grant())), (own, Some(isis)));
    let served = append(&mut ledger, &mut node, serving(&deployed.id()));
    assert_eq!(ledger.user_of(&served.grant()), None);
    // A third device is one too many.
    append(&mut ledger, &mut node, Payload::Admitted(admitted(&fleet, &isis, 2, 21)));
    assert!(!ledger.publish().is_member(&author(21)));
}

#[test]
fn a_user_gives_no_role_that_its_admin_lacks_and_nobody_signs_for_it() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    enrol(&mut ledger, &mut founder, 1, 4, &[Role::Node, Role::Admin]);
    let mut admin = device(4);
    let refused = admin.append(&mut ledger, Now::default(), user(2, 1, Roles::of(&[Role::Operator]))).err();
    assert_eq!(refused, Some(AppendError::Lacks(Roles::of(&[Role::Operator]))));
    let isis = append(&mut ledger, &mut founder, user(2, 1, Roles::ALL)).id();
    let mut stolen = admitted(&fleet, &isis, 3, 4);
    stolen.invitation = isis;
    let refused = admin.append(&mut ledger, Now::default(), Payload::Admitted(stolen)).err();
    assert_eq!(refused, Some(AppendError::Invalid(Reject::Proof)));
}

#[test]
fn the_end_of_a_user_leaves_its_devices_and_admits_no_more() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    let isis = append(&mut ledger, &mut founder, user(2, 9, Roles::ALL)).id();
    append(&mut ledger, &mut founder, Payload::Admitted(admitted(&fleet, &isis, 2, 20)));
    append(&mut ledger, &mut founder, withdrawn(isis));
    append(&mut ledger, &mut founder, Payload::Admitted(admitted(&fleet, &isis, 2, 21)));
    let view = ledger.publish();
    assert!(view.is_member(&author(20)) && !view.is_member(&author(21)));
    assert_eq!(view.users()[&isis].state, InvitationState::Withdrawn);
}

/// What `osiris user roles` writes: another `user` block for the same key, and the end of the earlier one.
#[test]
fn a_user_made_known_again_gives_other_roles_from_then_on() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    let isis = append(&mut ledger, &mut founder, user(2, 5, Roles::NODE)).id();
    append(&mut ledger, &mut founder, Payload::Admitted(admitted(&fleet, &isis, 2, 20)));
    let mut elsewhere = copy(&ledger);
    let mut node = device(NODE);
    let unseen = append(&mut elsewhere, &mut node, Payload::Admitted(admitted(&fleet, &isis, 2, 21))).id();
    let roles = Roles::of(&[Role::Node, Role::Operator, Role::Viewer, Role::Voter]);
    let again = append(&mut ledger, &mut founder, user(2, 5, roles)).id();
    append(&mut ledger, &mut founder, withdrawn(isis));
    merge(&mut [&mut ledger, &mut elsewhere]);
    append(&mut ledger, &mut founder, Payload::Admitted(admitted(&fleet, &again, 2, 22)));
    let view = ledger.publish();
    assert_eq!(view.members()[&author(20)].roles, Roles::NODE, "what was given stands");
    assert_eq!(view.members()[&author(22)].roles, roles);
    assert!(!view.is_member(&author(21)), "{unseen:?} was not seen by the withdrawal");
    let state = |id| view.users()[&id].state;
    assert_eq!((state(isis), state(again)), (InvitationState::Withdrawn, InvitationState::Open));
}

/// Depth is what an author claims by choosing its parents. So what a withdrawal leaves is not decided
/// by it, but by what the withdrawal's author had seen.
#[test]
fn an_admission_cannot_be_signed_from_before_its_withdrawal() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    let invitation = append(&mut ledger, &mut founder, invited(0, 9, &[Role::Node], None));
    for n in 0..5 {
        append(&mut ledger, &mut founder, deploy("busy", n, &[]));
    }
    let withdrawal = append(&mut ledger, &mut founder, withdrawn(invitation.id()));
    let grant = ledger.publish().members()[&author(NODE)].grants[0].0;
    let early = support::Forged {
        version: 2,
        author: author(NODE),
        session: session(NODE),
        seq: 1,
        prev: BlockId::ZERO,
        parents: vec![invitation.id()],
        depth: invitation.order().depth + 1,
        wall_ms: 0,
        grant,
        payload: Payload::Admitted(admitted(&fleet, &invitation.id(), 0, 20)),
    };
    let entry = early.seal(&fleet, &key(NODE));
    assert!(early.depth < withdrawal.order().depth);
    assert!(is_new(&ledger.admit(&entry)));
    assert!(!ledger.publish().is_member(&author(20)));
    // Whichever came in first.
    let mut other = Ledger::new(fleet);
    for block in ledger.in_order().iter().filter(|block| block.id() != withdrawal.id()) {
        other.admit(block.entry()).expect("valid");
    }
    assert!(other.publish().is_member(&author(20)), "it would count without the withdrawal");
    other.admit(withdrawal.entry()).expect("valid");
    assert!(!other.publish().is_member(&author(20)));
    assert_eq!(fingerprint(&mut other), fingerprint(&mut ledger));
}

/// A block names at most eight heads. Admissions that the author knows by other chains are named.
#[test]
fn a_withdrawal_leaves_every_admission_that_its_author_knew() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    let redeemers: Vec<u8> = (30..42).collect();
    for (ticket, redeemer) in redeemers.iter().enumerate() {
        enrol(&mut ledger, &mut founder, u8::try_from(ticket).expect("few") + 1, *redeemer, &[Role::Node]);
    }
    let invitation = append(&mut ledger, &mut founder, invited(0, 90, &[Role::Node], None)).id();
    // Each on its own side of a partition, so that none cites another.
    let mut sides: Vec<_> = redeemers.iter().map(|_| copy(&ledger)).collect();
    for (side, redeemer) in sides.iter_mut().zip(&redeemers) {
        let join = Payload::Admitted(admitted(&fleet, &invitation, 0, redeemer + 50));
        append(side, &mut device(*redeemer), join);
    }
    for side in &mut sides {
        merge(&mut [&mut ledger, side]);
    }
    let withdrawal = append(&mut ledger, &mut founder, withdrawn(invitation));
    let Payload::Withdrawn(op) = withdrawal.payload() else { panic!("a withdrawal") };
    assert!(op.stands.len() >= redeemers.len() - 8, "{}", op.stands.len());
    let view = ledger.publish();
    assert_eq!(view.invitations()[&invitation].state, InvitationState::Withdrawn);
    for redeemer in redeemers {
        assert!(view.is_member(&author(redeemer + 50)), "{redeemer}");
    }
}

#[test]
fn the_recovery_key_stands_above_the_founder() {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    let kept = append(&mut ledger, &mut founder, deploy("kept", 1, &[]));
    let mut hostile = copy(&ledger);
    let mut node = device(NODE);
    // Signed by another key, or for another device: invalid for ever.
    for wrong in [recovered(&ledger, FOUNDER, 1, NODE), {
        let Payload::Recovered(mut op) = recovered(&ledger, RECOVERY, 1, NODE) else { panic!() };
        op.device = author(77);
        Payload::Recovered(op)
    }] {
        let refused = node.append(&mut ledger, Now::default(), wrong).err();
        assert_eq!(refused, Some(AppendError::Invalid(Reject::Proof)));
    }
    let rescue = recovered(&ledger, RECOVERY, 1, NODE);
    let rescue = append(&mut ledger, &mut node, rescue);
    let view = ledger.publish();
    assert_eq!(view.members()[&author(NODE)].roles, Roles::ALL);
    // The thief of the founder's device revokes the node, and with it the block that carries the word.
    let carrier =
        view.members()[&author(NODE)].grants.iter().map(|(id, ..)| *id).find(|id| *id != rescue.id());
    append(&mut hostile, &mut founder, revoked(&[carrier.expect("admitted")], &[]));
    merge(&mut [&mut ledger, &mut hostile]);
    assert!(ledger.publish().is_member(&author(NODE)), "whoever carries it, the key's word stands");
    let genesis = BlockId(ledger.fleet().0);
    let pins = vec![kept.id()];
    append(&mut ledger, &mut node, revoked(&[genesis], &pins));
    let view = ledger.publish();
    assert!(!view.is_member(&author(FOUNDER)) && view.is_member(&author(NODE)));
    assert!(view.functions().contains_key("kept"));
    let refused = founder.append(&mut ledger, Now::default(), deploy("late", 1, &[])).err();
    assert_eq!(refused, Some(AppendError::NotMember));
    // A later generation outranks the first.
    let second = recovered(&ledger, RECOVERY, 2, 60);
    append(&mut ledger, &mut node, second);
    append(&mut ledger, &mut device(60), revoked(&[rescue.id()], &[]));
    assert!(!ledger.publish().is_member(&author(NODE)));
    assert_eq!(ledger.verify(), Ok(ledger.len()));
}

#[test]
fn a_second_first_block_of_the_founder_does_not_end_the_fleet() {
    let fixture = Fixture::new();
    let mut ledger = fixture.ledger();
    let genesis = fixture.blocks[0].clone();
    let twin = support::Forged {
        session: genesis.chain().session,
        ..fixture.draft(FOUNDER, deploy("twin", 1, &[]))
    };
    assert!(is_new(&ledger.admit(&twin.seal(&fixture.fleet, &key(FOUNDER)))));
    let view = ledger.publish();
    assert_eq!(view.forks().len(), 1);
    assert!(view.is_member(&author(FOUNDER)), "the fleet's id names its first block");
    assert!(!view.functions().contains_key("twin"));
    // What else the founder wrote in that session is void, as in any forked chain, until the recovery key
    // makes an admin that pins it.
    assert!(!view.is_member(&author(NODE)));
    let mut founder = Writer::new(key(FOUNDER), session(210));
    let rescue = recovered(&ledger, RECOVERY, 1, 60);
    append(&mut ledger, &mut founder, rescue);
    let tip = fixture.blocks.iter().rfind(|block| block.author() == author(FOUNDER));
    append(&mut ledger, &mut device(60), revoked(&[fixture.genesis], &[tip.expect("it wrote").id()]));
    let view = ledger.publish();
    assert!(view.is_member(&author(NODE)) && view.functions().contains_key("hello"));
    assert!(!view.is_member(&author(FOUNDER)) && !view.functions().contains_key("twin"));
}

#[test]
fn a_revoked_device_cannot_take_back_what_was_pinned() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut operator = device(OPERATOR);
    let blocks: Vec<_> =
        (0..4).map(|n| append(&mut ledger, &mut operator, deploy(&format!("f{n}"), n, &[]))).collect();
    assert_eq!(ledger.pins_for(&author(OPERATOR)), [blocks[3].id()]);
    let pins = ledger.pins_for(&author(OPERATOR));
    append(&mut ledger, &mut founder, revoked(&[grant], &pins));
    // Afterwards it signs rivals of its second block, one of them with a successor.
    let before = copy(&ledger);
    for (version, depth) in [(7, 0), (8, 1)] {
        let rival = support::Forged {
            version: 2,
            author: author(OPERATOR),
            session: session(OPERATOR),
            seq: 2,
            prev: blocks[0].id(),
            parents: if depth == 0 { vec![] } else { vec![ledger.in_order()[0].id()] },
            depth: blocks[1].order().depth,
            wall_ms: 9,
            grant,
            payload: deploy("rival", version, &[]),
        };
        assert!(is_new(&ledger.admit(&rival.seal(&before.fleet(), &key(OPERATOR)))));
    }
    let view = ledger.publish();
    assert_eq!(view.functions().keys().collect::<Vec<_>>(), ["f0", "f1", "f2", "f3"]);
    assert_eq!(view.forks().len(), 1, "the fork is shown all the same");
    // Two revocations that pin different branches leave what they share.
    let rival = ledger.in_order().into_iter().find(|block| block.wall().0 == 9).expect("a rival").id();
    append(&mut ledger, &mut founder, revoked(&[grant], &[rival]));
    assert_eq!(ledger.publish().functions().keys().collect::<Vec<_>>(), ["f0"]);
    let mut reversed = ledger.in_order();
    reversed.reverse();
    assert_eq!(fingerprint(&mut replica(ledger.fleet(), &reversed)), fingerprint(&mut ledger));
}

/// Its own word does not heal a device's fork: else it could choose later which branch it meant.
#[test]
fn a_device_that_forks_and_leaves_stays_void_above_its_fork() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut left = device(OPERATOR);
    append(&mut ledger, &mut left, deploy("kept", 1, &[]));
    let mut other = copy(&ledger);
    append(&mut ledger, &mut left, deploy("branch", 1, &[]));
    append(&mut ledger, &mut left, revoked(&[grant], &[]));
    let held = other.in_order().pop().expect("blocks");
    let rival = support::Forged {
        version: 2,
        author: author(OPERATOR),
        session: session(OPERATOR),
        seq: 2,
        prev: held.id(),
        parents: vec![],
        depth: held.order().depth + 1,
        wall_ms: 0,
        grant,
        payload: deploy("rival", 1, &[]),
    };
    assert!(is_new(&other.admit(&rival.seal(&ledger.fleet(), &key(OPERATOR)))));
    merge(&mut [&mut ledger, &mut other]);
    let view = ledger.publish();
    assert_eq!(view.functions().keys().collect::<Vec<_>>(), ["kept"]);
    assert!(view.is_member(&author(OPERATOR)), "the block by which it left is void, too");
}

/// Each of its sessions says that the device leaves. The evaluation follows only the first through the
/// others, so its work grows with the sessions and not with their square: counted, not timed.
#[test]
fn leaving_many_times_leaves_once() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let mut sides: Vec<_> = (0..20).map(|_| copy(&ledger)).collect();
    for (n, side) in (100..).zip(&mut sides) {
        let mut node = Writer::new(key(NODE), session(n));
        append(side, &mut node, revoked(&[grant], &[]));
    }
    let mut blocks = Vec::new();
    for side in &mut sides {
        merge(&mut [&mut ledger, side]);
    }
    for block in ledger.in_order() {
        if block.author() == author(NODE) {
            blocks.push(effective(&mut ledger, &block));
        }
    }
    assert_eq!(blocks.iter().filter(|counts| **counts).count(), 1);
    assert!(blocks[0], "the first in ledger order");
    assert!(!ledger.publish().is_member(&author(NODE)));
}

#[test]
fn pins_name_the_newest_of_each_session_that_no_later_one_cites() {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut restored = copy(&ledger);
    let mut last = None;
    for start in 0..3 {
        let mut operator = Writer::new(key(OPERATOR), session(50 + start));
        append(&mut ledger, &mut operator, deploy(&format!("a{start}"), 1, &[]));
        last = Some(append(&mut ledger, &mut operator, deploy(&format!("b{start}"), 1, &[])));
    }
    // A restored backup goes on from before those sessions.
    let aside = append(&mut restored, &mut Writer::new(key(OPERATOR), session(60)), deploy("aside", 1, &[]));
    merge(&mut [&mut ledger, &mut restored]);
    let mut pins = vec![last.expect("written").id(), aside.id()];
    pins.sort_unstable();
    assert_eq!(ledger.pins_for(&author(OPERATOR)), pins);
    let grant = ledger.publish().members()[&author(OPERATOR)].grants[0].0;
    let before: Vec<_> = ledger.publish().functions().keys().cloned().collect();
    append(&mut ledger, &mut founder, revoked(&[grant], &pins));
    let view = ledger.publish();
    assert!(!view.is_member(&author(OPERATOR)));
    assert_eq!(view.functions().keys().cloned().collect::<Vec<_>>(), before, "nothing that it wrote is lost");
}
