//! What a fleet experiences: membership, registers, revocations and forks, on replicas that differ.

mod support;

use std::sync::Arc;

use osiris_ledger::{
    Admission, AppendError, Block, BlockId, InvitationState, Ledger, Now, Payload, Role, Roles, Writer, op,
};
use support::{
    Fixture, NODE, OPERATOR, admitted, append, author, copy, deploy, enrol, fingerprint, found, invited,
    is_new, key, merge, replica, revoked, serving, session, withdrawn,
};

fn device(n: u8) -> Writer {
    Writer::new(key(n), session(n))
}

const EVERYTHING: [Role; 7] = Role::ALL;

fn effective(ledger: &mut Ledger, block: &Arc<Block>) -> bool {
    ledger.publish();
    ledger.is_effective(block)
}

#[test]
fn found_invite_admit_deploy_serve_remove() {
    let (mut ledger, mut founder) = found(0);
    let view = ledger.publish();
    assert_eq!((view.name(), view.members().len(), view.blocks()), ("berlin", 1, 1));
    assert!(view.is_member(&author(support::FOUNDER)));

    let invitation = append(&mut ledger, &mut founder, invited(0, 2, &[Role::Node], None)).id();
    let fleet = ledger.fleet();
    let join = Payload::Admitted(admitted(&fleet, &invitation, 0, NODE));
    append(&mut ledger, &mut founder, join);
    let view = ledger.publish();
    let member = &view.members()[&author(NODE)];
    assert_eq!((member.active, member.roles, member.label.as_str()), (true, Roles::NODE, "device-2"));
    let shown = &view.invitations()[&invitation];
    assert_eq!((shown.used, shown.surplus, shown.state), (1, 0, InvitationState::Open));

    let mut node = device(NODE);
    let first = append(&mut ledger, &mut founder, deploy("hello", 1, &[])).id();
    let view = ledger.publish();
    let function = view.function("hello").expect("deployed");
    assert!(function.live.is_none(), "nobody has it ready");
    assert_eq!(function.newest.as_ref().map(|newest| (newest.id, newest.number)), Some((first, 1)));

    append(&mut ledger, &mut node, serving(&first));
    let second = append(&mut ledger, &mut founder, deploy("hello", 2, &[first])).id();
    let view = ledger.publish();
    let function = view.function("hello").expect("deployed");
    assert_eq!(function.live.as_ref().map(|live| live.id), Some(first), "the old one serves until then");
    assert_eq!(function.newest.as_ref().map(|newest| newest.id), Some(second));
    assert_eq!(function.revisions[0].serving[0].device, author(NODE));

    append(&mut ledger, &mut node, serving(&second));
    let live = |ledger: &mut Ledger| {
        let view = ledger.publish();
        view.function("hello").and_then(|function| function.live.clone()).map(|live| live.id)
    };
    assert_eq!(live(&mut ledger), Some(second));
    append(&mut ledger, &mut node, Payload::Stopped(op::Stopped { revision: second }));
    assert_eq!(live(&mut ledger), Some(first), "back to the newest that is ready");
    append(&mut ledger, &mut node, serving(&second));
    assert_eq!(live(&mut ledger), Some(second));

    let removal = Payload::Removed(op::Removed { name: "hello".to_owned(), replaces: vec![second] });
    let removal = append(&mut ledger, &mut founder, removal).id();
    let view = ledger.publish();
    let function = view.function("hello").expect("still listed");
    assert!(function.removed && function.live.is_none() && function.newest.is_none());
    assert_eq!((function.revisions.len(), function.heads.as_slice()), (2, [removal].as_slice()));

    let third = append(&mut ledger, &mut founder, deploy("hello", 3, &[removal])).id();
    let view = ledger.publish();
    let function = view.function("hello").expect("deployed again");
    assert_eq!((function.removed, function.newest.as_ref().map(|newest| newest.id)), (false, Some(third)));
    assert_eq!(ledger.verify(), Ok(ledger.len()));
}

#[test]
fn of_concurrent_deploys_the_last_in_order_is_live_and_the_next_replaces_both() {
    let (mut left, mut founder) = found(0);
    enrol(&mut left, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut right = copy(&left);
    let mut operator = device(OPERATOR);
    let one = append(&mut left, &mut founder, deploy("hello", 1, &[]));
    let two = append(&mut right, &mut operator, deploy("hello", 2, &[]));
    append(&mut left, &mut founder, serving(&one.id()));
    append(&mut right, &mut operator, serving(&two.id()));
    merge(&mut [&mut left, &mut right]);
    let last = one.order().max(two.order()).id;
    for ledger in [&mut left, &mut right] {
        let view = ledger.publish();
        let function = view.function("hello").expect("deployed");
        assert_eq!(function.live.as_ref().map(|live| live.id), Some(last));
        assert_eq!(function.newest.as_ref().map(|newest| newest.id), Some(last));
        assert!(function.revisions.iter().all(|revision| revision.concurrent));
        let numbers: Vec<_> = function.revisions.iter().map(|revision| revision.number).collect();
        assert_eq!((function.heads.len(), numbers), (2, vec![1, 2]));
    }
    assert_eq!(fingerprint(&mut left), fingerprint(&mut right));

    let heads = left.publish().function("hello").expect("deployed").heads.clone();
    let third = append(&mut left, &mut founder, deploy("hello", 3, &heads)).id();
    let view = left.publish();
    let function = view.function("hello").expect("deployed");
    assert_eq!(function.heads, [third]);
    assert!(function.revisions.iter().all(|revision| !revision.concurrent));
    assert_eq!(function.newest.as_ref().map(|newest| newest.id), Some(third));
}

#[test]
fn an_invitation_spent_on_both_sides_of_a_partition_admits_only_its_uses() {
    let (mut left, mut founder) = found(0);
    let redeemer = enrol(&mut left, &mut founder, 1, NODE, &[Role::Node]);
    assert!(left.get(&redeemer).is_some());
    let invitation = append(&mut left, &mut founder, invited(0, 1, &[Role::Node], None)).id();
    let fleet = left.fleet();
    let mut right = copy(&left);
    let mut node = device(NODE);
    let here = append(&mut left, &mut founder, Payload::Admitted(admitted(&fleet, &invitation, 0, 20)));
    let there = append(&mut right, &mut node, Payload::Admitted(admitted(&fleet, &invitation, 0, 21)));
    // Before the heal each is a member on its side, and the one on the right writes.
    assert!(left.publish().is_member(&author(20)) && right.publish().is_member(&author(21)));
    let mut late = device(21);
    let works = append(&mut right, &mut late, revoked(&[there.id()], &[]));
    merge(&mut [&mut left, &mut right]);
    assert_eq!(fingerprint(&mut left), fingerprint(&mut right));
    let shown = left.publish().invitations()[&invitation].clone();
    assert_eq!((shown.uses, shown.used, shown.surplus, shown.state), (1, 1, 1, InvitationState::UsedUp));
    // The founder's admission ranks above the node's, whichever comes first in order.
    let view = left.publish();
    assert!(view.members().contains_key(&author(20)));
    assert!(!view.members().contains_key(&author(21)), "the surplus device is no member");
    assert!(!effective(&mut left, &works), "what the surplus device wrote is void");
    assert_eq!(
        late.append(&mut left, Now::default(), serving(&here.id())).err(),
        Some(AppendError::NotMember)
    );
}

/// A member that holds a ticket can sign admissions that come early in order, and so crowd out
/// others of the same ticket. Its revocation gives them their places back.
#[test]
fn a_revoked_holder_of_a_ticket_crowds_out_nobody() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    let invitation = append(&mut ledger, &mut founder, invited(0, 2, &[Role::Node], None)).id();
    let join = |n| Payload::Admitted(admitted(&fleet, &invitation, 0, n));
    let hostile = append(&mut ledger, &mut founder, join(9));
    let other = enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    assert_ne!(hostile.id(), other);
    append(&mut ledger, &mut device(NODE), join(20));
    assert!(ledger.publish().is_member(&author(20)));
    let shallow = support::Forged {
        version: 2,
        author: author(9),
        session: session(9),
        seq: 1,
        prev: BlockId::ZERO,
        parents: vec![hostile.id()],
        depth: hostile.order().depth + 1,
        wall_ms: 0,
        grant: hostile.id(),
        payload: join(30),
    };
    assert!(is_new(&ledger.admit(&shallow.seal(&fleet, &key(9)))));
    let view = ledger.publish();
    assert!(view.is_member(&author(30)) && !view.is_member(&author(20)));
    assert_eq!(view.invitations()[&invitation].surplus, 1);
    append(&mut ledger, &mut founder, revoked(&[hostile.id()], &[]));
    let view = ledger.publish();
    assert!(!view.is_member(&author(30)) && view.is_member(&author(20)));
    assert_eq!(view.invitations()[&invitation].surplus, 0);
}

#[test]
fn a_withdrawn_invitation_admits_nobody_later_in_order() {
    let (mut ledger, mut founder) = found(0);
    let invitation = append(&mut ledger, &mut founder, invited(0, 9, &[Role::Node], None)).id();
    let fleet = ledger.fleet();
    let join = |n| Payload::Admitted(admitted(&fleet, &invitation, 0, n));
    append(&mut ledger, &mut founder, join(20));
    append(&mut ledger, &mut founder, withdrawn(invitation));
    assert_eq!(ledger.publish().invitations()[&invitation].state, InvitationState::Withdrawn);
    append(&mut ledger, &mut founder, join(21));
    let view = ledger.publish();
    assert!(view.is_member(&author(20)), "admitted in time");
    assert!(!view.is_member(&author(21)), "too late");
}

/// An admin cannot withdraw the invitation of one above it.
#[test]
fn a_withdrawal_from_below_does_not_bind() {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 1, 4, &EVERYTHING);
    let invitation = append(&mut ledger, &mut founder, invited(0, 9, &[Role::Node], None)).id();
    let withdrawal = withdrawn(invitation);
    let mut admin = device(4);
    assert_eq!(admin.append(&mut ledger, Now::default(), withdrawal.clone()).err(), Some(AppendError::Rank));
    // A hostile admin signs it all the same: valid, and without effect.
    let fixture = Fixture::new();
    let mut draft = fixture.draft(support::ADMIN, withdrawn(fixture.bearer));
    let mut ledger = fixture.ledger();
    assert!(is_new(&ledger.admit(&draft.seal(&fixture.fleet, &key(support::ADMIN)))));
    assert_eq!(ledger.publish().invitations()[&fixture.bearer].state, InvitationState::Open);
    draft.payload = revoked(&[fixture.genesis], &[]);
    draft.session = session(201);
    assert!(is_new(&ledger.admit(&draft.seal(&fixture.fleet, &key(support::ADMIN)))));
    assert!(ledger.publish().is_member(&author(support::FOUNDER)), "nobody ends the grant above its own");
}

#[test]
fn an_invitation_bound_to_a_device_admits_only_that_device() {
    let fixture = Fixture::new();
    let fits = Payload::Admitted(admitted(&fixture.fleet, &fixture.named, 1, OPERATOR));
    assert!(is_new(&fixture.answer(NODE, &fixture.draft(NODE, fits))));
    let other = Payload::Admitted(admitted(&fixture.fleet, &fixture.named, 1, 20));
    assert!(fixture.answer(NODE, &fixture.draft(NODE, other)).is_err());
}

#[test]
fn pins_say_how_far_a_revoked_device_counts() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut operator = device(OPERATOR);
    let mut blocks = Vec::new();
    for n in 1..=4 {
        blocks.push(append(&mut ledger, &mut operator, deploy(&format!("f{n}"), n, &[])));
    }
    append(&mut ledger, &mut founder, revoked(&[grant], &[blocks[1].id()]));
    let counted: Vec<_> = blocks.iter().map(|block| effective(&mut ledger, block)).collect();
    assert_eq!(counted, [true, true, false, false]);
    let view = ledger.publish();
    assert_eq!(view.functions().keys().collect::<Vec<_>>(), ["f1", "f2"]);
    assert!(!view.is_member(&author(OPERATOR)));
    let refused = operator.append(&mut ledger, Now::default(), deploy("f5", 5, &[])).err();
    assert_eq!(refused, Some(AppendError::NotMember));

    // A second revocation, with lower pins: the minimum holds.
    append(&mut ledger, &mut founder, revoked(&[grant], &[blocks[0].id()]));
    let counted: Vec<_> = blocks.iter().map(|block| effective(&mut ledger, block)).collect();
    assert_eq!(counted, [true, false, false, false]);
    // A third with higher ones takes nothing back.
    append(&mut ledger, &mut founder, revoked(&[grant], &[blocks[3].id()]));
    let counted: Vec<_> = blocks.iter().map(|block| effective(&mut ledger, block)).collect();
    assert_eq!(counted, [true, false, false, false]);
    assert_eq!(ledger.verify(), Ok(ledger.len()));
}

#[test]
fn sessions_that_a_pinned_ones_first_block_cites_count() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    // Three starts of one device; each first block cites the head of the one before.
    let mut blocks = Vec::new();
    for start in 0..3 {
        let mut operator = Writer::new(key(OPERATOR), session(50 + start));
        for n in 0..2 {
            let name = format!("f{start}{n}");
            blocks.push(append(&mut ledger, &mut operator, deploy(&name, n, &[])));
        }
    }
    assert!(blocks[2].parents().any(|id| id == blocks[1].id()));
    assert!(blocks[4].parents().any(|id| id == blocks[3].id()));
    // A session that nobody cites, from a side of the partition that the admin never saw.
    let fleet = ledger.fleet();
    let admission = ledger.get(&grant).cloned().expect("admitted");
    let mut aside = replica(fleet, &ledger.in_order()[..3]);
    assert!(aside.contains_all(&[grant]));
    let mut elsewhere = Writer::new(key(OPERATOR), session(60));
    let unseen = append(&mut aside, &mut elsewhere, deploy("unseen", 1, &[]));
    assert!(unseen.order() > admission.order());

    append(&mut ledger, &mut founder, revoked(&[grant], &[blocks[4].id()]));
    merge(&mut [&mut ledger, &mut aside]);
    let counted: Vec<_> = blocks.iter().map(|block| effective(&mut ledger, block)).collect();
    assert_eq!(counted, [true, true, true, true, true, false]);
    assert!(!effective(&mut ledger, &unseen));
    assert_eq!(fingerprint(&mut ledger), fingerprint(&mut aside));
    // A second revocation that keeps only the first session: what either leaves out is void.
    append(&mut ledger, &mut founder, revoked(&[grant], &[blocks[1].id(), unseen.id()]));
    let counted: Vec<_> = blocks.iter().map(|block| effective(&mut ledger, block)).collect();
    assert_eq!(counted, [true, true, false, false, false, false]);
    assert!(!effective(&mut ledger, &unseen));
}

/// A revoked device can neither bring its later blocks back nor take back the earlier ones: a second
/// first block of the pinned session forks the chain, and the pin says which branch counts.
#[test]
fn a_revoked_device_cannot_move_its_pins_by_a_fork() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut first = Writer::new(key(OPERATOR), session(50));
    append(&mut ledger, &mut first, deploy("f1", 1, &[]));
    let mut second = Writer::new(key(OPERATOR), session(51));
    let mut cloned = Writer::new(key(OPERATOR), session(51));
    let mut hostile = copy(&ledger);
    let pinned = append(&mut ledger, &mut second, deploy("f2", 1, &[]));
    append(&mut ledger, &mut founder, revoked(&[grant], &[pinned.id()]));

    let late = append(&mut hostile, &mut first, deploy("late", 1, &[]));
    append(&mut hostile, &mut cloned, deploy("f3", 1, &[]));
    let (honest, forked) = (ledger.in_order(), hostile.in_order());
    merge(&mut [&mut ledger, &mut hostile]);
    assert_eq!(ledger.publish().forks().len(), 1);
    assert!(!effective(&mut ledger, &late), "signed after the revocation");
    assert_eq!(ledger.publish().functions().keys().collect::<Vec<_>>(), ["f1", "f2"]);
    // Whichever of the two first blocks comes first.
    let [honest_first, hostile_first] = [honest, forked].map(|first| {
        let all = first.iter().cloned().chain(ledger.in_order());
        fingerprint(&mut replica(ledger.fleet(), &all.collect::<Vec<_>>()))
    });
    assert_eq!(honest_first, hostile_first);
    assert_eq!(honest_first, fingerprint(&mut ledger));
}

#[test]
fn of_two_admins_that_revoke_each_other_the_higher_stays() {
    let (mut left, mut founder) = found(0);
    // Siblings in the tree: the one admitted first ranks higher, whatever the order of the blocks.
    let first = enrol(&mut left, &mut founder, 0, 10, &EVERYTHING);
    let second = enrol(&mut left, &mut founder, 1, 11, &EVERYTHING);
    let mut right = copy(&left);
    let (mut high, mut low) = (device(10), device(11));
    assert_eq!(
        low.append(&mut right, Now::default(), revoked(&[first], &[])).err(),
        Some(AppendError::Rank),
        "an honest writer refuses what would not bind"
    );
    let fleet = left.fleet();
    let head = right.in_order().pop().expect("blocks");
    let from_below = support::Forged {
        version: 2,
        author: author(11),
        session: session(11),
        seq: 1,
        prev: BlockId::ZERO,
        parents: vec![head.id()],
        depth: head.order().depth + 1,
        wall_ms: 0,
        grant: second,
        payload: revoked(&[first], &[]),
    };
    assert!(is_new(&right.admit(&from_below.seal(&fleet, &key(11)))));
    assert!(right.publish().is_member(&author(10)));
    append(&mut left, &mut high, revoked(&[second], &[]));
    merge(&mut [&mut left, &mut right]);
    let blocks = left.in_order();
    let mut reversed: Vec<_> = blocks.clone();
    reversed.reverse();
    for order in [&blocks, &reversed] {
        let mut ledger = replica(fleet, order);
        let view = ledger.publish();
        assert!(view.is_member(&author(10)) && !view.is_member(&author(11)));
        assert_eq!(fingerprint(&mut ledger), fingerprint(&mut left));
    }
}

#[test]
fn a_device_may_leave() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let revision = append(&mut ledger, &mut founder, deploy("hello", 1, &[])).id();
    let mut node = device(NODE);
    let before = append(&mut ledger, &mut node, serving(&revision));
    assert!(ledger.publish().function("hello").is_some_and(|function| function.live.is_some()));
    let leaves = append(&mut ledger, &mut node, revoked(&[grant], &[]));
    assert!(effective(&mut ledger, &before) && effective(&mut ledger, &leaves));
    let view = ledger.publish();
    assert!(!view.is_member(&author(NODE)));
    assert!(view.function("hello").is_some_and(|function| function.live.is_none()), "its holder left");
    let refused = node.append(&mut ledger, Now::default(), serving(&revision)).err();
    assert_eq!(refused, Some(AppendError::NotMember));
}

/// Who may write nothing else may do this, for itself alone.
#[test]
fn a_device_may_leave_whatever_its_roles_allow() {
    for (seed, role) in (NODE..).zip([Role::Viewer, Role::Invoker, Role::Spawner, Role::Voter]) {
        let (mut ledger, mut founder) = found(0);
        let grant = enrol(&mut ledger, &mut founder, 0, seed, &[role]);
        let other = enrol(&mut ledger, &mut founder, 0, seed + 10, &[role]);
        let mut leaving = device(seed);
        let denied = leaving.append(&mut ledger, Now::default(), revoked(&[other], &[])).err();
        assert_eq!(denied, Some(AppendError::Denied(Role::Admin)));
        let leaves = append(&mut ledger, &mut leaving, revoked(&[grant], &[]));
        assert!(effective(&mut ledger, &leaves));
        let view = ledger.publish();
        assert!(!view.is_member(&author(seed)) && view.is_member(&author(seed + 10)));
    }
}

/// What is missing is the role that would be given, not the one that gives.
#[test]
fn an_admin_that_lacks_a_role_reads_which_one() {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node, Role::Admin]);
    let mut admin = device(NODE);
    let offer = invited(1, 1, &[Role::Node, Role::Spawner, Role::Voter], Some(NODE + 1));
    let denied = admin.append(&mut ledger, Now::default(), offer).err();
    assert_eq!(denied, Some(AppendError::Lacks(Roles::of(&[Role::Spawner, Role::Voter]))));
}

#[test]
fn voidness_travels_through_the_grant_used_and_not_through_parents() {
    let (mut ledger, mut founder) = found(0);
    let admin_grant = enrol(&mut ledger, &mut founder, 0, 10, &EVERYTHING);
    let mut admin = device(10);
    enrol(&mut ledger, &mut admin, 1, 11, &EVERYTHING);
    let mut below = device(11);
    enrol(&mut ledger, &mut below, 2, 12, &[Role::Node, Role::Operator]);
    let mut leaf = device(12);
    let void = append(&mut ledger, &mut leaf, deploy("void", 1, &[]));
    // The founder's next block cites the leaf's.
    let cites = append(&mut ledger, &mut founder, deploy("counts", 1, &[]));
    assert!(cites.parents().any(|id| id == void.id()));
    // The admin's chain is pinned before it invited anybody.
    append(&mut ledger, &mut founder, revoked(&[admin_grant], &[]));
    let view = ledger.publish();
    let active: Vec<_> = view.members().values().filter(|member| member.active).collect();
    assert_eq!(active.len(), 1, "only the founder is left");
    assert!(!effective(&mut ledger, &void) && effective(&mut ledger, &cites));
    assert_eq!(view.functions().keys().collect::<Vec<_>>(), ["counts"]);
}

#[test]
fn a_revoked_device_comes_back_by_a_new_invitation() {
    let (mut ledger, mut founder) = found(0);
    let old = enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let revision = append(&mut ledger, &mut founder, deploy("hello", 1, &[])).id();
    append(&mut ledger, &mut founder, revoked(&[old], &[]));
    assert!(!ledger.publish().is_member(&author(NODE)));
    let new = enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    assert_ne!(old, new);
    assert!(ledger.publish().is_member(&author(NODE)));
    let mut node = Writer::new(key(NODE), session(77));
    let block = append(&mut ledger, &mut node, serving(&revision));
    assert_eq!(block.grant(), new);
    assert!(effective(&mut ledger, &block));
    assert!(ledger.publish().function("hello").is_some_and(|function| function.live.is_some()));
}

#[test]
fn a_node_may_not_deploy() {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let before = fingerprint(&mut ledger);
    let mut node = device(NODE);
    let denied = node.append(&mut ledger, Now::default(), deploy("hello", 1, &[]));
    assert_eq!(denied.err(), Some(AppendError::Denied(Role::Operator)));
    let denied = node.append(&mut ledger, Now::default(), invited(1, 1, &[Role::Node], None));
    assert_eq!(denied.err(), Some(AppendError::Denied(Role::Admin)));
    let stranger = device(66).append(&mut ledger, Now::default(), deploy("hello", 1, &[]));
    assert_eq!(stranger.err(), Some(AppendError::NotMember));
    let mut admin = founder;
    let bad = admin.append(&mut ledger, Now::default(), deploy("Not A Name", 1, &[]));
    assert!(matches!(bad, Err(AppendError::Invalid(_))));
    assert_eq!(fingerprint(&mut ledger), before, "what is refused changes nothing");
}

#[test]
fn a_replayed_ledger_verifies_and_a_forged_record_is_found() {
    let fixture = Fixture::new();
    let mut ledger = Ledger::new(fixture.fleet);
    for block in &fixture.blocks {
        assert!(is_new(&ledger.replay(block.entry())));
    }
    assert_eq!(ledger.verify(), Ok(fixture.blocks.len() as u64));
    assert_eq!(fingerprint(&mut ledger), fingerprint(&mut fixture.ledger()));
    // A record that somebody put into the journal: replay trusts it, verify does not.
    let forged = fixture.draft(NODE, serving(&fixture.revision)).seal(&fixture.fleet, &key(OPERATOR));
    let Ok(Admission::New { admitted, .. }) = ledger.replay(&forged) else { panic!("replay trusts") };
    assert_eq!(ledger.verify(), Err((admitted[0].id(), osiris_ledger::Reject::BadSignature)));
    for count in [1, 3, usize::MAX] {
        let (mut after, mut forged, mut checked) = (None, Vec::new(), 0);
        loop {
            let slice = ledger.check_signatures(after, count);
            checked += slice.checked;
            forged.extend(slice.forged);
            after = slice.last;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(
            (checked, forged.as_slice()),
            (ledger.len(), &[admitted[0].id()][..]),
            "slices of {count}"
        );
    }
}

#[test]
fn the_document_follows_in_slices_of_any_size_to_the_same_heads() {
    let fixture = Fixture::new();
    let mut whole = fixture.ledger();
    let heads = whole.document_heads();
    for slice in [1, 2, 7] {
        let mut ledger = fixture.ledger();
        let mut waiting = ledger.document_pending();
        assert_eq!(waiting, fixture.blocks.len(), "nothing is applied unasked");
        while waiting > 0 {
            assert_ne!(ledger.document_heads_before(), heads);
            ledger.follow_document(slice);
            assert_eq!(ledger.document_pending(), waiting.saturating_sub(slice));
            waiting = ledger.document_pending();
        }
        assert_eq!(ledger.document_heads_before(), heads);
    }
    // A fork that shows while blocks above it wait, and one below what was applied.
    let twin = |wall_ms| {
        let mut body = fixture.draft(NODE, serving(&fixture.revision));
        body.wall_ms = wall_ms;
        body.seal(&fixture.fleet, &key(NODE))
    };
    let mut apart = fixture.ledger();
    for applied in [0, usize::MAX] {
        let mut ledger = fixture.ledger();
        ledger.admit(&twin(1)).expect("valid");
        ledger.follow_document(applied);
        ledger.admit(&twin(2)).expect("valid");
        assert_eq!(ledger.document_rebuilds(), (applied > 0, 0));
        assert_eq!(ledger.document_heads(), apart.document_heads(), "neither twin is in it");
        assert_eq!(ledger.document_rebuilds(), (false, u64::from(applied > 0)));
    }
}

/// However many chains there are, a writer's blocks reach back to every change of membership in time, and
/// of all else cite the deepest alone.
#[test]
fn a_writer_cites_membership_and_the_deepest_head() {
    let (mut ledger, mut founder) = found(0);
    let invitation = append(&mut ledger, &mut founder, invited(0, 80, &[Role::Node], None)).id();
    let fleet = ledger.fleet();
    let revision = append(&mut ledger, &mut founder, deploy("hello", 1, &[])).id();
    for n in 10..30 {
        append(&mut ledger, &mut founder, Payload::Admitted(admitted(&fleet, &invitation, 0, n)));
    }
    let mut sides: Vec<_> = (10..30).map(|_| copy(&ledger)).collect();
    let mut unseen = std::collections::BTreeSet::new();
    for (n, side) in (10..30).zip(&mut sides) {
        let join = Payload::Admitted(admitted(&fleet, &invitation, 0, n + 50));
        unseen.insert(append(side, &mut device(n), join).id());
    }
    for side in &mut sides {
        merge(&mut [&mut ledger, side]);
    }
    for n in 0..4 {
        let block = append(&mut ledger, &mut founder, deploy("more", n, &[]));
        for parent in block.parents() {
            unseen.remove(&parent);
        }
    }
    assert!(unseen.is_empty(), "{} changes of membership were never cited", unseen.len());
    let mut deepest = None;
    for n in 10..30 {
        for _ in 0..n % 3 {
            deepest = Some(append(&mut ledger, &mut device(n + 50), serving(&revision)).id());
        }
    }
    let block = append(&mut ledger, &mut founder, deploy("last", 1, &[]));
    assert_eq!(block.parents().collect::<Vec<_>>(), deepest.as_slice());
    assert_eq!(ledger.verify(), Ok(ledger.len()));
}

/// Batches are read on several cores: what comes of them is the same as one by one.
#[test]
fn a_batch_is_answered_as_its_entries_one_by_one() {
    let fixture = Fixture::new();
    let mut entries: Vec<_> = fixture.blocks.iter().map(|block| block.entry().to_vec()).collect();
    // Early ones, one that comes twice, and one with a changed byte amid the rest.
    entries.reverse();
    entries.extend(fixture.blocks.iter().map(|block| block.entry().to_vec()));
    let mut changed = entries[0].clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    entries.insert(3, changed);
    entries.push(Vec::new());
    assert!(entries.len() > osiris_ledger::limits::PARALLEL_MIN);
    let say = |answer: Result<Admission, osiris_ledger::Reject>| match answer {
        Ok(Admission::New { admitted, rejected }) => {
            format!("{:?} {rejected:?}", admitted.iter().map(|block| block.id()).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    };
    let (mut batch, mut single) = (Ledger::new(fixture.fleet), Ledger::new(fixture.fleet));
    let together: Vec<_> = batch.admit_all(&entries).into_iter().map(say).collect();
    let alone: Vec<_> = entries.iter().map(|entry| say(single.admit(entry))).collect();
    assert_eq!(together, alone);
    assert_eq!(together.iter().filter(|said| said.contains("BadSignature")).count(), 1);
    assert_eq!(batch.len(), fixture.blocks.len() as u64);
    assert_eq!(fingerprint(&mut batch), fingerprint(&mut single));
}

/// An early block that comes twice in one batch waits once.
#[test]
fn an_early_block_that_comes_twice_in_a_batch_waits_once() {
    let fixture = Fixture::new();
    let (genesis, rest) = fixture.blocks.split_first().expect("blocks");
    let entries: Vec<_> = rest.iter().chain(rest).map(|block| block.entry().to_vec()).collect();
    assert!(entries.len() > osiris_ledger::limits::PARALLEL_MIN);
    let mut ledger = Ledger::new(fixture.fleet);
    assert!(ledger.admit_all(&entries).iter().all(|answer| matches!(answer, Ok(Admission::Early { .. }))));
    assert_eq!(ledger.early().0, rest.len());
    ledger.admit(genesis.entry()).expect("valid");
    assert_eq!((ledger.early().0, ledger.len()), (0, fixture.blocks.len() as u64));
}
