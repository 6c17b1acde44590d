//! A deterministic simulator: the real cores on a virtual network, disk and clock.
//!
//! A run has two phases. In the first, faults, work and hostile members go on, and what must never happen
//! is checked at each step. In the second everything is healed, and within a bounded time all honest
//! members that are connected must agree. The same [`Options`] give the same run, to the bit; its
//! [`Report`] bears the hash of the event log. What is real, what is modelled and what cannot be found
//! this way is in `docs/simulator.md`.
//!
//! The idea is FoundationDB's (Zhou et al., 2021) and TigerBeetle's; the phases are those of the latter.

mod agree;
mod beginning;
mod campaign;
mod check;
mod day;
mod deeds;
pub mod disk;
mod faults;
mod history;
mod hostile;
mod inflict;
mod journal;
mod leases;
mod load;
mod mesh;
mod network;
mod options;
mod payload;
mod people;
mod perform;
mod process;
mod queue;
mod random;
mod replay;
mod report;
mod still;
mod twins;
mod workload;
mod world;

pub use campaign::Campaign;
pub use day::{DayOptions, DayReport, FunctionDay, MUST_HAPPEN, run_day};
pub use history::{History, history};
pub use options::{OWN_EVERYTHING_MAX, Options, SAMPLE};
pub use replay::Recorded;
pub use report::{FAULTS, Listener, RARE, Report};

use world::World;

/// Runs a simulation to its end. `listener` gets each line of the event log.
///
/// # Errors
/// A sentence where an option is out of range.
pub fn run(options: &Options, listener: Option<Listener<'_>>) -> Result<Report, String> {
    options.validate()?;
    let mut world = World::new(options, listener, None);
    let agreed_after_ms = world.run();
    let agreement = if agreed_after_ms.is_some() { world.compare() } else { agree::Agreement::default() };
    let compared = world.check.compared > 0 && agreement.blocks > 0;
    // Where all others left, or are strangers to who is left, there is nothing to compare.
    if !compared && options.nodes > 1 && world.check.violated == 0 && !world.is_alone() {
        let now = world.now;
        world.check.violated(now, format_args!("nothing was compared"));
    }
    let traffic = world.network.traffic;
    if options.loss >= 500 && traffic.dropped > 0 {
        world.faults.count("half of all frames lost");
    }
    Ok(Report {
        options: options.clone(),
        passed: world.check.violated == 0,
        violations: world.check.violations.clone(),
        nodes: u64::from(world.nodes() - world.options.copies()),
        virtual_ms: world.now,
        agreed_after_ms,
        events: world.log.events,
        sent: traffic.sent,
        dropped: traffic.dropped,
        duplicated: traffic.duplicated,
        overtaken: traffic.overtaken,
        written: world.check.written(),
        acknowledged: world.acknowledged.len() as u64,
        views_compared: world.check.compared,
        blocks_compared: agreement.blocks,
        documents_compared: agreement.documents,
        left_out: report::left_out(options),
        faults: world.faults.named(),
        branches: world.branches.named(),
        load: world.load.sums.iter().map(|(what, sum)| ((*what).to_owned(), *sum)).collect(),
        event_log_hash: world.log.hash(),
    })
}
