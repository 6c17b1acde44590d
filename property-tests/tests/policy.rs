//! The scaling policy as laws: it keeps to the bounds, waits for its turn, asks for more where more waits, and comes
//! to rest under any constant load.

use std::time::Duration;

use osiris_fleet::policy::{Act, Decision, Here, Inputs, Machines, Rule, State, Target, Terms, policy};
use osiris_ledger::Mono;
use osiris_property_tests::law;
use proptest::prelude::*;

const SECOND: u64 = 1_000;
/// How long a claim waits in a small fleet.
const AHEAD: Duration = Duration::from_secs(13);

fn target() -> impl Strategy<Value = Target> {
    (0..4_u32, 0..12_u32, 0..8_u32, 1..90_u64).prop_map(|(min, more, backlog, idle)| Target {
        min,
        max: (min + more).max(1),
        backlog,
        idle: Duration::from_secs(idle),
    })
}

fn here() -> impl Strategy<Value = Here> {
    let used = || prop_oneof![Just(None), (0..=100_u32).prop_map(Some)];
    (any::<bool>(), any::<bool>(), 0..20_u64, 1..5_u32, 0..9_u32, used(), used()).prop_map(
        |(serves, next, backlog, concurrency, more, cpu, memory)| {
            let concurrency_max = concurrency + more;
            Here { serves, next, backlog, concurrency, concurrency_max, cpu, memory }
        },
    )
}

fn inputs() -> impl Strategy<Value = Inputs> {
    let sizes = (0..16_u32, 0..16_u32, 0..20_u32, 0..20_u32, 0..30_u32);
    let calls = prop_oneof![2 => (0..200_u64, 0..200_u64), 1 => (Just(0), 0..4_u64), 1 => Just((0, 0))];
    let load = (calls, 0..3_u64, 1..9_u32, 0..4_u32);
    let fleet = prop_oneof![2 => Just(None), 1 => (1..40_u32).prop_map(Some)];
    let machines = (any::<bool>(), prop_oneof![Just(None), Just(Some(3)), Just(Some(4))]);
    (target(), sizes, load, fleet, here(), machines).prop_map(
        |(target, (count, ready, candidates, free, others), load, fleet_max, here, (may_claim, spare))| {
            let ((backlog, running), ended, per_replica, rank) = load;
            let here = Here { backlog: here.backlog.min(backlog), ..here };
            Inputs {
                target,
                count: count.clamp(target.min, target.max),
                ready,
                candidates,
                free,
                others,
                fleet_max,
                backlog,
                running,
                ended,
                per_replica,
                rank,
                here,
                machines: Machines {
                    may_claim,
                    wished: None,
                    ahead: may_claim.then_some(AHEAD),
                    spare,
                    spares: spare.map_or(0, |slot| slot - 2),
                },
            }
        },
    )
}

/// What is decided of inputs that come one after another, a second or more apart.
fn decided(rows: &[(u64, Inputs)]) -> Vec<(Mono, Inputs, Decision, State)> {
    let (mut now, mut state) = (0, State::default());
    rows.iter()
        .map(|(pause, inputs)| {
            now += pause * SECOND;
            let decision = policy(Mono(now), &Terms::default(), inputs, &mut state);
            (Mono(now), *inputs, decision, state.clone())
        })
        .collect()
}

fn history() -> impl Strategy<Value = Vec<(u64, Inputs)>> {
    // Some inputs stay for long, so that windows and pauses come to their end.
    let row = (inputs(), 1..60_usize, prop_oneof![4 => 1..5_u64, 1 => 5..20_u64]);
    let rows = proptest::collection::vec(row, 1..12);
    rows.prop_map(|rows| {
        let repeated = rows.into_iter().flat_map(|(inputs, times, pause)| vec![(pause, inputs); times]);
        repeated.collect()
    })
}

#[test]
fn the_same_history_gives_the_same_decisions_and_none_leaves_the_bounds() {
    let acts = std::cell::RefCell::new([0_u32; 7]);
    law("bounds", 200, history(), |rows| {
        let first = decided(&rows);
        prop_assert_eq!(&first, &decided(&rows));
        for (_, inputs, decision, _) in first {
            let Inputs { target, count, candidates, .. } = inputs;
            let Some(act) = decision.act else { continue };
            acts.borrow_mut()[match act {
                Act::Concurrency(_) => 0,
                Act::ReplicaHere(_) => 1,
                Act::ReplicaOnPeer(_) => 2,
                Act::ClaimMachine => 3,
                Act::RetireReplica(_) => 4,
                Act::DrainMachine(_) => 5,
                Act::ClaimAhead => 6,
            }] += 1;
            match act {
                Act::ReplicaHere(to) | Act::ReplicaOnPeer(to) => {
                    prop_assert!(to > count && to <= target.max && to <= candidates);
                    prop_assert!(inputs.fleet_max.is_none_or(|most| to + inputs.others <= most));
                    prop_assert!(to <= (2 * count).max(count + 1), "no more than twice as many at once");
                }
                Act::RetireReplica(to) => prop_assert!(to < count && to >= target.min),
                Act::Concurrency(to) => {
                    prop_assert!(to > inputs.here.concurrency && to <= inputs.here.concurrency_max);
                }
                Act::ClaimMachine | Act::ClaimAhead => {
                    prop_assert!(inputs.machines.may_claim && inputs.here.backlog > 0);
                    prop_assert!(count >= candidates || inputs.free == 0);
                }
                Act::DrainMachine(slot) => {
                    prop_assert_eq!(Some(slot), inputs.machines.spare);
                    prop_assert!(inputs.backlog <= u64::from(target.backlog) * u64::from(count));
                }
            }
        }
        Ok(())
    });
    let acts = acts.into_inner();
    eprintln!("{acts:?}");
    assert!(acts.iter().all(|count| *count > 0), "each act was decided: {acts:?}");
}

#[test]
fn changes_keep_their_pauses_whoever_makes_them() {
    let terms = Terms::default();
    law("pauses", 200, history(), |rows| {
        let mut changed: Option<(Mono, u32)> = None;
        for (now, inputs, decision, _) in decided(&rows) {
            if changed.is_none_or(|(_, count)| count != inputs.count) {
                changed = Some((now, inputs.count));
            }
            let since = changed.map_or(Duration::ZERO, |(at, _)| now.since(at));
            match decision.act {
                Some(Act::RetireReplica(_)) => prop_assert!(since >= terms.cool_down),
                Some(Act::ReplicaHere(_) | Act::ReplicaOnPeer(_)) if decision.rule != Rule::Wake => {
                    prop_assert!(since >= terms.cool_up || inputs.machines.spare.is_some());
                    prop_assert!(inputs.ready >= inputs.count || since >= terms.start_max);
                }
                _ => {}
            }
        }
        Ok(())
    });
}

#[test]
fn where_more_waits_or_more_is_allowed_no_fewer_are_asked_for() {
    law("monotone", 200, (history(), 0..300_u64, 0..9_u32), |(rows, waits, allowed)| {
        let count = |rows: &[(u64, Inputs)]| {
            let (_, inputs, decision, _) = decided(rows).pop().expect("a row");
            decision.act.and_then(Act::count).unwrap_or(inputs.count)
        };
        let with = |change: &dyn Fn(&mut Inputs)| {
            let mut rows = rows.clone();
            rows.iter_mut().for_each(|(_, inputs)| change(inputs));
            count(&rows)
        };
        // Without claims, which come in the place of replicas, and without what widens a member that serves.
        let plain = |inputs: &mut Inputs| {
            inputs.machines.may_claim = false;
            inputs.here.concurrency_max = inputs.here.concurrency;
        };
        let base = with(&plain);
        let more_waits = with(&|inputs| {
            plain(inputs);
            inputs.backlog += waits;
        });
        prop_assert!(more_waits >= base, "{} waiting more: {} after {}", waits, more_waits, base);
        let more_allowed = with(&|inputs| {
            plain(inputs);
            inputs.target.max += allowed;
        });
        prop_assert!(more_allowed >= base);
        let lower_rank = with(&|inputs| {
            plain(inputs);
            inputs.rank += 1;
        });
        let counts = rows.last().expect("a row").1.count;
        prop_assert!(lower_rank == base || lower_rank == counts, "a lower rank does the same, or waits");
        Ok(())
    });
}

/// A fleet under a load that does not change: what comes in waits, as much as fits runs.
struct Fluid {
    target: Target,
    candidates: u32,
    per_replica: u32,
    count: u32,
    /// Replicas that are ready, and when the others are.
    ready: u32,
    ready_at: u64,
    /// Invocations that arrive in a second, each of which takes one.
    load: u64,
    waiting: u64,
    ended: u64,
}

impl Fluid {
    fn second(&mut self, now: u64, states: &mut [State]) -> Option<u32> {
        if now >= self.ready_at {
            self.ready = self.count;
        }
        let capacity = u64::from(self.ready) * u64::from(self.per_replica);
        let there = self.waiting + self.load;
        let running = there.min(capacity);
        (self.waiting, self.ended) = ((there - running).min(10_000), self.ended + running);
        let before = self.count;
        for (rank, state) in states.iter_mut().enumerate() {
            let inputs = Inputs {
                target: self.target,
                count: before,
                ready: self.ready.min(before),
                candidates: self.candidates,
                free: self.candidates - before.min(self.candidates),
                others: 0,
                fleet_max: None,
                backlog: self.waiting,
                running,
                ended: self.ended,
                per_replica: self.per_replica,
                rank: u32::try_from(rank).expect("few"),
                here: Here::default(),
                machines: Machines::default(),
            };
            let decision = policy(Mono(now * SECOND), &Terms::default(), &inputs, state);
            if let Some(to) = decision.act.and_then(Act::count) {
                self.count = to;
                self.ready = self.ready.min(to);
                self.ready_at = now + 4;
            }
        }
        (self.count != before).then_some(self.count)
    }
}

#[test]
fn under_a_constant_load_the_count_comes_to_rest_where_it_suffices() {
    let strategy = (target(), 1..12_u32, 1..9_u32, 0..60_u64, 0..12_u32, 1..4_usize);
    law("constant load", 150, strategy, |(target, candidates, per_replica, load, start, members)| {
        let count = start.clamp(target.min, target.max);
        let mut fleet = Fluid {
            target,
            candidates,
            per_replica,
            count,
            ready: count.min(candidates),
            ready_at: 0,
            load,
            waiting: 0,
            ended: 0,
        };
        let mut states = vec![State::default(); members];
        let changes: Vec<_> =
            (0..7_200).filter_map(|now| Some((now, fleet.second(now, &mut states)?))).collect();
        let counts: Vec<_> = std::iter::once(count).chain(changes.iter().map(|(_, count)| *count)).collect();
        let steps: Vec<_> = counts.windows(2).map(|pair| pair[1] > pair[0]).collect();
        let turns = steps.windows(2).filter(|pair| pair[0] != pair[1]).count();
        prop_assert!(turns <= 1, "{:?}", changes);
        let last = changes.last().map_or(0, |(now, _)| *now);
        prop_assert!(last < 6_000, "it goes on changing: {:?}", changes);
        prop_assert!(fleet.count >= target.min && fleet.count <= target.max);
        // It suffices, or there is no more to be had.
        let suffices = u64::from(fleet.count.min(candidates)) * u64::from(per_replica) >= load;
        prop_assert!(
            suffices || fleet.count >= target.max.min(candidates),
            "{} of {:?}",
            fleet.count,
            changes
        );
        if load == 0 {
            prop_assert_eq!(fleet.count, target.min);
        }
        Ok(())
    });
}

#[test]
fn a_load_that_comes_and_goes_makes_changes_rarer() {
    let target = Target { min: 0, max: 8, backlog: 2, idle: Duration::from_secs(30) };
    let mut fleet = Fluid {
        target,
        candidates: 8,
        per_replica: 2,
        count: 0,
        ready: 0,
        ready_at: 0,
        load: 0,
        waiting: 0,
        ended: 0,
    };
    let mut states = vec![State::default(); 2];
    let mut changes = [0; 2];
    for now in 0..14_400 {
        // A minute and a half of calls, as long without: without patience each would start and stop everything.
        fleet.load = if now / 90 % 2 == 0 { 8 } else { 0 };
        changes[usize::try_from(now / 7_200).expect("small")] +=
            usize::from(fleet.second(now, &mut states).is_some());
    }
    assert!(changes[0] > 0 && changes[1] * 2 < changes[0], "{changes:?}");
    fleet.load = 0;
    for now in 14_400..18_000 {
        fleet.second(now, &mut states);
    }
    let quiet = (18_000..40_000).filter(|now| fleet.second(*now, &mut states).is_some()).count();
    assert_eq!(fleet.count, 0, "and in the end it goes all the same, after {quiet} more changes");
}

#[test]
fn a_machine_is_claimed_without_waiting_for_replicas_of_members_that_are_gone() {
    let terms = Terms::default();
    let target = Target { min: 3, max: 6, backlog: 1, idle: Duration::from_secs(30) };
    let claimed = |ready, candidates| {
        let mut state = State::default();
        let decides = |now: &u64| {
            let here = Here { serves: true, backlog: 20, ..Here::default() };
            let machines = Machines { may_claim: true, ..Machines::default() };
            let inputs = Inputs {
                target,
                count: 3,
                ready,
                candidates,
                free: 0,
                others: 0,
                fleet_max: None,
                backlog: 20,
                running: 3,
                ended: *now,
                per_replica: 1,
                rank: 0,
                here,
                machines,
            };
            policy(Mono(*now * SECOND), &terms, &inputs, &mut state).act == Some(Act::ClaimMachine)
        };
        (0..600).find(decides).map(Duration::from_secs)
    };
    let window = terms.machine_window.max(terms.window).max(terms.cool_up);
    assert_eq!(claimed(3, 3), Some(window));
    // One of three is gone, and the other two serve.
    assert_eq!(claimed(2, 2), Some(window));
    // All three are there, and one does not start.
    assert_eq!(claimed(2, 3), Some(terms.start_max));
}

#[test]
fn a_slot_is_claimed_so_far_ahead_that_its_wait_ends_with_that_of_the_policy() {
    let terms = Terms::default();
    let target = Target { min: 1, max: 6, backlog: 1, idle: Duration::from_secs(30) };
    let acts = |ahead: Option<Duration>, waits: &dyn Fn(u64) -> u64| {
        let (mut state, mut ahead) = (State::default(), ahead);
        let act = |now: u64| {
            let here = Here { serves: true, backlog: waits(now), ..Here::default() };
            let machines = Machines { may_claim: true, ahead, ..Machines::default() };
            let inputs = Inputs {
                target,
                count: 1,
                ready: 1,
                candidates: 1,
                free: 0,
                others: 0,
                fleet_max: None,
                backlog: waits(now),
                running: 1,
                ended: now,
                per_replica: 1,
                rank: 0,
                here,
                machines,
            };
            let act = policy(Mono(now * SECOND), &terms, &inputs, &mut state).act;
            if act == Some(Act::ClaimAhead) {
                ahead = None;
            }
            act.map(|act| (now, act))
        };
        (0..40).filter_map(act).take(2).collect::<Vec<_>>()
    };
    let lasting = |_| 20;
    assert_eq!(acts(Some(AHEAD), &lasting), [(17, Act::ClaimAhead), (30, Act::ClaimMachine)]);
    // One that waits longer than the policy is claimed at once.
    let longer = 2 * terms.machine_window;
    assert_eq!(acts(Some(longer), &lasting), [(0, Act::ClaimAhead), (30, Act::ClaimMachine)]);
    // What does not last is no reason for a machine, and what was claimed ahead a while ago is not claimed again.
    let short = |now| if now < 25 { 20 } else { 0 };
    assert_eq!(acts(Some(AHEAD), &short), [(17, Act::ClaimAhead)]);
    assert_eq!(acts(None, &short), []);
}

#[test]
fn what_nobody_missed_goes_at_once_and_what_was_used_stays() {
    let target = Target { min: 1, max: 40, backlog: 4, idle: Duration::from_secs(60) };
    let mut fleet = Fluid {
        target,
        candidates: 40,
        per_replica: 4,
        count: 40,
        ready: 40,
        ready_at: 0,
        load: 16,
        waiting: 0,
        ended: 0,
    };
    let mut states = vec![State::default()];
    let mut changes = Vec::new();
    for now in 0..600 {
        // For a moment more run; those replicas would have been missed.
        fleet.load = if now == 30 { 40 } else { 16 };
        changes.extend(fleet.second(now, &mut states).map(|count| (now, count)));
    }
    // Twelve replicas of four places carry 40 calls and leave 40 % / sqrt(12) free, five carry 16.
    let counts: Vec<_> = changes.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [12, 5], "{changes:?}");
    assert!(changes[0].0 >= 60 && changes[1].0 >= changes[0].0 + 60, "{changes:?}");
}

#[test]
fn machines_that_were_spare_together_go_together() {
    let terms = Terms::default();
    let target = Target { min: 1, max: 9, backlog: 4, idle: Duration::from_secs(60) };
    let mut state = State::default();
    // Three, and a fourth two minutes later; each is seen no more once it was sent for.
    let mut left: Vec<u32> = vec![3, 4, 5];
    let mut gone = Vec::new();
    for now in 0..1_200 {
        if now == 120 {
            left.push(6);
        }
        let spares = u32::try_from(left.len()).expect("few");
        let machines = Machines { spare: left.first().copied(), spares, ..Machines::default() };
        let inputs = Inputs {
            target,
            count: 1,
            ready: 1,
            candidates: 9,
            free: 8,
            others: 0,
            fleet_max: None,
            backlog: 0,
            running: 1,
            ended: now,
            per_replica: 4,
            rank: 0,
            here: Here::default(),
            machines,
        };
        if let Some(Act::DrainMachine(slot)) = policy(Mono(now * SECOND), &terms, &inputs, &mut state).act {
            left.retain(|other| *other != slot);
            gone.push((now, slot));
        }
    }
    let idle = terms.machine_idle.as_secs();
    assert_eq!(gone, [(idle, 3), (idle + 1, 4), (idle + 2, 5), (idle + 120, 6)]);
}

#[test]
fn a_spare_machine_goes_while_a_replica_too_many_is_waited_for() {
    let terms = Terms::default();
    let idle = terms.machine_idle.as_secs();
    let target = Target { min: 1, max: 9, backlog: 4, idle: Duration::from_secs(3_600) };
    let mut state = State::default();
    let acts = (0..3_700).filter_map(|now| {
        let machines = Machines { spare: Some(3), spares: 1, ..Machines::default() };
        let inputs = Inputs {
            target,
            count: 2,
            ready: 2,
            candidates: 9,
            free: 7,
            others: 0,
            fleet_max: None,
            backlog: 0,
            running: 0,
            ended: now,
            per_replica: 4,
            rank: 0,
            here: Here::default(),
            machines: if now <= idle { machines } else { Machines::default() },
        };
        policy(Mono(now * SECOND), &terms, &inputs, &mut state).act.map(|act| (now, act))
    });
    let first: Vec<_> = acts.take(2).collect();
    assert_eq!(first, [(idle, Act::DrainMachine(3)), (3_600, Act::RetireReplica(1))]);
}
