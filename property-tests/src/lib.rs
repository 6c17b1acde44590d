//! The promises of Osiris as properties: generated histories of a fleet with hostile members, and the
//! laws that hold for each.
//!
//! * [`model`] turns a [`model::Script`] into signed blocks, every one of them valid.
//! * [`decoders`] names every decoder of foreign bytes, with what must hold for any.
//! * [`strategy`] generates scripts, orders of delivery and configurations of a run.

pub mod decoders;
pub mod model;
pub mod strategy;

use proptest::{
    strategy::Strategy,
    test_runner::{RngSeed, TestCaseResult, TestRunner},
};

/// Runs a law over generated cases.
///
/// # Panics
/// If it does not hold, with the smallest case that shows it.
pub fn law<S: Strategy>(name: &str, cases: u32, strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let config = strategy::config(cases);
    let RngSeed::Fixed(seed) = config.rng_seed else { unreachable!("the configuration fixes a seed") };
    eprintln!("{name}: {} cases, PROPTEST_RNG_SEED={seed}", config.cases);
    if let Err(failure) = TestRunner::new(config).run(&strategy, test) {
        panic!("{name} (PROPTEST_RNG_SEED={seed}): {failure}");
    }
}

/// One sealer for the tests of both crates: it is written against the format, not with the ledger's
/// own encoder.
#[path = "../../crdt-ledger/tests/support/forge.rs"]
mod forge;
