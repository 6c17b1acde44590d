//! Two spawners and a slot, and what becomes of a lease.

use std::collections::BTreeSet;

use osiris_ledger::{
    Ledger, Mono, Now, Payload, Role, Roles, Session, WallMs, Writer, join_proof,
    op::{Admitted, Invited, Spawning, Voters},
};
use osiris_mesh::PeerId;

use super::{rule::Phase, *};
use crate::node::Effect;
use crate::node::{
    Config, Input, Node, Query, Refusal, Reply, Request,
    sample::{author, founded, key, play},
};

pub(super) fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: WallMs(0) }
}

/// A founder, the only voter, and a second spawner; so many machines are allowed.
pub(super) fn ledger(machines: u32, minority: bool) -> Ledger {
    let (mut founder, mut ledger) = founded(at(0));
    let mut write = |payload| founder.append(&mut ledger, at(0), payload).expect("allowed").id();
    let (device, roles) = (author(2), Roles::of(&[Role::Node, Role::Spawner]));
    let invited = Invited { key: author(50), uses: 1, roles, device: Some(device), note: String::new() };
    let invitation = write(Payload::Invited(invited));
    write(Payload::Spawning(Spawning { machines, minority }));
    let proof = join_proof(&key(50), &ledger.fleet(), &invitation, &device);
    let admitted = Admitted { invitation, device, proof, label: "two".to_owned() };
    founder.append(&mut ledger, at(0), Payload::Admitted(admitted)).expect("allowed");
    ledger
}

pub(super) fn spawner(now: Now, ledger: &Ledger, device: u8, session: u8) -> Node {
    allowed(now, ledger, (device, session), 10)
}

/// A node whose own configuration allows so many machines.
fn allowed(now: Now, ledger: &Ledger, (device, session): (u8, u8), machines: u32) -> Node {
    let config = Config {
        serves: true,
        seed: device.into(),
        confirmed: Vec::new(),
        idle_work: false,
        pages: crate::node::PageRules::default(),
    };
    let writer = Writer::new(key(device), Session([session; 16]));
    let mut node = Node::new(now, &config, copy(ledger), writer);
    node.allow_machines(machines);
    node
}

pub(super) fn peer(device: u8) -> PeerId {
    PeerId::from_bytes(author(device).0)
}

pub(super) fn connect(nodes: &mut [Node; 2], now: Now) {
    play(now, nodes, [vec![Input::PeerUp(peer(2))], vec![Input::PeerUp(peer(1))]]);
}

/// Both, connected, after a start.
pub(super) fn pair(ledger: &Ledger) -> [Node; 2] {
    let mut nodes = [spawner(at(0), ledger, 1, 2), spawner(at(0), ledger, 2, 3)];
    play(at(0), &mut nodes, [vec![Input::Start], vec![Input::Start]]);
    connect(&mut nodes, at(0));
    nodes
}

/// Both are called as often as they ask for.
pub(super) fn pass(nodes: &mut [Node; 2], from: u64, to: u64) {
    for ms in (from..=to).step_by(250) {
        play(at(ms), nodes, [vec![Input::Tick], vec![Input::Tick]]);
    }
}

/// One is called, and nobody hears of it.
fn alone(node: &mut Node, from: u64, to: u64) {
    for ms in (from..=to).step_by(250) {
        give(node, ms, Input::Tick);
    }
}

fn give(node: &mut Node, ms: u64, input: Input) -> Vec<Result<Reply, Refusal>> {
    node.handle(at(ms), input);
    let effects = std::iter::from_fn(|| node.poll_effect());
    effects
        .filter_map(|effect| if let Effect::Reply(_, reply) = effect { Some(reply) } else { None })
        .collect()
}

fn facts(node: &Node, ms: u64) -> LeaseFacts {
    node.lease_facts(at(ms))
}

fn holds(node: &Node, ms: u64, slot: u32) -> bool {
    facts(node, ms).own.get(&slot).is_some_and(|own| own.phase == Phase::Held)
}

fn provisioning(shared: bool) -> Option<Provisioning> {
    Some(Provisioning { target: "process".to_owned(), shared, by_state: false, secret: [7; 32] })
}

/// What a node asks its driver to do about machines.
fn errands(node: &mut Node, ms: u64, input: Input) -> Vec<Errand> {
    node.handle(at(ms), input);
    let effects = std::iter::from_fn(|| node.poll_effect());
    effects
        .filter_map(|effect| if let Effect::Provision(errand) = effect { Some(errand) } else { None })
        .collect()
}

/// Lets a node spend its lease for a machine, at this moment alone; the intent, or why there is none.
pub(super) fn intend(node: &mut Node, ms: u64, lease: (u32, u64)) -> Result<BlockId, String> {
    node.provision(provisioning(false));
    let made = errands(node, ms, Input::Start).into_iter().find(|errand| {
        matches!(errand.job, Job::Make(_)) && (errand.machine.slot, errand.machine.round) == lease
    });
    node.provision(None);
    let own = || facts(node, ms).own.remove(&lease.0).filter(|own| own.round == lease.1);
    match made {
        Some(errand) => Ok(errand.machine.intent),
        None => Err(own().map_or("holds no lease".to_owned(), |own| own.spend.expect_err("it may spend"))),
    }
}

/// Which of both has the lower draw in a round of slot 0.
fn winner(round: u64) -> usize {
    usize::from(draw(0, round, &author(2)) < draw(0, round, &author(1)))
}

#[test]
fn of_two_that_want_a_machine_at_once_one_makes_it() {
    let ledger = ledger(2, false);
    let mut nodes = pair(&ledger);
    let wants = || vec![Input::Want(Want::Machine)];
    play(at(1_000), &mut nodes, [wants(), wants()]);
    pass(&mut nodes, 1_250, 13_750);
    assert!((0..2).all(|n| !holds(&nodes[n], 13_750, 0)), "both wait for the settle time");
    pass(&mut nodes, 14_000, 14_500);
    let won = winner(1);
    assert!(holds(&nodes[won], 14_500, 0) && facts(&nodes[1 - won], 14_500).own.is_empty());
    assert_eq!(
        facts(&nodes[won], 14_500).counts,
        LeaseCounts { claimed: 1, won: 1, ..LeaseCounts::default() }
    );
    assert_eq!(facts(&nodes[1 - won], 14_500).counts.lost, 1);
    assert!(facts(&nodes[1 - won], 14_500).says.is_some_and(|says| says.contains("another claim")));
    assert_eq!(nodes[0].view().hash(), nodes[1].view().hash());
    // It says so first, and not twice.
    assert!(intend(&mut nodes[won], 14_600, (0, 1)).is_ok());
    assert!(intend(&mut nodes[won], 14_700, (0, 1)).is_err(), "a slot has one machine");
    assert!(intend(&mut nodes[1 - won], 14_800, (0, 1)).is_err(), "who lost makes none");
    pass(&mut nodes, 14_850, 15_100);
    // The next machine is another slot's.
    play(at(15_250), &mut nodes, [wants(), Vec::new()]);
    assert!(facts(&nodes[0], 15_250).own.contains_key(&1), "{:?}", facts(&nodes[0], 15_250));
}

#[test]
fn a_slot_with_a_live_claim_is_not_claimed_and_a_held_lease_lasts_while_it_is_renewed() {
    let ledger = ledger(1, false);
    let mut nodes = pair(&ledger);
    play(at(1_000), &mut nodes, [vec![Input::Want(Want::Machine)], Vec::new()]);
    pass(&mut nodes, 1_250, 200_000);
    assert!(holds(&nodes[0], 200_000, 0));
    let heard = facts(&nodes[1], 200_000).heard;
    assert!(heard.len() == 1 && heard.values().all(|age| *age < Duration::from_secs(11)), "{heard:?}");
    play(at(200_250), &mut nodes, [Vec::new(), vec![Input::Want(Want::Slot(0))]]);
    assert!(facts(&nodes[1], 200_250).own.is_empty());
    assert!(facts(&nodes[1], 200_250).says.is_some_and(|says| says.contains("is claimed at the moment")));
    // Given up, it is free at once.
    play(
        at(200_500),
        &mut nodes,
        [vec![Input::Request(1, Request::Release { slot: 0, timeout_ms: 0 })], Vec::new()],
    );
    pass(&mut nodes, 200_750, 201_000);
    play(at(201_250), &mut nodes, [Vec::new(), vec![Input::Want(Want::Slot(0))]]);
    assert_eq!(facts(&nodes[1], 201_250).own.get(&0).map(|own| own.round), Some(2));
}

#[test]
fn the_slot_of_a_holder_that_is_gone_is_taken_over_and_its_machine_retired_first() {
    let ledger = ledger(1, true);
    let mut nodes = pair(&ledger);
    play(at(1_000), &mut nodes, [Vec::new(), vec![Input::Want(Want::Machine)]]);
    pass(&mut nodes, 1_250, 14_000);
    let made = intend(&mut nodes[1], 14_000, (0, 1)).expect("made");
    pass(&mut nodes, 14_250, 16_000);
    // The second dies. The first waits until its last renewal is old enough.
    give(&mut nodes[0], 17_000, Input::PeerDown(peer(2)));
    let expiry = u64::try_from(facts(&nodes[0], 17_000).expiry.as_millis()).expect("small");
    assert_eq!(expiry, 28_000);
    let last = facts(&nodes[0], 17_000).heard.values().copied().next().expect("heard");
    let free = 17_000 - u64::try_from(last.as_millis()).expect("small") + expiry;
    give(&mut nodes[0], free, Input::Want(Want::Slot(0)));
    assert!(facts(&nodes[0], free).own.is_empty(), "not before");
    give(&mut nodes[0], free + 1, Input::Want(Want::Machine));
    assert!(facts(&nodes[0], free + 1).own.is_empty(), "there is a machine in the only slot");
    give(&mut nodes[0], free + 1, Input::Want(Want::Slot(0)));
    alone(&mut nodes[0], free + 1, free + 13_001);
    assert!(holds(&nodes[0], free + 13_001, 0));
    assert_eq!(facts(&nodes[0], free + 13_001).counts.taken_over, 1);
    let spend = |node: &Node, ms| facts(node, ms).own[&0].spend.clone();
    let refusal = spend(&nodes[0], free + 13_002).expect_err("the old machine may be there");
    assert!(refusal.contains("retired first"), "{refusal}");
    let retire = Request::Retire { intent: made, timeout_ms: 0 };
    assert!(matches!(give(&mut nodes[0], free + 13_100, Input::Request(2, retire)).as_slice(), [Ok(_)]));
    let again = Request::Retire { intent: made, timeout_ms: 0 };
    assert!(matches!(give(&mut nodes[0], free + 13_100, Input::Request(3, again)).as_slice(), [Err(_)]));
    assert!(spend(&nodes[0], free + 13_200).is_ok());
    // The second had only been cut off: long before, it knew that its lease had lapsed.
    give(&mut nodes[1], 17_000, Input::PeerDown(peer(1)));
    give(&mut nodes[1], free + 14_000, Input::Tick);
    assert!(facts(&nodes[1], free + 14_000).own.is_empty());
    // After the heal both say the same.
    connect(&mut nodes, at(free + 15_000));
    pass(&mut nodes, free + 15_250, free + 17_000);
    assert_eq!(nodes[0].view().hash(), nodes[1].view().hash());
    let slot = nodes[1].view().slots().get(&0).cloned().expect("claimed");
    assert_eq!((slot.round, slot.machines.len()), (2, 0));
}

#[test]
fn who_stood_still_was_suspended_or_started_anew_has_lost_its_lease() {
    let ledger = ledger(1, false);
    let claimed = |want_at: u64| {
        let mut nodes = pair(&ledger);
        play(at(want_at), &mut nodes, [vec![Input::Want(Want::Machine)], Vec::new()]);
        nodes
    };
    // A stopped process: it comes back within the time in which the claim could win, and may have heard nothing.
    let mut nodes = claimed(1_000);
    pass(&mut nodes, 1_250, 2_000);
    give(&mut nodes[0], 14_000, Input::Tick);
    assert!(facts(&nodes[0], 14_000).own.is_empty());
    assert!(facts(&nodes[0], 14_000).says.is_some_and(|says| says.contains("stood still")));
    // A stopped holder, that wakes when others may have taken over.
    let mut nodes = claimed(1_000);
    pass(&mut nodes, 1_250, 14_000);
    assert!(holds(&nodes[0], 14_000, 0));
    let refusal = intend(&mut nodes[0], 40_000, (0, 1)).expect_err("it does nothing before it has looked");
    assert!(refusal.contains("holds no lease"), "{refusal}");
    // A suspended one, by whose monotonic clock no time has passed.
    let mut nodes = claimed(1_000);
    pass(&mut nodes, 1_250, 14_000);
    give(&mut nodes[0], 14_001, Input::Suspended);
    assert!(facts(&nodes[0], 14_001).own.is_empty());
    // Its claim was ripe when it slept, and is not activated first.
    let mut nodes = claimed(1_000);
    pass(&mut nodes, 1_250, 13_750);
    give(&mut nodes[0], 14_100, Input::Suspended);
    let blocks = nodes[0].ledger().in_order();
    assert!(
        !blocks.iter().any(|block| matches!(block.payload(), Payload::Activated(_))),
        "it acts on what it lost"
    );
    // A new process of the same device says at once that the old one's lease is over.
    let mut nodes = claimed(1_000);
    pass(&mut nodes, 1_250, 14_000);
    nodes[0] = spawner(at(15_000), &copy(nodes[0].ledger()), 1, 9);
    play(at(15_000), &mut nodes, [vec![Input::Start], Vec::new()]);
    connect(&mut nodes, at(15_000));
    pass(&mut nodes, 15_250, 16_000);
    assert!(nodes[1].view().slots()[&0].holder().is_none());
    play(at(16_250), &mut nodes, [Vec::new(), vec![Input::Want(Want::Machine)]]);
    assert_eq!(facts(&nodes[1], 16_250).own.get(&0).map(|own| own.round), Some(2), "without waiting");
}

fn copy(ledger: &Ledger) -> Ledger {
    let mut copy = Ledger::new(ledger.fleet());
    for block in ledger.in_order() {
        copy.replay(block.entry()).expect("valid");
    }
    copy
}

#[test]
fn without_a_majority_of_the_voters_nothing_is_claimed_and_nothing_spent() {
    // The founder is the only voter until others are named.
    let ledger_ = ledger(1, false);
    let mut lonely = spawner(at(0), &ledger_, 2, 3);
    give(&mut lonely, 1_000, Input::Want(Want::Machine));
    assert!(facts(&lonely, 1_000).own.is_empty());
    assert!(facts(&lonely, 1_000).says.is_some_and(|says| says.contains("0 of 1 voters")));
    // With contact it claims; without, it holds and may not spend.
    let mut nodes = pair(&ledger_);
    play(at(1_000), &mut nodes, [Vec::new(), vec![Input::Want(Want::Machine)]]);
    pass(&mut nodes, 1_250, 5_000);
    give(&mut nodes[1], 5_001, Input::PeerDown(peer(1)));
    alone(&mut nodes[1], 5_250, 14_000);
    assert!(holds(&nodes[1], 14_000, 0));
    let refusal = intend(&mut nodes[1], 14_100, (0, 1)).expect_err("no voter is connected");
    assert!(refusal.contains("only 0 of 1 voters"), "{refusal}");
    // Connected again, it may: the voter holds the claim.
    give(&mut nodes[0], 14_200, Input::PeerDown(peer(2)));
    connect(&mut nodes, at(14_250));
    pass(&mut nodes, 14_500, 15_000);
    assert!(intend(&mut nodes[1], 15_100, (0, 1)).is_ok());
    // A minority may spend only where the policy says so.
    let allowed = ledger(1, true);
    let mut lonely = spawner(at(0), &allowed, 2, 3);
    give(&mut lonely, 1_000, Input::Want(Want::Machine));
    alone(&mut lonely, 1_250, 14_000);
    assert!(intend(&mut lonely, 14_100, (0, 1)).is_ok());
}

#[test]
fn after_a_split_in_which_both_sides_made_a_machine_one_lease_and_one_machine_stay() {
    let ledger = ledger(1, true);
    let mut nodes = [spawner(at(0), &ledger, 1, 2), spawner(at(0), &ledger, 2, 3)];
    for node in &mut nodes {
        give(node, 1_000, Input::Want(Want::Machine));
        alone(node, 1_250, 14_000);
        assert!(intend(node, 14_000, (0, 1)).is_ok());
    }
    connect(&mut nodes, at(15_000));
    pass(&mut nodes, 15_250, 16_000);
    let won = winner(1);
    assert!(holds(&nodes[won], 16_000, 0) && facts(&nodes[1 - won], 16_000).own.is_empty());
    let machines = &nodes[0].view().slots()[&0].machines;
    let surplus: Vec<_> = machines.iter().map(|machine| (machine.by, machine.surplus)).collect();
    assert_eq!(surplus, [(nodes[1 - won].device(), true), (nodes[won].device(), false)]);
}

#[test]
fn the_hard_cap_stands_in_the_policy_and_in_the_nodes_configuration() {
    for (policy, here) in [(0, 10), (10, 0)] {
        let mut node = allowed(at(0), &ledger(policy, true), (1, 2), here);
        give(&mut node, 1_000, Input::Want(Want::Machine));
        assert!(facts(&node, 1_000).own.is_empty());
        assert!(facts(&node, 1_000).says.is_some_and(|says| says.contains("No machines are allowed")));
    }
    for (policy, here) in [(1, 10), (10, 1)] {
        let mut node = allowed(at(0), &ledger(policy, true), (1, 2), here);
        give(&mut node, 1_000, Input::Want(Want::Machine));
        alone(&mut node, 1_250, 14_000);
        assert!(intend(&mut node, 14_000, (0, 1)).is_ok());
        give(&mut node, 14_250, Input::Want(Want::Machine));
        assert!(facts(&node, 14_250).says.is_some_and(|says| says.contains("There are 1 machines already")));
    }
    // A policy that is lowered meanwhile binds who has won before.
    let (mut node, first) = (spawner(at(0), &ledger(1, true), 1, 2), 14_000);
    give(&mut node, 1_000, Input::Want(Want::Machine));
    alone(&mut node, 1_250, first);
    let none = Request::Spawning { machines: 0, minority: true, timeout_ms: 0 };
    give(&mut node, first, Input::Request(1, none));
    assert!(intend(&mut node, first + 1, (0, 1)).is_err());
}

#[test]
fn a_revoked_spawners_claim_is_over_and_the_journals_failure_ends_it_too() {
    let ledger = ledger(1, true);
    let mut nodes = pair(&ledger);
    play(at(1_000), &mut nodes, [Vec::new(), vec![Input::Want(Want::Machine)]]);
    pass(&mut nodes, 1_250, 14_000);
    assert!(holds(&nodes[1], 14_000, 0));
    let revoke = Request::Revoke { device: author(2), discard: true, timeout_ms: 0 };
    play(at(14_250), &mut nodes, [vec![Input::Request(1, revoke)], Vec::new()]);
    pass(&mut nodes, 14_500, 15_000);
    assert!(facts(&nodes[1], 15_000).own.is_empty());
    assert!(nodes[0].view().slots()[&0].claims.is_empty(), "it is void");
    give(&mut nodes[0], 15_250, Input::Want(Want::Machine));
    assert!(facts(&nodes[0], 15_250).own.is_empty(), "but it may not have heard of that");
    let mut node = spawner(at(0), &ledger, 1, 2);
    give(&mut node, 1_000, Input::Want(Want::Machine));
    give(&mut node, 1_250, Input::StoreFailed("the disk is gone".to_owned(), Vec::new()));
    assert!(facts(&node, 1_250).own.is_empty());
}

#[test]
fn a_claim_that_a_connected_spawner_does_not_confirm_is_given_up() {
    let ledger = ledger(1, true);
    let mut node = spawner(at(0), &ledger, 1, 2);
    give(&mut node, 0, Input::PeerUp(peer(2)));
    give(&mut node, 1_000, Input::Want(Want::Machine));
    alone(&mut node, 1_250, 27_000);
    assert!(!holds(&node, 27_000, 0) && facts(&node, 27_000).own.len() == 1);
    give(&mut node, 27_250, Input::Tick);
    assert!(facts(&node, 27_250).says.is_some_and(|says| says.contains("too long to confirm")));
    assert!(facts(&node, 27_250).delay > DELAY_MIN, "the next claim starts from what this one took");
}

#[test]
fn voters_that_are_named_are_those_that_count() {
    let mut ledger = ledger(1, false);
    let mut founder = Writer::new(key(1), Session([7; 16]));
    let mut devices = vec![author(1), author(2), author(3)];
    devices.sort_unstable();
    founder.append(&mut ledger, at(0), Payload::Voters(Voters { devices })).expect("allowed");
    let mut node = spawner(at(0), &ledger, 2, 3);
    assert_eq!(facts(&node, 0).voters, (1, 3), "this device is one of them");
    give(&mut node, 0, Input::PeerUp(peer(1)));
    assert_eq!(facts(&node, 0).voters, (2, 3));
    give(&mut node, 0, Input::PeerUp(peer(3)));
    assert_eq!(facts(&node, 0).voters, (2, 3), "who is no member does not count");
    node.handle(at(1), Input::Request(1, Request::Query(Query::Leases)));
    let answer = std::iter::from_fn(|| node.poll_effect()).find_map(|effect| match effect {
        Effect::Reply(1, Ok(Reply::Leases(facts))) => Some(facts.voters),
        _ => None,
    });
    assert_eq!(answer, Some((2, 3)));
}

/// A spawner that makes machines, alone; it wants one at 1 s.
fn maker(shared: bool) -> Node {
    let mut node = spawner(at(0), &ledger(1, true), 1, 2);
    node.provision(provisioning(shared));
    give(&mut node, 0, Input::Start);
    give(&mut node, 1_000, Input::Want(Want::Machine));
    node
}

/// Calls a node as often as it asks for until it has an errand.
fn errand(node: &mut Node, from: u64) -> (u64, Errand) {
    for ms in (from..from + 120_000).step_by(250) {
        if let Some(errand) = errands(node, ms, Input::Tick).pop() {
            return (ms, errand);
        }
    }
    panic!("nothing to do: {:?}", facts(node, from));
}

fn machines(node: &Node) -> Vec<osiris_ledger::lease::Machine> {
    node.view().slots().values().flat_map(|slot| slot.machines.clone()).collect()
}

/// A device joins with the secret of an errand.
fn admit(node: &mut Node, ms: u64, errand: &Errand, device: u8) -> Result<Reply, Refusal> {
    let Job::Make(secret) = &errand.job else { panic!("not a machine to be made") };
    let (device, invitation) = (author(device), errand.machine.intent);
    let proof = join_proof(secret, &node.ledger().fleet(), &invitation, &device);
    let admit = Request::Admit { device, invitation, proof, label: "machine".to_owned() };
    give(node, ms, Input::Request(9, admit)).pop().expect("an answer")
}

#[test]
fn a_lease_becomes_an_intent_the_intent_a_machine_and_the_lease_ends() {
    let mut node = maker(false);
    let (ms, errand) = errand(&mut node, 1_250);
    assert_eq!(
        (errand.machine.slot, errand.machine.round, errand.machine.target.as_str()),
        (0, 1, "process")
    );
    let id = errand.machine.id();
    assert_eq!(id, format!("m0-1-{}", &errand.machine.intent.to_string()[..16]));
    assert!(holds(&node, ms, 0), "until the machine is there");
    assert!(admit(&mut node, ms + 1, &errand, 40).is_ok());
    assert_eq!(machines(&node)[0].device, Some(author(40)));
    assert!(!node.view().members()[&author(40)].roles.has(Role::Spawner));
    let refusal = admit(&mut node, ms + 2, &errand, 41).expect_err("a second device");
    assert!(refusal.message.contains("used up"), "{refusal}");
    give(&mut node, ms + 3, Input::Provisioned(errand.machine.intent, Ok(())));
    assert!(facts(&node, ms + 3).own.is_empty(), "the machine closes the lease");
    assert_eq!(facts(&node, ms + 3).machine_counts.made, 1);
    // While it is there nothing is done. Somebody wants it gone: it is taken away, then the ledger is told.
    let seen = || Input::Machines(Ok([id.clone()].into()));
    assert!(errands(&mut node, ms + 4, seen()).is_empty());
    let gone = errands(&mut node, ms + 5, Input::Want(Want::Gone(errand.machine.intent)));
    assert!(
        matches!(gone.as_slice(), [Errand { job: Job::Remove, machine, .. }] if *machine == errand.machine)
    );
    assert_eq!(machines(&node).len(), 1, "not before it is gone");
    give(&mut node, ms + 6, Input::Removed(errand.machine.intent, Ok(())));
    assert!(machines(&node).is_empty());
    // What is there all the same is taken away once more; what no intent speaks of is left alone.
    assert!(
        errands(&mut node, ms + 7, Input::Machines(Ok(["m0-1-0123456789abcdef".to_owned()].into())))
            .is_empty()
    );
    let again = errands(&mut node, ms + 8, seen());
    assert!(matches!(again.as_slice(), [Errand { job: Job::Remove, .. }]), "{again:?}");
}

#[test]
fn who_cannot_reach_its_target_claims_no_slot_for_a_machine() {
    let mut node = spawner(at(0), &ledger(1, true), 1, 2);
    node.provision(provisioning(false));
    give(&mut node, 0, Input::Start);
    give(&mut node, 500, Input::Machines(Err("no such socket".to_owned())));
    give(&mut node, 1_000, Input::Want(Want::Machine));
    let says = facts(&node, 1_000).says.expect("why not");
    assert!(says.contains("process is not reached: no such socket"), "{says}");
    assert!(facts(&node, 1_000).own.is_empty());
    give(&mut node, 2_000, Input::Machines(Ok(BTreeSet::new())));
    give(&mut node, 2_500, Input::Want(Want::Machine));
    assert_eq!(facts(&node, 2_500).own.len(), 1);
}

#[test]
fn a_machine_that_was_not_made_is_undone_and_the_next_try_waits() {
    let mut node = maker(false);
    let (ms, errand) = errand(&mut node, 1_250);
    let intent = errand.machine.intent;
    let undo = errands(&mut node, ms + 1, Input::Provisioned(intent, Err("no room".to_owned())));
    assert!(matches!(undo.as_slice(), [Errand { job: Job::Remove, .. }]), "{undo:?}");
    let again = give_up(&mut node, ms + 2, intent);
    assert!(again >= ms + 15_000, "a failed removal is tried again later: {again}");
    give(&mut node, again + 1, Input::Removed(intent, Ok(())));
    assert!(machines(&node).is_empty() && facts(&node, again + 1).own.is_empty());
    let refused = admit(&mut node, again + 2, &errand, 40).expect_err("its invitation ended with it");
    assert!(refused.join.is_some());
    let at = ms + 5_000;
    let mut node = maker(false);
    let (_, errand) = self::errand(&mut node, 1_250);
    errands(&mut node, ms + 1, Input::Provisioned(errand.machine.intent, Err("no room".to_owned())));
    give(&mut node, ms + 2, Input::Removed(errand.machine.intent, Ok(())));
    give(&mut node, at, Input::Want(Want::Machine));
    assert!(facts(&node, at).says.is_some_and(|says| says.contains("next try is in")));
}

/// The removal fails; when it is asked for again.
fn give_up(node: &mut Node, ms: u64, intent: BlockId) -> u64 {
    give(node, ms, Input::Removed(intent, Err("the disk is gone".to_owned())));
    let (again, errand) = errand(node, ms + 1);
    assert!(matches!(errand.job, Job::Remove) && errand.machine.intent == intent);
    again
}

#[test]
fn what_a_maker_left_that_died_between_intent_and_machine_is_taken_away() {
    // By its next process, at once.
    let mut node = maker(false);
    let (ms, lost) = errand(&mut node, 1_250);
    let mut next = spawner(at(ms), &copy(node.ledger()), 1, 9);
    next.provision(provisioning(false));
    let undo = errands(&mut next, ms, Input::Start);
    assert!(
        matches!(undo.as_slice(), [Errand { job: Job::Remove, machine, .. }] if *machine == lost.machine)
    );
    give(&mut next, ms + 1, Input::Removed(lost.machine.intent, Ok(())));
    assert!(machines(&next).is_empty());
    assert_eq!(facts(&next, ms + 1).machine_counts.reconciled, 1);
    // Where it was admitted it stays, and a look that does not find it is not enough: a second is.
    assert!(admit(&mut node, ms + 2, &lost, 40).is_ok());
    let mut next = spawner(at(ms), &copy(node.ledger()), 1, 9);
    next.provision(provisioning(false));
    assert!(errands(&mut next, ms, Input::Start).is_empty());
    let none = || Input::Machines(Ok(BTreeSet::new()));
    assert!(errands(&mut next, ms + 1, none()).is_empty());
    assert!(matches!(errands(&mut next, ms + 2, none()).as_slice(), [Errand { job: Job::Remove, .. }]));
}

#[test]
fn another_member_takes_away_what_a_dead_maker_left_once_it_holds_the_slot() {
    let mut node = maker(true);
    let (_, lost) = errand(&mut node, 1_250);
    let mut other = spawner(at(0), &copy(node.ledger()), 2, 9);
    other.provision(provisioning(true));
    assert!(errands(&mut other, 0, Input::Start).is_empty(), "its maker may be at work");
    let (at, undo) = errand(&mut other, 250);
    assert!(at >= 41_000, "expiry and settle: {at}");
    assert!(matches!(undo.job, Job::Remove) && undo.machine == lost.machine);
    give(&mut other, at + 1, Input::Removed(lost.machine.intent, Ok(())));
    assert!(machines(&other).is_empty());
    alone(&mut other, at + 250, at + 1_000);
    assert!(facts(&other, at + 1_000).own.is_empty(), "it looked after the slot, and is done");
    // One that cannot reach it leaves it, and its wish is refused.
    let mut other = spawner(self::at(0), &copy(node.ledger()), 2, 9);
    other.provision(provisioning(false));
    alone(&mut other, 0, 100_000);
    give(&mut other, 100_250, Input::Want(Want::Gone(lost.machine.intent)));
    assert!(facts(&other, 100_250).says.is_some_and(|says| says.contains("cannot reach")));
    assert_eq!(machines(&other).len(), 1);
}

#[test]
fn what_no_look_of_another_spawner_finds_is_gone_where_its_maker_is() {
    let mut node = maker(true);
    let (ms, lost) = errand(&mut node, 1_250);
    assert!(admit(&mut node, ms + 1, &lost, 40).is_ok(), "its device is a member");
    let seen = |there: bool| Input::Machines(Ok(there.then(|| lost.machine.id()).into_iter().collect()));
    // What it reaches, what it finds, and whether the machine is connected.
    let cases = [(true, false, false), (true, true, false), (true, false, true), (false, false, false)];
    for (shared, there, connected) in cases {
        let mut other = spawner(at(0), &copy(node.ledger()), 2, 9);
        other.provision(provisioning(shared));
        assert!(errands(&mut other, 0, Input::Start).is_empty());
        if connected {
            give(&mut other, 0, Input::PeerUp(Node::peer(&author(40))));
        }
        // While the maker is not known to be gone, and by one look, nothing follows.
        give(&mut other, 1, seen(false));
        give(&mut other, 2, seen(false));
        alone(&mut other, 250, 50_000);
        assert!(facts(&other, 50_000).own.is_empty(), "no slot is claimed");
        give(&mut other, 50_250, seen(there));
        alone(&mut other, 50_500, 80_000);
        assert!(facts(&other, 80_000).own.is_empty(), "one look is not enough");
        give(&mut other, 80_250, seen(there));
        if (shared, there, connected) == cases[0] {
            let (at, undo) = errand(&mut other, 80_500);
            assert!(matches!(undo.job, Job::Remove) && undo.machine == lost.machine);
            give(&mut other, at + 1, Input::Removed(lost.machine.intent, Ok(())));
            assert!(machines(&other).is_empty());
        } else {
            alone(&mut other, 80_500, 150_000);
            assert!(facts(&other, 150_000).own.is_empty() && machines(&other).len() == 1);
        }
    }
}

/// The maker runs, and belongs to the fleet no more: with what it wrote, or without.
#[test]
fn what_a_revoked_maker_left_is_taken_away_by_another_spawner() {
    for discard in [false, true] {
        let mut nodes = pair(&ledger(1, true));
        play(at(1_000), &mut nodes, [Vec::new(), vec![Input::Want(Want::Machine)]]);
        pass(&mut nodes, 1_250, 14_000);
        let intent = intend(&mut nodes[1], 14_250, (0, 1)).expect("it may");
        pass(&mut nodes, 14_500, 16_000);
        assert_eq!(machines(&nodes[0]).len(), 1);
        let revoke = Request::Revoke { device: author(2), discard, timeout_ms: 0 };
        play(at(16_250), &mut nodes, [vec![Input::Request(1, revoke)], Vec::new()]);
        pass(&mut nodes, 16_500, 18_000);
        let [other, maker] = &mut nodes;
        maker.provision(provisioning(true));
        assert!(errands(maker, 18_250, Input::Tick).is_empty(), "it may not write, and does nothing");
        other.provision(provisioning(true));
        let (ms, undo) = errand(other, 18_250);
        assert!(matches!(undo.job, Job::Remove) && undo.machine.intent == intent, "{discard}: {undo:?}");
        give(other, ms + 1, Input::Removed(intent, Ok(())));
        assert!(machines(other).is_empty(), "{discard}");
    }
}

#[test]
fn who_stops_in_order_gives_up_its_leases() {
    let mut node = maker(false);
    alone(&mut node, 1_250, 5_000);
    assert_eq!(facts(&node, 5_000).own.len(), 1);
    give(&mut node, 5_250, Input::Stopping);
    assert!(facts(&node, 5_250).own.is_empty());
    assert!(node.view().slots()[&0].claims[0].released, "others need not wait until it expires");
    give(&mut node, 5_500, Input::Want(Want::Machine));
    assert!(facts(&node, 5_500).own.is_empty());
}
