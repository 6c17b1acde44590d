//! From load to a machine and back, on one node and without a driver.

use osiris_ledger::{Ledger, Payload, counter::Figures, join_proof, op::Spawning};

use super::{
    tests::{COMPONENT, MANIFEST, at, deploy, manifest},
    *,
};
use crate::node::{
    Effect, Input, Request,
    lease::{Errand, Job, Provisioning, Want},
    sample::{author, founded, server},
};

/// The device that joins as the machine.
const MACHINE: u8 = 40;

/// A fleet of one that may make a machine, and two functions.
fn ledger() -> Ledger {
    let (mut founder, mut ledger) = founded(at(0));
    let spawning = Payload::Spawning(Spawning { machines: 1, minority: true });
    founder.append(&mut ledger, at(0), spawning).expect("allowed");
    ["f", "g"].into_iter().for_each(|name| deploy(&mut founder, &mut ledger, name));
    ledger
}

/// The node, what its functions do, and what it asks of its provisioner.
struct Alone {
    node: Node,
    ms: u64,
    load: (u64, u64),
    done: u64,
    errands: Vec<Errand>,
}

impl Alone {
    fn new() -> Self {
        let mut node = server(at(0), &ledger(), 1, 2);
        node.allow_machines(1);
        node.provision(Some(Provisioning {
            target: "process".to_owned(),
            shared: false,
            by_state: false,
            secret: [7; 32],
        }));
        let mut alone = Self { node, ms: 0, load: (0, 0), done: 0, errands: Vec::new() };
        for input in [Input::Start, Input::BlobHeld(MANIFEST), Input::BlobHeld(COMPONENT)] {
            alone.give(input);
        }
        alone
    }

    /// With a machine that load brought and that serves.
    fn grown() -> (Self, Errand) {
        let mut alone = Self::new();
        alone.load = (8, 2);
        alone.run(80);
        let made = alone.errands.pop().expect("an errand");
        alone.joins(&made);
        alone.run(20);
        (alone, made)
    }

    fn give(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.node.handle(at(self.ms), input);
            while let Some(effect) = self.node.poll_effect() {
                match effect {
                    Effect::ReadManifest(hash) => {
                        inputs.push_back(Input::Manifest(hash, Ok(manifest(1, 3))));
                    }
                    Effect::Prepare { revision, .. } => inputs.push_back(Input::Prepared(revision, 2)),
                    Effect::Provision(errand) => self.errands.push(errand),
                    _ => {}
                }
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..2 * seconds {
            self.ms += 500;
            self.done += 1;
            let (backlog, in_flight) = self.load;
            let figures = Figures { backlog, in_flight, done: self.done, ..Figures::default() };
            self.give(Input::Observed(vec![("f".to_owned(), figures)]));
            self.give(Input::Tick);
        }
    }

    fn machine(&self) -> Option<Machine> {
        let slots = self.node.view().slots().values();
        slots.flat_map(|slot| slot.machines.iter().cloned()).next()
    }

    /// Those that are to serve a function.
    fn placed(&mut self, name: &str, count: usize) -> Vec<Author> {
        let newest = self.node.view().function(name).and_then(|f| f.newest.clone()).expect("deployed");
        self.node.candidates(at(self.ms), name, &newest, &PlaceKeys::default(), count)
    }

    fn count(&self) -> Option<u32> {
        self.node.view().scaling().replicas("f").map(|(_, count)| count)
    }

    /// The machine joins and connects, and its provisioner says that it serves.
    fn joins(&mut self, made: &Errand) {
        self.admits(made);
        self.give(Input::PeerUp(Node::peer(&author(MACHINE))));
    }

    fn admits(&mut self, made: &Errand) {
        let Job::Make(secret) = &made.job else { panic!("not one to be made") };
        let (device, invitation) = (author(MACHINE), made.machine.intent);
        let proof = join_proof(secret, &self.node.ledger().fleet(), &invitation, &device);
        self.give(Input::Request(
            9,
            Request::Admit { device, invitation, proof, label: "machine".to_owned() },
        ));
        self.give(Input::Provisioned(invitation, Ok(())));
    }
}

#[test]
fn load_brings_a_machine_for_the_function_and_its_end_takes_it_away() {
    let mut alone = Alone::new();
    alone.load = (8, 2);
    alone.run(20);
    assert!(alone.machine().is_none(), "not at once");
    alone.run(60);
    let machine = alone.machine().expect("an intent");
    assert_eq!(machine.functions, ["f"]);
    let made = alone.errands.pop().expect("an errand");
    assert!(alone.errands.is_empty() && made.machine.functions == ["f"]);
    alone.joins(&made);

    // It serves what it was made for, behind all others, and nothing else.
    let me = alone.node.device();
    assert_eq!(alone.placed("f", 9), [me, author(MACHINE)]);
    assert_eq!(alone.placed("f", 1), [me]);
    assert_eq!(alone.placed("g", 9), [me]);
    alone.run(20);
    assert_eq!(alone.count(), Some(2));
    assert!(alone.errands.is_empty());

    // While it holds a replica it stays, however little there is to do.
    alone.load = (0, 2);
    alone.run(900);
    assert_eq!(alone.count(), Some(2));
    assert!(alone.errands.is_empty(), "{:?}", alone.errands);
    alone.load = (0, 0);
    alone.run(60);
    assert_eq!(alone.count(), Some(1));
    assert!(alone.errands.is_empty(), "not at once");
    alone.run(130);
    let gone = alone.errands.pop().expect("an errand");
    assert!(matches!(gone.job, Job::Remove) && gone.machine == made.machine, "{gone:?}");
    assert!(alone.errands.is_empty(), "once");
    alone.give(Input::Removed(gone.machine.intent, Ok(())));
    assert!(alone.machine().is_none());
    alone.run(60);
    assert!(alone.errands.is_empty(), "{:?}", alone.errands);
}

#[test]
fn the_wait_of_a_claim_passes_while_the_policy_sees_whether_the_need_lasts() {
    let mut alone = Alone::new();
    alone.load = (8, 2);
    alone.run(20);
    let facts = |alone: &Alone| alone.node.lease_facts(at(alone.ms));
    assert_eq!(facts(&alone).own.values().map(|own| own.ahead).collect::<Vec<_>>(), [true]);
    assert!(alone.errands.is_empty());
    // The window is 30 s and the claim's wait 13 s; looks are a second apart.
    alone.run(13);
    assert!(alone.errands.len() == 1 && alone.machine().is_some());
    assert_eq!((facts(&alone).counts.claimed, facts(&alone).counts.won), (1, 1));
}

#[test]
fn a_claim_ahead_of_a_need_that_does_not_last_is_given_up_and_costs_nothing() {
    let mut alone = Alone::new();
    let facts = |alone: &Alone| alone.node.lease_facts(at(alone.ms));
    alone.load = (8, 2);
    alone.run(22);
    alone.load = (0, 2);
    alone.run(6);
    assert_eq!(facts(&alone).own.len(), 1, "it may be needed yet");
    alone.run(6);
    assert!(facts(&alone).own.is_empty() && alone.errands.is_empty() && alone.machine().is_none());
    assert_eq!((facts(&alone).counts.unneeded, facts(&alone).counts.won), (1, 0));
    // Soon after it nothing is claimed ahead; what lasts brings a machine all the same.
    alone.load = (8, 2);
    alone.run(28);
    assert_eq!(facts(&alone).counts.claimed, 1);
    alone.run(18);
    assert!(alone.errands.len() == 1 && alone.machine().is_some());
    assert_eq!(facts(&alone).counts.claimed, 2);
}

#[test]
fn what_was_claimed_ahead_is_for_whoever_wishes_first() {
    let mut alone = Alone::new();
    alone.load = (8, 2);
    alone.run(20);
    alone.give(Input::Want(Want::Machine));
    alone.load = (0, 0);
    alone.run(15);
    let made = alone.errands.pop().expect("an errand");
    assert!(alone.errands.is_empty() && made.machine.functions.is_empty(), "{made:?}");
    assert_eq!(alone.node.lease_facts(at(alone.ms)).counts.claimed, 1);
}

#[test]
fn a_member_that_is_to_serve_and_was_never_connected_is_looked_for_and_then_taken_for_gone() {
    let mut alone = Alone::new();
    alone.load = (8, 2);
    alone.run(80);
    let made = alone.errands.pop().expect("an errand");
    alone.admits(&made);
    let (me, machine) = (alone.node.device(), author(MACHINE));
    assert_eq!(alone.placed("f", 9), [me, machine], "it may come at any moment");
    assert_eq!(alone.node.lost(), []);
    // It is to serve, and is not there: it ended before it ever connected.
    alone.run(10);
    assert_eq!(alone.count(), Some(2));
    assert_eq!(alone.node.lost(), [Node::peer(&machine)]);
    alone.run(4);
    assert_eq!(alone.placed("f", 9), [me]);
    alone.give(Input::PeerUp(Node::peer(&machine)));
    assert_eq!((alone.placed("f", 9), alone.node.lost()), (vec![me, machine], Vec::new()));
}

#[test]
fn more_run_side_by_side_here_before_there_is_another_replica() {
    let mut node = server(at(0), &ledger(), 1, 2);
    let (mut ms, mut widened, mut serving) = (0, Vec::new(), Vec::new());
    let mut give = |node: &mut Node, ms, input| {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            node.handle(at(ms), input);
            while let Some(effect) = node.poll_effect() {
                match effect {
                    Effect::ReadManifest(hash) => {
                        let mut manifest = manifest(1, 3);
                        manifest.scale.as_mut().expect("scaled").concurrency = Some(1);
                        inputs.push_back(Input::Manifest(hash, Ok(manifest)));
                    }
                    // The machine has room for six, which is no power of two.
                    Effect::Prepare { revision, .. } => inputs.push_back(Input::Prepared(revision, 6)),
                    Effect::Concurrency(_, side_by_side) => widened.push((ms, side_by_side)),
                    Effect::Persist(blocks) => {
                        let said = blocks.iter().filter_map(|block| match block.payload() {
                            Payload::Serving(op) => Some(op.concurrency),
                            _ => None,
                        });
                        serving.extend(said);
                    }
                    _ => {}
                }
            }
        }
    };
    for input in [Input::Start, Input::BlobHeld(MANIFEST), Input::BlobHeld(COMPONENT)] {
        give(&mut node, ms, input);
    }
    let mut run = |seconds: u64, backlog, cpu| {
        for _ in 0..2 * seconds {
            ms += 500;
            let figures = Figures { backlog, in_flight: 1, done: ms, ..Figures::default() };
            give(&mut node, ms, Input::Machine(MachineLoad { cpu, memory: 10 }));
            give(&mut node, ms, Input::Observed(vec![("f".to_owned(), figures)]));
            give(&mut node, ms, Input::Tick);
        }
    };
    run(10, 0, 5);
    run(10, 9, 95);
    run(20, 9, 5);
    // Both functions begin with one, and f alone is called: not while the processors are busy, then step by step.
    let (first, later): (Vec<_>, Vec<_>) = widened.into_iter().partition(|(ms, _)| *ms == 0);
    assert_eq!(first, [(0, 1), (0, 1)]);
    let steps: Vec<_> = later.iter().map(|(_, side_by_side)| *side_by_side).collect();
    assert_eq!(steps, [2, 4, 6]);
    assert!(later.iter().all(|(ms, _)| *ms > 20_000), "{later:?}");
    assert_eq!(serving, [1, 1, 2, 4, 6], "the fleet hears of it");
}

#[test]
fn a_machine_for_a_function_that_is_removed_goes_at_once() {
    let (mut alone, made) = Alone::grown();
    alone.give(Input::Request(3, Request::Remove { name: "f".to_owned(), timeout_ms: 0 }));
    alone.load = (0, 0);
    alone.run(5);
    let gone = alone.errands.pop().expect("an errand");
    assert!(matches!(gone.job, Job::Remove) && gone.machine == made.machine, "{gone:?}");
}

#[test]
fn load_that_comes_back_keeps_the_machine() {
    let (mut alone, _) = Alone::grown();
    alone.load = (0, 0);
    alone.run(100);
    assert_eq!(alone.count(), Some(1));
    alone.load = (8, 2);
    alone.run(60);
    assert_eq!(alone.count(), Some(2));
    assert!(alone.errands.is_empty(), "{:?}", alone.errands);
}

#[test]
fn a_machine_that_somebody_wished_for_is_for_any_function_and_stays() {
    let mut alone = Alone::new();
    alone.give(Input::Want(Want::Machine));
    alone.run(60);
    let made = alone.errands.pop().expect("an errand");
    assert!(made.machine.functions.is_empty());
    alone.joins(&made);
    assert_eq!(alone.placed("g", 9).len(), 2);
    alone.run(900);
    assert!(alone.errands.is_empty() && alone.machine().is_some());
}

#[test]
fn a_machine_is_ready_for_its_function_before_it_has_a_replica_of_it() {
    let mut alone = Alone::new();
    alone.load = (8, 2);
    alone.run(80);
    let made = alone.errands.pop().expect("an errand");
    alone.joins(&made);
    assert_eq!(alone.count(), None, "nobody has changed it yet");
    let newest = |name| alone.node.view().function(name).and_then(|f| f.newest.clone()).expect("deployed").id;
    let (f, g) = (newest("f"), newest("g"));
    let mut machine = server(at(alone.ms), alone.node.ledger(), MACHINE, 3);
    let mut give = |ms, input| {
        let (mut prepared, mut said) = (Vec::new(), Vec::new());
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            machine.handle(at(ms), input);
            while let Some(effect) = machine.poll_effect() {
                match effect {
                    Effect::ReadManifest(hash) => {
                        inputs.push_back(Input::Manifest(hash, Ok(manifest(1, 3))));
                    }
                    Effect::Prepare { revision, .. } => {
                        prepared.push(revision);
                        inputs.push_back(Input::Prepared(revision, 2));
                    }
                    Effect::Retire(_) => panic!("it stays ready"),
                    Effect::Persist(blocks) => said.extend(blocks.iter().map(|block| block.payload().name())),
                    _ => {}
                }
            }
        }
        (prepared, said)
    };
    let ms = alone.ms;
    let starts = [Input::Start, Input::PeerUp(Node::peer(&author(1)))];
    let starts =
        starts.into_iter().chain([Input::BlobHeld(MANIFEST), Input::BlobHeld(COMPONENT), Input::Tick]);
    let (prepared, said): (Vec<_>, Vec<_>) = starts.map(|input| give(ms, input)).unzip();
    assert_eq!(prepared.concat(), [f]);
    assert!(!prepared.concat().contains(&g) && !said.concat().contains(&"serving"), "{said:?}");
    // The count goes up: it says that it serves in that moment.
    let before: BTreeSet<_> = alone.node.ledger().in_order().iter().map(|block| block.id()).collect();
    alone.run(20);
    assert_eq!(alone.count(), Some(2));
    let fresh = alone.node.ledger().in_order();
    let fresh = fresh.iter().filter(|block| !before.contains(&block.id()));
    let (prepared, said): (Vec<_>, Vec<_>) =
        fresh.map(|block| give(ms + 20_000, Input::Hint(block.entry().to_vec()))).unzip();
    assert!(prepared.concat().is_empty() && said.concat().contains(&"serving"), "{prepared:?} {said:?}");
}
