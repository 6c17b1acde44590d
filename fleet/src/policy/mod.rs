//! How many replicas a function should have: a pure function of what is measured, of what was measured before, and
//! of the time.
//!
//! Every member that may serve a function asks [`policy`] about once a second. The count that it answers is absolute,
//! so members that decide the same at once write the same; and each waits longer the lower its rank is, so that
//! mostly one of them writes. No member is appointed. What the rules are and why is in `docs/scaling.md`.
//!
//! The order of what is tried: more concurrency here, one more replica here, one more on a peer, one more machine,
//! fewer replicas, one machine less.

mod state;
mod terms;
mod times;

pub use state::State;
pub use terms::{Terms, TermsError};
pub use times::Times;

use std::time::Duration;

use osiris_ledger::Mono;

/// Least and most replicas, and what they are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Replicas, at least.
    pub min: u32,
    /// Replicas, at most; not below `min`.
    pub max: u32,
    /// Invocations that may wait for each replica.
    pub backlog: u32,
    /// How long replicas must have been too many before one goes.
    pub idle: Duration,
}

/// What this member sees of a function here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Whether a replica is ready here.
    pub serves: bool,
    /// Whether the next replica would be here.
    pub next: bool,
    /// Invocations that wait here.
    pub backlog: u64,
    /// Invocations that run side by side here.
    pub concurrency: u32,
    /// As many as may.
    pub concurrency_max: u32,
    /// Use of all cores, percent; none: not known.
    pub cpu: Option<u32>,
    /// Use of the memory, percent; none: not known.
    pub memory: Option<u32>,
}

/// Machines that the fleet makes itself, as this member sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machines {
    /// Whether this member may wish for one more now: by its role, its configuration, the fleet's policy, and because
    /// no wish of it is under way.
    pub may_claim: bool,
    /// When it last wished for one.
    pub wished: Option<Mono>,
    /// How long a claim of this member waits before it may win, where it may claim one ahead of its need; none: it did
    /// so a short while ago.
    pub ahead: Option<Duration>,
    /// The slot of a machine that was made for this function, holds no replica of it, and can be taken away by this
    /// member.
    pub spare: Option<u32>,
    /// How many there are of these.
    pub spares: u32,
}

/// All that a decision is made of, beside the terms and what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// What is aimed at.
    pub target: Target,
    /// Replicas that the function has by the ledger, within its bounds.
    pub count: u32,
    /// Of those, ready.
    pub ready: u32,
    /// Members that may serve it and are alive.
    pub candidates: u32,
    /// Of those, without a replica and not busy with something else.
    pub free: u32,
    /// Replicas of all other scaled functions.
    pub others: u32,
    /// The most replicas of all scaled functions together.
    pub fleet_max: Option<u32>,
    /// Invocations that wait, over the fleet.
    pub backlog: u64,
    /// Invocations that run, over the fleet.
    pub running: u64,
    /// Invocations that ended, over the fleet, ever.
    pub ended: u64,
    /// Invocations that one replica runs side by side.
    pub per_replica: u32,
    /// This member's place among those that may serve it, from 0; the lowest decides first.
    pub rank: u32,
    /// What this member sees of it.
    pub here: Here,
    /// Machines of the fleet's own.
    pub machines: Machines,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// So many invocations side by side here.
    Concurrency(u32),
    /// So many replicas, and the first of the new ones is here.
    ReplicaHere(u32),
    /// So many replicas, the new ones on peers.
    ReplicaOnPeer(u32),
    /// A slot is claimed for a machine that will be needed if this goes on. Nothing is spent for it before
    /// [`Act::ClaimMachine`] says so.
    ClaimAhead,
    /// One more machine.
    ClaimMachine,
    /// So many replicas, fewer than now.
    RetireReplica(u32),
    /// The machine of this slot is needed no more.
    DrainMachine(u32),
}

impl Act {
    /// The count of replicas that it makes; none: it leaves it.
    #[must_use]
    pub fn count(self) -> Option<u32> {
        match self {
            Self::ReplicaHere(count) | Self::ReplicaOnPeer(count) | Self::RetireReplica(count) => Some(count),
            Self::Concurrency(_) | Self::ClaimAhead | Self::ClaimMachine | Self::DrainMachine(_) => None,
        }
    }

    /// In a word, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency(_) => "concurrency",
            Self::ReplicaHere(_) => "replica-here",
            Self::ReplicaOnPeer(_) => "replica-on-peer",
            Self::ClaimAhead => "claim-ahead",
            Self::ClaimMachine => "claim-machine",
            Self::RetireReplica(_) => "retire-replica",
            Self::DrainMachine(_) => "drain-machine",
        }
    }
}

/// The rule by which something is done, or nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Neither too few nor too many.
    Steady,
    /// No member may serve it.
    NoPlace,
    /// It has no replica and is called.
    Wake,
    /// More wait than replicas times the target.
    Backlog,
    /// Something has been waiting for too long.
    Age,
    /// The processors here are busy with it.
    Cpu,
    /// It needs more, and has not needed it for long enough.
    Window,
    /// It needs more, and what was added last is not ready yet.
    Starting,
    /// It needs more, and has the most that its bounds allow.
    AtMax,
    /// It needs more, and all functions together have the most that is allowed.
    FleetFull,
    /// It needs more, and no member is left that could serve it.
    NoRoom,
    /// It would do with fewer.
    Slack,
    /// Nobody calls it.
    Quiet,
    /// It would do with fewer, and has not for long enough.
    Idling,
    /// A change was made a short while ago.
    CoolDown,
    /// A machine that was made for it holds no replica of it, and has not for long enough.
    Spare,
}

impl Rule {
    /// In a word, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::NoPlace => "no-place",
            Self::Wake => "wake",
            Self::Backlog => "backlog",
            Self::Age => "age",
            Self::Cpu => "cpu",
            Self::Window => "window",
            Self::Starting => "starting",
            Self::AtMax => "at-max",
            Self::FleetFull => "fleet-full",
            Self::NoRoom => "no-room",
            Self::Slack => "slack",
            Self::Quiet => "quiet",
            Self::Idling => "idling",
            Self::CoolDown => "cool-down",
            Self::Spare => "spare",
        }
    }

    /// In a sentence, for people.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Steady => "it has neither too few replicas nor too many",
            Self::NoPlace => {
                "no node that is there and does not drain bears the labels that it asks for, if any"
            }
            Self::Wake => "it is called and has no replica",
            Self::Backlog => "more invocations wait than the target allows",
            Self::Age => "invocations have been waiting for too long",
            Self::Cpu => "the processors of a member that serves it are busy",
            Self::Window => "it needs more replicas, but not for long enough yet",
            Self::Starting => "it needs more replicas, and those added last are not ready yet",
            Self::AtMax => "it needs more replicas than its bounds allow",
            Self::FleetFull => "it needs more replicas than all functions together may have",
            Self::NoRoom => "it needs more replicas than there are members that may serve it",
            Self::Slack => "one replica less would do",
            Self::Quiet => "nobody calls it",
            Self::Idling => "one replica less would do, but not for long enough yet",
            Self::CoolDown => "the last change is too recent",
            Self::Spare => "a machine that was made for it is needed no more",
        }
    }
}

/// What is decided, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done; none: nothing.
    pub act: Option<Act>,
    /// By which rule.
    pub rule: Rule,
}

impl Decision {
    const fn hold(rule: Rule) -> Self {
        Self { act: None, rule }
    }

    const fn act(act: Act, rule: Rule) -> Self {
        Self { act: Some(act), rule }
    }
}

/// What is to be done about one function. The same arguments give the same answer; `state` takes note of what was
/// seen, and is given again the next time.
pub fn policy(now: Mono, terms: &Terms, inputs: &Inputs, state: &mut State) -> Decision {
    state.see(now, terms, inputs);
    let decision = decide(now, terms, inputs, state);
    match decision.act {
        Some(Act::Concurrency(_)) => state.widened(now),
        Some(Act::DrainMachine(_)) => state.drained(),
        _ => {}
    }
    decision
}

fn decide(now: Mono, terms: &Terms, inputs: &Inputs, state: &State) -> Decision {
    if inputs.candidates == 0 {
        return Decision::hold(Rule::NoPlace);
    }
    let turn = terms.stagger.saturating_mul(inputs.rank);
    if inputs.count == 0 && inputs.backlog > 0 {
        // Who holds an invocation need not ask anybody: it waits here.
        let waits = inputs.here.backlog > 0 || state.waiting(now) >= turn;
        return match (waits, room(inputs)) {
            (false, _) => Decision::hold(Rule::Window),
            (true, Err(rule)) => Decision::hold(rule),
            (true, Ok(_)) => Decision::act(replicas(inputs, 1), Rule::Wake),
        };
    }
    if let Some(wider) = wider(now, terms, inputs, state) {
        return Decision::act(Act::Concurrency(wider), Rule::Backlog);
    }
    match state.pressure() {
        Some(rule) => grow(now, terms, inputs, state, rule, turn),
        None => shrink(now, terms, inputs, state, turn),
    }
}

/// As many side by side here as would be one step more, where invocations wait here and the machine has room.
fn wider(now: Mono, terms: &Terms, inputs: &Inputs, state: &State) -> Option<u32> {
    let here = &inputs.here;
    let has_room = here.cpu.is_some_and(|cpu| cpu < terms.cpu_high)
        && here.memory.is_some_and(|memory| memory < terms.memory_high);
    let wants = here.serves && here.backlog > 0 && here.concurrency < here.concurrency_max;
    let may = wants && has_room && state.may_widen(now, terms);
    may.then(|| here.concurrency.saturating_mul(2).clamp(1, here.concurrency_max))
}

fn grow(now: Mono, terms: &Terms, inputs: &Inputs, state: &State, rule: Rule, turn: Duration) -> Decision {
    let pressed = state.pressed(now);
    // That it lasts was seen before the machine was wished for; what stands ready for it is used at once.
    let stands_ready = inputs.machines.spare.is_some();
    // One that cannot start keeps the others from being added only for so long; one without a member to be on, as
    // members are gone, is not waited for.
    let starting =
        inputs.ready < inputs.count.min(inputs.candidates) && state.since_change(now) < terms.start_max;
    let room = room(inputs);
    let exhausted = matches!(room, Err(Rule::NoRoom)) || (room.is_ok() && inputs.free == 0);
    let due = terms.machine_window.saturating_add(turn);
    let claims = exhausted && !starting && may_claim(now, terms, inputs);
    // The wait of a claim and that of the policy pass at the same time.
    let claims_ahead = inputs.machines.ahead.is_some_and(|wait| pressed.saturating_add(wait) >= due);
    if claims && claims_ahead && !stands_ready && pressed < due {
        return Decision::act(Act::ClaimAhead, Rule::NoRoom);
    }
    if !stands_ready && pressed < terms.window.saturating_add(turn) {
        return Decision::hold(Rule::Window);
    }
    // Pauses end for all at once, so the turn counts here as well.
    if !stands_ready && state.since_change(now) < terms.cool_up.saturating_add(turn) {
        return Decision::hold(Rule::CoolDown);
    }
    if starting {
        return Decision::hold(Rule::Starting);
    }
    if claims && pressed >= due {
        return Decision::act(Act::ClaimMachine, Rule::NoRoom);
    }
    match room {
        Ok(most) => Decision::act(replicas(inputs, enough(inputs).min(most)), rule),
        Err(rule) => Decision::hold(rule),
    }
}

/// As many replicas as the load needs: at least one more, at most twice as many.
fn enough(inputs: &Inputs) -> u32 {
    let load = inputs.backlog.saturating_add(inputs.running);
    let needed = load.div_ceil(u64::from(inputs.per_replica.max(1)));
    let needed = u32::try_from(needed).unwrap_or(u32::MAX);
    let one_more = inputs.count.saturating_add(1);
    needed.clamp(one_more, inputs.count.saturating_mul(2).max(one_more))
}

/// The most replicas that there may be, where that is more than there are; else why not.
fn room(inputs: &Inputs) -> Result<u32, Rule> {
    let by_fleet = inputs.fleet_max.map_or(u32::MAX, |most| most.saturating_sub(inputs.others));
    for (most, rule) in
        [(inputs.target.max, Rule::AtMax), (by_fleet, Rule::FleetFull), (inputs.candidates, Rule::NoRoom)]
    {
        if most <= inputs.count {
            return Err(rule);
        }
    }
    Ok(inputs.target.max.min(by_fleet).min(inputs.candidates))
}

fn replicas(inputs: &Inputs, count: u32) -> Act {
    if inputs.here.next { Act::ReplicaHere(count) } else { Act::ReplicaOnPeer(count) }
}

/// A machine is wished for only by who has invocations waiting itself: others' counters may be wrong, or wrong on
/// purpose, and a machine costs.
fn may_claim(now: Mono, terms: &Terms, inputs: &Inputs) -> bool {
    let cool = inputs.machines.wished.is_none_or(|at| now.since(at) >= terms.machine_cool);
    inputs.machines.may_claim && inputs.here.backlog > 0 && cool
}

fn shrink(now: Mono, terms: &Terms, inputs: &Inputs, state: &State, turn: Duration) -> Decision {
    let idle = inputs.target.idle.saturating_mul(state.patience()).saturating_add(turn);
    let (for_how_long, rule) = match inputs.count {
        0 | 1 => (state.quiet(now), Rule::Quiet),
        _ => (state.slack(now), Rule::Slack),
    };
    let hold = match for_how_long.filter(|_| inputs.count > inputs.target.min) {
        None => Rule::Steady,
        Some(for_how_long) if for_how_long < idle => Rule::Idling,
        Some(_) if state.since_change(now) < terms.cool_down.saturating_add(turn) => Rule::CoolDown,
        Some(_) => {
            // All at once that nobody has missed: one by one, the last of a peak would go hours after it.
            let fewest = state.would_do(terms, inputs.per_replica, inputs.count);
            let fewer = fewest.clamp(inputs.target.min, inputs.count - 1);
            return Decision::act(Act::RetireReplica(fewer), rule);
        }
    };
    // Also while a replica that is one too many is waited for: that may take an hour. Only who can take it away sees
    // it as spare, so there is nobody to wait for.
    match (inputs.machines.spare, state.spare(now)) {
        (Some(slot), Some(time)) if time >= terms.machine_idle => {
            Decision::act(Act::DrainMachine(slot), Rule::Spare)
        }
        _ => Decision::hold(hold),
    }
}
