//! What a day came to.

use std::collections::BTreeMap;

use osiris_ledger::BlockId;
use serde::{Deserialize, Serialize};

use crate::sim::world::World;

use super::{
    DayOptions,
    demand::{STEPS_A_SECOND, Shape},
    line::Waits,
    machines::{BOOT_MS, PREPARE_MS},
    oracle::{self, Means},
};

/// Hours from which on a day has to reach all of [`MUST_HAPPEN`]; in less, chance decides.
const WHOLE_DAY_HOURS: u32 = 24;
/// Branches that each whole day has to reach: else it did not try what it is there to try.
pub const MUST_HAPPEN: [&str; 14] = [
    "scaled up",
    "scaled down",
    "lease won",
    "lease lost",
    "two claimants",
    "partition during a claim",
    "minority side wanted a machine",
    "maker died before its machine was there",
    "maker died when its machine was there",
    "machine made",
    "machine joined",
    "machine served",
    "machine retired",
    "spawn reconciled",
];
/// Seconds over which the demand's own turns are counted.
const TURN_WINDOW: usize = 300;
/// Turns of a count that are allowed for each turn of its demand, for each time that the network falls apart, since each
/// side then goes by what it sees, and for each hour beside.
const TURNS_FOR_EACH: u64 = 2;
const TURNS_A_SPLIT: u64 = 2;
const TURNS_AN_HOUR: u64 = 4;

/// Changes of direction of a number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    last: Option<u64>,
    upward: Option<bool>,
    pub(super) turns: u64,
    pub(super) changes: u64,
}

impl Turns {
    pub(super) fn see(&mut self, number: u64) {
        let Some(last) = self.last.replace(number) else { return };
        if last == number {
            return;
        }
        self.changes += 1;
        let upward = number > last;
        self.turns += u64::from(self.upward.replace(upward).is_some_and(|before| before != upward));
    }
}

/// One function's day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionDay {
    /// Its name.
    pub name: String,
    /// Calls that came.
    pub calls: u64,
    /// Calls that failed: their replica died, or nobody served for 20 s.
    pub failed: u64,
    /// What half of the calls waited at most, milliseconds, to a quarter of a second.
    pub wait_p50_ms: u64,
    /// What 99 of 100 waited at most.
    pub wait_p99_ms: u64,
    /// What all waited at most.
    pub wait_max_ms: u64,
    /// Calls that waited longer than ten seconds.
    pub waited_10_s: u64,
    /// Replicas that were ready, at most.
    pub replicas_max: u64,
    /// Hours for which members prepared, ran or drained it.
    pub member_hours: f64,
    /// Hours for which machines were there for it, from the moment at which they were asked for.
    pub machine_hours: f64,
    /// Hours of the oracle: replicas and machines, from the moment at which they are started.
    pub oracle_hours: f64,
    /// The 99th percentile of the oracle's waits.
    pub oracle_wait_p99_ms: u64,
    /// Hours that the calls ran, were every place always in use: nobody can do with less.
    pub busy_hours: f64,
    /// Member and machine hours over the oracle's.
    pub ratio: f64,
    /// How often its count was changed, and how often the direction of that changed.
    pub count_changes: u64,
    /// See [`FunctionDay::count_changes`].
    pub count_turns: u64,
    /// How often the direction of what is needed changed, in averages over five minutes.
    pub demand_turns: u64,
}

/// A day's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayReport {
    /// What decided the day.
    pub options: DayOptions,
    /// Whether nothing was violated and, in a day of 24 hours or more, everything that must happen did.
    pub passed: bool,
    /// Broken promises, in sentences; at most twenty.
    pub violations: Vec<String>,
    /// Branches that must happen and did not.
    pub never: Vec<String>,
    /// Members that may run functions; all others call.
    pub hosts: u32,
    /// Machines that the fleet may have at once.
    pub machines_max: u32,
    /// Each function.
    pub functions: Vec<FunctionDay>,
    /// Hours of members and machines, over all functions.
    pub hours: f64,
    /// The oracle's.
    pub oracle_hours: f64,
    /// Hours over the oracle's. The aim is 1.3.
    pub ratio: f64,
    /// What 99 of 100 calls of all functions waited at most.
    pub wait_p99_ms: u64,
    /// Virtual milliseconds in all.
    pub virtual_ms: u64,
    /// Virtual milliseconds from the end of the day to agreement.
    pub agreed_after_ms: Option<u64>,
    /// Events.
    pub events: u64,
    /// Frames that were carried.
    pub sent: u64,
    /// Blocks that were written.
    pub written: u64,
    /// What is left out for speed, in a sentence.
    pub left_out: String,
    /// Faults injected, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Branches reached, by name.
    pub branches: BTreeMap<String, u64>,
    /// blake3 over the event log: one line an event.
    pub event_log_hash: String,
}

fn hours(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2⁵²")]
    let seconds = (ms / 1_000) as f64;
    (seconds / 3.6).round() / 1_000.0
}

fn ratio(ours: u64, theirs: u64) -> f64 {
    (hours(ours) / hours(theirs).max(0.001) * 1_000.0).round() / 1_000.0
}

impl World<'_> {
    /// Takes note of a function's count, as the founder knows it.
    pub(super) fn watch_count(&mut self, function: usize, name: &str) {
        let Some(running) = self.devices[0].running.as_ref() else { return };
        let Some((_, count)) = running.node.view().scaling().replicas(name) else { return };
        let Some(day) = self.day.as_mut() else { return };
        day.turns[function].see(count.into());
    }

    /// What a machine serves by the founder's view, and how many replicas there are to be, for people.
    fn what_serves(&self, intent: BlockId) -> String {
        let Some(running) = self.devices[0].running.as_ref() else { return String::new() };
        let view = running.node.view();
        let machine = view.slots().values().flat_map(|slot| &slot.machines).find(|one| one.intent == intent);
        let Some(device) = machine.and_then(|machine| machine.device) else {
            return "; it is no member".to_owned();
        };
        let mut said = format!("; it is for {:?}", machine.map(|machine| &machine.functions));
        for function in view.functions().values() {
            let count = view.scaling().replicas(&function.name).map(|(_, count)| count);
            for revision in function.served.iter().filter(|revision| revision.is_served_by(&device)) {
                let serving = revision.serving.len();
                said.push_str(&format!("; it serves {}, as one of {serving}, of {count:?}", function.name));
            }
        }
        said
    }

    /// At the end every machine is gone, as long after the last call as anybody may wait to take it away.
    pub(in crate::sim) fn no_machine_is_left(&mut self) {
        let Some(day) = self.day.as_ref() else { return };
        let left: Vec<BlockId> = day.machines.keys().copied().collect();
        let now = self.now;
        for intent in left {
            let sees = (0..self.nodes()).filter(|node| {
                let running = self.devices[*node as usize].running.as_ref();
                running.is_some_and(|run| {
                    let slots = run.node.view().slots().values();
                    slots.flat_map(|slot| &slot.machines).any(|machine| machine.intent == intent)
                })
            });
            let sees = sees.count();
            let serves = self.what_serves(intent);
            self.check.violated(
                now,
                format_args!(
                    "the machine of intent {} is still there, long after the last call; {sees} nodes see it{serves}",
                    intent.short()
                ),
            );
        }
    }

    /// Every call of the day has ended, or failed.
    fn no_call_is_lost(&mut self) {
        let Some(day) = self.day.as_ref() else { return };
        let now = self.now;
        for (function, lines) in day.lines.iter().enumerate() {
            let ended: u64 = lines.iter().map(|line| line.ended() + line.failed()).sum();
            let (calls, served) =
                (day.demand.sum(function), lines.iter().map(|line| line.waits().all()).sum::<u64>());
            if ended != calls || served > calls {
                self.check.violated(
                    now,
                    format_args!("of {calls} calls of function {function} {ended} ended and {served} began"),
                );
            }
        }
    }

    /// The report of a day that has ended.
    pub(super) fn day_report(mut self, agreed_after_ms: Option<u64>) -> DayReport {
        self.no_call_is_lost();
        let Some(day) = self.day.as_ref() else { unreachable!("a day was simulated") };
        let (options, hosts) = (day.options, day.options.hosts());
        let machines_max = day.machines_max();
        let count = day.releases.len();
        let mut waits = Waits::default();
        let mut functions = Vec::new();
        let (mut ours, mut theirs) = (0, 0);
        for function in 0..count {
            let (one, spent, best) = self.function_day(function, &mut waits);
            (ours, theirs) = (ours + spent, theirs + best);
            functions.push(one);
        }
        let splits = self.faults.named().get("partition").copied().unwrap_or_default();
        for one in &functions {
            let allowed = one.demand_turns * TURNS_FOR_EACH
                + splits * TURNS_A_SPLIT
                + u64::from(options.hours) * TURNS_AN_HOUR;
            if one.count_turns > allowed {
                let now = self.now;
                self.check.violated(
                    now,
                    format_args!(
                        "the count of {} turned {} times; at most {allowed} are allowed",
                        one.name, one.count_turns
                    ),
                );
            }
        }
        let branches = self.branches.named();
        let reached = |what: &&str| branches.get(*what).is_some_and(|times| *times > 0);
        let never: Vec<_> =
            MUST_HAPPEN.iter().filter(|what| !reached(what)).map(|what| (*what).to_owned()).collect();
        let is_short = options.hours < WHOLE_DAY_HOURS;
        DayReport {
            options,
            passed: self.check.violated == 0 && agreed_after_ms.is_some() && (is_short || never.is_empty()),
            violations: self.check.violations.clone(),
            never,
            hosts,
            machines_max,
            functions,
            hours: hours(ours),
            oracle_hours: hours(theirs),
            ratio: ratio(ours, theirs),
            wait_p99_ms: waits.quantile(990),
            virtual_ms: self.now,
            agreed_after_ms,
            events: self.log.events,
            sent: self.network.traffic.sent,
            written: self.check.written(),
            left_out: "members that only call are called for their digests every 30 s and are then brought the \
                       blocks of that time, others are called every second, from 50 members on every 5 s while \
                       nothing waits, and at once where they have a claim; digests that would say nothing new are \
                       not carried; rows reach those who may decide, as often as these are called; members are told \
                       their figures each second while something waits, else every 10 s"
                .to_owned(),
            faults: self.faults.named(),
            branches,
            event_log_hash: self.log.hash(),
        }
    }

    /// One function's day, and the milliseconds that it and its oracle spent.
    fn function_day(&self, function: usize, all: &mut Waits) -> (FunctionDay, u64, u64) {
        let Some(day) = self.day.as_ref() else { unreachable!("a day was simulated") };
        let (had, demand) = (self.had(function), &day.demand);
        let [near, far] = &day.lines[function];
        let mut waits = near.waits().clone();
        waits.take_in(far.waits());
        all.take_in(&waits);
        let Shape { sleeps, .. } = demand.shapes[function];
        let means = Means {
            hosts: day.options.hosts().into(),
            min: u64::from(!sleeps),
            replica_ms: PREPARE_MS,
            machine_ms: BOOT_MS + PREPARE_MS,
        };
        let best = oracle::best(demand, function, &means, waits.quantile(990)).unwrap_or_default();
        let spent = had.member_ms + had.machine_ms;
        let mut needed = Turns::default();
        let window = TURN_WINDOW * usize::try_from(STEPS_A_SECOND).expect("small");
        demand.needed(function, window).into_iter().for_each(|number| needed.see(number));
        let turns = day.turns[function];
        let one = FunctionDay {
            name: day.releases[function].manifest.name.clone(),
            calls: demand.sum(function),
            failed: near.failed() + far.failed(),
            wait_p50_ms: waits.quantile(500),
            wait_p99_ms: waits.quantile(990),
            wait_max_ms: waits.quantile(1_000),
            waited_10_s: waits.longer_than(10_000),
            replicas_max: had.most,
            member_hours: hours(had.member_ms),
            machine_hours: hours(had.machine_ms),
            oracle_hours: hours(best.ms),
            oracle_wait_p99_ms: best.waits.quantile(990),
            busy_hours: hours(best.busy_ms),
            ratio: ratio(spent, best.ms),
            count_changes: turns.changes,
            count_turns: turns.turns,
            demand_turns: needed.turns,
        };
        (one, spent, best.ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_changes_of_direction() {
        let mut turns = Turns::default();
        [1, 1, 2, 4, 4, 3, 2, 2, 5].into_iter().for_each(|number| turns.see(number));
        assert_eq!((turns.turns, turns.changes), (2, 5));
    }

    #[test]
    fn hours_are_rounded_to_thousandths() {
        assert!((hours(5_400_000) - 1.5).abs() < 1e-9);
        assert!((ratio(3_600_000, 2_880_000) - 1.25).abs() < 1e-9);
    }
}
