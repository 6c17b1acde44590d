//! Leases: which claims, activations and intents are blocks at all, who wins a round, and what is left to see of
//! a machine whose maker was revoked.

mod support;

use std::sync::Arc;

use osiris_ledger::{
    BlockId, Ledger, Payload, Reject, Role, View, Writer,
    lease::{Slot, SpawnPolicy, draw},
    limits, op,
};
use support::{
    FOUNDER, Fixture, Forged, NODE, OPERATOR, append, author, copy, enrol, found, key, merge, revoked,
    session,
};

const SPAWNERS: [u8; 2] = [20, 21];

/// A fleet with two spawners: their grants, and their writers.
struct Fleet {
    ledger: Ledger,
    founder: Writer,
    grants: Vec<BlockId>,
    spawners: Vec<Writer>,
}

fn fleet() -> Fleet {
    let (mut ledger, mut founder) = found(0);
    let roles = [Role::Node, Role::Spawner];
    let enrolled = SPAWNERS.iter().zip(0..);
    let enrolled = enrolled.map(|(device, ticket)| enrol(&mut ledger, &mut founder, ticket, *device, &roles));
    let grants = enrolled.collect();
    let spawners = SPAWNERS.iter().map(|device| Writer::new(key(*device), session(*device))).collect();
    Fleet { ledger, founder, grants, spawners }
}

fn claimed(slot: u32, round: u64, after: Option<BlockId>) -> Payload {
    Payload::Claimed(op::Claimed { slot, round, after })
}

fn activated(claim: BlockId) -> Payload {
    Payload::Activated(op::Activated { claim })
}

fn intent(activation: BlockId) -> Payload {
    let functions = vec!["chart".to_owned(), "hello".to_owned()];
    Payload::Intent(op::Intent { activation, target: "process".to_owned(), functions, key: author(60) })
}

fn released(claim: BlockId) -> Payload {
    Payload::Released(op::Released { claim })
}

fn retired(intent: BlockId) -> Payload {
    Payload::Retired(op::Retired { intent })
}

fn spawning(machines: u32, minority: bool) -> Payload {
    Payload::Spawning(op::Spawning { machines, minority })
}

fn slot(view: &View, number: u32) -> Arc<Slot> {
    view.slots().get(&number).cloned().expect("a slot that was claimed")
}

/// Of the two spawners the one whose draw is lower in a round, then the other: their places.
fn by_draw(slot: u32, round: u64) -> [usize; 2] {
    let lot = |at: usize| draw(slot, round, &author(SPAWNERS[at]));
    if lot(0) < lot(1) { [0, 1] } else { [1, 0] }
}

#[test]
fn of_claims_that_did_not_know_each_other_the_lowest_draw_holds_the_slot_on_every_replica() {
    let Fleet { mut ledger, mut spawners, .. } = fleet();
    let mut other = copy(&ledger);
    let [low, high] = by_draw(0, 1);
    // Each on its own side of a partition, and both believe that they won.
    let claims = [
        append(&mut ledger, &mut spawners[high], claimed(0, 1, None)).id(),
        append(&mut other, &mut spawners[low], claimed(0, 1, None)).id(),
    ];
    append(&mut ledger, &mut spawners[high], activated(claims[0]));
    assert_eq!(slot(&ledger.publish(), 0).holder().map(|claim| claim.id), Some(claims[0]));
    append(&mut other, &mut spawners[low], activated(claims[1]));
    merge(&mut [&mut ledger, &mut other]);
    for ledger in [&mut ledger, &mut other] {
        let slot = slot(&ledger.publish(), 0);
        assert_eq!(slot.claims.iter().map(|claim| claim.id).collect::<Vec<_>>(), [claims[1], claims[0]]);
        assert_eq!(slot.holder().map(|claim| claim.author), Some(author(SPAWNERS[low])));
        assert_eq!((slot.round, slot.next), (1, 2));
    }
    // Who lost says so, and then who won does.
    append(&mut ledger, &mut spawners[low], released(claims[1]));
    assert_eq!(slot(&ledger.publish(), 0).holder().map(|claim| claim.id), Some(claims[0]));
    append(&mut ledger, &mut spawners[high], released(claims[0]));
    assert_eq!(slot(&ledger.publish(), 0).holder(), None);
}

#[test]
fn a_machine_is_listed_from_its_intent_until_somebody_says_that_it_is_gone() {
    let Fleet { mut ledger, mut spawners, .. } = fleet();
    let claim = append(&mut ledger, &mut spawners[0], claimed(3, 1, None)).id();
    let activation = append(&mut ledger, &mut spawners[0], activated(claim)).id();
    let made = append(&mut ledger, &mut spawners[0], intent(activation)).id();
    append(&mut ledger, &mut spawners[0], released(claim));
    let slot_3 = slot(&ledger.publish(), 3);
    let [machine] = slot_3.machines.as_slice() else { panic!("one machine: {slot_3:?}") };
    assert_eq!((machine.intent, machine.claim, machine.round, machine.by), (made, claim, 1, author(20)));
    assert_eq!((machine.target.as_str(), machine.functions.len()), ("process", 2));
    assert!(machine.counts && !machine.surplus, "a released lease leaves its machine");
    // Another spawner looks after the slot, and makes another machine before the first is gone.
    let again = append(&mut ledger, &mut spawners[1], claimed(3, 2, Some(claim))).id();
    let activation = append(&mut ledger, &mut spawners[1], activated(again)).id();
    append(&mut ledger, &mut spawners[1], intent(activation));
    let machines = slot(&ledger.publish(), 3).machines.clone();
    assert_eq!(
        machines.iter().map(|machine| (machine.round, machine.surplus)).collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    append(&mut ledger, &mut spawners[1], retired(made));
    assert_eq!(slot(&ledger.publish(), 3).machines.len(), 1);
}

#[test]
fn the_machine_of_a_revoked_spawner_stays_visible_and_its_rounds_are_not_used_again() {
    let Fleet { mut ledger, mut founder, grants, mut spawners } = fleet();
    let claim = append(&mut ledger, &mut spawners[0], claimed(0, 1, None)).id();
    let activation = append(&mut ledger, &mut spawners[0], activated(claim)).id();
    let made = append(&mut ledger, &mut spawners[0], intent(activation)).id();
    append(&mut ledger, &mut founder, revoked(&grants[..1], &[]));
    let view = ledger.publish();
    let slot_0 = slot(&view, 0);
    assert_eq!((slot_0.round, slot_0.next, slot_0.after), (0, 2, Some(claim)));
    assert!(slot_0.claims.is_empty() && slot_0.holder().is_none());
    let [machine] = slot_0.machines.as_slice() else { panic!("one machine: {slot_0:?}") };
    assert!(!machine.counts && machine.surplus && machine.intent == made);
    // A replica that hears of the revocation first says the same.
    let mut late = Ledger::new(ledger.fleet());
    let mut blocks = ledger.in_order();
    blocks.reverse();
    for block in &blocks {
        late.admit(block.entry()).expect("valid");
    }
    assert_eq!(late.publish().hash(), view.hash());
    // Whoever looks after the slot goes on behind the void claim, and may say that the machine is gone; whoever
    // was revoked may not.
    let next = append(&mut ledger, &mut spawners[1], claimed(0, 2, Some(claim))).id();
    append(&mut ledger, &mut spawners[1], activated(next));
    append(&mut ledger, &mut spawners[1], retired(made));
    let slot_0 = slot(&ledger.publish(), 0);
    assert_eq!((slot_0.round, slot_0.machines.len()), (2, 0));
    let denied = spawners[0].append(&mut ledger, osiris_ledger::Now::default(), released(claim));
    assert!(denied.is_err());
}

#[test]
fn a_void_word_of_retirement_hides_no_machine() {
    let Fleet { mut ledger, mut founder, grants, mut spawners } = fleet();
    let claim = append(&mut ledger, &mut spawners[0], claimed(0, 1, None)).id();
    let activation = append(&mut ledger, &mut spawners[0], activated(claim)).id();
    let made = append(&mut ledger, &mut spawners[0], intent(activation)).id();
    append(&mut ledger, &mut spawners[1], retired(made));
    assert!(slot(&ledger.publish(), 0).machines.is_empty());
    append(&mut ledger, &mut founder, revoked(&grants[1..], &[]));
    assert_eq!(slot(&ledger.publish(), 0).machines.len(), 1, "who said that it is gone does not count");
}

#[test]
fn nothing_may_be_made_until_an_admin_says_so_and_its_last_word_counts() {
    let Fleet { mut ledger, mut founder, .. } = fleet();
    assert_eq!(ledger.publish().spawning(), SpawnPolicy { machines: 0, minority: false });
    append(&mut ledger, &mut founder, spawning(4, true));
    append(&mut ledger, &mut founder, spawning(2, false));
    assert_eq!(ledger.publish().spawning(), SpawnPolicy { machines: 2, minority: false });
}

/// What a replica answers to the first block of a new session of a device with these roles.
fn answer(ledger: &Ledger, device: u8, grant: BlockId, session_of: u8, payload: Payload) -> Option<Reject> {
    let last = ledger.in_order().pop().expect("blocks");
    let draft = Forged {
        version: 2,
        author: author(device),
        session: session(session_of),
        seq: 1,
        prev: BlockId::ZERO,
        parents: vec![last.id()],
        depth: last.order().depth + 1,
        wall_ms: 0,
        grant,
        payload,
    };
    copy(ledger).admit(&draft.seal(&ledger.fleet(), &key(device))).err()
}

#[test]
fn what_is_said_of_a_lease_names_the_right_block_of_the_right_session() {
    let Fleet { mut ledger, grants, mut spawners, .. } = fleet();
    let claim = append(&mut ledger, &mut spawners[0], claimed(0, 1, None)).id();
    let activation = append(&mut ledger, &mut spawners[0], activated(claim)).id();
    let made = append(&mut ledger, &mut spawners[0], intent(activation)).id();
    let says =
        |at: usize, session_of: u8, payload| answer(&ledger, SPAWNERS[at], grants[at], session_of, payload);
    let wrong = Some(Reject::ReferenceKind);
    // After a restart the lease is lost: another session does not activate, nor make, what this one claimed.
    assert_eq!(says(0, 90, activated(claim)), wrong);
    assert_eq!(says(0, 90, intent(activation)), wrong);
    // But it may say that the claim is over, and nobody else may.
    assert_eq!(says(0, 90, released(claim)), None);
    assert_eq!(says(1, 90, released(claim)), wrong);
    assert_eq!(says(1, 90, retired(made)), None);
    // Rounds follow one another, slot by slot.
    assert_eq!(says(1, 90, claimed(0, 2, Some(claim))), None);
    assert_eq!(says(1, 90, claimed(0, 3, Some(claim))), wrong);
    assert_eq!(says(1, 90, claimed(1, 2, Some(claim))), wrong);
    for payload in [
        claimed(0, 2, Some(activation)),
        activated(activation),
        intent(claim),
        released(activation),
        retired(activation),
    ] {
        let what = format!("{payload:?}");
        assert_eq!(says(0, 90, payload), wrong, "{what}");
    }
}

#[test]
fn an_intent_admits_its_machine_alone_as_a_node_and_no_more() {
    const TICKET_OF_IT: u8 = 5;
    let Fleet { mut ledger, mut founder, .. } = fleet();
    // A device to which spawner alone was given gives node by an intent, and by nothing else.
    let grant = enrol(&mut ledger, &mut founder, 7, 22, &[Role::Spawner]);
    enrol(&mut ledger, &mut founder, 8, 22, &[Role::Node]);
    let mut maker = Writer::new(key(22), session(22));
    let claim = append(&mut ledger, &mut maker, claimed(0, 1, None)).id();
    let activation = append(&mut ledger, &mut maker, activated(claim)).id();
    let invited = support::invited(TICKET_OF_IT, 1, &[Role::Node], None);
    assert_eq!(answer(&ledger, 22, grant, 22, invited), Some(Reject::Role));
    let functions = Vec::new();
    let (target, ticket) = ("process".to_owned(), author(support::TICKET + TICKET_OF_IT));
    let intent = op::Intent { activation, target, functions, key: ticket };
    let intent = append(&mut ledger, &mut maker, Payload::Intent(intent)).id();
    let machine = |view: &View| view.slots()[&0].machines[0].clone();
    assert_eq!((machine(&ledger.publish()).key, machine(&ledger.publish()).device), (ticket, None));
    let fleet = ledger.fleet();
    let joins = |device| Payload::Admitted(support::admitted(&fleet, &intent, TICKET_OF_IT, device));
    let wrong = Payload::Admitted(support::admitted(&fleet, &intent, TICKET_OF_IT + 1, 30));
    assert_eq!(answer(&ledger, 22, grant, 22, wrong), Some(Reject::Role), "spawner redeems nothing");
    for device in [30, 31] {
        append(&mut ledger, &mut founder, joins(device));
    }
    let view = ledger.publish();
    assert_eq!(machine(&view).device, Some(author(30)));
    let member = &view.members()[&author(30)];
    assert!(member.active && member.roles == osiris_ledger::Roles::NODE, "{member:?}");
    assert!(!view.members().contains_key(&author(31)), "one intent is one machine");
    // With the maker falls what it made.
    append(&mut ledger, &mut founder, revoked(&[grant], &[]));
    let view = ledger.publish();
    assert!(!view.is_member(&author(30)), "its invitation is void");
    assert!(!machine(&view).counts && machine(&view).device.is_none());
}

#[test]
fn fields_out_of_range_are_refused() {
    let Fleet { mut ledger, grants, mut spawners, .. } = fleet();
    let claim = append(&mut ledger, &mut spawners[0], claimed(0, 1, None)).id();
    let activation = append(&mut ledger, &mut spawners[0], activated(claim)).id();
    let is_field = |payload: Payload| {
        let what = format!("{payload:?}");
        let answer = answer(&ledger, SPAWNERS[0], grants[0], SPAWNERS[0], payload);
        assert!(matches!(answer, Some(Reject::Field(_))), "{what}: {answer:?}");
    };
    is_field(claimed(limits::SLOTS_MAX, 1, None));
    is_field(claimed(0, 0, None));
    is_field(claimed(0, 0, Some(claim)));
    is_field(claimed(0, 1, Some(claim)));
    is_field(claimed(0, 2, None));
    is_field(spawning(limits::SLOTS_MAX + 1, false));
    let with = |target: &str, functions: &[&str]| {
        let functions = functions.iter().map(|name| (*name).to_owned()).collect();
        Payload::Intent(op::Intent { activation, target: target.to_owned(), functions, key: author(60) })
    };
    is_field(with("", &[]));
    is_field(with("../etc", &[]));
    is_field(with("docker", &["No"]));
    is_field(with("docker", &["b", "a"]));
    is_field(with("docker", &["a", "a"]));
    let many: Vec<_> = (0..=limits::INTENT_FUNCTIONS_MAX).map(|n| format!("f{n:02}")).collect();
    is_field(with("docker", &many.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn the_longest_intent_fits_a_block() {
    let Fleet { mut ledger, mut spawners, .. } = fleet();
    let claim = append(&mut ledger, &mut spawners[0], claimed(0, 1, None)).id();
    let activation = append(&mut ledger, &mut spawners[0], activated(claim)).id();
    let long = |n: usize| format!("f{n:02}{}", "x".repeat(limits::NAME_CHARS_MAX - 3));
    let functions = (0..limits::INTENT_FUNCTIONS_MAX).map(long).collect();
    let intent = op::Intent { activation, target: long(0), functions, key: author(60) };
    append(&mut ledger, &mut spawners[0], Payload::Intent(intent));
}

#[test]
fn who_may_claim_and_who_may_allow_it_is_checked_at_the_door() {
    let fixture = Fixture::new();
    let answer = |device, payload| fixture.answer(device, &fixture.draft(device, payload)).err();
    assert_eq!(answer(NODE, claimed(0, 1, None)), Some(Reject::Role));
    assert_eq!(answer(OPERATOR, claimed(0, 1, None)), Some(Reject::Role));
    assert_eq!(answer(OPERATOR, spawning(1, true)), Some(Reject::Role));
    assert_eq!(answer(FOUNDER, claimed(0, 1, None)), None);
    assert_eq!(answer(FOUNDER, spawning(1, true)), None);
    let Fleet { ledger, grants, .. } = fleet();
    assert_eq!(self::answer(&ledger, 20, grants[0], 90, spawning(1, true)), Some(Reject::Role));
}
