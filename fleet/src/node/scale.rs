//! How many replicas functions have: what this node measures, what it decides by [`crate::policy`], and what it
//! writes of it.
//!
//! The count of a function is a register of the ledger. Who may serve a function looks about once a second; the
//! lower its rank, the longer it waits for the others. What two write at once is absolute and settled by ledger
//! order, so nothing is added twice. See `docs/scaling.md`.

#[cfg(test)]
mod busy;
mod count;
mod facts;
#[cfg(test)]
mod machines;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{
    Author, Function, Mono, Now, Payload, Revision,
    counter::{Figures, FunctionTotals},
    lease::Machine,
    limits::PASSED_OVER_MAX,
    op,
};

use super::{Node, Refusal, Reply, Token};
use crate::{
    api::codes,
    manifest::PlaceKeys,
    policy::{Act, Decision, Here, Inputs, Machines, State, Target, Terms, policy},
};
use count::{arranged, count_within, passed_over};
pub(crate) use count::{may_be_placed_on, target, wanted_count};
pub use facts::{Decided, FunctionScale, ScaleFacts};

/// Least time between two looks at what functions need.
pub const SCALE_LOOK: Duration = Duration::from_secs(1);
/// Members that may decide about one function: those of the lowest ranks.
pub const DECIDERS_MAX: usize = 8;
/// How far below its mark what made a machine busy must fall until it is so no more, percent.
const BUSY_MARGIN: u32 = 10;
/// Decisions that are kept to be explained.
pub const DECISIONS_KEPT: usize = 64;

/// How busy this machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineLoad {
    /// Use of all cores, percent.
    pub cpu: u32,
    /// Use of the memory, percent.
    pub memory: u32,
}

/// What this process knows of scaling beside the ledger.
#[derive(Debug, Default)]
pub(super) struct Scale {
    pub(super) terms: Terms,
    states: BTreeMap<String, State>,
    decisions: VecDeque<Decided>,
    /// What the functions of this process did last.
    here: BTreeMap<String, Figures>,
    machine: Option<MachineLoad>,
    /// Whether its processors, and whether its memory are used to their marks.
    high: [bool; 2],
    /// What was called here since the last look and has no replica.
    called: BTreeSet<String>,
    looked: Option<Mono>,
    /// Whether time alone may bring a decision.
    moving: bool,
    /// Whether something happened since the last look, too soon after it to look again.
    behind: bool,
    /// When a machine was wished for last.
    wished: Option<Mono>,
    /// When a slot was last claimed ahead of a wish.
    ahead: Option<Mono>,
}

/// A function that is scaled, as the ledger and its manifest say.
#[derive(Clone, Debug)]
struct Scaled {
    function: Arc<Function>,
    newest: Arc<Revision>,
    target: Target,
    count: u32,
    place: PlaceKeys,
    /// Members that may serve it and are alive, by rank alone.
    able: Arc<[Author]>,
    /// The same in the order of their turn: the first of them serve it.
    candidates: Vec<Author>,
}

impl Scale {
    pub(super) fn observed(&mut self, figures: &[(String, Figures)]) {
        self.here = figures.iter().cloned().collect();
    }

    pub(super) fn machine(&mut self, load: MachineLoad) {
        let MachineLoad { cpu, memory } = load;
        self.high = [
            is_high(cpu, self.terms.cpu_high, self.high[0]),
            is_high(memory, self.terms.memory_high, self.high[1]),
        ];
        self.machine = Some(load);
    }

    /// Whether this machine is busy.
    pub(super) fn is_busy(&self) -> bool {
        self.high.contains(&true)
    }

    /// An invocation came in of a function that has no replica.
    pub(super) fn wanted(&mut self, name: &str) {
        self.called.insert(name.to_owned());
        self.looked = None;
    }

    /// Whether a function needs more than it has, as of the last look.
    pub(super) fn presses(&self, name: &str) -> bool {
        self.states.get(name).is_some_and(State::is_pressed)
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        let looked = self.looked.filter(|_| self.moving || self.behind)?;
        Some(looked.plus(SCALE_LOOK))
    }
}

/// Whether what is used reaches its mark, or did and is not well below it yet. A mark of 100 % is never reached.
fn is_high(used: u32, mark: u32, was: bool) -> bool {
    let below = if was { BUSY_MARGIN.min(mark / 2) } else { 0 };
    mark < 100 && used.saturating_add(below) >= mark
}

impl Node {
    /// Sets the thresholds by which this node decides about replicas.
    pub fn set_terms(&mut self, terms: Terms) {
        self.scale.terms = terms;
    }

    /// The first `most` of the members that may serve a revision and are alive, the one that serves it first in front.
    pub(super) fn candidates(
        &mut self,
        now: Now,
        name: &str,
        revision: &Revision,
        place: &PlaceKeys,
        most: usize,
    ) -> Vec<Author> {
        let able = self.able(now, name, revision, place);
        let past = passed_over(&self.view, name, revision);
        if place.spread.is_none() && past.is_empty() {
            return able.iter().take(most).copied().collect();
        }
        let mut arranged = arranged(&self.view, place, &able, past);
        arranged.truncate(most);
        arranged
    }

    /// All of them by rank alone: without zones, and nobody is passed over.
    fn able(&mut self, now: Now, name: &str, revision: &Revision, place: &PlaceKeys) -> Arc<[Author]> {
        // Ascending, as they are kept.
        let gone: Vec<_> = self.gone(now).collect();
        let known = &mut self.functions.candidates;
        known.follow(&self.view);
        let view = &self.view;
        known.able(name, &revision.id, place, gone, |member| may_be_placed_on(view, place, member))
    }

    /// Functions that are scaled and whose newest manifest is known here, by name. With bounds on trial those are all.
    fn scaled(&mut self, now: Now, trial: Option<(u32, u32)>) -> Vec<Scaled> {
        let view = Arc::clone(&self.view);
        let mut scaled = Vec::new();
        for function in view.functions().values() {
            let Some(newest) = &function.newest else { continue };
            let Some(manifest) = self.functions.manifest(&newest.manifest) else { continue };
            let Some(target) = target(&view, &function.name, manifest, trial) else { continue };
            let count = count_within(&view, function, manifest, &target);
            let place = manifest.place.clone();
            let able = self.able(now, &function.name, newest, &place);
            let candidates = arranged(&view, &place, &able, passed_over(&view, &function.name, newest));
            let (function, newest) = (Arc::clone(function), Arc::clone(newest));
            scaled.push(Scaled { function, newest, target, count, place, able, candidates });
        }
        scaled
    }

    /// Looks at every scaled function, and does what the policy says. At most once in [`SCALE_LOOK`].
    pub(super) fn look_at_scale(&mut self, now: Now) {
        if !self.looks_after_functions() || self.draining.is_some() || !self.view.is_member(&self.me) {
            (self.scale.moving, self.scale.behind) = (false, false);
            return;
        }
        if self.scale.looked.is_some_and(|looked| now.mono.since(looked) < SCALE_LOOK) {
            self.scale.behind = !self.scale.states.is_empty();
            return;
        }
        (self.scale.looked, self.scale.moving, self.scale.behind) = (Some(now.mono), false, false);
        self.end_machines_without_functions(now);
        let scaled = self.scaled(now, None);
        let names: BTreeSet<_> = scaled.iter().map(|scaled| scaled.function.name.as_str()).collect();
        self.scale.states.retain(|name, _| names.contains(name.as_str()));
        if scaled.is_empty() {
            return;
        }
        let totals = self.telemetry.totals(now);
        for one in &scaled {
            let rank = one.candidates.iter().position(|member| *member == self.me);
            let Some(rank) = self.decides_as(now, one, rank) else { continue };
            let busy = self.busy(now, one, &totals);
            let inputs = self.inputs(now, one, &scaled, &totals, &busy, rank);
            let name = one.function.name.clone();
            let mut state = self.scale.states.remove(&name).unwrap_or_default();
            let decision = policy(now.mono, &self.scale.terms, &inputs, &mut state);
            self.scale.moving |= state.is_moving(inputs.target.min);
            self.scale.states.insert(name.clone(), state);
            let count = decision.act.and_then(Act::count);
            let past = count.map_or_else(Vec::new, |count| self.passing(one, &busy, count as usize));
            self.perform(now, &name, inputs, decision, past);
        }
        self.scale.called.clear();
    }

    /// Members whose machines are busy or on which something else waits, where a function may need more.
    fn busy(&self, now: Now, scaled: &Scaled, totals: &BTreeMap<String, FunctionTotals>) -> BTreeSet<Author> {
        let name = &scaled.function.name;
        let waits = totals.get(name).is_some_and(|known| known.backlog > 0)
            || self.scale.called.contains(name)
            || self.scale.here.get(name).is_some_and(|own| own.backlog > 0);
        // Without anything that waits, busy processors bring a replica more.
        let is_high = self.scale.machine.is_some_and(|load| load.cpu >= self.scale.terms.cpu_high);
        if waits || is_high { self.telemetry.busy(now, name) } else { BTreeSet::new() }
    }

    /// Whom a word on so many replicas passes over: of those without one, who is busy, where somebody else is left. Who
    /// holds a replica keeps it; of these, where there are to be fewer, machines of the fleet's own go first.
    fn passing(&self, scaled: &Scaled, busy: &BTreeSet<Author>, count: usize) -> Vec<Author> {
        let Scaled { able, candidates, place, .. } = scaled;
        let name = &scaled.function.name;
        let made = |member: &&Author| self.functions.candidates.was_made_for(member, name);
        let (holds, _) = candidates.split_at(candidates.len().min(scaled.count as usize));
        let (last, first): (Vec<_>, Vec<_>) = holds.iter().partition(made);
        let held: Vec<_> = first.into_iter().chain(last).take(count).collect();
        let without = able.iter().filter(|member| !holds.contains(member));
        let (mut past, idle): (Vec<_>, Vec<_>) = without.copied().partition(|member| busy.contains(member));
        if idle.is_empty() {
            past.clear();
        }
        past.truncate(PASSED_OVER_MAX);
        // Who would take the place of one that serves comes behind as well, and is more of a matter than who is busy.
        let mut kept: Vec<Author> = Vec::new();
        loop {
            past.truncate(PASSED_OVER_MAX.saturating_sub(kept.len()));
            let mut named: Vec<_> = past.iter().chain(&kept).copied().collect();
            named.sort_unstable();
            let grown = arranged(&self.view, place, able, &named);
            let grown = &grown[..grown.len().min(count)];
            let takes = |member: &&Author| !held.contains(member) && named.binary_search(member).is_err();
            let intruder = grown.iter().rev().find(takes);
            match intruder.filter(|_| !held.iter().all(|member| grown.contains(*member))) {
                Some(intruder) if kept.len() < PASSED_OVER_MAX => kept.push(*intruder),
                _ => return named,
            }
        }
    }

    /// What is measured of a function at this moment.
    fn inputs(
        &self,
        now: Now,
        scaled: &Scaled,
        all: &[Scaled],
        totals: &BTreeMap<String, FunctionTotals>,
        busy: &BTreeSet<Author>,
        rank: usize,
    ) -> Inputs {
        let name = scaled.function.name.as_str();
        let known = totals.get(name).cloned().unwrap_or_default();
        let mut own = self.scale.here.get(name).copied().unwrap_or_default();
        // The next figures say whether it still waits.
        own.backlog = own.backlog.max(u64::from(self.scale.called.contains(name)));
        let placed = scaled.candidates.iter().take(scaled.count as usize);
        let serving = &scaled.newest.serving;
        let side_by_side: u64 = serving.iter().map(|serving| u64::from(serving.concurrency)).sum();
        let per_replica = side_by_side.checked_div(serving.len() as u64);
        let concurrency = scaled.newest.serving_by(&self.me).map(|serving| serving.concurrency);
        let next = if busy.is_empty() {
            rank == scaled.count as usize
        } else {
            let grown = scaled.count as usize + 1;
            let past = self.passing(scaled, busy, grown);
            let order = arranged(&self.view, &scaled.place, &scaled.able, &past);
            rank >= scaled.count as usize && order.iter().take(grown).any(|member| *member == self.me)
        };
        let without = scaled.candidates.iter().skip(scaled.count as usize);
        let others = all.iter().filter(|other| other.function.name != name);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Inputs {
            target: scaled.target,
            count: scaled.count,
            ready: count(placed.filter(|member| scaled.newest.is_served_by(member)).count()),
            candidates: count(scaled.candidates.len()),
            free: count(without.filter(|member| !busy.contains(member)).count()),
            others: others.fold(0, |sum, other| sum.saturating_add(other.count)),
            fleet_max: self.view.scaling().fleet_max(),
            // This node's row may not be written yet.
            backlog: known.backlog.max(own.backlog),
            running: known.in_flight.max(own.in_flight),
            ended: known.done.saturating_add(known.failed),
            per_replica: per_replica.and_then(|each| u32::try_from(each).ok()).unwrap_or(1).max(1),
            rank: count(rank),
            here: Here {
                serves: concurrency.is_some(),
                next,
                backlog: own.backlog,
                concurrency: concurrency.unwrap_or(0),
                concurrency_max: self
                    .functions
                    .concurrency_max(&scaled.newest.id)
                    .or(concurrency)
                    .unwrap_or(0),
                cpu: self.scale.machine.map(|load| load.cpu),
                memory: self.scale.machine.map(|load| load.memory),
            },
            machines: self.machines_for(now, scaled, own.backlog > 0),
        }
    }

    /// Machines of the fleet's own, as far as a decision about a function needs them.
    fn machines_for(&self, now: Now, scaled: &Scaled, waits_here: bool) -> Machines {
        let slots = self.view.slots().values();
        let placed = &scaled.candidates[..scaled.candidates.len().min(scaled.count as usize)];
        let empty = |device| !placed.contains(&device) && !scaled.newest.is_served_by(&device);
        let ends = self.machines_to_end(now, &scaled.function.name);
        let spare: Vec<_> =
            ends.filter(|(_, machine)| machine.device.is_some_and(empty)).map(|(slot, _)| slot).collect();
        let (mut may_claim, mut ahead) = (false, None);
        if waits_here && self.is_spawner(&Self::peer(&self.me)) {
            let facts = self.lease_facts(now);
            let there: usize = slots.map(|slot| slot.machines.len()).sum();
            let most = self.view.spawning().machines.min(facts.machines_here);
            // A claim that was made ahead is this function's as soon as it needs it.
            may_claim = facts.own.values().all(|own| own.ahead) && there < most as usize;
            let cool = self.scale.ahead.is_none_or(|at| now.mono.since(at) >= self.scale.terms.machine_cool);
            ahead = (cool && facts.own.is_empty()).then_some(facts.settle);
        }
        let spares = u32::try_from(spare.len()).unwrap_or(u32::MAX);
        Machines { may_claim, wished: self.scale.wished, ahead, spare: spare.first().copied(), spares }
    }

    /// Machines that were made for a function alone, each with its slot, that this node takes away where nobody wants
    /// them gone yet. What a person wished for is for no function, and is that person's to take away.
    fn machines_to_end<'a>(
        &'a self,
        now: Now,
        name: &'a str,
    ) -> impl Iterator<Item = (u32, &'a Machine)> + 'a {
        let slots = self.view.slots().values();
        let machines = slots.flat_map(|slot| slot.machines.iter().map(|machine| (slot.number, machine)));
        machines.filter(move |(_, machine)| machine.functions == [name] && self.takes_away(now, machine))
    }

    /// A machine whose functions were all removed has nothing to wait for.
    fn end_machines_without_functions(&mut self, now: Now) {
        let gone = |name: &String| self.view.function(name).is_none_or(|function| function.removed);
        let machines = self.view.slots().values().flat_map(|slot| &slot.machines);
        let idle = machines.filter(|machine| {
            !machine.functions.is_empty()
                && machine.device.is_some()
                && machine.functions.iter().all(gone)
                && self.takes_away(now, machine)
        });
        let idle: Vec<_> = idle.map(|machine| machine.intent).collect();
        for intent in idle {
            // It reaches them, so there is nothing to be refused.
            let _ = self.dismiss(intent);
        }
    }

    /// As which of those that decide about a function this node does, the first being 0; none: it does not.
    fn decides_as(&self, now: Now, scaled: &Scaled, rank: Option<usize>) -> Option<usize> {
        let among = rank.filter(|rank| *rank < DECIDERS_MAX || scaled.newest.is_served_by(&self.me));
        among.or_else(|| {
            let ends = self.machines_to_end(now, &scaled.function.name).next().is_some();
            ends.then(|| rank.unwrap_or(scaled.candidates.len()))
        })
    }

    /// Does what was decided, and keeps it to be explained.
    fn perform(&mut self, now: Now, name: &str, inputs: Inputs, decision: Decision, past: Vec<Author>) {
        let Some(act) = decision.act else { return };
        let done = match act {
            Act::ReplicaHere(replicas) | Act::ReplicaOnPeer(replicas) | Act::RetireReplica(replicas) => {
                let scaled = op::Scaled { name: name.to_owned(), replicas, past };
                self.append(now, Payload::Scaled(scaled)).map(drop).map_err(|refusal| refusal.message)
            }
            Act::ClaimAhead => {
                self.scale.ahead = Some(now.mono);
                self.want_machine_for(now, name, true)
            }
            Act::ClaimMachine => {
                self.scale.wished = Some(now.mono);
                self.want_machine_for(now, name, false)
            }
            Act::DrainMachine(slot) => {
                let intent = {
                    let mut ends = self.machines_to_end(now, name);
                    ends.find(|(number, _)| *number == slot).map(|(_, machine)| machine.intent)
                };
                let Some(intent) = intent else { return };
                self.dismiss(intent)
            }
            Act::Concurrency(wider) => {
                let newest = self.view.function(name).and_then(|function| function.newest.as_ref());
                let Some(newest) = newest.map(|newest| newest.id) else { return };
                self.widen(newest, wider);
                Ok(())
            }
        };
        if self.scale.decisions.len() == DECISIONS_KEPT {
            self.scale.decisions.pop_front();
        }
        let times = self.scale.states.get(name).map(|state| state.times(now.mono)).unwrap_or_default();
        let decided =
            Decided { at: now.mono, name: name.to_owned(), inputs, times, decision, failed: done.err() };
        self.scale.decisions.push_back(decided);
    }
}

impl Node {
    /// Whether this node is a machine that was made for a function, among others: then it stands ready for it before
    /// it has a replica, so that one is there as soon as that is decided.
    pub(super) fn was_made_for(&mut self, function: &str) -> bool {
        let known = &mut self.functions.candidates;
        known.follow(&self.view);
        known.was_made_for(&self.me, function)
    }

    /// Says between how many replicas a function is to be.
    pub(super) fn bound(
        &mut self,
        now: Now,
        token: Token,
        name: Option<String>,
        range: Option<op::Range>,
        timeout_ms: u64,
    ) -> Result<Option<Reply>, Refusal> {
        if let Some(name) = &name
            && self.view.function(name).is_none_or(|function| function.removed)
        {
            let message = format!("There is no function `{name}`.");
            return Err(Refusal::new(codes::NOT_FOUND, message, "`osiris ls` lists the functions."));
        }
        self.write(now, token, Payload::Bounded(op::Bounded { name, range }), timeout_ms, false)
    }

    /// Says which labels a member bears.
    pub(super) fn label(
        &mut self,
        now: Now,
        token: Token,
        labelled: op::Labelled,
        timeout_ms: u64,
    ) -> Result<Option<Reply>, Refusal> {
        self.active_member(&labelled.device)?;
        self.write(now, token, Payload::Labelled(labelled), timeout_ms, false)
    }
}
