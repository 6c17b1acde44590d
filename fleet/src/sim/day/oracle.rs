//! What who knows the whole day in advance would have spent.
//!
//! It starts replicas and machines before they are needed, with the same delays, and lets them go at once. Its plan is
//! made of how many replicas are needed in each slot of ten seconds:
//!
//! ```text
//! need   calls under way, were each to begin at once, averaged over a window, times a share, rounded up
//! plan   for each level: on where need reaches it; a gap is kept on where that costs less than a start
//! wait   the same queue, with the plan's places
//! ```
//!
//! For a given need the plan is the cheapest, because levels are independent. Windows and shares are searched for the
//! cheapest plan whose 99th percentile of waits is no longer than the fleet's. So it is the best of a family, and
//! above the least possible; [`Spent::busy_ms`] is below it.

use super::{
    demand::{Demand, STEP_MS, STEPS_A_SECOND, Shape},
    line::{Line, Waits},
};

/// Steps of a slot: ten seconds.
const SLOT: usize = 10 * STEPS_A_SECOND as usize;
/// Windows that are tried, in slots.
const WINDOWS: [usize; 5] = [1, 3, 6, 18, 60];
/// Shares that are tried, thousandths: from the lowest, below which a plateau is never served, to one that no chance
/// overruns.
const SHARES: (u64, u64) = (900, 1_500);

/// What a start takes, and between which bounds a plan lies.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Means {
    /// Members that may serve: replicas up to so many start on them.
    pub(in crate::sim) hosts: u64,
    /// Replicas, at least.
    pub(in crate::sim) min: u64,
    /// Milliseconds until a replica on a member is ready.
    pub(in crate::sim) replica_ms: u64,
    /// Milliseconds until a replica on a machine that is not there yet is ready.
    pub(in crate::sim) machine_ms: u64,
}

/// What a plan costs and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sim) struct Spent {
    /// Replica-milliseconds, starts included.
    pub(in crate::sim) ms: u64,
    /// Of those, the milliseconds that calls ran, were every place always in use: nobody can do with less.
    pub(in crate::sim) busy_ms: u64,
    pub(in crate::sim) waits: Waits,
}

/// Calls under way at each step, were each to begin at once.
fn under_way(calls: &[u32], shape: &Shape) -> Vec<u64> {
    let steps = usize::try_from(shape.steps).expect("small");
    let mut now = 0;
    let run = calls.iter().enumerate().map(|(at, come)| {
        now += u64::from(*come);
        now -= at.checked_sub(steps).map_or(0, |begun| u64::from(calls[begun]));
        now
    });
    run.collect()
}

/// Replicas needed in each slot: the average over a window that ends with it, times a share.
fn needs(under_way: &[u64], shape: &Shape, window: usize, share: u64, min: u64) -> Vec<u64> {
    let slots: Vec<u64> = under_way.chunks(SLOT).map(|slot| slot.iter().sum()).collect();
    let need = |end: usize| {
        let from = (end + 1).saturating_sub(window);
        let sum: u64 = slots[from..=end].iter().sum();
        let places = shape.side_by_side * ((end + 1 - from) * SLOT) as u64;
        (sum * share).div_ceil(places * 1_000).max(min)
    };
    (0..slots.len()).map(need).collect()
}

/// The cheapest replicas by slot that are never fewer than needed, and what they cost.
fn cheapest(needs: &[u64], means: &Means) -> (Vec<u64>, u64) {
    let slot_ms = SLOT as u64 * STEP_MS;
    let mut plan = vec![0; needs.len()];
    let mut cost = 0;
    let most = needs.iter().max().copied().unwrap_or(0);
    for level in 1..=most {
        let start = if level <= means.hosts { means.replica_ms } else { means.machine_ms };
        let mut last: Option<usize> = None;
        for slot in (0..needs.len()).filter(|slot| needs[*slot] >= level) {
            let gap = last.map(|last| slot - last - 1);
            let from = match gap {
                Some(gap) if gap as u64 * slot_ms <= start => slot - gap,
                // What is there from the start was started by whoever deployed it.
                None if slot == 0 => slot,
                _ => {
                    cost += start;
                    slot
                }
            };
            plan[from..=slot].iter_mut().for_each(|replicas| *replicas += 1);
            cost += (slot + 1 - from) as u64 * slot_ms;
            last = Some(slot);
        }
    }
    (plan, cost)
}

/// The waits that a plan gives.
fn serve(calls: &[u32], shape: &Shape, plan: &[u64]) -> Line {
    let mut line = Line::default();
    for (at, come) in (0_u64..).zip(calls) {
        let slot = usize::try_from(at).expect("it fits") / SLOT;
        line.step(at, u64::from(*come), plan[slot] * shape.side_by_side, shape.steps);
    }
    // What is left waits for as long as the last replicas need for it.
    let last = plan.last().copied().unwrap_or(0).max(1) * shape.side_by_side;
    let mut at = calls.len() as u64;
    while line.backlog() + line.in_flight() > 0 {
        line.step(at, 0, last, shape.steps);
        at += 1;
    }
    line
}

/// The cheapest plan for one function whose calls wait, at their 99th percentile, no longer than `p99_ms`. None where
/// no plan of the family gives that.
pub(in crate::sim) fn best(demand: &Demand, function: usize, means: &Means, p99_ms: u64) -> Option<Spent> {
    let (calls, shape) = (&demand.calls[function], &demand.shapes[function]);
    let under_way = under_way(calls, shape);
    let mut best: Option<Spent> = None;
    for window in WINDOWS {
        // More is never slower: the least share that will do is found by halving.
        let (mut low, mut high) = SHARES;
        while low < high {
            let share = low.midpoint(high);
            let (plan, ms) = cheapest(&needs(&under_way, shape, window, share, means.min), means);
            let line = serve(calls, shape, &plan);
            if line.waits().quantile(990) > p99_ms {
                low = share + 10;
                continue;
            }
            if best.as_ref().is_none_or(|best| ms < best.ms) {
                let waits = line.waits().clone();
                let busy_ms = demand.sum(function) * shape.steps * STEP_MS / shape.side_by_side;
                best = Some(Spent { ms, busy_ms, waits });
            }
            high = share.saturating_sub(10).max(low);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { side_by_side: 4, steps: 8, peak: 10_000, late: 0, sleeps: false };
    const MEANS: Means = Means { hosts: 2, min: 1, replica_ms: 20_000, machine_ms: 60_000 };

    #[test]
    fn a_gap_is_kept_on_where_a_start_costs_more() {
        let (plan, cost) = cheapest(&[1, 2, 1, 1, 2, 1, 1, 1, 2], &MEANS);
        assert_eq!(plan, [1, 2, 2, 2, 2, 1, 1, 1, 2]);
        // Nine slots of the first, there from the start; five of the second, and two starts.
        assert_eq!(cost, 9 * 10_000 + 5 * 10_000 + 2 * 20_000);
        // A machine takes longer to be there, so it is kept for longer.
        let (plan, _) = cheapest(&[3, 1, 1, 1, 1, 1, 3], &MEANS);
        assert_eq!(plan, [3, 2, 2, 2, 2, 2, 3]);
    }

    #[test]
    fn it_gives_what_is_asked_for_and_costs_no_less_than_the_calls_run() {
        let steps = 3_600 * STEPS_A_SECOND;
        let demand = Demand::drawn(5, vec![SHAPE], steps);
        let mut before = u64::MAX;
        for p99_ms in [0, 1_000, 10_000] {
            let spent = best(&demand, 0, &MEANS, p99_ms).expect("a plan");
            assert!(spent.waits.quantile(990) <= p99_ms, "{}", spent.waits.quantile(990));
            assert_eq!(spent.waits.all(), demand.sum(0), "every call is served");
            assert!(spent.ms >= spent.busy_ms && spent.ms <= before, "{} {}", spent.ms, spent.busy_ms);
            before = spent.ms;
        }
    }

    #[test]
    fn calls_under_way_are_those_that_came_and_have_not_ended() {
        let shape = Shape { steps: 2, ..SHAPE };
        assert_eq!(under_way(&[3, 0, 1, 0, 0], &shape), [3, 3, 1, 1, 0]);
    }
}
