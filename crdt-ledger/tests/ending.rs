//! What a device that is no member any more is given, so that its own ledger says so.

mod support;

use osiris_ledger::{Admission, Batch, EndedBy, Ledger, Payload, Role, Vector, Writer};
use support::{
    ADMIN, NODE, OPERATOR, admitted, append, author, copy, deploy, enrol, found, invited, key, merge,
    revoked, session, withdrawn,
};

const ROOM: usize = 1 << 20;

fn device(n: u8) -> Writer {
    Writer::new(key(n), session(n))
}

fn take(ledger: &mut Ledger, batch: &Batch) -> u64 {
    let mut new = 0;
    for block in &batch.blocks {
        match ledger.admit(block.entry()) {
            Ok(Admission::New { admitted, .. }) => new += admitted.len() as u64,
            other => panic!("{other:?}"),
        }
    }
    ledger.publish();
    new
}

fn tell(told: &mut Ledger, teller: &Ledger, device: u8) -> u64 {
    let theirs = told.vector(false);
    let batch = teller.ending_for(&author(device), &theirs, ROOM).expect("it was a member");
    take(told, &batch)
}

#[test]
fn a_revoked_device_gets_what_revokes_it_and_nothing_that_came_after() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    let mut away = copy(&ledger);
    away.publish();
    let before = append(&mut ledger, &mut founder, deploy("before", 1, &[])).id();
    let revocation = append(&mut ledger, &mut founder, revoked(&[grant], &[])).id();
    let after = append(&mut ledger, &mut founder, deploy("after", 1, &[])).id();
    assert!(away.ending(&author(NODE)).is_none() && away.views().load().is_member(&author(NODE)));
    assert_eq!(tell(&mut away, &ledger, NODE), 2);
    assert!(away.contains_all(&[before, revocation]) && !away.contains_all(&[after]));
    assert!(!away.views().load().is_member(&author(NODE)) && away.views().load().was_member(&author(NODE)));
    let ending = away.ending(&author(NODE)).expect("no member");
    let block = ending.block.expect("a block");
    assert_eq!((ending.by, block.id(), block.author()), (EndedBy::Revocation, revocation, author(1)));
    assert_eq!(tell(&mut away, &ledger, NODE), 0, "told once");
}

#[test]
fn members_and_strangers_are_given_nothing() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    let nothing = Vector::default();
    assert!(ledger.ending_for(&author(NODE), &nothing, ROOM).is_none(), "a member");
    assert!(ledger.ending_for(&author(77), &nothing, ROOM).is_none(), "a stranger");
    append(&mut ledger, &mut founder, revoked(&[grant], &[]));
    assert!(ledger.ending_for(&author(NODE), &nothing, ROOM).is_some());
    // A new invitation is a new decision.
    enrol(&mut ledger, &mut founder, 2, NODE, &[Role::Node]);
    assert!(ledger.ending_for(&author(NODE), &nothing, ROOM).is_none());
    assert!(!ledger.views().load().was_member(&author(NODE)));
}

#[test]
fn a_long_absence_is_told_in_pieces_that_each_bring_it_further() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]);
    let mut away = copy(&ledger);
    for version in 0..50 {
        append(&mut ledger, &mut founder, deploy("f", version, &[]));
    }
    append(&mut ledger, &mut founder, revoked(&[grant], &[]));
    let mut rounds = 0;
    loop {
        let theirs = away.vector(false);
        let batch = ledger.ending_for(&author(NODE), &theirs, 3_000).expect("it was a member");
        assert!(batch.blocks.iter().map(|block| block.entry().len()).sum::<usize>() <= 3_000);
        assert!(take(&mut away, &batch) > 0);
        rounds += 1;
        if !batch.more {
            break;
        }
    }
    assert!(rounds > 3 && away.views().load().was_member(&author(NODE)), "{rounds}");
}

#[test]
fn whoever_lost_its_place_by_another_ones_fault_is_told_as_well() {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    let grant = enrol(&mut ledger, &mut founder, 1, ADMIN, &[Role::Node, Role::Admin]);
    let mut admin = device(ADMIN);
    let guest = enrol(&mut ledger, &mut admin, 2, NODE, &[Role::Node]);
    // An invitation for one device, spent twice in a partition; and one that is withdrawn unseen.
    let once = append(&mut ledger, &mut founder, invited(3, 1, &[Role::Node], None)).id();
    let gone = append(&mut ledger, &mut founder, invited(4, 9, &[Role::Node], None)).id();
    let mut elsewhere = copy(&ledger);
    append(&mut ledger, &mut founder, Payload::Admitted(admitted(&fleet, &once, 3, 30)));
    append(&mut ledger, &mut founder, withdrawn(gone));
    append(&mut ledger, &mut founder, revoked(&[grant], &[]));
    let mut node = device(NODE);
    append(&mut elsewhere, &mut node, Payload::Admitted(admitted(&fleet, &once, 3, 31)));
    append(&mut elsewhere, &mut node, Payload::Admitted(admitted(&fleet, &gone, 4, 32)));
    let away = [NODE, 31, 32].map(|device| (device, copy(&elsewhere)));
    merge(&mut [&mut ledger, &mut elsewhere]);
    assert!(!ledger.views().load().is_member(&author(NODE)), "its inviter was discarded: {guest:?}");
    for (device, mut ledger_of) in away {
        ledger_of.publish();
        assert!(ledger_of.views().load().is_member(&author(device)), "{device} does not know");
        tell(&mut ledger_of, &ledger, device);
        assert!(!ledger_of.views().load().is_member(&author(device)), "{device} knows");
        assert!(ledger_of.ending(&author(device)).is_some());
    }
}

#[test]
fn a_device_that_left_knows_that_it_did_so_itself() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 1, OPERATOR, &[Role::Node]);
    let mut leaver = device(OPERATOR);
    append(&mut ledger, &mut leaver, revoked(&[grant], &[]));
    assert_eq!(ledger.ending(&author(OPERATOR)).map(|ending| ending.by), Some(EndedBy::Itself));
}
