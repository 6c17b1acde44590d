//! What is generated, and under which configuration.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed},
};

use crate::model::{Action, DEVICES, SIDES, Script, Step, mix};

/// The seed of a run that sets none.
pub const SEED: u64 = 0x0517_1520_2611;

/// Configuration of a run: `PROPTEST_CASES` and `PROPTEST_RNG_SEED` override cases and seed; nothing is
/// read from or written to files.
#[must_use]
pub fn config(cases: u32) -> Config {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    let is_set = |name| std::env::var_os(name).is_some();
    if !is_set("PROPTEST_CASES") {
        config.cases = cases;
    }
    if !is_set("PROPTEST_MAX_SHRINK_ITERS") {
        config.max_shrink_iters = 500;
    }
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    config
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (any::<u8>(), 1..3_u32, any::<bool>())
            .prop_map(|(roles, uses, bound)| Action::Invite { roles, uses, bound }),
        3 => (any::<u8>(), 1..3_u32).prop_map(|(roles, devices)| Action::User { roles, devices }),
        1 => Just(Action::Withdraw),
        6 => any::<u8>().prop_map(|device| Action::Admit { device }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(device, keep)| Action::Revoke { device, keep }),
        1 => any::<u8>().prop_map(|keep| Action::Leave { keep }),
        5 => any::<u8>().prop_map(|name| Action::Deploy { name }),
        1 => any::<u8>().prop_map(|name| Action::Remove { name }),
        4 => Just(Action::Serve),
        1 => Just(Action::Stop),
        2 => (any::<u8>(), 0..5_u32).prop_map(|(name, replicas)| Action::Scale { name, replicas }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(device, labels)| Action::Label { device, labels }),
    ]
}

fn action_or_lease() -> impl Strategy<Value = Action> {
    prop_oneof![
        26 => action(),
        4 => any::<u8>().prop_map(|slot| Action::Claim { slot }),
        6 => Just(Action::Lease),
        1 => (0..4_u32).prop_map(|machines| Action::Spawning { machines }),
    ]
}

/// Now and then the recovery key speaks: seldom, since it stands above everybody.
fn rare(action: impl Strategy<Value = Action>) -> impl Strategy<Value = Action> {
    prop_oneof![40 => action, 1 => any::<u8>().prop_map(|device| Action::Recover { device })]
}

fn step(action: impl Strategy<Value = Action>) -> impl Strategy<Value = Step> {
    // Most devices have no grant at the start; those that have one write more often.
    let device = prop_oneof![3 => 0..4_u8, 1 => 0..DEVICES];
    let back = prop_oneof![12 => Just(0_u8), 1 => 1..3_u8];
    let write = (device, 0..SIDES, 0..4_u8, back, rare(action), any::<u64>()).prop_map(
        |(device, side, session, back, action, choice)| Step::Write {
            device,
            side,
            session,
            back,
            action,
            choice,
        },
    );
    let merge = (0..SIDES, 0..SIDES).prop_map(|(from, to)| Step::Merge { from, to });
    prop_oneof![5 => write, 1 => merge]
}

/// A history of at most `steps` steps.
pub fn script(steps: usize) -> impl Strategy<Value = Script> {
    vec(step(action()), steps / 3..steps)
}

/// The same, with claims, intents and what follows them.
pub fn script_with_leases(steps: usize) -> impl Strategy<Value = Script> {
    vec(step(action_or_lease()), steps / 3..steps)
}

/// `items` in the order that a seed gives.
#[must_use]
pub fn shuffled(mut items: Vec<usize>, seed: u64) -> Vec<usize> {
    items.sort_by_key(|item| mix(seed, *item as u64));
    items
}

/// `items` shuffled, about one in four of them twice.
#[must_use]
pub fn delivery(items: &[usize], seed: u64) -> Vec<usize> {
    let twice = items.iter().filter(|item| mix(seed, 1 << 20 | **item as u64).is_multiple_of(4));
    let places = items.iter().chain(twice).copied().enumerate();
    let mut order: Vec<_> = places.map(|(n, item)| (mix(seed, n as u64), item)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, item)| item).collect()
}
