//! The library of components against a model of it, on a disk that loses what was not synced: what it said it
//! keeps is there after a power cut at any operation, and again inside the recovery; nothing half-written is taken
//! for whole; what it lists, counts and holds is the same.

mod disk;
mod model;

use std::cell::RefCell;

use model::{BLOBS, Held, Seen, Step};
use osiris_property_tests::strategy::config;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let blob = || 0..BLOBS;
    let any = || 0..1_000_usize;
    let step = prop_oneof![
        8 => blob().prop_map(Step::Put),
        4 => blob().prop_map(Step::Begin),
        6 => (any(), prop::bool::weighted(0.1)).prop_map(|(at, wrong)| Step::Write(at, wrong)),
        4 => any().prop_map(Step::Commit),
        1 => any().prop_map(Step::Drop),
        4 => (blob(), prop::bool::weighted(0.2)).prop_map(|(blob, wrong)| Step::Adopt(blob, wrong)),
        3 => blob().prop_map(Step::Remove),
        3 => blob().prop_map(Step::Read),
        2 => (blob(), any()).prop_map(|(blob, at)| Step::Flip(blob, at)),
        1 => (blob(), any()).prop_map(|(blob, at)| Step::Cut(blob, at)),
        1 => blob().prop_map(Step::Delete),
        2 => Just(Step::Kill),
        4 => (0..9_u64, prop::option::of(0..4_u64)).prop_map(|(at, again)| Step::PowerCut(at, again)),
        2 => (0..4_u64).prop_map(Step::FailSync),
        1 => (0..3_000_u64).prop_map(Step::Full),
        1 => Just(Step::Heal),
    ];
    vec(step, 1..60)
}

#[test]
fn the_library_keeps_what_it_said_it_keeps() {
    let seen = RefCell::new(Seen::default());
    let run = TestRunner::new(config(2_000)).run(&(steps(), any::<u64>()), |(steps, seed)| {
        let mut held = Held::new(seed, &seen);
        for step in steps {
            held.step(&step)?;
        }
        held.end()
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    eprintln!("{seen:?}");
    for (what, count) in seen.all() {
        assert!(count > 0, "in the whole run there were no {what}: {seen:?}");
    }
}

/// Everything a library does, once.
fn one_of_each() -> Vec<Step> {
    vec![
        Step::Put(0),
        Step::Begin(1),
        Step::Write(0, false),
        Step::Write(0, false),
        Step::Commit(0),
        Step::Adopt(2, false),
        Step::Flip(1, 0),
        Step::Put(1),
        Step::Put(3),
        Step::Delete(3),
        Step::Put(3),
        Step::Flip(2, 0),
        Step::Read(2),
        Step::Adopt(2, false),
        Step::Remove(0),
        Step::Begin(4),
        Step::Write(0, false),
        Step::Kill,
        Step::Put(0),
        Step::Remove(3),
    ]
}

#[test]
fn a_power_cut_at_any_operation_and_again_in_the_recovery_loses_nothing() {
    let mut seed = 0;
    for at in 0.. {
        let mut reached = false;
        for again in [None, Some(0), Some(1), Some(2)] {
            for _ in 0..12 {
                seed += 1;
                let seen = RefCell::new(Seen::default());
                let mut held = Held::new(seed, &seen);
                held.cut_at(at, again);
                let ran = one_of_each().iter().try_for_each(|step| held.step(step)).and_then(|()| held.end());
                ran.unwrap_or_else(|failure| {
                    panic!("cut at {at}, again at {again:?}, seed {seed}: {failure}")
                });
                reached |= seen.borrow().power_cuts > 0;
            }
        }
        if !reached {
            assert!(at >= 40, "only {at} operations were cut");
            return;
        }
    }
}

/// The same with a sync that fails, of a file or of the folder, and a disk that goes on.
#[test]
fn a_sync_that_fails_at_any_place_is_acknowledged_by_nobody() {
    for at in 0.. {
        for seed in 0..12 {
            let seen = RefCell::new(Seen::default());
            let mut held = Held::new(seed, &seen);
            held.sync_fails_at(at);
            let ran = one_of_each().iter().try_for_each(|step| held.step(step)).and_then(|()| held.end());
            ran.unwrap_or_else(|failure| panic!("sync {at} fails, seed {seed}: {failure}"));
            if seen.borrow().failed_syncs == 0 {
                assert!(at > 10, "only {at} syncs failed");
                return;
            }
        }
    }
}
