//! A million tiny valid blocks: what a member may have others hold ends at its budget, whatever it sends.

use osiris_ledger::{
    Author, BlobHash, Founding, Ledger, Memo, Mono, Now, Payload, Session, SigningKey, World, Writer, limits,
    op,
};
use osiris_mesh::{
    PeerId,
    limits::{SPENT_BLOCK_INTERVAL_MS, SPENT_BLOCKS_BURST},
    proto::sync::{Frame, Sync},
};

/// Blocks beyond the default budget.
const BEYOND: usize = 3_000;
/// Entries of a frame.
const FRAME: usize = 4_000;

/// A fleet whose founder has written its whole budget and more, in tiny blocks, and a newcomer's replica.
fn written(key: &SigningKey) -> (Ledger, Ledger) {
    let founding = Founding {
        name: "fleet".to_owned(),
        label: "one".to_owned(),
        admin: &SigningKey::from_bytes(&[2; 32]),
        recovery: Author(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes()),
        nonce: Session([9; 16]),
    };
    let mut writer = Writer::new(key.clone(), Session([9; 16]));
    let (founded, _) = writer.found(Now::default(), founding).expect("founded");
    // Signatures are checked once, for both.
    let memo = Memo::new(founded.fleet());
    let [mut full, mut newcomer] = [(); 2].map(|()| Ledger::sharing(memo.clone()));
    for block in founded.in_order() {
        full.replay(block.entry()).expect("valid");
        newcomer.replay(block.entry()).expect("valid");
    }
    full.publish();
    newcomer.publish();
    let deployed = op::Deployed {
        name: "f".to_owned(),
        component: BlobHash([1; 32]),
        size: 1,
        world: World::Native,
        manifest: BlobHash([2; 32]),
        manifest_size: 1,
        replaces: Vec::new(),
    };
    let mut writer = Writer::new(key.clone(), Session([1; 16]));
    let now = Now::default();
    let revision = writer.append(&mut full, now, Payload::Deployed(deployed)).expect("allowed").id();
    let author = Author(key.verifying_key().to_bytes());
    while full.written_by(&author) < limits::BUDGET_BLOCKS + BEYOND as u64 {
        writer.append(&mut full, now, Payload::Stopped(op::Stopped { revision })).expect("allowed");
    }
    (full, newcomer)
}

#[test]
fn a_member_that_writes_without_end_is_held_to_its_budget() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let author = Author(key.verifying_key().to_bytes());
    let peer = PeerId::from_bytes(author.0);
    let (full, mut ledger) = written(&key);
    let entries: Vec<_> = full.in_order().iter().map(|block| block.entry().to_vec()).collect();
    let mut sync = Sync::new(1);
    let _ = sync.peer_up(Now::default(), peer, &mut ledger);
    let mut sends = |ledger: &mut Ledger, some: &[Vec<u8>], at: u64| {
        let now = Now { mono: Mono(at), ..Now::default() };
        for some in some.chunks(FRAME) {
            let frame = Frame::Blocks(some.iter().map(|entry| entry.clone().into()).collect(), false);
            let decoded = Frame::decode(&frame.encode()).expect("a frame that may be sent");
            let outcome = sync.handle(now, peer, decoded, ledger);
            assert!(outcome.rejects.is_empty(), "they are valid");
            // As the driver does: the view says what is spent.
            ledger.publish();
            assert!(ledger.early_bytes() <= limits::EARLY_BYTES_MAX);
        }
        (ledger.written_by(&author), sync.held_back(&peer))
    };
    let burst = SPENT_BLOCKS_BURST as u64;
    // All of it at once, while the newcomer takes in history and charges no rate.
    let (held, left) = sends(&mut ledger, &entries, 0);
    assert_eq!(held, limits::BUDGET_BLOCKS + burst, "the budget, and what trickles at once");
    assert_eq!(left, BEYOND as u64 - burst);
    assert_eq!(ledger.early().0, 0, "what is left with its author is not held");
    // Again and again: nothing more, until time has passed.
    let beyond = &entries[entries.len() - (BEYOND - burst as usize)..];
    let mut sent = entries.len();
    while sent < 150_000 {
        assert_eq!(sends(&mut ledger, beyond, 1).0, held);
        sent += beyond.len();
    }
    let later = 7 * SPENT_BLOCK_INTERVAL_MS as u64 + 1;
    assert_eq!(sends(&mut ledger, beyond, later).0, held + 7);
    assert_eq!(sync.rejected(&peer), 0, "nobody is to blame for what is too much");
}
