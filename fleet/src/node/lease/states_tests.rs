//! Two spawners, and the state of a machine that one of them made.

use osiris_ledger::{
    limits::STATE_RECORD_BYTES_MAX,
    state::{Sealed, WRAPPED_BYTES, Wrap},
};

use super::{
    super::{Provisioning, Want, tests::*},
    *,
};
use crate::node::{
    Input, Request,
    sample::{author, key, play},
};

/// Two connected spawners, of which the second wrote an intent that both know.
fn with_machine() -> ([Node; 2], BlockId, BlockId) {
    let ledger = ledger(1, true);
    let mut nodes = pair(&ledger);
    play(at(1_000), &mut nodes, [Vec::new(), vec![Input::Want(Want::Machine)]]);
    pass(&mut nodes, 1_250, 14_000);
    let intent = intend(&mut nodes[1], 14_000, (0, 1)).expect("made");
    pass(&mut nodes, 14_250, 16_000);
    let claim = nodes[0].view().slots()[&0].machines[0].claim;
    (nodes, intent, claim)
}

/// A record of a device, sealed for these.
fn record(node: &Node, by: u8, (intent, claim): (BlockId, BlockId), serial: u64, readers: &[u8]) -> Record {
    let mut wraps: Vec<_> = readers
        .iter()
        .map(|n| Wrap { device: author(*n), key: ByteBuf::from(vec![0; WRAPPED_BYTES]) })
        .collect();
    wraps.sort_by_key(|wrap| wrap.device);
    let sealed = Sealed { ephemeral: [1; 32], wraps, bytes: vec![7; 100] };
    let about = About { intent, claim, serial };
    Record::write(&node.ledger().fleet(), &key(by), about, sealed).expect("signed")
}

fn held(node: &Node, intent: &BlockId) -> Option<u64> {
    node.leases.states.held.get(intent).map(|record| record.about().serial)
}

fn effects(node: &mut Node, ms: u64, input: Input) -> Vec<Effect> {
    node.handle(at(ms), input);
    std::iter::from_fn(|| node.poll_effect()).collect()
}

#[test]
fn a_record_goes_to_every_spawner_also_one_that_was_away_and_goes_with_its_intent() {
    let (mut nodes, intent, claim) = with_machine();
    let about = (intent, claim);
    let sealed = |nodes: &[Node; 2], serial| Input::StateSealed(record(&nodes[1], 2, about, serial, &[1, 2]));
    let first = sealed(&nodes, 1);
    play(at(16_100), &mut nodes, [Vec::new(), vec![first]]);
    assert_eq!([held(&nodes[0], &intent), held(&nodes[1], &intent)], [Some(1), Some(1)]);
    // The first restarts with nothing, and is told when it connects.
    let copy = spawner(at(17_000), nodes[1].ledger(), 1, 9);
    nodes[0] = copy;
    play(at(17_000), &mut nodes, [vec![Input::Start], vec![Input::PeerDown(peer(1))]]);
    let second = sealed(&nodes, 2);
    play(at(17_100), &mut nodes, [Vec::new(), vec![second]]);
    assert_eq!([held(&nodes[0], &intent), held(&nodes[1], &intent)], [None, Some(2)]);
    connect(&mut nodes, at(17_200));
    assert_eq!(held(&nodes[0], &intent), Some(2));
    // So does one that is left behind while it is connected: with the next digests.
    nodes[0].leases.states.held.clear();
    pass(&mut nodes, 17_500, 23_000);
    assert_eq!(held(&nodes[0], &intent), Some(2));
    // A later process of it has what it kept.
    let kept = nodes[0].leases.states.held[&intent].bytes().to_vec();
    let mut again = spawner(at(23_000), nodes[0].ledger(), 1, 10);
    let _ = effects(&mut again, 23_000, Input::StatesKept(vec![kept, b"no record".to_vec()]));
    assert_eq!(held(&again, &intent), Some(2));
    let retire = Input::Request(1, Request::Retire { intent, timeout_ms: 0 });
    play(at(23_100), &mut nodes, [vec![retire], Vec::new()]);
    pass(&mut nodes, 23_250, 24_000);
    assert_eq!([held(&nodes[0], &intent), held(&nodes[1], &intent)], [None, None]);
}

#[test]
fn what_is_old_foreign_or_of_no_machine_is_not_taken() {
    let (mut nodes, intent, claim) = with_machine();
    let about = (intent, claim);
    let node = &mut nodes[0];
    let second = record(node, 2, about, 2, &[1, 2]);
    let kept = |effects: Vec<Effect>| effects.iter().any(|effect| matches!(effect, Effect::KeepState(..)));
    let take = |node: &mut Node, record: Record| {
        let frame = Frame::States(StatesFrame::Records(vec![ByteBuf::from(record.bytes().to_vec())]));
        kept(effects(node, 16_100, Input::Frame(peer(2), frame.encode())))
    };
    assert!(take(node, second.clone()));
    assert!(!take(node, second), "it is here");
    let refused = [
        record(node, 2, about, 1, &[1, 2]),
        // Not by the author of the claim, however late.
        record(node, 1, about, 9, &[1, 2]),
        record(node, 2, (BlockId([5; 32]), claim), 9, &[1, 2]),
        record(node, 2, (intent, BlockId([5; 32])), 9, &[1, 2]),
        record(node, 2, (intent, intent), 9, &[1, 2]),
    ];
    for record in refused {
        assert!(!take(node, record));
    }
    assert_eq!(held(node, &intent), Some(2));
    let third = record(node, 2, about, 3, &[1, 2]);
    assert!(take(node, third));
    // Bytes that are no record are held against their sender; who is no spawner is not listened to.
    let broken = || Frame::States(StatesFrame::Records(vec![ByteBuf::from(vec![0; 9])])).encode();
    let _ = effects(node, 16_200, Input::Frame(peer(2), broken()));
    assert_eq!(node.sync.rejected(&peer(2)), 1);
    let large = Frame::States(StatesFrame::Records(vec![ByteBuf::from(vec![0; STATE_RECORD_BYTES_MAX + 1])]));
    let _ = effects(node, 16_300, Input::Frame(peer(2), large.encode()));
    assert_eq!(node.sync.rejected(&peer(2)), 2);
    let _ = effects(node, 16_400, Input::Frame(peer(3), broken()));
    assert_eq!(node.sync.rejected(&peer(3)), 0);
}

#[test]
fn an_own_state_is_sealed_anew_when_spawners_come_or_go_and_who_takes_over_is_given_it() {
    let (mut nodes, intent, claim) = with_machine();
    let about = (intent, claim);
    let provisioning = |by_state| {
        let target = "process".to_owned();
        Some(Provisioning { target, shared: true, by_state, secret: [7; 32] })
    };
    let asks = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::SealState(machine, share) => Some((machine.intent, share.claim, share.serial)),
            _ => None,
        })
    };
    // Sealed for itself alone: the other spawner is told of nothing until it is sealed anew. Once it is asked for.
    let alone = record(&nodes[1], 2, about, 4, &[2]);
    let _ = effects(&mut nodes[1], 16_100, Input::StateSealed(alone));
    nodes[1].provision(provisioning(true));
    assert_eq!(asks(effects(&mut nodes[1], 16_200, Input::Tick)), Some((intent, claim, 4)));
    assert_eq!(asks(effects(&mut nodes[1], 16_300, Input::Tick)), None);
    let both = record(&nodes[1], 2, about, 5, &[1, 2]);
    let _ = effects(&mut nodes[1], 16_400, Input::StateSealed(both.clone()));
    assert_eq!(asks(effects(&mut nodes[1], 16_500, Input::Tick)), None);
    // The maker is gone. Who holds the slot next is sent with what it was told, under its own claim.
    let _ = effects(&mut nodes[0], 16_500, Input::StateSealed(both.clone()));
    nodes[0].provision(provisioning(true));
    let _ = effects(&mut nodes[0], 17_000, Input::PeerDown(peer(2)));
    let mut sent = None;
    for ms in (17_250..90_000).step_by(250) {
        for effect in effects(&mut nodes[0], ms, Input::Tick) {
            if let Effect::Provision(errand) = effect {
                sent = sent.or(errand.share);
            }
        }
    }
    let share = sent.expect("it takes the machine away");
    assert_eq!((share.foreign, share.serial, share.record.as_ref()), (true, 0, Some(&both)));
    assert_ne!(share.claim, claim);
    // It is refused, and the lease is lost: nothing is tried before the slot is held again, and then as before.
    let refused = Input::Removed(intent, Err("it bears another label".to_owned()));
    let _ = effects(&mut nodes[0], 90_000, refused);
    let _ = effects(&mut nodes[0], 90_100, Input::Suspended);
    let mut sent = Vec::new();
    for ms in (90_250..200_000).step_by(250) {
        for effect in effects(&mut nodes[0], ms, Input::Tick) {
            if let Effect::Provision(errand) = effect {
                sent.push((ms, errand.share));
            }
        }
    }
    let (at, again) = sent.first().expect("it tries again");
    assert!(*at > 90_100 + 13_000 && again.as_ref().is_some_and(|share| share.foreign), "{sent:?}");
    assert!(sent.iter().all(|(_, share)| share.is_some()), "{sent:?}");
    // By labels, nothing is shared.
    nodes[0].provision(provisioning(false));
    assert!(nodes[0].leases.states.held.contains_key(&intent) && !nodes[0].goes_by_states());
}
