//! Who is busy is passed over, on one node of five that the load is on.

use osiris_ledger::{
    BlobHash, FleetId, Ledger, Mono, Now, Payload, Role, Roles, WallMs, World,
    counter::{Figures, RowWriter},
    join_proof,
    op::{Admitted, Deployed, Invited},
};

use super::*;
use crate::{
    manifest::{Manifest, ScaleKeys},
    node::{
        Effect, Input,
        sample::{author, founded, key, server},
    },
};

const MANIFEST: BlobHash = BlobHash([2; 32]);
const COMPONENT: BlobHash = BlobHash([1; 32]);
/// Devices besides the node's own.
const OTHERS: [u8; 4] = [2, 3, 4, 5];

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: WallMs(0) }
}

/// A fleet of five, and a function.
fn ledger() -> Ledger {
    let (mut founder, mut ledger) = founded(at(0));
    let uses = u32::try_from(OTHERS.len()).expect("few");
    let roles = Roles::of(&[Role::Node]);
    let invited = Invited { key: author(50), uses, roles, device: None, note: String::new() };
    let invitation = founder.append(&mut ledger, at(0), Payload::Invited(invited)).expect("allowed").id();
    for other in OTHERS {
        let device = author(other);
        let proof = join_proof(&key(50), &ledger.fleet(), &invitation, &device);
        let admitted = Admitted { invitation, device, proof, label: format!("n{other}") };
        founder.append(&mut ledger, at(0), Payload::Admitted(admitted)).expect("allowed");
    }
    deploy(&mut founder, &mut ledger, 1);
    ledger
}

fn deploy(founder: &mut osiris_ledger::Writer, ledger: &mut Ledger, size: u64) {
    let replaces = ledger.publish().function("f").and_then(|f| f.newest.as_ref().map(|newest| newest.id));
    let deployed = Deployed {
        name: "f".to_owned(),
        component: COMPONENT,
        size,
        world: World::Http,
        manifest: MANIFEST,
        manifest_size: 1,
        replaces: replaces.into_iter().collect(),
    };
    founder.append(ledger, at(0), Payload::Deployed(deployed)).expect("allowed");
}

/// The node, and the rows of the others.
struct Five {
    node: Node,
    rows: BTreeMap<u8, RowWriter>,
    ms: u64,
    load: (u64, u64),
    done: u64,
    scale: ScaleKeys,
    persisted: Vec<Payload>,
}

impl Five {
    fn new(min: u32) -> Self {
        let ledger = ledger();
        let fleet = ledger.fleet();
        let scale = ScaleKeys { min, max: 4, backlog: Some(1), idle_s: Some(20), concurrency: None };
        let writer = |device: u8, fleet: FleetId| (device, RowWriter::new(fleet, author(device)));
        let mut five = Self {
            node: server(at(0), &ledger, 1, 2),
            rows: OTHERS.into_iter().map(|device| writer(device, fleet)).collect(),
            ms: 0,
            load: (0, 0),
            done: 0,
            scale,
            persisted: Vec::new(),
        };
        let peers = OTHERS.map(|other| Input::PeerUp(Node::peer(&author(other))));
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
                        let scale = Some(self.scale.clone());
                        inputs
                            .push_back(Input::Manifest(hash, Ok(Manifest { scale, ..Manifest::named("f") })));
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
    let mut five = Five::new(1);
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
    let mut five = Five::new(1);
    let order = five.order();
    OTHERS.into_iter().for_each(|other| five.busy(other, true));
    five.give(Input::Machine(MachineLoad { cpu: 99, memory: 10 }));
    five.load = (4, 2);
    five.run(100);
    assert_eq!(five.counts().first().map(|(_, past)| past.clone()), Some(vec![]));
    assert_eq!(five.order(), order);
}

#[test]
fn who_holds_a_replica_keeps_it_when_others_are_idle_again() {
    let mut five = Five::new(1);
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
    let mut five = Five::new(1);
    let order = five.order();
    let scaled = op::Scaled { name: "f".to_owned(), replicas: 1, past: vec![author(order[0])] };
    five.scale(scaled);
    assert_eq!(five.order()[..], [&order[1..], &order[..1]].concat());
    let mut founder = osiris_ledger::Writer::new(key(1), osiris_ledger::Session([77; 16]));
    let mut ledger = Ledger::new(five.node.ledger().fleet());
    for block in five.node.ledger().in_order() {
        ledger.replay(block.entry()).expect("valid");
    }
    deploy(&mut founder, &mut ledger, 2);
    let newest = ledger.in_order().pop().expect("blocks");
    five.give(Input::Hint(newest.entry().to_vec()));
    let newest = five.node.view().function("f").and_then(|f| f.newest.clone()).expect("deployed");
    assert_eq!(newest.size, 2, "the new one is here");
    let ranked = placement::ranked(&newest.id, (1..=5).map(author));
    assert_eq!(five.placed(9), ranked);
}

#[test]
fn a_machine_is_busy_until_it_is_well_below_its_marks_and_says_so() {
    let mut five = Five::new(1);
    five.run(25);
    let mut busy = |cpu, memory| {
        five.give(Input::Machine(MachineLoad { cpu, memory }));
        five.run(6);
        five.node.telemetry.busy(at(five.ms), "f").contains(&author(1))
    };
    let said =
        [(85, 10), (86, 10), (76, 10), (75, 10), (10, 86), (10, 75)].map(|(cpu, memory)| busy(cpu, memory));
    assert_eq!(said, [false, true, true, false, true, false]);
}
