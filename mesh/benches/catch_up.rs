//! What it costs an empty replica to get a fleet's blocks from a peer: time and bytes on the wire.
//!
//! Two replicas exchange real frames of `osiris/sync/1` in one process, without a network between them. The
//! time is held against as many `verify_strict` on all cores. `cargo bench --workspace --bench catch_up`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    dead_code,
    reason = "a bench measures time, and does not use all of what it shares with another"
)]

use std::collections::VecDeque;

use osiris_ledger::{Ledger, Now};
use osiris_mesh::{
    PeerId,
    proto::sync::{Frame, Sync},
};

#[path = "../../crdt-ledger/benches/history/mod.rs"]
mod history;

use history::{History, Took, author, floor, key};

/// How often each is measured; the median counts.
const RUNS: usize = 3;

fn main() {
    for (blocks, aim) in [(10_000, "aims 1 s on two cores and 2.4 MB"), (100_000, "aim 1.2")] {
        let history = History::write(blocks);
        let plain: usize = history.entries[..blocks].iter().map(Vec::len).sum();
        let (mut floors, mut runs, mut wire) = (Vec::new(), Vec::new(), 0);
        for _ in 0..RUNS {
            floors.push(floor(blocks));
            let mut whole = history.replica(blocks);
            let mut empty = Ledger::new(history.fleet);
            let (took, bytes) = Took::by(|| exchange(&mut whole, &mut empty));
            assert_eq!(whole.digest(), empty.digest());
            runs.push(took);
            wire = bytes;
        }
        let floor = Took::median(&floors);
        println!(
            "{blocks} blocks, {:.2} MB, to an empty replica: {:.2} MB on the wire both ways, {} ({aim}); \
             verify_strict alone {:.2} s",
            plain as f64 / 1e6,
            wire as f64 / 1e6,
            Took::median(&runs).beside(&floor),
            floor.wall.as_secs_f64()
        );
    }
}

/// Lets two replicas talk until neither has anything to say. Returns the bytes of all frames.
fn exchange(whole: &mut Ledger, empty: &mut Ledger) -> usize {
    let now = Now::default();
    let peers = [1, 2].map(|n| PeerId::from_bytes(author(&key(1, n)).0));
    let mut sides = [(Sync::new(1), whole), (Sync::new(2), empty)];
    let mut frames: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    for at in 0..2 {
        let (sync, ledger) = &mut sides[at];
        frames.push_back((1 - at, sync.peer_up(now, peers[1 - at], ledger).encode()));
    }
    let mut bytes = 0;
    while let Some((to, frame)) = frames.pop_front() {
        bytes += frame.len();
        let (sync, ledger) = &mut sides[to];
        let frame = Frame::decode(&frame).expect("a frame");
        let outcome = sync.handle(now, peers[1 - to], frame, ledger);
        if !outcome.admitted.is_empty() {
            ledger.publish();
        }
        frames.extend(outcome.answers.iter().map(|answer| (1 - to, answer.encode())));
    }
    bytes
}
