//! How many replicas a function is to have, as a view and its manifest say.

use std::time::Duration;

use osiris_ledger::{Author, Function, Revision, View};

use crate::{
    manifest::{Manifest, PlaceKeys, Replicas, SCALE_BACKLOG, SCALE_IDLE_S},
    placement,
    policy::Target,
};

/// Between how many replicas a function is to be, and by what; none: it is not scaled. `trial` are bounds, the least and
/// the most, that nobody gave it yet.
pub(crate) fn target(
    view: &View,
    name: &str,
    manifest: &Manifest,
    trial: Option<(u32, u32)>,
) -> Option<Target> {
    let keys = manifest.scale.as_ref();
    let said = || view.scaling().bounds(name).map(|range| (range.min, range.max));
    let (min, max) = trial.or_else(said).or(keys.map(|keys| (keys.min, keys.max)))?;
    let backlog = keys.and_then(|keys| keys.backlog).unwrap_or(SCALE_BACKLOG);
    let idle = keys.and_then(|keys| keys.idle_s).unwrap_or(SCALE_IDLE_S);
    Some(Target { min, max, backlog, idle: Duration::from_secs(idle) })
}

/// Replicas that a function is to have; none: every member that may serve it.
pub(crate) fn wanted_count(view: &View, function: &Function, manifest: &Manifest) -> Option<u32> {
    match (target(view, &function.name, manifest, None), manifest.replicas) {
        (Some(target), _) => Some(count_within(view, function, manifest, &target)),
        (None, Replicas::All) => None,
        (None, Replicas::Count(count)) => Some(count),
    }
}

/// Replicas of a function that is scaled.
pub(super) fn count_within(view: &View, function: &Function, manifest: &Manifest, target: &Target) -> u32 {
    let start = match manifest.replicas {
        Replicas::All => target.min.max(1),
        Replicas::Count(count) => count,
    };
    let count = match view.scaling().replicas(&function.name) {
        None => start,
        // A revision that was deployed after the last replica went has one until nobody calls it again.
        Some((order, 0)) if function.newest.as_ref().is_some_and(|newest| newest.order > order) => start,
        Some((_, count)) => count,
    };
    count.clamp(target.min, target.max)
}

/// Whether something may be placed on a member that runs functions, reached or not.
pub(crate) fn may_be_placed_on(view: &View, place: &PlaceKeys, member: &Author) -> bool {
    let scaling = view.scaling();
    place.fits(scaling.labels(member)) && !scaling.is_draining(member)
}

/// Members that come behind all others for a revision, ascending. A deploy begins without any: it has another order, and
/// who was busy before need not be so now.
pub(super) fn passed_over<'a>(view: &'a View, name: &str, revision: &Revision) -> &'a [Author] {
    match view.scaling().replicas(name) {
        Some((order, _)) if revision.order < order => view.scaling().passed_over(name),
        _ => &[],
    }
}

/// Members that may serve something, by rank, in the order of their turn: over zones where it is to be spread, and who is
/// passed over behind all others.
pub(super) fn arranged(view: &View, place: &PlaceKeys, able: &[Author], past: &[Author]) -> Vec<Author> {
    let (behind, front): (Vec<_>, Vec<_>) =
        able.iter().partition(|member| past.binary_search(member).is_ok());
    let mut order = Vec::with_capacity(able.len());
    for members in [front, behind] {
        order.extend(match place.spread {
            None => members,
            Some(_) => placement::spread(&members, |member| place.zone(view.scaling().labels(member))),
        });
    }
    order
}
