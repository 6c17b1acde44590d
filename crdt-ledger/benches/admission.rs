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
use osiris_ledger::{
    Author, BlobHash, FleetId, Founding, Ledger, Now, Payload, Roles, Session, SigningKey, World, Writer,
    join_proof, op,
};

const CHAINS: u16 = 100;
const LARGE: usize = 100_000;
const SMALL: usize = 1_000;
/// Blocks above [`LARGE`] that the benches feed in.
const EXTRA: usize = 14_000;
/// Blocks fed without a flush: fewer than those that are applied to the document in one batch unasked.
const UNFLUSHED: usize = 900;
/// Blocks that a device writes in a row: the first cites the deepest other head, the rest only their own.
const BURST: usize = 5;

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

fn key(kind: u8, n: u16) -> SigningKey {
    let mut seed = [kind; 32];
    seed[..2].copy_from_slice(&n.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

fn author(key: &SigningKey) -> Author {
    Author(key.verifying_key().to_bytes())
}

/// A fleet's blocks, in the order in which they were written.
struct History {
    fleet: FleetId,
    entries: Vec<Vec<u8>>,
}

impl History {
    fn write(blocks: usize) -> Self {
        let mut founder = Writer::new(key(1, u16::MAX), Session([9; 16]));
        let admin = key(2, 0);
        let (mut ledger, genesis) = founder
            .found(
                Now::default(),
                Founding {
                    name: "bench".to_owned(),
                    label: "founder".to_owned(),
                    admin: &admin,
                    recovery: author(&key(3, 0)),
                    nonce: Session::ZERO,
                },
            )
            .expect("a valid founding");
        let fleet = ledger.fleet();
        let mut entries = vec![genesis.entry().to_vec()];
        let mut append = |ledger: &mut Ledger, writer: &mut Writer, payload| {
            let block = writer.append(ledger, Now::default(), payload).expect("allowed");
            entries.push(block.entry().to_vec());
            block.id()
        };
        let ticket = key(4, 0);
        let invited = op::Invited {
            key: author(&ticket),
            uses: CHAINS.into(),
            roles: Roles::NODE,
            device: None,
            note: String::new(),
        };
        let invitation = append(&mut ledger, &mut founder, Payload::Invited(invited));
        let deployed = op::Deployed {
            name: "hello".to_owned(),
            component: BlobHash([1; 32]),
            size: 1,
            world: World::Native,
            manifest: BlobHash([1; 32]),
            manifest_size: 1,
            replaces: Vec::new(),
        };
        let revision = append(&mut ledger, &mut founder, Payload::Deployed(deployed));
        let mut writers = Vec::new();
        for n in 1..CHAINS {
            let device = author(&key(1, n));
            let proof = join_proof(&ticket, &fleet, &invitation, &device);
            let label = format!("device-{n}");
            append(
                &mut ledger,
                &mut founder,
                Payload::Admitted(op::Admitted { invitation, device, proof, label }),
            );
            writers.push(Writer::new(key(1, n), Session([7; 16])));
        }
        let count = writers.len();
        let turns = (0..).map(|n| n / BURST % count);
        let left = blocks.saturating_sub(CHAINS.into());
        for (writer, concurrency) in turns.zip(1..).take(left) {
            let serving = Payload::Serving(op::Serving { revision, concurrency });
            append(&mut ledger, &mut writers[writer], serving);
        }
        Self { fleet, entries }
    }

    fn replica(&self, blocks: usize) -> Ledger {
        let mut ledger = Ledger::new(self.fleet);
        for entry in &self.entries[..blocks] {
            ledger.replay(entry).expect("valid");
        }
        ledger.publish();
        ledger.document_heads();
        ledger
    }
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

    /// Feeds `count` blocks and flushes the document after each `batch`; zero: not at all.
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
                black_box(self.ledger.document_heads());
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
        bencher.iter_custom(|count| tally("admit/1k", small.feed(count, 0, UNFLUSHED), count));
    });
    let mut large = Fed::new(&history, LARGE);
    group.bench_function("admit+document/100k", |bencher| {
        bencher.iter_custom(|count| tally("one", large.feed(count, 1, EXTRA), count));
    });
    group.bench_function("admit+document/100k by 100", |bencher| {
        bencher.iter_custom(|count| tally("hundred", large.feed(count, 100, EXTRA), count));
    });
    group.finish();

    let floor = micros("floor");
    println!("\nverify_strict                          {floor:8.1} µs");
    for (what, name, aim) in [
        ("admit at 1,000 blocks", "admit/1k", 1.3),
        ("admit and document at 100,000, each", "one", 3.0),
        ("admit and document at 100,000, by 100", "hundred", 3.0),
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
    use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

    let signer = key(1, 1);
    let signature = ed25519_dalek::Signer::sign(&signer, &[5; 32]);
    let public = signer.verifying_key();
    let entries = &history.entries[..LARGE];
    let (mut floor, mut admitted, mut replayed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let start = Instant::now();
        (0..LARGE).into_par_iter().for_each(|_| {
            black_box(public.verify_strict(black_box(&[5; 32]), &signature)).expect("good");
        });
        floor.push(start.elapsed());
        let mut ledger = Ledger::new(history.fleet);
        let start = Instant::now();
        assert!(ledger.admit_all(entries).iter().all(Result::is_ok));
        ledger.publish();
        admitted.push(start.elapsed());
        let mut ledger = Ledger::new(history.fleet);
        let start = Instant::now();
        for entry in entries {
            ledger.replay(entry).expect("valid");
        }
        assert!(ledger.publish().function("hello").is_some_and(|function| function.live.is_some()));
        replayed.push(start.elapsed());
    }
    let median = |mut took: Vec<Duration>| {
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64()
    };
    let (floor, admitted, replayed) = (median(floor), median(admitted), median(replayed));
    println!(
        "\n{LARGE} blocks on {} cores: verify_strict alone {floor:.2} s; admitted and published {admitted:.2} s = {:.2} of it \
         (aim 1.2); replayed from the journal and published, ready to route, {replayed:.2} s (aim 1)",
        rayon::current_num_threads(),
        admitted / floor
    );
    let first: usize = history.entries[..10_000].iter().map(Vec::len).sum();
    println!("the first 10,000 blocks are {:.2} MB (aim 2.4)", first as f64 / 1e6);
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
