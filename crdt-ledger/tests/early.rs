//! Blocks that come before what they name: they wait in bounded room, shared by who sent them.

mod support;

use std::sync::Arc;

use osiris_ledger::{Admission, BlockId, Ledger, Reject, Session, limits};
use support::{ADMIN, Fixture, NODE, OPERATOR, author, deploy, fingerprint, is_new, key, replica, serving};

#[test]
fn replays_change_nothing() {
    let fixture = Fixture::new();
    let mut ledger = fixture.ledger();
    let before = fingerprint(&mut ledger);
    for _ in 0..2 {
        for block in fixture.blocks.iter().rev() {
            assert!(matches!(ledger.admit(block.entry()), Ok(Admission::Known)));
        }
    }
    assert_eq!(fingerprint(&mut ledger), before);
    assert_eq!(ledger.len(), fixture.blocks.len() as u64);
}

#[test]
fn early_blocks_wait_bounded_and_are_released_once() {
    let fixture = Fixture::new();
    let mut ledger = Ledger::new(fixture.fleet);
    for block in fixture.blocks.iter().rev().filter(|block| block.id() != fixture.genesis) {
        let first = ledger.admit(block.entry());
        assert!(matches!(&first, Ok(Admission::Early { missing }) if !missing.is_empty()), "{first:?}");
        assert!(matches!(ledger.admit(block.entry()), Ok(Admission::Early { .. })));
    }
    assert_eq!(ledger.early(), (fixture.blocks.len() - 1, 0));
    let Ok(Admission::New { admitted, rejected }) = ledger.admit(fixture.blocks[0].entry()) else {
        panic!("the genesis block")
    };
    assert_eq!((admitted.len(), rejected.len()), (fixture.blocks.len(), 0));
    assert_eq!(ledger.early(), (0, 0));
    assert_eq!(fingerprint(&mut ledger), fingerprint(&mut fixture.ledger()));
}

#[test]
fn an_early_block_that_turns_out_invalid_is_dropped_and_named() {
    let fixture = Fixture::new();
    let (last, below) = fixture.blocks.split_last().expect("blocks");
    let mut ledger = replica(fixture.fleet, below);
    let mut draft = fixture.draft(NODE, serving(&fixture.revision));
    draft.depth += 1;
    let entry = draft.seal(&fixture.fleet, &key(NODE));
    assert!(matches!(ledger.admit(&entry), Ok(Admission::Early { .. })));
    let Ok(Admission::New { admitted, rejected }) = ledger.admit(last.entry()) else { panic!("valid") };
    assert_eq!(admitted.len(), 1);
    let expected = Reject::Depth { expected: draft.depth - 1, got: draft.depth };
    assert_eq!(rejected.iter().map(|refused| &refused.reject).collect::<Vec<_>>(), [&expected]);
    assert_eq!(ledger.admit(&entry).err(), Some(expected));
}

/// A flood of signed blocks that name what nobody has: the room is bounded, the oldest go first, and
/// what was given up is counted. Anti-entropy would bring an honest one again.
#[test]
fn a_flood_of_early_blocks_is_bounded() {
    let fixture = Fixture::new();
    let mut ledger = fixture.ledger();
    let before = fingerprint(&mut ledger);
    let extra = 300;
    let mut draft = fixture.draft(77, serving(&fixture.revision));
    for n in 0..(limits::EARLY_BLOCKS_MAX + extra) as u64 {
        let mut grant = [0xee; 32];
        grant[..8].copy_from_slice(&n.to_le_bytes());
        draft.grant = BlockId(grant);
        let answer = ledger.admit(&draft.seal(&fixture.fleet, &key(77)));
        assert!(matches!(answer, Ok(Admission::Early { .. })), "{answer:?}");
        assert!(ledger.early().0 <= limits::EARLY_BLOCKS_MAX);
    }
    assert_eq!(ledger.early(), (limits::EARLY_BLOCKS_MAX, extra as u64));
    assert_eq!(fingerprint(&mut ledger), before);
    let good = fixture.draft(NODE, serving(&fixture.revision)).seal(&fixture.fleet, &key(NODE));
    assert!(is_new(&ledger.admit(&good)), "a full buffer stops no block whose parents are here");
}

/// One member's flood of early blocks costs no other member any of its own, and what turns out invalid is
/// charged to who sent it, whoever sends what it waited for.
#[test]
fn early_room_is_shared_by_who_sent_the_blocks() {
    let fixture = Fixture::new();
    let mut ledger = fixture.ledger();
    let (honest, hostile) = (author(ADMIN), author(NODE));
    let missing = fixture.draft(OPERATOR, deploy("hello", 2, &[fixture.revision]));
    let missing = missing.seal(&fixture.fleet, &key(OPERATOR));
    let revision = BlockId(*blake3::hash(&missing).as_bytes());
    let mut waits = fixture.draft(NODE, serving(&revision));
    waits.depth += 2;
    // Its depth is wrong, which shows only when the block that it names is here.
    let entry = waits.seal(&fixture.fleet, &key(NODE));
    assert!(matches!(ledger.admit_all_from(honest, &[&entry])[..], [Ok(Admission::Early { .. })]));
    let mut draft = fixture.draft(77, serving(&fixture.revision));
    for n in 0..(limits::EARLY_BLOCKS_MAX + 300) as u64 {
        draft.grant.0[..8].copy_from_slice(&n.to_le_bytes());
        ledger.admit_all_from(hostile, &[draft.seal(&fixture.fleet, &key(77))]);
        assert!(
            ledger.early_bytes() <= limits::EARLY_BYTES_MAX && ledger.early().0 <= limits::EARLY_BLOCKS_MAX
        );
    }
    assert!(ledger.early().1 > 0, "the flood was over the limit");
    let answers = ledger.admit_all_from(hostile, &[&missing]);
    let [Ok(Admission::New { rejected, .. })] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(rejected.len(), 1, "the first block still waited");
    assert_eq!(rejected[0].sender, Some(honest));
}

/// Early blocks are looked at again for each block that they miss, in any order of arrival.
#[test]
fn an_early_block_that_misses_many_is_admitted_with_the_last() {
    let fixture = Fixture::new();
    let mut blocks: Vec<_> = (0..8_u8)
        .map(|n| {
            let mut draft = fixture.draft(NODE, serving(&fixture.revision));
            draft.session = Session([n; 16]);
            draft.seal(&fixture.fleet, &key(NODE))
        })
        .collect();
    let mut all = fixture.ledger();
    let mut parents = Vec::new();
    for entry in &blocks {
        let Ok(Admission::New { admitted, .. }) = all.admit(entry) else { panic!("valid") };
        parents.push(admitted[0].id());
    }
    let mut child = fixture.draft(NODE, serving(&fixture.revision));
    (child.parents, child.depth) = (parents, child.depth + 1);
    let child = child.seal(&fixture.fleet, &key(NODE));
    let mut ledger = fixture.ledger();
    assert!(matches!(ledger.admit(&child), Ok(Admission::Early { missing }) if missing.len() == 8));
    let last = blocks.remove(3);
    for entry in blocks.iter().rev() {
        assert!(matches!(ledger.admit(entry), Ok(Admission::New { admitted, .. }) if admitted.len() == 1));
    }
    assert_eq!(ledger.early(), (1, 0));
    let Ok(Admission::New { admitted, .. }) = ledger.admit(&last) else { panic!("valid") };
    assert_eq!(admitted.iter().map(Arc::as_ref).map(osiris_ledger::Block::seq).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(ledger.early(), (0, 0));
}
