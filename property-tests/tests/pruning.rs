//! Pruning changes nothing: a replica that dropped the bytes of blocks says of every block, and answers to
//! every later one, what a replica says that holds all of them.

use std::{collections::BTreeSet, sync::Arc};

use osiris_ledger::{Admission, Block, BlockId, Ledger, Page, Payload, Vector, is_prunable};
use osiris_property_tests::{
    law,
    model::{History, Script, mix},
    strategy::{delivery, script, shuffled},
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

/// All that equal replicas agree on, however they hold their blocks.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    view: [u8; 32],
    blocks: u64,
    digest: [u8; 32],
    vector: Vector,
    counts: Vec<bool>,
    pins: Vec<Vec<BlockId>>,
}

fn id_of(history: &History, at: usize) -> BlockId {
    history.blocks[at].order.id
}

fn said(history: &History, ledger: &mut Ledger) -> Said {
    let view = ledger.publish();
    let counts = (0..history.blocks.len()).map(|at| ledger.counts(&id_of(history, at))).collect();
    let pins = view.members().keys().map(|device| ledger.pins_for(device)).collect();
    Said {
        view: view.hash(),
        blocks: ledger.len(),
        digest: ledger.digest(),
        vector: ledger.vector(true),
        counts,
        pins,
    }
}

/// A page of some of the blocks that are here in full and can be summarised, as it comes from a peer.
fn some_page(ledger: &Ledger, choice: u64) -> Option<Arc<Page>> {
    let full = ledger.in_order();
    let picked = full
        .iter()
        .zip(0_u64..)
        .filter(|(block, n)| is_prunable(block) && !mix(choice, *n).is_multiple_of(3));
    let page = Page::of(ledger.fleet(), picked.map(|(block, _)| block.as_ref()))?;
    let read = Page::decode(&ledger.fleet(), &page.encode()).expect("a page that was made here");
    assert_eq!((read.hash(), read.encode()), (page.hash(), page.encode()), "one encoding");
    assert_eq!(ledger.confirm(&read), Ok(read.rows()));
    Some(Arc::new(read))
}

/// What happened over a run, so that the laws are known not to hold of nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    dropped: u64,
    pins: usize,
    forks: usize,
    late: usize,
    void: usize,
}

/// Delivers all blocks to a replica that now and then drops what it can.
fn prune_on_the_way(
    history: &History,
    order: &[usize],
    seed: u64,
    seen: &mut Seen,
) -> (Ledger, Vec<Arc<Page>>) {
    let mut ledger = Ledger::new(history.fleet);
    let mut pages = Vec::new();
    for (n, at) in order.iter().enumerate() {
        match ledger.admit(&history.blocks[*at].entry).expect("every block of a history is valid") {
            Admission::New { admitted, rejected } => {
                assert!(rejected.is_empty(), "{rejected:?}");
                seen.look(&ledger, &admitted);
            }
            Admission::Early { .. } | Admission::Known => {}
        }
        let choice = mix(seed, n as u64);
        if choice.is_multiple_of(9)
            && let Some(page) = some_page(&ledger, choice)
        {
            seen.dropped += ledger.prune(&page).expect("a true page");
            pages.push(page);
        }
        if choice.is_multiple_of(5) {
            ledger.publish();
        }
    }
    (ledger, pages)
}

impl Seen {
    fn look(&mut self, ledger: &Ledger, admitted: &[Arc<Block>]) {
        let dropped = |id: &BlockId| ledger.page_of(id).is_some();
        for block in admitted {
            if let Payload::Revoked(op) = block.payload() {
                self.pins += op.pins.iter().filter(|pin| dropped(pin)).count();
            }
            let (chain, seq) = (block.chain(), block.seq());
            let mut summaries = ledger.pages().flat_map(|page| page.summaries());
            let twin = summaries.any(|s| s.chain() == chain && s.seq() == seq && dropped(&s.id()));
            self.forks += usize::from(twin);
            self.late += usize::from(block.parents().any(|id| dropped(&id)));
        }
    }
}

#[test]
fn a_replica_that_pruned_says_the_same() {
    law("pruned replicas", 24, (script(120), any::<[u64; 2]>()), |(script, seeds)| {
        let history = History::play(&script);
        let all = history.in_order();
        let expected = said(&history, &mut history.replica(all.iter().copied()));
        for seed in seeds {
            let order = delivery(&all, seed);
            let (mut pruned, _) = prune_on_the_way(&history, &order, seed, &mut Seen::default());
            prop_assert_eq!(&said(&history, &mut pruned), &expected);
            prop_assert_eq!(pruned.verify(), Ok(pruned.len()));
            // Nothing comes in twice, whether it is here in full or not.
            for made in &history.blocks {
                prop_assert!(matches!(pruned.admit(&made.entry), Ok(Admission::Known)));
            }
        }
        Ok(())
    });
}

#[test]
fn a_replica_that_joins_from_pages_says_the_same() {
    law("joining from pages", 32, (script(120), any::<u64>()), |(script, seed)| {
        let history = History::play(&script);
        let all = history.in_order();
        let (mut pruned, pages) =
            prune_on_the_way(&history, &delivery(&all, seed), seed, &mut Seen::default());
        let expected = said(&history, &mut pruned);
        let full = pruned.in_order();
        let mut joined = Ledger::new(history.fleet);
        let offered_first = mix(seed, 1).is_multiple_of(2);
        if offered_first {
            pages.iter().for_each(|page| joined.offer(page));
        }
        for at in shuffled((0..full.len()).collect(), seed) {
            joined.admit(full[at].entry()).expect("a valid block");
        }
        if !offered_first {
            pages.iter().for_each(|page| joined.offer(page));
        }
        joined.take_offered();
        prop_assert_eq!(joined.page_fault(), None);
        prop_assert_eq!((joined.early().0, joined.offered()), (0, 0));
        prop_assert_eq!(said(&history, &mut joined), expected);
        Ok(())
    });
}

#[test]
fn anti_entropy_names_the_pages_of_what_it_cannot_send() {
    law("pages in batches", 24, (script(120), any::<u64>()), |(script, seed)| {
        let history = History::play(&script);
        let all = history.in_order();
        let (pruned, _) = prune_on_the_way(&history, &delivery(&all, seed), seed, &mut Seen::default());
        let (batch, gaps) = pruned.compare(&Vector::default(), usize::MAX);
        prop_assert!(gaps.is_empty());
        prop_assert_eq!(batch.blocks.len() as u64, pruned.len_full());
        let named = |at: &usize| pruned.page_of(&id_of(&history, *at));
        let wanted: BTreeSet<_> = all.iter().filter_map(named).collect();
        prop_assert_eq!(batch.pages, wanted);
        Ok(())
    });
}

/// A page that differs from the true one in any byte is no page, or one that a replica which holds its blocks
/// does not confirm.
#[test]
fn a_changed_byte_of_a_page_is_refused() {
    law("changed pages", 24, (script(120), any::<u64>()), |(script, seed)| {
        let history = History::play(&script);
        let ledger = history.replica(history.in_order());
        let Some(page) = some_page(&ledger, seed) else { return Ok(()) };
        let bytes = page.encode();
        let first = usize::try_from(seed % 7).expect("small");
        for at in (first..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (mix(seed, at as u64) % 8);
            if let Ok(lie) = Page::decode(&history.fleet, &changed) {
                prop_assert_ne!(lie.hash(), page.hash());
                prop_assert!(ledger.confirm(&lie) != Ok(lie.rows()), "byte {}", at);
            }
        }
        Ok(())
    });
}

#[test]
fn each_rare_thing_happens() {
    let mut runner = TestRunner::new(proptest::test_runner::Config {
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        failure_persistence: None,
        ..Default::default()
    });
    let mut seen = Seen::default();
    for _ in 0..60 {
        let case: (Script, u64) =
            (script(120), any::<u64>()).new_tree(&mut runner).expect("a case").current();
        let history = History::play(&case.0);
        let order = delivery(&history.in_order(), case.1);
        let (mut ledger, _) = prune_on_the_way(&history, &order, case.1, &mut seen);
        ledger.publish();
        let ids = (0..history.blocks.len()).map(|at| id_of(&history, at));
        seen.void += ids.filter(|id| ledger.page_of(id).is_some() && !ledger.counts(id)).count();
    }
    eprintln!("{seen:?}");
    let counts = [seen.pins, seen.forks, seen.late, seen.void];
    assert!(seen.dropped > 0 && counts.iter().all(|count| *count > 0), "{seen:?}");
}
