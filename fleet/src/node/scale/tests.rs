//! Two nodes, a scaled function, and no driver: who writes what, and what follows.

use std::ops::RangeInclusive;

use osiris_ledger::{
    BlobHash, Ledger, Mono, Now, Payload, Role, Roles, WallMs, World, Writer,
    counter::Figures,
    join_proof,
    op::{Admitted, Deployed, Invited, Range},
};
use osiris_mesh::PeerId;

use super::*;
use crate::{
    manifest::{Manifest, ScaleKeys},
    node::{
        Effect, Input, Query, Request,
        sample::{author, founded, key, play, server},
    },
};

pub(super) const MANIFEST: BlobHash = BlobHash([2; 32]);
pub(super) const COMPONENT: BlobHash = BlobHash([1; 32]);

pub(super) fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: WallMs(0) }
}

/// A fleet of the founder and these devices, and a function.
pub(super) fn ledger(others: RangeInclusive<u8>) -> Ledger {
    let (mut founder, mut ledger) = founded(at(0));
    let uses = u32::try_from(others.clone().count()).expect("few");
    let roles = Roles::of(&[Role::Node]);
    let invited = Invited { key: author(50), uses, roles, device: None, note: String::new() };
    let invitation = founder.append(&mut ledger, at(0), Payload::Invited(invited)).expect("allowed").id();
    for other in others {
        let device = author(other);
        let proof = join_proof(&key(50), &ledger.fleet(), &invitation, &device);
        let admitted = Admitted { invitation, device, proof, label: format!("n{other}") };
        founder.append(&mut ledger, at(0), Payload::Admitted(admitted)).expect("allowed");
    }
    deploy(&mut founder, &mut ledger, "f");
    ledger
}

/// One more revision of a function.
pub(super) fn deploy(writer: &mut Writer, ledger: &mut Ledger, name: &str) {
    let newest = ledger.publish().function(name).and_then(|function| function.newest.clone());
    let deployed = Deployed {
        name: name.to_owned(),
        component: COMPONENT,
        size: 1,
        world: World::Http,
        manifest: MANIFEST,
        manifest_size: 1,
        replaces: newest.map(|newest| newest.id).into_iter().collect(),
    };
    writer.append(ledger, at(0), Payload::Deployed(deployed)).expect("allowed");
}

pub(super) fn manifest(min: u32, max: u32) -> Manifest {
    let scale = Some(ScaleKeys { min, max, backlog: Some(1), idle_s: Some(20), concurrency: None });
    Manifest { scale, ..Manifest::named("f") }
}

/// Both nodes with the function's bytes, connected, and each as its driver would have it.
pub(in crate::node) struct Pair {
    pub(in crate::node) nodes: [Node; 2],
    pub(in crate::node) now: u64,
    manifest: Manifest,
    figures: [Figures; 2],
    /// What was answered last under each token.
    pub(in crate::node) answers: BTreeMap<Token, Result<Reply, Refusal>>,
    /// Whether a node's function can be compiled.
    pub(in crate::node) compiles: [bool; 2],
}

impl Pair {
    pub(in crate::node) fn new(manifest: Manifest) -> Self {
        let ledger = ledger(2..=2);
        let nodes = [server(at(0), &ledger, 1, 2), server(at(0), &ledger, 2, 3)];
        let (figures, answers) = ([Figures::default(); 2], BTreeMap::new());
        let mut pair = Self { nodes, now: 0, manifest, figures, answers, compiles: [true; 2] };
        let first = [2, 1].map(|device| {
            let peer = Input::PeerUp(PeerId::from_bytes(author(device).0));
            vec![Input::Start, Input::BlobHeld(MANIFEST), Input::BlobHeld(COMPONENT), peer]
        });
        pair.inputs(first);
        pair
    }

    /// Inputs, and what the drivers answer to what follows.
    pub(in crate::node) fn inputs(&mut self, inputs: [Vec<Input>; 2]) {
        let mut left = inputs;
        while left.iter().any(|inputs| !inputs.is_empty()) {
            left = self.play_serving(left);
        }
    }

    pub(in crate::node) fn run(&mut self, seconds: u64) {
        for _ in 0..2 * seconds {
            self.now += 500;
            let observed = self
                .figures
                .map(|figures| vec![Input::Observed(vec![("f".to_owned(), figures)]), Input::Tick]);
            self.inputs(observed);
        }
    }

    fn load(&mut self, backlog: u64, in_flight: u64) {
        for figures in &mut self.figures {
            (figures.backlog, figures.in_flight) = (backlog, in_flight);
            figures.done += 1;
        }
    }

    pub(in crate::node) fn serving(&self) -> usize {
        let view = self.nodes[0].view();
        view.function("f").expect("deployed").revisions[0].serving.len()
    }

    /// Blocks that scaled it, by their authors and counts.
    fn scaled(&self) -> Vec<(Author, u32)> {
        let blocks = self.nodes[0].ledger().in_order().into_iter();
        let scaled = blocks.filter_map(|block| match block.payload() {
            Payload::Scaled(op) => Some((block.author(), op.replicas)),
            _ => None,
        });
        scaled.collect()
    }

    fn facts(&mut self, node: usize) -> ScaleFacts {
        self.facts_with(node, None)
    }

    fn facts_with(&mut self, node: usize, trial: Option<(u32, u32)>) -> ScaleFacts {
        let now = at(self.now);
        self.nodes[node].handle(now, Input::Request(7, Request::Query(Query::Scale(trial))));
        let mut facts = None;
        while let Some(effect) = self.nodes[node].poll_effect() {
            if let Effect::Reply(7, Ok(Reply::Scale(said))) = effect {
                facts = Some(*said);
            }
        }
        facts.expect("an answer")
    }

    /// [`play`], in which both read the manifest and compile at once.
    fn play_serving(&mut self, mut inputs: [Vec<Input>; 2]) -> [Vec<Input>; 2] {
        let now = at(self.now);
        let peers = self.nodes.each_ref().map(|node| PeerId::from_bytes(node.device().0));
        let mut next = [Vec::new(), Vec::new()];
        for at in 0..2 {
            for input in std::mem::take(&mut inputs[at]) {
                self.nodes[at].handle(now, input);
                while let Some(effect) = self.nodes[at].poll_effect() {
                    match effect {
                        Effect::Send(_, frame) => next[1 - at].push(Input::Frame(peers[at], frame)),
                        Effect::ReadManifest(hash) => {
                            next[at].push(Input::Manifest(hash, Ok(self.manifest.clone())));
                        }
                        Effect::Prepare { revision, .. } if self.compiles[at] => {
                            next[at].push(Input::Prepared(revision, 2));
                        }
                        Effect::Prepare { revision, .. } => {
                            next[at].push(Input::PrepareFailed(revision, "no room".to_owned()));
                        }
                        Effect::Reply(token, answer) => drop(self.answers.insert(token, answer)),
                        _ => {}
                    }
                }
            }
        }
        next
    }
}

#[test]
fn replicas_follow_the_load_and_one_member_writes_each_change() {
    let mut pair = Pair::new(manifest(1, 2));
    pair.run(5);
    assert_eq!((pair.serving(), pair.scaled()), (1, vec![]), "where it starts");
    pair.load(3, 1);
    pair.run(40);
    assert_eq!(pair.serving(), 2);
    pair.load(0, 0);
    pair.run(200);
    assert_eq!(pair.serving(), 1);
    let scaled = pair.scaled();
    let counts: Vec<_> = scaled.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [2, 1], "each change once: {scaled:?}");
    assert_eq!(scaled[0].0, scaled[1].0, "by the one whose turn comes first");
    let decided: usize = (0..2).map(|node| pair.facts(node).decided.len()).sum();
    assert_eq!(decided, 2, "and it can say why");
    assert_eq!(pair.facts(0).functions[0].inputs.target.max, 2);
}

#[test]
fn bounds_on_trial_show_what_they_would_do_and_change_nothing() {
    let mut pair = Pair::new(manifest(1, 2));
    pair.load(3, 1);
    pair.run(40);
    let blocks = pair.nodes[0].ledger().len();
    let mut row = |trial: Option<(u32, u32)>| {
        let row = pair.facts_with(0, trial).functions.remove(0);
        (row.inputs.target.min, row.inputs.target.max, row.inputs.count, row.count)
    };
    assert_eq!(row(Some((1, 1))), (1, 1, 1, 2), "one replica too many would go at once");
    assert_eq!(row(Some((3, 9))), (3, 9, 3, 2));
    assert_eq!(row(None), (1, 2, 2, 2));
    assert_eq!((pair.nodes[0].ledger().len(), pair.serving()), (blocks, 2));
}

#[test]
fn where_the_first_in_rank_is_gone_the_next_decides() {
    let mut pair = Pair::new(manifest(1, 2));
    pair.run(5);
    let first = pair.nodes[0].candidates(at(pair.now), "f", &newest(&pair), &PlaceKeys::default(), 1)[0];
    let gone = usize::from(pair.nodes[0].device() != first);
    let left = 1 - gone;
    pair.now += 1_000;
    let down = Input::PeerDown(PeerId::from_bytes(first.0));
    pair.nodes[left].handle(at(pair.now), down);
    while pair.nodes[left].poll_effect().is_some() {}
    let mut serves = false;
    for _ in 0..20 {
        pair.now += 500;
        let mut inputs = vec![Input::Tick];
        while let Some(input) = inputs.pop() {
            pair.nodes[left].handle(at(pair.now), input);
            while let Some(effect) = pair.nodes[left].poll_effect() {
                if let Effect::Prepare { revision, .. } = effect {
                    serves = true;
                    inputs.push(Input::Prepared(revision, 2));
                }
            }
        }
    }
    assert!(serves, "it serves in its place");
    let facts = pair.facts(left);
    assert_eq!((facts.functions[0].inputs.rank, facts.functions[0].inputs.candidates), (0, 1));
}

fn newest(pair: &Pair) -> Arc<Revision> {
    Arc::clone(pair.nodes[0].view().function("f").and_then(|f| f.newest.as_ref()).expect("deployed"))
}

#[test]
fn without_calls_it_goes_to_none_and_the_first_call_brings_it_back_at_once() {
    let mut pair = Pair::new(manifest(0, 2));
    pair.run(5);
    assert_eq!(pair.serving(), 1, "a deploy starts one");
    pair.run(120);
    assert_eq!((pair.serving(), pair.scaled().len()), (0, 1), "{:?}", pair.scaled());
    let before = pair.now;
    pair.inputs([vec![], vec![Input::Called("f".to_owned())]]);
    pair.run(1);
    assert_eq!(pair.serving(), 1, "within {} ms", pair.now - before);
    let (author, count) = pair.scaled()[1];
    assert_eq!((author, count), (super::super::sample::author(2), 1), "by who was called, whatever its rank");
}

#[test]
fn bounds_of_an_operator_stand_above_the_manifest_and_labels_say_where() {
    let place = PlaceKeys { labels: vec!["gpu".to_owned()], spread: None };
    let mut pair = Pair::new(Manifest { place, ..manifest(1, 1) });
    pair.run(5);
    assert_eq!(pair.serving(), 0, "nobody bears the label");
    let label = |device, labels: &[&str]| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Input::Request(1, Request::Label { device: author(device), labels, timeout_ms: 0 })
    };
    pair.inputs([vec![label(2, &["gpu"])], vec![]]);
    pair.run(5);
    assert_eq!(pair.serving(), 1);
    let view = Arc::clone(pair.nodes[0].view());
    let revision = &view.function("f").expect("deployed").revisions[0];
    assert!(revision.is_served_by(&author(2)));
    let range = Some(Range { min: 2, max: 2 });
    let bound = Request::Bound { name: Some("f".to_owned()), range, timeout_ms: 0 };
    pair.inputs([vec![label(1, &["gpu"]), Input::Request(2, bound)], vec![]]);
    pair.run(5);
    assert_eq!((pair.serving(), pair.scaled()), (2, vec![]), "at once, and without a word of the policy");
    let unknown = Request::Bound { name: Some("g".to_owned()), range: None, timeout_ms: 0 };
    let refused = play(at(pair.now), &mut pair.nodes, [vec![Input::Request(3, unknown)], vec![]]);
    assert!(matches!(refused.as_slice(), [Err(_)]), "{refused:?}");
}
