//! The same set of valid blocks says the same on every replica, whatever the order of arrival; and two
//! replicas that differ come to hold the same set.
//!
//! `PROPTEST_CASES` raises the number of cases; a run prints its seed, which `PROPTEST_RNG_SEED` sets.

use std::{cell::RefCell, collections::BTreeSet};

use osiris_ledger::{Admission, Author, BlockId, Buckets, Ledger, Memo, Payload};
use osiris_property_tests::{
    law,
    model::{History, Script, device_key, mix},
    strategy::{delivery, script_with_leases, shuffled},
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{RngSeed, TestRunner},
};

/// All that equal replicas agree on.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    view: [u8; 32],
    digest: [u8; 32],
    document: Vec<[u8; 32]>,
    effective: Vec<(BlockId, bool)>,
}

fn said(ledger: &mut Ledger) -> Said {
    let view = ledger.publish().hash();
    let effective = ledger.in_order().iter().map(|block| (block.id(), ledger.is_effective(block))).collect();
    Said { view, digest: ledger.digest(), document: ledger.document_heads(), effective }
}

/// Delivers blocks, and between some of them asks for what is computed on demand.
fn deliver(history: &History, order: &[usize], seed: u64) -> (Ledger, usize) {
    let mut ledger = Ledger::new(history.fleet);
    let mut early = 0;
    for (n, at) in order.iter().enumerate() {
        match ledger.admit(&history.blocks[*at].entry).expect("every block of a history is valid") {
            Admission::New { rejected, .. } => assert!(rejected.is_empty(), "{rejected:?}"),
            Admission::Early { .. } => early += 1,
            Admission::Known => {}
        }
        match mix(seed, 1 << 32 | n as u64) % 12 {
            0 => drop(ledger.publish()),
            1 => drop(ledger.document_heads()),
            2 => drop(ledger.digest()),
            _ => {}
        }
    }
    (ledger, early)
}

#[test]
fn any_order_of_arrival_says_the_same() {
    law("any order", 40, (script_with_leases(120), any::<[u64; 3]>()), |(script, seeds)| {
        let history = History::play(&script);
        let all = history.in_order();
        let expected = said(&mut history.replica(all.iter().copied()));
        for seed in seeds {
            let (mut ledger, _) = deliver(&history, &delivery(&all, seed), seed);
            prop_assert_eq!(ledger.early(), (0, 0));
            prop_assert_eq!(&said(&mut ledger), &expected);
        }
        let (mut backwards, _) = deliver(&history, &all.iter().rev().copied().collect::<Vec<_>>(), 0);
        prop_assert_eq!(said(&mut backwards), expected);
        Ok(())
    });
}

/// What happened in slices, over a run.
#[derive(Clone, Copy, Debug, Default)]
struct Sliced {
    empty: usize,
    early: usize,
    /// Blocks that had waited and came in with one of a slice in which others waited.
    released: usize,
    refused: usize,
    known: usize,
}

/// Cuts what is delivered into slices of any length, none included, some of them with a copy among them of which a byte
/// was changed.
fn slices(history: &History, order: &[usize], seed: u64) -> Vec<Vec<Vec<u8>>> {
    let small = |number: u64, below: usize| usize::try_from(number >> 16).expect("48 bits") % below;
    let mut left = order;
    let mut slices = Vec::new();
    while !left.is_empty() {
        let choice = mix(seed, 1 << 33 | slices.len() as u64);
        let longest = [1, 4, 16, left.len()][small(choice, 4)];
        let (slice, rest) = left.split_at(small(mix(choice, 1), longest + 1).min(left.len()));
        left = rest;
        let mut entries: Vec<_> = slice.iter().map(|at| history.blocks[*at].entry.clone()).collect();
        if let Some(entry) = entries.last().filter(|_| choice.is_multiple_of(3)) {
            let mut changed = entry.clone();
            let place = small(mix(choice, 2), changed.len());
            changed[place] ^= 1 << (choice % 8);
            entries.insert(small(mix(choice, 3), entries.len() + 1), changed);
        }
        slices.push(entries);
    }
    slices
}

#[test]
fn slices_of_any_length_say_the_same_as_one_block_after_the_other() {
    let seen = RefCell::new(Sliced::default());
    law("slices", 40, (script_with_leases(120), any::<[u64; 3]>()), |(script, seeds)| {
        let history = History::play(&script);
        let all = history.in_order();
        let expected = said(&mut history.replica(all.iter().copied()));
        for seed in seeds {
            let (mut ledger, mut plain) = (Ledger::new(history.fleet), Ledger::new(history.fleet));
            for (n, slice) in slices(&history, &delivery(&all, seed), seed).into_iter().enumerate() {
                let sender = author_of(u8::try_from(n % 3).expect("small"));
                let together = ledger.admit_all_from(sender, &slice);
                prop_assert_eq!(together.len(), slice.len());
                let mut seen = seen.borrow_mut();
                seen.empty += usize::from(slice.is_empty());
                let mut waits = 0;
                for (entry, answer) in slice.iter().zip(together) {
                    match &answer {
                        Ok(Admission::Early { .. }) => waits += 1,
                        Ok(Admission::Known) => seen.known += 1,
                        Ok(Admission::New { admitted, .. }) if waits > 0 => {
                            seen.released += admitted.len() - 1
                        }
                        Ok(Admission::New { .. }) => {}
                        Err(_) => seen.refused += 1,
                    }
                    match (answer, plain.admit(entry)) {
                        (Err(reject), Err(alone)) => prop_assert_eq!(reject, alone),
                        (Err(reject), Ok(alone)) => prop_assert!(false, "{reject:?}, and alone {alone:?}"),
                        (answer, alone) => prop_assert_eq!(answered(answer), answered(alone)),
                    }
                }
                seen.early += waits;
                drop(seen);
                if mix(seed, 1 << 34 | n as u64).is_multiple_of(6) {
                    prop_assert_eq!(ledger.publish().hash(), plain.publish().hash());
                    prop_assert_eq!(ledger.digest(), plain.digest());
                }
            }
            prop_assert_eq!(ledger.early(), (0, 0));
            prop_assert_eq!(&said(&mut ledger), &expected);
        }
        Ok(())
    });
    let seen = seen.into_inner();
    eprintln!("{seen:?}");
    let Sliced { empty, early, released, refused, known } = seen;
    assert!([empty, early, released, refused, known].iter().all(|count| *count > 0), "{seen:?}");
}

/// A member that sends: whose blocks they are is no matter.
fn author_of(device: u8) -> Author {
    Author(device_key(device).verifying_key().to_bytes())
}

/// What a replica answered, as far as it follows from its blocks.
fn answered(answer: Result<Admission, osiris_ledger::Reject>) -> (Vec<BlockId>, Vec<BlockId>) {
    match answer.expect("every block of a history is valid") {
        Admission::New { admitted, rejected } => {
            assert!(rejected.is_empty(), "{rejected:?}");
            (admitted.iter().map(|block| block.id()).collect(), Vec::new())
        }
        Admission::Early { missing } => (Vec::new(), missing),
        Admission::Known => (Vec::new(), Vec::new()),
    }
}

#[test]
fn a_replica_that_shares_its_beginning_says_the_same() {
    let strategy = (script_with_leases(120), any::<[u64; 3]>(), any::<usize>());
    law("shared beginnings", 40, strategy, |(script, seeds, cut)| {
        let history = History::play(&script);
        let all = history.in_order();
        let (begins, rest) = all.split_at(cut % (all.len() + 1));
        let mut first = Ledger::sharing(Memo::new(history.fleet));
        begins.iter().for_each(|at| drop(answered(first.admit(&history.blocks[*at].entry))));
        first.freeze();
        // All of them are there at once, and share what follows from equal blocks.
        let mut forks = Vec::new();
        for seed in seeds {
            let (mut fork, mut plain) = (first.fork(), history.replica(begins.iter().copied()));
            for (n, at) in delivery(rest, seed).into_iter().enumerate() {
                let entry = &history.blocks[at].entry;
                prop_assert_eq!(answered(fork.admit(entry)), answered(plain.admit(entry)));
                if mix(seed, n as u64).is_multiple_of(6) {
                    let (view, expected) = (fork.publish(), plain.publish());
                    prop_assert!(view.says_the_same(&expected));
                    prop_assert_eq!((view.hash(), fork.digest()), (expected.hash(), plain.digest()));
                }
                if mix(seed, n as u64).is_multiple_of(40) {
                    fork.freeze();
                }
            }
            prop_assert_eq!(said(&mut fork), said(&mut plain));
            prop_assert_eq!((fork.vector(true), fork.heads()), (plain.vector(true), plain.heads()));
            if let Some(page) = plain.next_page_of(3, 2) {
                let page = std::sync::Arc::new(page);
                prop_assert_eq!(fork.prune(&page), plain.prune(&page));
                prop_assert_eq!(said(&mut fork), said(&mut plain));
                prop_assert_eq!((fork.len(), fork.len_full()), (plain.len(), plain.len_full()));
            }
            forks.push(fork);
        }
        prop_assert_eq!(said(&mut first), said(&mut history.replica(begins.iter().copied())));
        Ok(())
    });
}

#[test]
fn every_prefix_verifies_and_none_waits() {
    law("prefixes", 12, (script_with_leases(60), any::<u64>()), |(script, seed)| {
        let history = History::play(&script);
        let mut ledger = Ledger::new(history.fleet);
        for (n, at) in history.in_order().into_iter().enumerate() {
            let answer = ledger.admit(&history.blocks[at].entry);
            prop_assert!(matches!(answer, Ok(Admission::New { .. })), "{:?}", answer);
            if mix(seed, n as u64).is_multiple_of(8) {
                prop_assert_eq!(ledger.verify(), Ok(n as u64 + 1));
            }
        }
        prop_assert_eq!(ledger.verify(), Ok(ledger.len()));
        Ok(())
    });
}

#[test]
fn a_changed_byte_is_refused() {
    law("changed bytes", 32, (script_with_leases(40), any::<u64>()), |(script, seed)| {
        let history = History::play(&script);
        let mut ledger = Ledger::new(history.fleet);
        for (n, at) in history.in_order().into_iter().enumerate() {
            let entry = &history.blocks[at].entry;
            for salt in 0..4 {
                let choice = mix(seed, 4 * n as u64 + salt);
                let mut changed = entry.clone();
                let place = usize::try_from(choice >> 8).expect("64 bits") % changed.len();
                changed[place] ^= 1 << (choice % 8);
                prop_assert!(ledger.admit(&changed).is_err(), "block {} byte {}", n, place);
            }
            prop_assert!(ledger.admit(entry).is_ok());
        }
        Ok(())
    });
}

/// One round of anti-entropy as `a` starts it: vector, what `a` lacks and which chains `b` asks for, the
/// answer, and which chains `a` asks for in turn. Returns whether a batch was cut.
fn round(a: &mut Ledger, b: &mut Ledger, within: &Buckets, bytes_max: usize, full: bool) -> bool {
    let take = |ledger: &mut Ledger, batch: &osiris_ledger::Batch| {
        for block in &batch.blocks {
            ledger.admit(block.entry()).expect("an honest peer's block");
        }
        batch.more
    };
    let (for_a, wanted_by_b) = b.compare_within(within, &a.vector_of(within, full), bytes_max);
    let mut more = take(a, &for_a);
    let (for_b, wanted_by_a) = a.fill(&wanted_by_b, bytes_max);
    more |= take(b, &for_b);
    let (for_a, wanted_again) = b.fill(&wanted_by_a, bytes_max);
    more |= take(a, &for_a);
    let (for_b, _) = a.fill(&wanted_again, bytes_max);
    more | take(b, &for_b)
}

/// Synchronises until the digests agree, of all chains or of the buckets that differ; returns rounds and whether
/// a batch was ever cut.
fn synchronise(a: &mut Ledger, b: &mut Ledger, mut bytes_max: usize, by_buckets: bool) -> (usize, bool) {
    let bound = usize::try_from(a.len() + b.len()).expect("small") + 8;
    let (mut rounds, mut more, mut full) = (0, false, false);
    while a.digest() != b.digest() {
        assert!(rounds < bound, "no agreement within {bound} rounds");
        let before = (a.len(), b.len());
        let (left, right) = if rounds % 2 == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        let within = match by_buckets {
            true => right.differing(&left.bucket_hashes()).expect("hashes of buckets"),
            false => Buckets::ALL,
        };
        assert!(!within.is_empty(), "the digests differ, and no bucket does");
        more |= round(left, right, &within, bytes_max, full);
        // No progress: the short ids hid a difference, or the batch was filled by blocks of a forked
        // chain that the other side has too. Whoever drives must ask in full, and for more.
        full = before == (a.len(), b.len());
        if full {
            bytes_max = bytes_max.saturating_mul(2);
        }
        rounds += 1;
    }
    (rounds, more)
}

/// Two closed subsets of a history.
fn halves(history: &History, seed: u64) -> [BTreeSet<usize>; 2] {
    [1, 2].map(|side| {
        // From few to most blocks: what they name comes along, so few are many.
        let one_in = 2 + mix(seed, side) % 24;
        let some =
            (0..history.blocks.len()).filter(|at| mix(seed, side << 32 | *at as u64).is_multiple_of(one_in));
        history.closed(some.chain([0]))
    })
}

#[test]
fn replicas_that_differ_come_to_agree() {
    let sizes = prop_oneof![Just(1_usize), 300..2_000_usize, Just(1 << 20)];
    law("anti-entropy", 32, (script_with_leases(120), any::<u64>(), sizes), |(script, seed, bytes_max)| {
        let history = History::play(&script);
        let halves = halves(&history, seed);
        let [mut a, mut b] = [0, 1].map(|n| {
            let half: Vec<_> = halves[n].iter().copied().collect();
            let (mut ledger, _) = deliver(&history, &shuffled(half, seed), seed);
            ledger.publish();
            ledger
        });
        synchronise(&mut a, &mut b, bytes_max, seed.is_multiple_of(2));
        prop_assert_eq!((a.early().0, b.early().0), (0, 0));
        let union: BTreeSet<_> = halves[0].union(&halves[1]).copied().collect();
        let order = history.in_order().into_iter().filter(|at| union.contains(at));
        let expected = said(&mut history.replica(order));
        prop_assert_eq!(&said(&mut a), &expected);
        prop_assert_eq!(&said(&mut b), &expected);
        Ok(())
    });
}

/// What happened over a run, so that the laws above are known not to hold of nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    blocks: usize,
    forks: usize,
    forks_continued: usize,
    forks_below_forks: usize,
    void: usize,
    void_by_fork: usize,
    surplus: u32,
    revocations: usize,
    revocations_void: usize,
    mutual: usize,
    early: usize,
    withdrawn: usize,
    concurrent: usize,
    half_forks: usize,
    recovered: usize,
    by_user: usize,
    pinned_branch: usize,
    outlived: usize,
    batches_cut: usize,
    rivals: usize,
    void_intents: usize,
    later_rounds: usize,
}

impl Seen {
    fn look(&mut self, script: &Script, seed: u64) {
        let history = History::play(script);
        let all = history.in_order();
        let (mut ledger, early) = deliver(&history, &delivery(&all, seed), seed);
        self.early += early;
        let view = ledger.publish();
        self.blocks += all.len();
        self.forks += view.forks().len();
        self.surplus += view.invitations().values().map(|invitation| invitation.surplus).sum::<u32>();
        let withdrawn = |i: &&osiris_ledger::Invitation| i.state == osiris_ledger::InvitationState::Withdrawn;
        self.withdrawn += view.invitations().values().filter(withdrawn).count();
        let revisions = view.functions().values().flat_map(|function| &function.revisions);
        self.concurrent += revisions.filter(|revision| revision.concurrent).count();
        for slot in view.slots().values() {
            self.rivals += usize::from(slot.claims.iter().filter(|claim| claim.activated).count() > 1);
            self.later_rounds += usize::from(slot.round > 1 && slot.holder().is_some());
            self.void_intents += slot.machines.iter().filter(|machine| !machine.counts).count();
        }
        let mut revoked = BTreeSet::new();
        for block in ledger.in_order() {
            let counts = ledger.is_effective(&block);
            let chain = block.chain();
            self.recovered += usize::from(matches!(block.payload(), Payload::Recovered(_)));
            self.by_user += usize::from(counts && ledger.user_of(&block.grant()).is_some());
            let fork = view.forks().iter().find(|f| (f.author, f.session) == (chain.author, chain.session));
            self.void += usize::from(!counts);
            let forked = fork.is_some_and(|fork| block.seq() >= fork.seq);
            self.void_by_fork += usize::from(forked && !counts);
            // Above a fork, and yet it counts: a revocation pinned its branch.
            self.pinned_branch += usize::from(forked && counts && block.id().0 != ledger.fleet().0);
            // An admission that stands although its invitation was withdrawn.
            self.outlived += usize::from(counts && withdrawn_later(&view, &block));
            self.forks_continued += usize::from(fork.is_some_and(|fork| fork.proof.contains(&block.prev())));
            if let Payload::Revoked(op) = block.payload() {
                *(if counts { &mut self.revocations } else { &mut self.revocations_void }) += 1;
                let device = |id: &BlockId| match ledger.get(id).map(|block| block.payload().clone()) {
                    Some(Payload::Admitted(op)) => op.device,
                    Some(Payload::Recovered(op)) => op.device,
                    _ => ledger.in_order()[0].author(),
                };
                let target = device(&op.grants[0]);
                self.mutual +=
                    usize::from(target != block.author() && revoked.contains(&(target, block.author())));
                revoked.insert((block.author(), target));
            }
        }
        self.forks_below_forks += usize::from(view.forks().len() > 1);
        let halves = halves(&history, seed);
        let [mut a, mut b] = [0, 1].map(|n| history.replica(halves[n].iter().copied()));
        let (in_a, in_b) = (a.publish().forks().to_vec(), b.publish().forks().to_vec());
        self.batches_cut += usize::from(synchronise(&mut a, &mut b, 700, seed.is_multiple_of(2)).1);
        let both = a.publish();
        self.half_forks += both.forks().iter().filter(|f| !in_a.contains(f) && !in_b.contains(f)).count();
    }
}

fn withdrawn_later(view: &osiris_ledger::View, block: &osiris_ledger::Block) -> bool {
    let Payload::Admitted(op) = block.payload() else { return false };
    let state = view.invitations().get(&op.invitation).map(|invitation| invitation.state);
    state == Some(osiris_ledger::InvitationState::Withdrawn)
}

#[test]
fn each_rare_thing_happens() {
    let mut runner = TestRunner::new(proptest::test_runner::Config {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Default::default()
    });
    let mut seen = Seen::default();
    let strategy = (script_with_leases(120), any::<u64>());
    for _ in 0..40 {
        let (script, seed) = strategy.new_tree(&mut runner).expect("a case").current();
        seen.look(&script, seed);
    }
    eprintln!("{seen:?}");
    let gates = [
        ("blocks", seen.blocks / 300),
        ("forks", seen.forks),
        ("forks continued", seen.forks_continued),
        ("several forks", seen.forks_below_forks),
        ("void blocks", seen.void),
        ("blocks void by a fork", seen.void_by_fork),
        ("surplus admissions", usize::try_from(seen.surplus).expect("small")),
        ("revocations", seen.revocations),
        ("void revocations", seen.revocations_void),
        ("mutual revocations", seen.mutual),
        ("early blocks", seen.early),
        ("withdrawn invitations", seen.withdrawn),
        ("concurrent deploys", seen.concurrent),
        ("forks of which each side held a half", seen.half_forks),
        ("recoveries", seen.recovered),
        ("blocks by a user's device", seen.by_user),
        ("blocks that count on a pinned branch", seen.pinned_branch),
        ("admissions that outlived their invitation", seen.outlived),
        ("cut batches", seen.batches_cut),
        ("rounds that several believed to have won", seen.rivals),
        ("slots held in a later round", seen.later_rounds),
        ("machines of void intents", seen.void_intents),
    ];
    for (what, count) in gates {
        assert!(count > 0, "in the whole run there were no {what}: {seen:?}");
    }
}
