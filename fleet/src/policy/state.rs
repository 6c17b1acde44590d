//! What was seen of a function before: since when it has needed more, or less.

use std::time::Duration;

use osiris_ledger::Mono;

use super::{Inputs, Rule, Terms};

/// How often the time before a replica goes may double.
const FLAPS_MAX: u32 = 6;

/// What one member has seen of one function. Nothing of it is durable: after a start every time begins anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    seen: Option<Seen>,
    /// Since when something has been waiting without a break.
    waiting: Option<Mono>,
    /// Since when it has needed more, and by which rule now.
    pressed: Option<(Mono, Rule)>,
    /// Since when one replica less would do.
    slack: Option<Mono>,
    /// The most that ran at once since then.
    busiest: u64,
    /// Since when nothing waited, ran or ended.
    quiet: Option<Mono>,
    /// Since when at least one machine has been needed no more, since when at least two, and so on.
    spares: Vec<Mono>,
    /// Changes in opposite directions, one soon after the other.
    flaps: u32,
    widened: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    count: u32,
    /// When the count changed last, whoever changed it; at first when it was first seen.
    changed: Mono,
    /// Whether that was upward; none: it has not changed yet.
    upward: Option<bool>,
    ended: u64,
}

impl State {
    /// Takes note of what is seen now.
    pub(super) fn see(&mut self, now: Mono, terms: &Terms, inputs: &Inputs) {
        let known = self.seen;
        self.see_count(now, terms, inputs);
        let active = inputs.backlog > 0
            || inputs.running > 0
            || known.is_some_and(|known| known.ended != inputs.ended);
        since(&mut self.quiet, now, !active);
        since(&mut self.waiting, now, inputs.backlog > 0);
        since(&mut self.slack, now, has_slack(terms, inputs));
        self.busiest = if self.slack.is_some() { self.busiest.max(inputs.running) } else { 0 };
        let pressure = self.presses(now, terms, inputs);
        let begun = self.pressed.map_or(now, |(begun, _)| begun);
        self.pressed = pressure.map(|rule| (begun, rule));
        let spares = if pressure.is_none() { inputs.machines.spares as usize } else { 0 };
        self.spares.resize(spares, now);
    }

    fn see_count(&mut self, now: Mono, terms: &Terms, inputs: &Inputs) {
        let Inputs { count, ended, .. } = *inputs;
        match &mut self.seen {
            None => self.seen = Some(Seen { count, changed: now, upward: None, ended }),
            Some(seen) => {
                seen.ended = ended;
                if seen.count == count {
                    return;
                }
                let upward = count > seen.count;
                let soon = now.since(seen.changed) <= terms.flap;
                match (soon, seen.upward.is_some_and(|before| before != upward)) {
                    (true, true) => self.flaps = (self.flaps + 1).min(FLAPS_MAX),
                    (true, false) => {}
                    (false, _) => self.flaps = self.flaps.saturating_sub(1),
                }
                *seen = Seen { count, changed: now, upward: Some(upward), ended };
                // What was too few or too many is to be seen anew.
                (self.waiting, self.pressed, self.slack, self.busiest) = (None, None, None, 0);
            }
        }
    }

    /// By which rule it needs more now.
    fn presses(&self, now: Mono, terms: &Terms, inputs: &Inputs) -> Option<Rule> {
        let target = u64::from(inputs.target.backlog).saturating_mul(inputs.count.into());
        if inputs.backlog > target {
            return Some(Rule::Backlog);
        }
        if self.waiting(now) >= terms.age {
            return Some(Rule::Age);
        }
        let busy = inputs.here.serves && inputs.here.cpu.is_some_and(|cpu| cpu >= terms.cpu_high);
        // Busy with something else, one more replica would be one too many at once.
        (busy && !carries(terms, inputs.per_replica, inputs.count, inputs.running)).then_some(Rule::Cpu)
    }

    pub(super) fn widened(&mut self, now: Mono) {
        self.widened = Some(now);
    }

    pub(super) fn may_widen(&self, now: Mono, terms: &Terms) -> bool {
        self.widened.is_none_or(|at| now.since(at) >= terms.window)
    }

    /// How long something has been waiting without a break.
    pub(super) fn waiting(&self, now: Mono) -> Duration {
        self.waiting.map_or(Duration::ZERO, |begun| now.since(begun))
    }

    /// Whether it needs more now.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.pressed.is_some()
    }

    pub(super) fn pressure(&self) -> Option<Rule> {
        self.pressed.map(|(_, rule)| rule)
    }

    pub(super) fn pressed(&self, now: Mono) -> Duration {
        self.pressed.map_or(Duration::ZERO, |(begun, _)| now.since(begun))
    }

    pub(super) fn slack(&self, now: Mono) -> Option<Duration> {
        self.slack.map(|begun| now.since(begun))
    }

    /// The fewest replicas that would have done all the time since one less would do, at least one and at most as many
    /// as there are: what ran at most would have left free what [`carries`] asks for.
    pub(super) fn would_do(&self, terms: &Terms, per_replica: u32, count: u32) -> u32 {
        let does = |fewer: &u32| carries(terms, per_replica, *fewer, self.busiest);
        (1..count).rev().take_while(does).last().unwrap_or(count)
    }

    pub(super) fn quiet(&self, now: Mono) -> Option<Duration> {
        self.quiet.map(|begun| now.since(begun))
    }

    /// For how long at least one machine has not been needed.
    pub(super) fn spare(&self, now: Mono) -> Option<Duration> {
        self.spares.first().map(|begun| now.since(*begun))
    }

    /// One of those machines goes. The others have been spare for as long as if it had never been.
    pub(super) fn drained(&mut self) {
        if !self.spares.is_empty() {
            self.spares.remove(0);
        }
    }

    pub(super) fn since_change(&self, now: Mono) -> Duration {
        self.seen.map_or(Duration::ZERO, |seen| now.since(seen.changed))
    }

    /// How many times as long as else replicas must be too many before one goes.
    pub(super) fn patience(&self) -> u32 {
        1 << self.flaps
    }

    /// Whether time alone may bring a decision: else nothing is to be looked at before something happens.
    #[must_use]
    pub fn is_moving(&self, min: u32) -> bool {
        self.waiting.is_some()
            || self.pressed.is_some()
            || !self.spares.is_empty()
            || self.seen.is_some_and(|seen| seen.count > min)
    }
}

/// Keeps the moment since which something holds.
fn since(begun: &mut Option<Mono>, now: Mono, holds: bool) {
    *begun = if holds { begun.or(Some(now)) } else { None };
}

/// Whether one replica less would do.
fn has_slack(terms: &Terms, inputs: &Inputs) -> bool {
    inputs.count > 1
        && inputs.backlog == 0
        && carries(terms, inputs.per_replica, inputs.count - 1, inputs.running)
}

/// Whether so many replicas carry what runs, and have enough free for what chance adds. One alone may be used to the low
/// mark. Of `n` the part that is left free is smaller by the square root of `n`, as what chance adds to many is smaller
/// beside them: the square-root rule of staffing (Halfin and Whitt, "Heavy-traffic limits for queues with many
/// exponential servers", 1981).
fn carries(terms: &Terms, per_replica: u32, replicas: u32, running: u64) -> bool {
    // In parts of a million, so that a thousand replicas still differ by what one more carries.
    const WHOLE: u64 = 1_000_000;
    let capacity = u64::from(replicas) * u64::from(per_replica);
    let root = (u64::from(replicas.max(1)) * WHOLE).isqrt();
    let free = u64::from(100_u32.saturating_sub(terms.use_low)) * (WHOLE / 100) * 1_000 / root;
    running.saturating_mul(WHOLE) <= capacity.saturating_mul(WHOLE - free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_free_falls_with_the_root_of_the_replicas() {
        let terms = Terms::default();
        let most =
            |replicas: u32| (0..).take_while(|running| carries(&terms, 100, replicas, *running)).count() - 1;
        // 60 % of one; of four 40 % / 2 is left free, of 16 40 % / 4, of 100 40 % / 10.
        assert_eq!([1, 4, 16, 100].map(most), [60, 320, 1_440, 9_600]);
        let marks = [0, 60, 90, 100].map(|use_low| Terms { use_low, ..terms });
        assert_eq!(marks.map(|terms| carries(&terms, 4, 1, 1)), [false, true, true, true]);
        assert_eq!(marks.map(|terms| carries(&terms, 4, 1, 0)), [true; 4]);
        assert!(!carries(&terms, 4, 0, 1), "none carries nothing");
    }

    #[test]
    fn as_many_go_as_nobody_missed() {
        let terms = Terms::default();
        let would_do = |busiest: u64, count: u32, per_replica: u32| {
            State { busiest, ..State::default() }.would_do(&terms, per_replica, count)
        };
        // Three of four carry nine at most (12 - 2.77), two carry five, one carries two.
        let busiest = [0, 2, 3, 5, 6, 9, 10, 99];
        assert_eq!(busiest.map(|busiest| would_do(busiest, 4, 4)), [1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(would_do(0, 1, 4), 1);
        assert_eq!(would_do(0, 9, 0), 1);
    }
}
