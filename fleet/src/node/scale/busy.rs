//! Who is busy is passed over, on the node that the load is on.

use std::ops::RangeInclusive;

use osiris_ledger::{
    Ledger, Payload, Session, Writer,
    counter::{Figures, RowWriter},
};

use super::{
    tests::{COMPONENT, MANIFEST, at, deploy, ledger, manifest},
    *,
};
use crate::node::{
    Effect, Input,
    sample::{author, key, server},
};

/// Devices besides the node's own, in a fleet of five.
const OTHERS: RangeInclusive<u8> = 2..=5;

/// The node, and the rows of the others.
struct Five {
    node: Node,
    rows: BTreeMap<u8, RowWriter>,
    ms: u64,
    load: (u64, u64),
    done: u64,
    persisted: Vec<Payload>,
}

impl Five {
    fn new() -> Self {
        Self::with(OTHERS)
    }

    fn with(others: RangeInclusive<u8>) -> Self {
        let ledger = ledger(others.clone());
        let fleet = ledger.fleet();
        let writer = |device| (device, RowWriter::new(fleet, author(device)));
        let mut five = Self {
            node: server(at(0), &ledger, 1, 2),
            rows: others.clone().map(writer).collect(),
            ms: 0,
            load: (0, 0),
            done: 0,
            persisted: Vec::new(),
        };
        let peers = others.map(|other| Input::PeerUp(Node::peer(&author(other))));
        let held = [Input::Start, Input::BlobHeld(MANIFEST), Input::BlobHeld(COMPONENT)];
        held.into_iter().chain(peers).for_each(|input| five.give(input));
        five
    }

    fn give(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.node.handle(at(self.ms), input);
            while let Some(effect) = self.node.poll_effect() {
                match effect {
                    Effect::ReadManifest(hash) => {
                        inputs.push_back(Input::Manifest(hash, Ok(manifest(1, 4))));
                    }
                    Effect::Prepare { revision, .. } => inputs.push_back(Input::Prepared(revision, 2)),
                    Effect::Persist(blocks) => {
                        self.persisted.extend(blocks.iter().map(|block| block.payload().clone()));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Somebody writes a count.
    fn scale(&mut self, scaled: op::Scaled) {
        self.node.append(at(self.ms), Payload::Scaled(scaled)).expect("allowed");
        while self.node.poll_effect().is_some() {}
        self.give(Input::Tick);
    }

    fn busy(&mut self, device: u8, busy: bool) {
        let row = self.rows.get_mut(&device).expect("another's");
        row.set_busy(busy);
    }

    /// Lets time pass. All members go on saying whether they are busy.
    fn run(&mut self, seconds: u64) {
        for step in 0..2 * seconds {
            self.ms += 500;
            self.done += 1;
            if step % 10 == 0 {
                let rows: Vec<_> = self.rows.iter_mut().map(|(n, row)| row.write(&key(*n))).collect();
                rows.into_iter().for_each(|row| self.give(Input::RowHint(row.bytes().to_vec())));
            }
            let (backlog, in_flight) = self.load;
            let figures = Figures { backlog, in_flight, done: self.done, ..Figures::default() };
            self.give(Input::Observed(vec![("f".to_owned(), figures)]));
            self.give(Input::Tick);
        }
    }

    /// Those that are to serve it, of so many replicas.
    fn placed(&mut self, count: usize) -> Vec<Author> {
        let newest = self.node.view().function("f").and_then(|f| f.newest.clone()).expect("deployed");
        self.node.candidates(at(self.ms), "f", &newest, &PlaceKeys::default(), count)
    }

    /// The devices by rank; the node's own is 1.
    fn order(&mut self) -> Vec<u8> {
        let placed = self.placed(9);
        let number = |member: &Author| (1..=5).find(|n| author(*n) == *member).expect("one of five");
        placed.iter().map(number).collect()
    }

    fn counts(&self) -> Vec<(u32, Vec<Author>)> {
        let scaled = self.persisted.iter().filter_map(|payload| match payload {
            Payload::Scaled(op) => Some((op.replicas, op.past.clone())),
            _ => None,
        });
        scaled.collect()
    }
}

/// The others that hold no replica when there is one, by rank.
fn others(order: &[u8]) -> Vec<u8> {
    order[1..].iter().copied().filter(|n| *n != 1).collect()
}

#[test]
fn a_replica_more_is_on_a_peer_that_is_not_busy() {
    let mut five = Five::new();
    let order = five.order();
    let [busy, idle, ..] = others(&order)[..] else { panic!("{order:?}") };
    five.busy(busy, true);
    five.load = (4, 2);
    five.run(100);
    let (count, past) = five.counts().remove(0);
    assert_eq!(past, [author(busy)]);
    let placed = five.placed(count as usize);
    assert!(!placed.contains(&author(busy)) && placed.contains(&author(idle)), "{order:?}: {placed:?}");
    // It comes last, and still comes where there is nobody else.
    assert_eq!(five.placed(9).last(), Some(&author(busy)));
    // Who is idle again is used again, and who serves goes on.
    let first = five.placed(1);
    five.busy(busy, false);
    five.load = (40, 8);
    five.run(100);
    let (count, past) = five.counts().pop().expect("counts");
    assert_eq!((count, past), (4, vec![]));
    assert_eq!(five.placed(1), first);
}

#[test]
fn where_all_that_are_left_are_busy_rank_decides() {
    let mut five = Five::new();
    let order = five.order();
    OTHERS.for_each(|other| five.busy(other, true));
    five.give(Input::Machine(MachineLoad { cpu: 99, memory: 10 }));
    five.load = (4, 2);
    five.run(100);
    assert_eq!(five.counts().first().map(|(_, past)| past.clone()), Some(vec![]));
    assert_eq!(five.order(), order);
}

#[test]
fn who_holds_a_replica_keeps_it_when_others_are_idle_again() {
    let mut five = Five::new();
    let order = five.order();
    let held = [order[0], order[3]].map(author);
    // Those between were busy, so the second replica is behind them.
    let between = [order[1], order[2]];
    let mut past: Vec<_> = between.iter().copied().map(author).collect();
    past.sort_unstable();
    let scaled = op::Scaled { name: "f".to_owned(), replicas: 2, past };
    five.scale(scaled);
    assert_eq!(five.placed(2), held);
    five.load = (2, 4);
    five.run(100);
    let counts = five.counts();
    let (count, past) = counts.iter().find(|(count, _)| *count > 2).expect("one more");
    let placed = five.placed(*count as usize);
    assert!(held.iter().all(|member| placed.contains(member)), "{order:?}: {past:?} {placed:?}");
    assert!(past.len() < 2, "one of them is idle and used: {past:?}");
}

#[test]
fn a_deploy_forgets_who_was_passed_over() {
    let mut five = Five::new();
    let order = five.order();
    let scaled = op::Scaled { name: "f".to_owned(), replicas: 1, past: vec![author(order[0])] };
    five.scale(scaled);
    assert_eq!(five.order()[..], [&order[1..], &order[..1]].concat());
    let mut founder = Writer::new(key(1), Session([77; 16]));
    let mut ledger = Ledger::new(five.node.ledger().fleet());
    for block in five.node.ledger().in_order() {
        ledger.replay(block.entry()).expect("valid");
    }
    deploy(&mut founder, &mut ledger, "f");
    let newest = ledger.in_order().pop().expect("blocks");
    five.give(Input::Hint(newest.entry().to_vec()));
    let newest = five.node.view().function("f").and_then(|f| f.newest.clone()).expect("deployed");
    assert_eq!(newest.number, 2, "the new one is here");
    let ranked = crate::placement::ranked(&newest.id, (1..=5).map(author));
    assert_eq!(five.placed(9), ranked);
}

#[test]
fn a_machine_is_busy_until_it_is_well_below_its_marks_and_says_so() {
    let mut five = Five::new();
    five.run(25);
    let mut busy = |cpu, memory| {
        five.give(Input::Machine(MachineLoad { cpu, memory }));
        five.run(6);
        five.node.telemetry.busy(at(five.ms), "f").contains(&author(1))
    };
    let said = [(84, 10), (85, 80), (75, 80), (74, 80), (10, 85), (10, 75), (80, 74)]
        .map(|(cpu, memory)| busy(cpu, memory));
    // That the processors were busy makes nothing of the memory, and the other way round.
    assert_eq!(said, [false, true, true, false, true, true, false]);
}

/// Of many sets of busy members, with and without zones: who holds a replica keeps it, and no more are named than fit.
#[test]
fn whoever_is_busy_nobody_loses_a_replica_by_a_higher_count() {
    let mut five = Five::with(2..=41);
    let mut random = 1_u64;
    for round in 0..60_u32 {
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(random >> 33).expect("it fits") % below
        };
        let ranked = five.placed(99);
        // Up to 14 of those in front were passed over when the last count was written.
        let mut past: Vec<_> = (0..draw(15)).map(|_| ranked[draw(16)]).collect();
        past.sort_unstable();
        past.dedup();
        let count = 1 + draw(3);
        five.scale(op::Scaled { name: "f".to_owned(), replicas: u32::try_from(count).expect("few"), past });
        let mut scaled = five.node.scaled(at(five.ms), None).remove(0);
        if round % 2 == 1 {
            scaled.place.spread = Some("zone".to_owned());
        }
        let held = scaled.candidates[..count].to_vec();
        let busy: BTreeSet<_> = (0..draw(30)).map(|_| ranked[draw(41)]).collect();
        for next in [count + 1, count + 2, 1.max(count - 1)] {
            let past = five.node.passing(&scaled, &busy, next);
            assert!(past.is_sorted() && past.len() <= PASSED_OVER_MAX, "{past:?}");
            let order = arranged(five.node.view(), &scaled.place, &scaled.able, &past);
            let placed = &order[..next];
            let kept = held.iter().filter(|member| placed.contains(member)).count();
            assert_eq!(kept, count.min(next), "round {round}, to {next}: {held:?}, {placed:?}");
            let idle = scaled.able.iter().filter(|one| !held.contains(one) && !busy.contains(one)).count();
            let on_busy = placed.iter().filter(|one| !held.contains(one) && busy.contains(one)).count();
            let few = past.len() < PASSED_OVER_MAX;
            assert!(!few || idle < next - kept || on_busy == 0, "round {round}: an idle one is left");
        }
    }
}
