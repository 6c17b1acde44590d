//! The bounded queue in front of a function, and its figures.
//!
//! Every count is changed by a guard, so it stays right when a caller goes away in the middle.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::limits::RETRY_AFTER_MAX;
use crate::outcome::CallError;

/// What a function has done and is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Calls that are accepted and not started.
    pub backlog: u64,
    /// Calls that run.
    pub in_flight: u64,
    /// Calls that ended with a result.
    pub done: u64,
    /// Calls that ended with an error, or whose caller went away.
    pub failed: u64,
    /// Calls that were never started: busy, draining, bad or too large.
    pub refused: u64,
}

#[derive(Debug)]
pub(crate) struct Queue {
    slots: Semaphore,
    concurrency: AtomicU32,
    concurrency_max: u32,
    /// Slots that are to be given up by calls that hold them still.
    owed: Mutex<u32>,
    queue_len: u64,
    wait_max: Duration,
    next_call: AtomicU64,
    /// Waiting and running calls together: what a drain waits for.
    open: AtomicU64,
    backlog: AtomicU64,
    in_flight: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// Moving mean of a call's duration.
    mean_us: AtomicU64,
    draining: AtomicBool,
    idle: Notify,
}

impl Queue {
    pub(crate) fn new(concurrency: u32, queue_len: u32, wait_max: Duration) -> Self {
        Self {
            slots: Semaphore::new(concurrency as usize),
            concurrency: AtomicU32::new(concurrency),
            concurrency_max: concurrency,
            owed: Mutex::new(0),
            queue_len: queue_len.into(),
            wait_max,
            next_call: AtomicU64::new(1),
            open: AtomicU64::new(0),
            backlog: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            mean_us: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            idle: Notify::new(),
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Figures {
            backlog: read(&self.backlog),
            in_flight: read(&self.in_flight),
            done: read(&self.done),
            failed: read(&self.failed),
            refused: read(&self.refused),
        }
    }

    pub(crate) fn concurrency(&self) -> u32 {
        self.concurrency.load(Ordering::Relaxed)
    }

    pub(crate) fn set_concurrency(&self, concurrency: u32) {
        let to = concurrency.clamp(1, self.concurrency_max.max(1));
        // Held throughout: two that change it at once would count slots twice.
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.concurrency.swap(to, Ordering::Relaxed);
        if to < from {
            let fewer = from - to;
            let given_up = u32::try_from(self.slots.forget_permits(fewer as usize)).unwrap_or(fewer);
            *owed += fewer - given_up;
        } else {
            let more = to - from;
            let kept = more.min(*owed);
            *owed -= kept;
            self.slots.add_permits((more - kept) as usize);
        }
    }

    /// A call ends: its slot is for the next, or is given up.
    fn give_back(&self, permit: SemaphorePermit<'_>) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        match owed.checked_sub(1) {
            Some(fewer) => {
                *owed = fewer;
                permit.forget();
            }
            None => drop(permit),
        }
    }

    /// The number of the next call; calls that are refused have one too.
    pub(crate) fn next_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Accepts a call, or says at once that it is not.
    pub(crate) fn enter(&self) -> Result<Ticket<'_>, CallError> {
        // Counted first and checked second: a drain that does not see this call yet is seen by it.
        self.open.fetch_add(1, Ordering::SeqCst);
        let mut ticket = Ticket { queue: self, phase: Phase::Refused };
        if self.draining.load(Ordering::SeqCst) {
            return Err(CallError::Draining);
        }
        if let Ok(permit) = self.slots.try_acquire() {
            ticket.run(permit);
        } else if self.backlog.fetch_add(1, Ordering::Relaxed) < self.queue_len {
            ticket.phase = Phase::Waiting;
        } else {
            self.backlog.fetch_sub(1, Ordering::Relaxed);
            return Err(self.busy());
        }
        Ok(ticket)
    }

    pub(crate) fn busy(&self) -> CallError {
        let waiting = self.backlog.load(Ordering::Relaxed) + 1;
        let mean = Duration::from_micros(self.mean_us.load(Ordering::Relaxed));
        let guess =
            mean.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX)) / self.concurrency().max(1);
        CallError::Busy { retry_after: guess.clamp(Duration::from_secs(1), RETRY_AFTER_MAX) }
    }

    /// Refuses new calls; ready when those that were accepted are over.
    pub(crate) async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // Registered before the count is read, or the last call's notice could be missed.
            idle.as_mut().enable();
            if self.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    fn note_duration(&self, took: Duration) {
        let sample = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 4);
        let mean = self.mean_us.load(Ordering::Relaxed);
        // Two calls that end together may lose one sample: it only steers a hint.
        let next = if mean == 0 { sample } else { mean - mean / 8 + sample / 8 };
        self.mean_us.store(next, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Phase<'a> {
    Refused,
    Waiting,
    Running { permit: SemaphorePermit<'a>, since: Instant, ok: bool },
}

/// An accepted call. Dropping it ends the call, whatever it was doing.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    queue: &'a Queue,
    phase: Phase<'a>,
}

impl<'a> Ticket<'a> {
    fn run(&mut self, permit: SemaphorePermit<'a>) {
        self.queue.in_flight.fetch_add(1, Ordering::Relaxed);
        self.phase = Phase::Running { permit, since: Instant::now(), ok: false };
    }

    /// Waits for the call's turn.
    pub(crate) async fn start(&mut self) -> Result<(), CallError> {
        if let Phase::Waiting = self.phase {
            let queue = self.queue;
            match tokio::time::timeout(queue.wait_max, queue.slots.acquire()).await {
                Ok(Ok(permit)) => {
                    queue.backlog.fetch_sub(1, Ordering::Relaxed);
                    self.run(permit);
                }
                _ => return Err(queue.busy()),
            }
        }
        Ok(())
    }

    /// Ends the call and says how it went.
    pub(crate) fn finish(mut self, went_well: bool) {
        if let Phase::Running { ok, .. } = &mut self.phase {
            *ok = went_well;
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let queue = self.queue;
        match std::mem::replace(&mut self.phase, Phase::Refused) {
            Phase::Refused => queue.count_refused(),
            Phase::Waiting => {
                queue.backlog.fetch_sub(1, Ordering::Relaxed);
                queue.count_refused();
            }
            Phase::Running { permit, since, ok } => {
                queue.in_flight.fetch_sub(1, Ordering::Relaxed);
                let ended = if ok { &queue.done } else { &queue.failed };
                ended.fetch_add(1, Ordering::Relaxed);
                queue.note_duration(since.elapsed());
                queue.give_back(permit);
            }
        }
        if queue.open.fetch_sub(1, Ordering::SeqCst) == 1 && queue.draining.load(Ordering::SeqCst) {
            queue.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(concurrency: u32, queue_len: u32) -> Queue {
        Queue::new(concurrency, queue_len, Duration::from_millis(50))
    }

    #[tokio::test]
    async fn one_runs_one_waits_one_is_refused() {
        let queue = queue(1, 1);
        let running = queue.enter().expect("runs");
        let mut waiting = queue.enter().expect("waits");
        assert!(matches!(queue.enter(), Err(CallError::Busy { .. })));
        assert_eq!(queue.figures(), Figures { backlog: 1, in_flight: 1, refused: 1, ..Figures::default() });
        running.finish(true);
        waiting.start().await.expect("its turn");
        assert_eq!(queue.figures(), Figures { in_flight: 1, done: 1, refused: 1, ..Figures::default() });
        waiting.finish(false);
        assert_eq!(queue.figures(), Figures { done: 1, failed: 1, refused: 1, ..Figures::default() });
    }

    #[tokio::test]
    async fn what_runs_side_by_side_moves_within_the_limit() {
        let queue = queue(4, 8);
        queue.set_concurrency(1);
        let first = queue.enter().expect("runs");
        let mut second = queue.enter().expect("waits");
        assert_eq!((queue.figures().in_flight, queue.figures().backlog), (1, 1));
        queue.set_concurrency(9);
        assert_eq!(queue.concurrency(), 4, "the limit");
        second.start().await.expect("room was made");
        let more = [queue.enter().expect("runs"), queue.enter().expect("runs")];
        assert_eq!((queue.figures().in_flight, queue.figures().backlog), (4, 0));

        // Fewer than run: none is cut off, and none begins before enough have ended.
        queue.set_concurrency(0);
        assert_eq!(queue.concurrency(), 1, "never none");
        let mut waits = queue.enter().expect("waits");
        for one in [second].into_iter().chain(more) {
            one.finish(true);
            assert_eq!(queue.figures().backlog, 1);
            assert!(queue.slots.try_acquire().is_err(), "a slot is free before its time");
        }
        first.finish(true);
        waits.start().await.expect("its turn");
        // More again while slots are owed.
        queue.set_concurrency(3);
        let two = [queue.enter().expect("runs"), queue.enter().expect("runs")];
        queue.set_concurrency(1);
        queue.set_concurrency(2);
        drop(two);
        waits.finish(true);
        let _two = [queue.enter().expect("runs"), queue.enter().expect("runs")];
        assert_eq!(queue.figures().in_flight, 2);
        assert!(queue.enter().is_ok_and(|third| matches!(third.phase, Phase::Waiting)));
    }

    #[tokio::test]
    async fn waiting_is_bounded_in_time() {
        let queue = queue(1, 1);
        let _running = queue.enter().expect("runs");
        let mut waiting = queue.enter().expect("waits");
        assert!(matches!(waiting.start().await, Err(CallError::Busy { .. })));
        drop(waiting);
        assert_eq!(queue.figures(), Figures { in_flight: 1, refused: 1, ..Figures::default() });
    }

    #[tokio::test]
    async fn figures_stay_right_when_callers_go_away() {
        let queue = queue(1, 8);
        let running = queue.enter().expect("runs");
        let waiting = queue.enter().expect("waits");
        drop((waiting, running));
        assert_eq!(queue.figures(), Figures { failed: 1, refused: 1, ..Figures::default() });
        queue.enter().expect("the slot is free again").finish(true);
    }

    #[tokio::test]
    async fn drain_waits_for_accepted_calls_and_refuses_new_ones() {
        let queue = std::sync::Arc::new(queue(1, 8));
        let running = queue.enter().expect("runs");
        let mut waiting = queue.enter().expect("waits");
        let drained = tokio::spawn({
            let queue = queue.clone();
            async move { queue.drain().await }
        });
        tokio::task::yield_now().await;
        assert!(matches!(queue.enter(), Err(CallError::Draining)));
        running.finish(true);
        tokio::task::yield_now().await;
        assert!(!drained.is_finished(), "one call still waits");
        waiting.start().await.expect("accepted calls are served");
        waiting.finish(true);
        drained.await.expect("drained");
        queue.drain().await;
    }
}
