//! What a fleet writes in weeks, by the simulator.
//!
//! The members are real cores: they deploy, fetch, serve and stop, restart with a new session, and the founder seals
//! pages. Of the weeks only the hours in which nobody wants anything are left out: a deploy follows the last one after
//! some seconds and not after an hour, and blocks show those times.

use std::sync::Arc;

use osiris_ledger::{BlobHash, Block, FleetId, Page};

use super::{Options, agree::Agreement, world::World};

/// Deploys a day, each to all members.
const DEPLOYS_A_DAY: u64 = 20;
/// Virtual time between two of them.
const DEPLOY_EVERY_MS: u64 = 10_000;
/// Each member restarts so often, in days.
const RESTART_DAYS: u64 = 7;

/// What the founder's disk holds in the end.
#[derive(Debug)]
pub struct History {
    /// The fleet.
    pub fleet: FleetId,
    /// The founder's secret key.
    pub founder: [u8; 32],
    /// Its blocks, in the order in which its journal has them.
    pub blocks: Vec<Arc<Block>>,
    /// Pages that its library holds, in the order of their names.
    pub pages: Vec<(BlobHash, Arc<Page>)>,
    /// What happened.
    pub events: u64,
}

/// So many days of a fleet of so many members. The same arguments give the same bytes.
///
/// # Errors
/// A sentence where an argument is out of range, or where the fleet did not come to agree or broke a promise.
pub fn history(seed: u64, nodes: u32, days: u64) -> Result<History, String> {
    let safety_ms = days.saturating_mul(DEPLOYS_A_DAY).saturating_mul(DEPLOY_EVERY_MS);
    let restarts = u64::from(nodes).saturating_mul(days) / RESTART_DAYS;
    let options = Options {
        safety_ms,
        work_every_ms: DEPLOY_EVERY_MS,
        restart_every_ms: safety_ms.checked_div(restarts).unwrap_or(0),
        everywhere: true,
        ..Options::healthy(seed, nodes)
    };
    options.validate()?;
    let mut world = World::new(&options, None, None);
    let agreement = world.run().map_or_else(Agreement::default, |_| world.compare());
    if let Some(violation) = world.check.violations.first() {
        return Err(format!("the simulated fleet broke a promise: {violation}"));
    }
    if agreement.blocks == 0 {
        return Err("the simulated fleet did not come to agree".to_owned());
    }
    let founder = &mut world.devices[0];
    let (held, _) = founder.journal.recover();
    let library = &founder.library;
    let pages = world.pages.iter().filter(|(name, _)| library.contains(name));
    Ok(History {
        fleet: world.fleet,
        founder: founder.key.to_bytes(),
        blocks: held.all().cloned().collect(),
        pages: pages.map(|(name, page)| (*name, Arc::clone(page))).collect(),
        events: world.log.events,
    })
}
