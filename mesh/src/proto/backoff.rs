//! When to dial a peer again.

/// First pause after a failure, milliseconds.
const FAILURE_MS_MIN: i64 = 250;
/// Longest pause after failures, milliseconds. Peers are dialled for ever.
const FAILURE_MS_MAX: i64 = 15_000;
/// Pause after a refusal, milliseconds.
const REFUSAL_MS: i64 = 300;
/// After this many refusals in a row the pause grows as it does after failures.
const REFUSALS_SOON: u32 = 40;
/// After this many failures in a row a peer is not counted on.
const GONE_FAILURES: u32 = 3;

/// The pauses between attempts to reach one peer.
///
/// A peer that cannot be reached is tried again after pauses that double up to 15 s. A peer that
/// refuses us is reachable and most likely has not heard of our admission yet, so it is tried again
/// soon. Every pause is shortened at random by up to half, so that nodes that lost the same peer do
/// not return at the same moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    refusals: u32,
    not_before_ms: i64,
}

impl Backoff {
    /// Notes that the peer could not be reached. `random` is any uniformly distributed number.
    pub fn failed(&mut self, now_ms: i64, random: u64) {
        let pause = FAILURE_MS_MIN.saturating_mul(1_i64 << self.failures.min(16)).min(FAILURE_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.wait(now_ms, pause, random);
    }

    /// Notes that the peer was reached and refused us.
    pub fn refused(&mut self, now_ms: i64, random: u64) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals > REFUSALS_SOON {
            self.failed(now_ms, random);
        } else {
            self.failures = 0;
            self.wait(now_ms, REFUSAL_MS, random);
        }
    }

    /// Forgets the past: the peer was reached, or there is news about it.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether so many attempts in a row have failed that a node with few neighbours chooses one more in its place.
    pub fn is_gone(&self) -> bool {
        self.failures >= GONE_FAILURES
    }

    /// The time before which the peer is left alone, milliseconds.
    pub fn not_before_ms(&self) -> i64 {
        self.not_before_ms
    }

    fn wait(&mut self, now_ms: i64, pause_ms: i64, random: u64) {
        let half = pause_ms / 2;
        let jitter = i64::try_from(random % (half.unsigned_abs() + 1)).unwrap_or(0);
        self.not_before_ms = now_ms.saturating_add(pause_ms - jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_limit_and_never_end() {
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..100 {
            backoff.failed(1_000, 0);
            pauses.push(backoff.not_before_ms() - 1_000);
        }
        assert_eq!(pauses[..4], [250, 500, 1_000, 2_000]);
        assert_eq!(pauses[99], FAILURE_MS_MAX);
        backoff.reset();
        assert_eq!((backoff.not_before_ms(), backoff.is_gone()), (0, false));
        let gone = [(); 4].map(|()| {
            backoff.failed(0, 0);
            backoff.is_gone()
        });
        assert_eq!(gone, [false, false, true, true]);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        for random in [0, 1, 12_345, u64::MAX] {
            let mut backoff = Backoff::default();
            backoff.failed(0, random);
            assert!((125..=250).contains(&backoff.not_before_ms()));
        }
    }

    #[test]
    fn a_refusal_is_retried_soon_and_not_for_ever() {
        let mut backoff = Backoff::default();
        for _ in 0..40 {
            backoff.refused(0, 0);
            assert_eq!(backoff.not_before_ms(), REFUSAL_MS);
            assert!(!backoff.is_failing());
        }
        for _ in 0..20 {
            backoff.refused(0, 0);
        }
        assert_eq!(backoff.not_before_ms(), FAILURE_MS_MAX);
    }
}
