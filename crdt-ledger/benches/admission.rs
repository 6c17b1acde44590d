//! What a block costs: to admit it, to bring it into the document, to find that a peer lacks it.
//!
//! Figures are held against the cost of one `verify_strict` in the same run (the floor), for the
//! machine's speed changes and the ratio does not. `cargo bench --workspace --bench admission`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a bench measures time, and criterion's macros write undocumented functions"
)]

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Mutex,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use osiris_ledger::{Ledger, Now, Payload, Session, Writer};

mod history;

use history::{CHAINS, History, Took, floor, key};

const LARGE: usize = 100_000;
const SMALL: usize = 1_000;
/// Blocks above [`LARGE`] that the benches feed in.
const EXTRA: usize = 14_000;
/// Blocks above [`SMALL`] that are fed before the replica is made again.
const SMALL_EXTRA: usize = 900;
/// Blocks that the node's core applies to the document in one slice (`fleet::node::DOCUMENT_SLICE`).
const SLICE: u64 = 250;

/// Time and count of each thing measured, for the ratios.
static TALLY: Mutex<BTreeMap<&str, (Duration, u64)>> = Mutex::new(BTreeMap::new());

fn tally(name: &'static str, took: Duration, count: u64) -> Duration {
    let mut tally = TALLY.lock().expect("one thread");
    let (total, number) = tally.entry(name).or_default();
    *total += took;
    *number += count;
    took
}

fn micros(name: &str) -> f64 {
    let tally = TALLY.lock().expect("one thread");
    tally.get(name).map_or(f64::NAN, |(took, count)| took.as_secs_f64() * 1e6 / *count as f64)
}

/// A replica of `base` blocks to which the blocks that follow are fed.
struct Fed<'a> {
    history: &'a History,
    base: usize,
    next: usize,
    ledger: Ledger,
}

impl<'a> Fed<'a> {
    fn new(history: &'a History, base: usize) -> Self {
        Self { history, base, next: base, ledger: history.replica(base) }
    }

    /// Feeds `count` blocks and lets the document follow after each `batch`; zero: not at all.
    fn feed(&mut self, count: u64, batch: u64, most: usize) -> Duration {
        let mut took = Duration::ZERO;
        for n in 1..=count {
            if self.next >= (self.base + most).min(self.history.entries.len()) {
                *self = Self::new(self.history, self.base);
            }
            let entry = &self.history.entries[self.next];
            self.next += 1;
            let start = Instant::now();
            black_box(self.ledger.admit(entry).expect("valid"));
            if batch > 0 && (n % batch == 0 || n == count) {
                self.ledger.follow_document(usize::MAX);
            }
            took += start.elapsed();
        }
        took
    }
}

fn admission(criterion: &mut Criterion) {
    let start = Instant::now();
    let history = History::write(LARGE + EXTRA);
    let bytes: usize = history.entries.iter().map(Vec::len).sum();
    println!(
        "{} blocks of {} bytes on average, written in {:.1} s",
        history.entries.len(),
        bytes / history.entries.len(),
        start.elapsed().as_secs_f64()
    );
    let mut group = criterion.benchmark_group("block");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));

    let signer = key(1, 1);
    let message = [5; 32];
    let signature = ed25519_dalek::Signer::sign(&signer, &message);
    let public = signer.verifying_key();
    group.bench_function("verify_strict", |bencher| {
        bencher.iter_custom(|count| {
            let start = Instant::now();
            for _ in 0..count {
                black_box(public.verify_strict(black_box(&message), &signature)).expect("good");
            }
            tally("floor", start.elapsed(), count)
        });
    });
    let mut small = Fed::new(&history, SMALL);
    group.bench_function("admit/1k", |bencher| {
        bencher.iter_custom(|count| tally("admit/1k", small.feed(count, 0, SMALL_EXTRA), count));
    });
    let mut large = Fed::new(&history, LARGE);
    group.bench_function("admit+document/100k", |bencher| {
        bencher.iter_custom(|count| tally("one", large.feed(count, 1, EXTRA), count));
    });
    group.bench_function("admit+document/100k by slices", |bencher| {
        bencher.iter_custom(|count| tally("slices", large.feed(count, SLICE, EXTRA), count));
    });
    let mut alone = Fed::new(&history, LARGE);
    group.bench_function("admit/100k", |bencher| {
        bencher.iter_custom(|count| tally("admit/100k", alone.feed(count, 0, EXTRA), count));
    });
    group.finish();

    let floor = micros("floor");
    println!("\nverify_strict                          {floor:8.1} µs");
    for (what, name, aim) in [
        ("admit at 1,000 blocks", "admit/1k", 1.3),
        ("admit at 100,000 blocks", "admit/100k", 3.0),
        ("the same, and its document by slices", "slices", 3.0),
        ("the same, and its document at once", "one", 3.0),
    ] {
        let took = micros(name);
        println!("{what:<38} {took:8.1} µs = {:.2} of it (aim {aim})", took / floor);
    }
    volume(&history);
    anti_entropy(&history);
    publishing(&mut large.ledger);
    forking(&history, &mut large.ledger);
}

/// An empty replica that takes in all blocks, and one that starts with all of them in its journal.
fn volume(history: &History) {
    let entries = &history.entries[..LARGE];
    let (mut floors, mut admitted, mut replayed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        floors.push(floor(LARGE));
        let mut ledger = Ledger::new(history.fleet);
        let (took, ()) = Took::by(|| {
            assert!(ledger.admit_all(entries).iter().all(Result::is_ok));
            ledger.publish();
        });
        admitted.push(took);
        let mut ledger = Ledger::new(history.fleet);
        let (took, view) = Took::by(|| {
            assert!(ledger.replay_all(entries).iter().all(Result::is_ok));
            ledger.publish()
        });
        assert!(view.function("hello").is_some_and(|function| function.live.is_some()));
        replayed.push(took);
    }
    let (floor, admitted, replayed) =
        (Took::median(&floors), Took::median(&admitted), Took::median(&replayed));
    println!(
        "\n{LARGE} blocks on {} cores\nverify_strict alone {}\nadmitted and published {} (aim 1.2)\n\
         replayed from the journal and published, ready to route {} (aim 1 s)",
        rayon::current_num_threads(),
        floor.beside(&floor),
        admitted.beside(&floor),
        replayed.beside(&floor)
    );
}

fn cbor<T: serde::Serialize>(value: &T) -> usize {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes every write");
    bytes.len()
}

/// Two replicas of 100,000 blocks; one lacks the last.
fn anti_entropy(history: &History) {
    let mut whole = history.replica(LARGE);
    let mut lacking = history.replica(LARGE - 1);
    let start = Instant::now();
    assert_ne!(whole.digest(), lacking.digest());
    let vector = lacking.vector(false);
    let (batch, gaps) = whole.compare(&vector, 1 << 20);
    let took = start.elapsed();
    let block: usize = batch.blocks.iter().map(|block| block.entry().len()).sum();
    assert_eq!(batch.blocks.len(), 1);
    assert!(gaps.is_empty() && !batch.more);
    // The other way round: the vector that shows a tip unknown here, the gap, the answer.
    let back = whole.vector(false);
    let (none, wanted) = lacking.compare(&back, 1 << 20);
    let (filled, _) = whole.fill(&wanted, 1 << 20);
    assert_eq!((none.blocks.len(), filled.blocks.len()), (0, 1));
    println!(
        "\n1 of {LARGE} blocks missing, {CHAINS} chains: vector {} B, gap {} B, besides a block of {block} B; {:.2} ms (aims 6 kB, 5 ms)",
        cbor(&back),
        cbor(&wanted),
        took.as_secs_f64() * 1e3
    );
    let start = Instant::now();
    let all = whole.compare(&osiris_ledger::Vector::default(), 1 << 20);
    let took = start.elapsed();
    println!(
        "an empty vector against {LARGE} blocks: first batch of {} in {:.2} ms",
        all.0.blocks.len(),
        took.as_secs_f64() * 1e3
    );
    lacking.admit(batch.blocks[0].entry()).expect("valid");
    assert_eq!(whole.digest(), lacking.digest());
}

fn publishing(ledger: &mut Ledger) {
    ledger.publish();
    let start = Instant::now();
    let view = ledger.publish();
    println!("publish at {} blocks: {:.2} ms", view.blocks(), start.elapsed().as_secs_f64() * 1e3);
}

/// What two blocks of a hostile member cost: a fork at the start of one chain.
fn forking(history: &History, ledger: &mut Ledger) {
    let mut small = history.replica(usize::from(CHAINS) + 3);
    let payload = small
        .in_order()
        .iter()
        .rev()
        .find_map(|block| matches!(block.payload(), Payload::Serving(_)).then(|| block.payload().clone()))
        .expect("somebody serves");
    // A copy of the first device, in the same session.
    let mut copy = Writer::new(key(1, 1), Session([7; 16]));
    let mut aside = history.replica(CHAINS.into());
    let fork = copy.append(&mut aside, Now { wall: osiris_ledger::WallMs(1), ..Now::default() }, payload);
    small.admit(fork.as_ref().expect("allowed").entry()).expect("valid");
    assert_eq!(small.publish().forks().len(), 1);
    ledger.admit(fork.expect("allowed").entry()).expect("valid");
    let start = Instant::now();
    let view = ledger.publish();
    let published = start.elapsed();
    assert_eq!(view.forks().len(), 1);
    let start = Instant::now();
    ledger.document_heads();
    println!(
        "a fork among {} blocks: publish {:.1} ms, document built again in {:.0} ms",
        view.blocks(),
        published.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3
    );
}

criterion_group!(benches, admission);
criterion_main!(benches);
