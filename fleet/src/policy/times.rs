//! For how long what a decision depends on has lasted.

use std::time::Duration;

use osiris_ledger::Mono;

use super::State;

/// What one member has seen of one function, and for how long. None where it is not so now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Something has been waiting without a break.
    pub waiting: Duration,
    /// It has needed more replicas.
    pub pressed: Duration,
    /// One replica less would do.
    pub slack: Option<Duration>,
    /// Nothing waited, ran or ended.
    pub quiet: Option<Duration>,
    /// Nobody changed the count.
    pub unchanged: Duration,
    /// How many times as long as the target says replicas must be too many before one goes.
    pub patience: u32,
}

impl State {
    /// For how long things have lasted, as of the last look.
    #[must_use]
    pub fn times(&self, now: Mono) -> Times {
        Times {
            waiting: self.waiting(now),
            pressed: self.pressed(now),
            slack: self.slack(now),
            quiet: self.quiet(now),
            unchanged: self.since_change(now),
            patience: self.patience(),
        }
    }
}
