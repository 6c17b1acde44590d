//! A call of a function that is scaled to no replica: it waits for the first one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Dispatcher;
use crate::driver::limits::{WAKE_CALLS_MAX, WAKE_LOOK, WAKE_TIMEOUT};
use crate::driver::routes::Entry;

impl Dispatcher {
    /// Waits until the function has a replica, here or elsewhere, or it has lasted too long. Returns what is left of
    /// the call's time.
    pub(super) async fn wake(&self, function: &str, deadline: Duration) -> Duration {
        let begun = Instant::now();
        let asleep = || match self.routes.load().find(function) {
            Some(Entry::Asleep(figures)) => Some(Arc::clone(figures)),
            _ => None,
        };
        let (Some(figures), Some(bell)) = (asleep(), self.bell.get()) else { return deadline };
        // Counted, so that it is seen as what waits, here and by the other members.
        let Some(_waits) = figures.wait(WAKE_CALLS_MAX) else { return deadline };
        bell(function);
        let until = begun + deadline.min(WAKE_TIMEOUT);
        while asleep().is_some() && Instant::now() < until {
            tokio::time::sleep(WAKE_LOOK).await;
        }
        deadline.saturating_sub(begun.elapsed())
    }
}
