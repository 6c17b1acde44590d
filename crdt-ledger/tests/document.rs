//! The automerge document: held while it is small, its heads known and its bytes there however large it is.

mod support;

use automerge::{Automerge, ReadDoc as _, Value};
use osiris_ledger::{Block, Ledger, Now, Writer, limits};
use support::{Fixture, NODE, OPERATOR, append, deploy, key, serving, session};

/// A history of several chains, some longer than a segment, one of them forked.
fn history() -> (Ledger, usize) {
    let fixture = Fixture::new();
    let mut ledger = fixture.ledger();
    let mut node = Writer::new(key(NODE), session(NODE));
    let mut operator = Writer::new(key(OPERATOR), session(50));
    for n in 0..limits::SEGMENT_ENTRIES + 20 {
        append(&mut ledger, &mut node, serving(&fixture.revision));
        if n % 16 == 0 {
            append(&mut ledger, &mut operator, deploy("more", 1, &[]));
        }
    }
    // A copy of the operator, in the session in which it wrote its first deploy: all of that session is void.
    let mut copy = Writer::new(key(OPERATOR), session(OPERATOR));
    let mut aside = support::replica(fixture.fleet, &fixture.blocks[..fixture.blocks.len() - 1]);
    let fork = append(&mut aside, &mut copy, deploy("other", 2, &[]));
    ledger.admit(fork.entry()).expect("valid");
    ledger.publish();
    assert_eq!(ledger.publish().forks().len(), 1);
    (ledger, 2)
}

/// A replica that holds a document of so many changes at most, and followed after each few blocks.
fn replica(of: &Ledger, held_max: usize, step: usize) -> Ledger {
    let mut ledger = Ledger::new(of.fleet());
    ledger.hold_document(held_max);
    for (n, block) in of.in_order().iter().enumerate() {
        ledger.admit(block.entry()).expect("valid");
        if n % step == 0 {
            ledger.follow_document(step / 2 + 1);
        }
    }
    ledger.publish();
    ledger
}

/// The entries in a saved document, ascending, and its heads.
fn opened(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<[u8; 32]>) {
    let document = Automerge::load(bytes).expect("what automerge saved");
    let mut entries = Vec::new();
    for key in document.keys(automerge::ROOT) {
        let (_, list) = document.get(automerge::ROOT, key).expect("read").expect("a segment");
        for at in 0..document.length(&list) {
            match document.get(&list, at) {
                Ok(Some((Value::Scalar(value), _))) => {
                    entries.push(value.as_bytes().expect("an entry").to_vec());
                }
                other => panic!("no entry: {other:?}"),
            }
        }
    }
    entries.sort_unstable();
    let mut heads: Vec<_> = document.get_heads().into_iter().map(|head| head.0).collect();
    heads.sort_unstable();
    (entries, heads)
}

#[test]
fn a_document_that_is_not_held_says_the_same() {
    let (ledger, forked) = history();
    let fork = ledger.views().load().forks()[0];
    let outside = |block: &&std::sync::Arc<Block>| {
        (block.author(), block.chain().session) != (fork.author, fork.session) || block.seq() < fork.seq
    };
    let blocks = ledger.in_order();
    let mut expected: Vec<_> = blocks.iter().filter(outside).map(|block| block.entry().to_vec()).collect();
    assert_eq!(expected.len() + forked, blocks.len(), "the fork is left out");
    expected.sort_unstable();
    for step in [1, 7, 100, 1_000] {
        for held_max in [0, 10, blocks.len() / 2, usize::MAX] {
            let what = format!("{held_max} held, {step} at once");
            let mut replica = replica(&ledger, held_max, step);
            let heads = replica.document_heads();
            let (entries, saved_heads) = opened(&replica.document_bytes());
            assert_eq!(heads, saved_heads, "{what}");
            assert!(entries == expected, "{what}");
            assert_eq!(replica.document_pending(), 0, "{what}");
        }
    }
}

#[test]
fn what_is_held_changes_with_how_much_may_be() {
    let (ledger, _) = history();
    let mut replica = replica(&ledger, 10, 100);
    let heads = replica.document_heads();
    let rebuilds = replica.document_rebuilds().1;
    replica.hold_document(usize::MAX);
    assert_eq!(replica.document_rebuilds(), (true, rebuilds), "it has to be made from the blocks");
    assert_eq!(replica.document_heads(), heads);
    let mut writer = Writer::new(key(NODE), session(77));
    let revision = ledger.views().load().functions()["more"].revisions[0].id;
    writer.append(&mut replica, Now::default(), serving(&revision)).expect("allowed");
    let more = replica.document_heads();
    assert_eq!(more.len(), heads.len() + 1, "a chain more");
    replica.hold_document(3);
    assert_eq!(replica.document_heads(), more);
    assert_eq!(opened(&replica.document_bytes()).1, more);
}
