//! Calls of one function that wait, run and end: a queue served in order of arrival by as many places as the
//! replicas have. The fleet's replicas and the oracle's are given the same calls and the same queue.

use std::collections::VecDeque;

use super::demand::STEP_MS;

/// Waits longer than so many steps are counted as this long.
const WAIT_STEPS_MAX: usize = 9_600;

/// How long calls waited, in steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sim) struct Waits {
    counts: Vec<u64>,
    all: u64,
}

impl Waits {
    fn add(&mut self, steps: u64, calls: u64) {
        let at = usize::try_from(steps).unwrap_or(usize::MAX).min(WAIT_STEPS_MAX);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += calls;
        self.all += calls;
    }

    /// Takes in what was counted elsewhere.
    pub(in crate::sim) fn take_in(&mut self, other: &Self) {
        for (steps, calls) in (0..).zip(&other.counts) {
            self.add(steps, *calls);
        }
    }

    /// Calls that waited.
    pub(in crate::sim) fn all(&self) -> u64 {
        self.all
    }

    /// What so many thousandths of the calls waited at most, milliseconds; to a step.
    pub(in crate::sim) fn quantile(&self, permille: u64) -> u64 {
        let rank = (self.all * permille).div_ceil(1_000);
        let mut seen = 0;
        let at = self.counts.iter().position(|calls| {
            seen += calls;
            seen >= rank
        });
        at.unwrap_or(0) as u64 * STEP_MS
    }

    /// Calls that waited longer than so many milliseconds.
    pub(in crate::sim) fn longer_than(&self, ms: u64) -> u64 {
        let from = usize::try_from(ms / STEP_MS + 1).unwrap_or(usize::MAX);
        self.counts.get(from..).map_or(0, |longer| longer.iter().sum())
    }
}

/// The calls of one function on one side of the network.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Line {
    /// When each began to wait, and how many did; the first in front.
    waiting: VecDeque<(u64, u64)>,
    /// When calls that run end, and how many do.
    running: VecDeque<(u64, u64)>,
    backlog: u64,
    in_flight: u64,
    ended: u64,
    failed: u64,
    waits: Waits,
}

impl Line {
    /// One step: what is over ends, what comes waits, and what fits into the places begins.
    pub(in crate::sim) fn step(&mut self, now: u64, come: u64, places: u64, steps: u64) {
        while let Some((_, calls)) = self.running.pop_front_if(|(end, _)| *end <= now) {
            self.in_flight -= calls;
            self.ended += calls;
        }
        if come > 0 {
            self.waiting.push_back((now, come));
            self.backlog += come;
        }
        let mut free = places.saturating_sub(self.in_flight).min(self.backlog);
        if free == 0 {
            return;
        }
        self.running.push_back((now + steps, free));
        self.in_flight += free;
        self.backlog -= free;
        while free > 0
            && let Some((since, calls)) = self.waiting.front_mut()
        {
            let begin = free.min(*calls);
            self.waits.add(now - *since, begin);
            (free, *calls) = (free - begin, *calls - begin);
            if *calls == 0 {
                self.waiting.pop_front();
            }
        }
    }

    /// Who has waited for so many steps is turned away.
    pub(in crate::sim) fn give_up(&mut self, now: u64, patience: u64) {
        while let Some((_, calls)) = self.waiting.pop_front_if(|(since, _)| *since + patience <= now) {
            self.backlog -= calls;
            self.failed += calls;
        }
    }

    /// A replica of so many died, with what it ran.
    pub(in crate::sim) fn lose(&mut self, replicas: u64) {
        let mut lost = self.in_flight.div_ceil(replicas.max(1));
        self.in_flight -= lost;
        self.failed += lost;
        while lost > 0
            && let Some((_, calls)) = self.running.back_mut()
        {
            let gone = lost.min(*calls);
            (lost, *calls) = (lost - gone, *calls - gone);
            if *calls == 0 {
                self.running.pop_back();
            }
        }
    }

    /// The network falls apart: of what waits and runs, so many thousandths are on the other side, which is returned.
    pub(in crate::sim) fn split(&mut self, waiting: u64, running: u64) -> Self {
        let part = |calls: &mut VecDeque<(u64, u64)>, permille: u64| -> VecDeque<(u64, u64)> {
            let parts = calls.iter_mut().map(|(at, calls)| {
                let there = *calls * permille / 1_000;
                *calls -= there;
                (*at, there)
            });
            let parts: VecDeque<_> = parts.collect();
            calls.retain(|(_, calls)| *calls > 0);
            parts.into_iter().filter(|(_, calls)| *calls > 0).collect()
        };
        let (waiting, running) = (part(&mut self.waiting, waiting), part(&mut self.running, running));
        let sum = |calls: &VecDeque<(u64, u64)>| calls.iter().map(|(_, calls)| calls).sum();
        let other =
            Self { backlog: sum(&waiting), in_flight: sum(&running), waiting, running, ..Self::default() };
        (self.backlog, self.in_flight) = (sum(&self.waiting), sum(&self.running));
        other
    }

    /// The network is whole again.
    pub(in crate::sim) fn join(&mut self, other: Self) {
        let merge = |mine: &mut VecDeque<(u64, u64)>, theirs: VecDeque<(u64, u64)>| {
            mine.extend(theirs);
            mine.make_contiguous().sort_by_key(|(at, _)| *at);
        };
        merge(&mut self.waiting, other.waiting);
        merge(&mut self.running, other.running);
        self.backlog += other.backlog;
        self.in_flight += other.in_flight;
        self.ended += other.ended;
        self.failed += other.failed;
        self.waits.take_in(&other.waits);
    }

    pub(in crate::sim) fn backlog(&self) -> u64 {
        self.backlog
    }

    pub(in crate::sim) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(in crate::sim) fn ended(&self) -> u64 {
        self.ended
    }

    pub(in crate::sim) fn failed(&self) -> u64 {
        self.failed
    }

    pub(in crate::sim) fn waits(&self) -> &Waits {
        &self.waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_begin_in_order_as_places_are_free_and_their_waits_are_counted() {
        let mut line = Line::default();
        // Three come at once for two places; each runs for four steps.
        line.step(0, 3, 2, 4);
        assert_eq!((line.backlog(), line.in_flight()), (1, 2));
        for now in 1..4 {
            line.step(now, 0, 2, 4);
        }
        assert_eq!((line.backlog(), line.ended()), (1, 0));
        line.step(4, 1, 2, 4);
        assert_eq!((line.backlog(), line.in_flight(), line.ended()), (0, 2, 2));
        assert_eq!((line.waits().quantile(500), line.waits().quantile(1_000)), (0, 4 * STEP_MS));
        assert_eq!((line.waits().all(), line.waits().longer_than(0)), (4, 1));
    }

    #[test]
    fn who_waits_for_too_long_is_turned_away_and_who_ran_on_a_dead_replica_fails() {
        let mut line = Line::default();
        line.step(0, 5, 0, 4);
        line.give_up(9, 10);
        assert_eq!(line.backlog(), 5);
        line.give_up(10, 10);
        assert_eq!((line.backlog(), line.failed()), (0, 5));
        line.step(11, 8, 8, 4);
        line.lose(2);
        assert_eq!((line.in_flight(), line.failed()), (4, 9));
        line.step(15, 0, 8, 4);
        assert_eq!((line.in_flight(), line.ended()), (0, 4));
    }

    #[test]
    fn nothing_is_lost_by_a_split() {
        let mut line = Line::default();
        line.step(0, 100, 40, 4);
        line.step(1, 50, 40, 4);
        let other = line.split(300, 500);
        assert_eq!((line.backlog() + other.backlog(), line.in_flight() + other.in_flight()), (110, 40));
        assert!(other.backlog() > 20 && other.in_flight() == 20);
        line.join(other);
        assert_eq!((line.backlog(), line.in_flight()), (110, 40));
        for now in 2..40 {
            line.step(now, 0, 40, 4);
        }
        assert_eq!((line.ended(), line.waits().all()), (150, 150));
    }
}
