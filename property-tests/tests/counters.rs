//! Laws of the counters that nodes merge beside the ledger: whatever the order, whatever comes twice, replicas that
//! were given the same rows hold the same table; nothing that ended is ever counted back.

use std::time::Duration;

use osiris_ledger::{
    Author, FleetId, Mono, SigningKey,
    counter::{Counters, Figures, Merge, Row, RowWriter},
};
use proptest::prelude::*;

const FLEET: FleetId = FleetId([9; 32]);
const NAMES: [&str; 3] = ["chart", "summary", "thumb"];

fn key(owner: u8) -> SigningKey {
    SigningKey::from_bytes(&[owner + 1; 32])
}

fn author(owner: u8) -> Author {
    Author(key(owner).verifying_key().to_bytes())
}

/// What happens on one device, in its order.
#[derive(Clone, Debug)]
enum Step {
    Work {
        function: usize,
        backlog: u64,
        in_flight: u64,
        done: u64,
    },
    /// The process starts anew; it may or may not meet its last row.
    Restart {
        meets: bool,
    },
    /// A copy of the folder runs too, and writes a row of its own.
    Copy {
        backlog: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..NAMES.len(), 0..50_u64, 0..9_u64, 0..99_u64).prop_map(|(function, backlog, in_flight, done)| {
            Step::Work { function, backlog, in_flight, done }
        }),
        1 => any::<bool>().prop_map(|meets| Step::Restart { meets }),
        1 => (0..9_u64).prop_map(|backlog| Step::Copy { backlog }),
    ]
}

/// Every row that the devices ever wrote.
fn rows(histories: &[Vec<Step>]) -> Vec<Row> {
    let mut all = Vec::new();
    for (owner, history) in (0_u8..).zip(histories) {
        let mut writer = RowWriter::new(FLEET, author(owner));
        let mut done = [0; NAMES.len()];
        for step in history {
            match step {
                Step::Work { function, backlog, in_flight, done: more } => {
                    done[*function] += more;
                    let figures = Figures {
                        backlog: *backlog,
                        in_flight: *in_flight,
                        done: done[*function],
                        failed: 0,
                    };
                    writer.observe([(NAMES[*function], figures)]);
                }
                Step::Restart { meets } => {
                    writer = RowWriter::new(FLEET, author(owner));
                    done = [0; NAMES.len()];
                    if let (true, Some(last)) = (meets, highest(&all, owner)) {
                        writer.continue_above(&last);
                    }
                }
                Step::Copy { backlog } => {
                    let mut copy = RowWriter::new(FLEET, author(owner));
                    let figures = Figures { backlog: *backlog, ..Figures::default() };
                    copy.observe([(NAMES[0], figures)]);
                    all.push(copy.write(&key(owner)));
                }
            }
            all.push(writer.write(&key(owner)));
        }
    }
    all
}

fn highest(rows: &[Row], owner: u8) -> Option<Row> {
    rows.iter().filter(|row| row.owner() == author(owner)).max_by_key(|row| row.head()).cloned()
}

fn merged(rows: &[Row]) -> Counters {
    let mut counters = Counters::new(FLEET);
    for row in rows {
        counters.merge(Mono(0), row.clone());
    }
    counters
}

/// All rows of `from` into `into`, as anti-entropy would bring them.
fn join(into: &Counters, from: &Counters) -> Counters {
    let mut joined = into.clone();
    let (rows, _) = from.compare(&[], usize::MAX);
    for row in rows {
        joined.merge(Mono(0), row.clone());
    }
    joined
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_and_any_number_of_times_give_one_table(
        histories in prop::collection::vec(prop::collection::vec(step(), 1..12), 1..4),
        shuffle in any::<prop::sample::Selector>(),
        again in any::<prop::sample::Index>(),
    ) {
        let rows = rows(&histories);
        let one = merged(&rows);
        let mut other = rows.clone();
        other.sort_by_key(|row| (*shuffle.select([7_u8, 31, 77, 200].iter())).wrapping_mul(row.head().hash[0]));
        other.push(rows[again.index(rows.len())].clone());
        let other = merged(&other);
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(one.totals(Mono(0), Duration::MAX), other.totals(Mono(0), Duration::MAX));
        // The winner of each owner is its highest row, and nothing of the table changes by merging it again.
        for owner in (0_u8..).take(histories.len()) {
            prop_assert_eq!(one.get(&author(owner)).map(Row::head), highest(&rows, owner).map(|row| row.head()));
        }
        let mut same = one.clone();
        for row in &rows {
            prop_assert_eq!(same.merge(Mono(1), row.clone()), Merge::Known);
        }
    }

    #[test]
    fn joining_tables_is_commutative_associative_and_idempotent(
        histories in prop::collection::vec(prop::collection::vec(step(), 1..9), 1..4),
        parts in prop::collection::vec(0..3_usize, 64),
    ) {
        let rows = rows(&histories);
        let part = |wanted: usize| {
            let mine: Vec<_> =
                rows.iter().zip(parts.iter().cycle()).filter(|(_, p)| **p == wanted).map(|(r, _)| r.clone()).collect();
            merged(&mine)
        };
        let (a, b, c) = (part(0), part(1), part(2));
        prop_assert_eq!(join(&a, &b).digest(), join(&b, &a).digest());
        prop_assert_eq!(join(&join(&a, &b), &c).digest(), join(&a, &join(&b, &c)).digest());
        prop_assert_eq!(join(&a, &a).digest(), a.digest());
        prop_assert_eq!(join(&join(&a, &b), &c).digest(), merged(&rows).digest());
        // What a comparison says it lacks is exactly what makes both equal.
        let (lacks, wants) = a.compare(&b.notes(), usize::MAX);
        let mut b_then = b.clone();
        for row in lacks {
            prop_assert_eq!(b_then.merge(Mono(0), row.clone()), Merge::Newer);
        }
        prop_assert_eq!(b_then.digest(), join(&a, &b).digest());
        prop_assert_eq!(wants, join(&a, &b).digest() != a.digest());
    }

    #[test]
    fn what_ended_is_never_counted_back(history in prop::collection::vec(step(), 1..16)) {
        // An owner that meets its highest row before it writes: what a node does once it has a peer.
        let history: Vec<_> = history
            .into_iter()
            .filter(|step| !matches!(step, Step::Copy { .. }))
            .map(|step| match step {
                Step::Restart { .. } => Step::Restart { meets: true },
                other => other,
            })
            .collect();
        let mut counters = Counters::new(FLEET);
        let mut ended = 0;
        for row in rows(&[history]) {
            counters.merge(Mono(0), row);
            let now: u64 = counters.totals(Mono(0), Duration::MAX).values().map(|total| total.done).sum();
            prop_assert!(now >= ended, "{now} after {ended}");
            ended = now;
        }
    }
}

#[test]
fn rows_of_those_who_left_are_forgotten_and_silence_is_not_work() {
    let mut writer = RowWriter::new(FLEET, author(0));
    let figures = Figures { backlog: 4, in_flight: 1, done: 7, failed: 2 };
    writer.observe([(NAMES[0], figures)]);
    let mut counters = Counters::new(FLEET);
    counters.merge(Mono(1_000), writer.write(&key(0)));
    let fresh = Duration::from_secs(10);
    let total = |at| counters.totals(Mono(at), fresh).remove(NAMES[0]).expect("counted");
    assert_eq!((total(11_000).backlog, total(11_000).silent), (4, 0));
    assert_eq!((total(11_001).backlog, total(11_001).silent, total(11_001).done), (0, 1, 7));
    counters.retain(|owner| *owner != author(0));
    assert!(counters.is_empty());
}
