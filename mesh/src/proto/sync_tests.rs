use osiris_ledger::{BlobHash, Founding, Payload, Session, SigningKey, World, Writer, op};

use super::*;
use crate::limits::{SPENT_BLOCK_INTERVAL_MS, SPENT_BLOCKS_BURST};

#[test]
fn frames_round_trip_and_garbage_is_refused() {
    let frame = Frame::Receipt(vec![BlockId([3; 32])]);
    assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    let entries = [[1; 100], [2; 100]].map(|entry| ByteBuf::from(entry.to_vec()));
    let frame = Frame::Blocks(entries.to_vec(), true);
    assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    let short = Frame::Blocks(vec![ByteBuf::from(b"no block".to_vec())], false);
    assert_eq!(Frame::decode(&short.encode()), Err(FrameError));
    assert_eq!(Frame::decode(b"\xff\xff"), Err(FrameError));
    assert_eq!(Frame::decode(&[]), Err(FrameError));
    assert_eq!(Frame::decode(&vec![0; FRAME_BYTES_MAX + 1]), Err(FrameError));
}

/// A fleet's ledger with so many chains, and its founder's key.
fn with_chains(chains: u16) -> (SigningKey, Ledger) {
    let key = SigningKey::from_bytes(&[1; 32]);
    let other = SigningKey::from_bytes(&[2; 32]);
    let founding = Founding {
        name: "fleet".to_owned(),
        label: "one".to_owned(),
        admin: &other,
        recovery: Author(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes()),
        nonce: Session([9; 16]),
    };
    let mut writer = Writer::new(key.clone(), Session([9; 16]));
    let (mut ledger, _) = writer.found(Now::default(), founding).expect("founded");
    ledger.publish();
    for chain in 1..chains {
        write(&key, &mut ledger, chain);
    }
    (key, ledger)
}

/// A block in a session of its own.
fn write(key: &SigningKey, ledger: &mut Ledger, session: u16) -> BlockId {
    let mut id = [1; 16];
    id[..2].copy_from_slice(&session.to_le_bytes());
    let deployed = op::Deployed {
        name: format!("f{session}"),
        component: BlobHash([1; 32]),
        size: 1,
        world: World::Native,
        manifest: BlobHash([2; 32]),
        manifest_size: 1,
        replaces: Vec::new(),
    };
    let mut writer = Writer::new(key.clone(), Session(id));
    writer.append(ledger, Now::default(), Payload::Deployed(deployed)).expect("allowed").id()
}

fn copy(ledger: &Ledger) -> Ledger {
    let mut copy = Ledger::new(ledger.fleet());
    for block in ledger.in_order() {
        copy.replay(block.entry()).expect("valid");
    }
    copy.publish();
    copy
}

/// Lets two replicas talk until they have nothing to say. Returns the kinds of frames and their bytes.
fn talk(a: &mut Ledger, b: &mut Ledger) -> (Vec<&'static str>, usize) {
    let peers = [[3; 32], [4; 32]].map(PeerId::from_bytes);
    let mut sides = [(Sync::new(1), a), (Sync::new(2), b)];
    let mut frames = std::collections::VecDeque::new();
    for at in 0..2 {
        let (sync, ledger) = &mut sides[at];
        let frame = sync.peer_up(Now::default(), peers[1 - at], ledger);
        // Only one side starts, so that what it takes can be told.
        frames.extend((at == 0).then_some((1, frame)));
    }
    let (mut kinds, mut bytes) = (Vec::new(), 0);
    while let Some((to, frame)) = frames.pop_front() {
        bytes += frame.encode().len();
        kinds.push(match &frame {
            Frame::Digest(_) => "digest",
            Frame::Vector(..) => "vector",
            Frame::Buckets(_) => "buckets",
            Frame::Part(..) => "part",
            Frame::Gaps(_) => "gaps",
            Frame::Blocks(..) => "blocks",
            Frame::Pages(_) | Frame::Receipt(_) | Frame::Rows(_) | Frame::States(_) => "other",
        });
        let (sync, ledger) = &mut sides[to];
        let outcome = sync.handle(Now::default(), peers[1 - to], frame, ledger);
        frames.extend(outcome.answers.into_iter().map(|answer| (1 - to, answer)));
    }
    (kinds, bytes)
}

#[test]
fn replicas_with_many_chains_compare_those_that_differ() {
    let (key, mut a) = with_chains(1_000);
    let mut b = copy(&a);
    write(&key, &mut a, 2_000);
    write(&key, &mut b, 2_001);
    let whole = Frame::Vector(false, a.vector(false)).encode().len();
    let (kinds, bytes) = talk(&mut a, &mut b);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(kinds[..3], ["digest", "buckets", "part"], "{kinds:?}");
    assert!(!kinds.contains(&"vector"), "{kinds:?}");
    assert!(bytes * 3 < whole, "{bytes} bytes, where a vector of all chains has {whole}");
}

#[test]
fn replicas_with_few_chains_compare_them_all_at_once() {
    let (key, mut a) = with_chains(VECTOR_AT_ONCE_MAX as u16 - 1);
    let mut b = copy(&a);
    write(&key, &mut a, 2_000);
    let (kinds, _) = talk(&mut a, &mut b);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(kinds[..2], ["digest", "vector"], "{kinds:?}");
}

/// The founder's own budget: no more than what it has written by then, and so many blocks beyond.
fn over_budget(key: &SigningKey, ledger: &mut Ledger, beyond: u16) -> Vec<ByteBuf> {
    let device = Author(key.verifying_key().to_bytes());
    let blocks = ledger.written_by(&device) + 1;
    let mut writer = Writer::new(key.clone(), Session([7; 16]));
    let budgeted = Payload::Budgeted(op::Budgeted { device, blocks });
    writer.append(ledger, Now::default(), budgeted).expect("allowed");
    ledger.publish();
    let ids: Vec<_> = (0..beyond).map(|n| write(key, ledger, 3_000 + n)).collect();
    ids.iter().map(|id| ByteBuf::from(ledger.get(id).expect("here").entry().to_vec())).collect()
}

#[test]
fn what_is_beyond_a_budget_comes_at_a_trickle_from_its_author_and_by_hints_and_at_once_from_others() {
    let (key, mut whole) = with_chains(3);
    let author = Author(key.verifying_key().to_bytes());
    let mut start = copy(&whole);
    let beyond = over_budget(&key, &mut whole, 300);
    for block in whole.in_order() {
        if !beyond.iter().any(|entry| entry.as_slice() == block.entry()) {
            start.replay(block.entry()).expect("valid");
        }
    }
    start.publish();
    assert_eq!((start.left_to_write(&author), start.written_beyond(&author)), (0, 0));
    let burst = SPENT_BLOCKS_BURST as usize;
    let taken = |sync: &mut Sync, ledger: &mut Ledger, from: PeerId, at: u64| {
        let before = ledger.len();
        let now = Now { mono: Mono(at), ..Now::default() };
        let _ = sync.peer_up(now, from, ledger);
        let _ = sync.handle(now, from, Frame::Blocks(beyond.clone(), false), ledger);
        (ledger.len() - before) as usize
    };
    let (itself, other) = (PeerId::from_bytes(author.0), PeerId::from_bytes([4; 32]));
    // What is here already costs nothing: each batch begins with it.
    let (mut sync, mut ledger) = (Sync::new(1), copy(&start));
    let interval = SPENT_BLOCK_INTERVAL_MS as u64;
    let steps = [0, 1, interval, 4 * interval].map(|at| taken(&mut sync, &mut ledger, itself, at));
    assert_eq!(steps, [burst, 0, 1, 3]);
    assert_eq!(sync.held_back(&itself) as usize, 300 * 4 - burst * 4 - (1 + 4));
    let hints = |sync: &mut Sync, ledger: &mut Ledger, at: u64| {
        let now = Now { mono: Mono(at), ..Now::default() };
        beyond.iter().map(|entry| sync.hint(now, entry, ledger).len()).sum::<usize>()
    };
    assert_eq!(hints(&mut sync, &mut ledger, 6 * interval), 2);
    // Another member took them in while they trickled; what it brings is charged to the author all the same.
    assert_eq!(taken(&mut sync, &mut ledger, other, 6 * interval), 300 - burst - 6);
    assert_eq!(taken(&mut Sync::new(1), &mut copy(&start), other, 0), 300);
    // A process that starts again knows from its ledger what was written.
    let (mut sync, mut ledger) = (Sync::new(1), copy(&start));
    assert_eq!(taken(&mut sync, &mut ledger, itself, 0), burst);
    assert_eq!(taken(&mut Sync::new(1), &mut copy(&ledger), itself, 0), burst);
}

/// Blocks of one session, each behind the one before.
fn one_chain(key: &SigningKey, ledger: &mut Ledger, count: u16) -> Vec<ByteBuf> {
    let mut writer = Writer::new(key.clone(), Session([8; 16]));
    let deployed = |n: u16| op::Deployed {
        name: format!("chain-{n}"),
        component: BlobHash([1; 32]),
        size: 1,
        world: World::Native,
        manifest: BlobHash([2; 32]),
        manifest_size: 1,
        replaces: Vec::new(),
    };
    let mut append = |n| writer.append(ledger, Now::default(), Payload::Deployed(deployed(n)));
    (0..count).map(|n| ByteBuf::from(append(n).expect("allowed").entry().to_vec())).collect()
}

/// A replica in which the founder may write so many blocks more, and its author.
fn with_budget(left: u64) -> (SigningKey, Ledger, Author) {
    let (key, mut ledger) = with_chains(3);
    let device = Author(key.verifying_key().to_bytes());
    let blocks = ledger.written_by(&device) + 1 + left;
    let mut writer = Writer::new(key.clone(), Session([7; 16]));
    let budgeted = Payload::Budgeted(op::Budgeted { device, blocks });
    writer.append(&mut ledger, Now::default(), budgeted).expect("allowed");
    ledger.publish();
    assert_eq!(ledger.left_to_write(&device), left);
    (key, ledger, device)
}

fn bring(sync: &mut Sync, ledger: &mut Ledger, from: PeerId, at: u64, entries: &[ByteBuf]) -> usize {
    let (before, now) = (ledger.len(), Now { mono: Mono(at), ..Now::default() });
    let _ = sync.handle(now, from, Frame::Blocks(entries.to_vec(), false), ledger);
    ledger.publish();
    (ledger.len() - before) as usize
}

#[test]
fn a_batch_that_crosses_a_budget_is_taken_up_to_it_and_then_at_the_trickle() {
    let burst = SPENT_BLOCKS_BURST as usize;
    let (key, start, author) = with_budget(50);
    let mut whole = copy(&start);
    let entries = one_chain(&key, &mut whole, 300);
    let itself = PeerId::from_bytes(author.0);
    let (mut sync, mut ledger) = (Sync::new(1), copy(&start));
    let _ = sync.peer_up(Now::default(), itself, &mut ledger);
    assert_eq!(bring(&mut sync, &mut ledger, itself, 0, &entries), 50 + burst);
    assert_eq!((ledger.left_to_write(&author), ledger.written_beyond(&author)), (0, burst as u64));
    assert_eq!(bring(&mut sync, &mut ledger, itself, 1, &entries), 0);
    // The same blocks, spread over many small batches.
    let (mut sync, mut ledger) = (Sync::new(1), copy(&start));
    let _ = sync.peer_up(Now::default(), itself, &mut ledger);
    let taken: usize = entries.chunks(7).map(|few| bring(&mut sync, &mut ledger, itself, 0, few)).sum();
    assert_eq!(taken, 50 + burst);
}

#[test]
fn blocks_that_wait_for_one_that_is_missing_pass_no_budget() {
    let burst = SPENT_BLOCKS_BURST as usize;
    for left in [0, 50] {
        let (key, start, author) = with_budget(left);
        let most = left as usize + burst;
        let mut whole = copy(&start);
        let entries = one_chain(&key, &mut whole, 300);
        let itself = PeerId::from_bytes(author.0);
        let (mut sync, mut ledger) = (Sync::new(1), copy(&start));
        let _ = sync.peer_up(Now::default(), itself, &mut ledger);
        // All but the first, in parts and again and again: none can be judged yet.
        let parts = entries[1..].chunks(40).cycle().take(30);
        let tails: usize = parts.map(|few| bring(&mut sync, &mut ledger, itself, 0, few)).sum();
        assert_eq!(tails, 0);
        assert!(ledger.early().0 <= most, "{} wait of at most {most}", ledger.early().0);
        // The first releases what waited, and no more than the trickle allows has come in by any way.
        let released = bring(&mut sync, &mut ledger, itself, 5, &entries[..1]);
        let later = bring(&mut sync, &mut ledger, itself, 6, &entries);
        assert!(released + later <= most, "{released} and {later} of at most {most}");
        let after = SPENT_BLOCK_INTERVAL_MS as u64 * SPENT_BLOCKS_BURST as u64;
        let after = bring(&mut sync, &mut ledger, itself, 6 + after, &entries);
        assert!(after > 0 && released + later + after <= most + burst, "{released}, {later}, then {after}");
    }
}

#[test]
fn a_larger_budget_lets_in_what_was_beyond_the_smaller_one() {
    let burst = SPENT_BLOCKS_BURST as usize;
    let (key, start, author) = with_budget(0);
    let mut whole = copy(&start);
    let entries = one_chain(&key, &mut whole, 300);
    let itself = PeerId::from_bytes(author.0);
    let (mut sync, mut ledger) = (Sync::new(1), copy(&start));
    let _ = sync.peer_up(Now::default(), itself, &mut ledger);
    assert_eq!(bring(&mut sync, &mut ledger, itself, 0, &entries), burst);
    // Written by another session of the same admin, on a replica that has all.
    let mut writer = Writer::new(key, Session([5; 16]));
    let larger =
        Payload::Budgeted(op::Budgeted { device: author, blocks: ledger.written_by(&author) + 10_000 });
    // It names as parents what this replica holds, as another admin's would.
    let budgeted = writer.append(&mut ledger, Now::default(), larger).expect("allowed");
    ledger.publish();
    assert!(ledger.left_to_write(&author) > 0, "{budgeted:?}");
    assert_eq!(bring(&mut sync, &mut ledger, itself, 1, &entries), 300 - burst);
    assert_eq!(ledger.written_beyond(&author), 0);
}
