//! D: how long a block of this node takes to another spawner.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use osiris_ledger::Mono;
use osiris_mesh::{PeerId, limits::FULL_MESH_MEMBERS_MAX, limits::NEIGHBOURS_CHOSEN};

/// D at least, for each hop: the longest pause between two digests to a peer
/// ([`osiris_mesh::proto::sync::PERIOD`] and half as much again), and half a second for the exchange.
pub const DELAY_MIN: Duration = Duration::from_secs(5);
/// Own claims whose delays are remembered.
pub const MEASURES: usize = 8;

/// Hops that a block takes at most in a fleet of so many active members, by anti-entropy alone. A small fleet is
/// connected in full. In a larger one each member chooses [`NEIGHBOURS_CHOSEN`] others by hash; the depth of such a
/// graph grows with the logarithm to that base, and two hops more are allowed.
#[must_use]
pub fn hops(members: usize) -> u32 {
    match members <= FULL_MESH_MEMBERS_MAX {
        true => 1,
        false => 2 + members.ilog(NEIGHBOURS_CHOSEN),
    }
}

/// What earlier claims took.
#[derive(Debug, Default)]
pub(super) struct Delays(VecDeque<Duration>);

impl Delays {
    /// D before anything is known of the next claim.
    pub(super) fn least(&self, members: usize) -> Duration {
        let slowest = self.0.iter().max().copied().unwrap_or_default();
        DELAY_MIN.saturating_mul(hops(members)).max(slowest)
    }

    pub(super) fn measured(&mut self, delay: Duration) {
        self.0.push_back(delay);
        if self.0.len() > MEASURES {
            self.0.pop_front();
        }
    }
}

/// How long one claim takes to the connected spawners.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// Those that have not confirmed it yet, and since when they are waited for.
    awaiting: BTreeMap<PeerId, Mono>,
    /// Whoever confirmed it, spawner or not: it holds the claim for ever.
    confirmed: BTreeSet<PeerId>,
    slowest: Duration,
}

impl Measure {
    pub(super) fn new(now: Mono, spawners: impl IntoIterator<Item = PeerId>) -> Self {
        let awaiting = spawners.into_iter().map(|peer| (peer, now)).collect();
        Self { awaiting, ..Self::default() }
    }

    pub(super) fn await_peer(&mut self, now: Mono, peer: PeerId) {
        if !self.confirmed.contains(&peer) {
            self.awaiting.insert(peer, now);
        }
    }

    pub(super) fn peer_down(&mut self, peer: &PeerId) {
        self.awaiting.remove(peer);
    }

    pub(super) fn confirmed(&mut self, now: Mono, peer: PeerId) {
        if let Some(since) = self.awaiting.remove(&peer) {
            self.slowest = self.slowest.max(now.since(since));
        }
        self.confirmed.insert(peer);
    }

    pub(super) fn is_confirmed_by(&self, peer: &PeerId) -> bool {
        self.confirmed.contains(peer)
    }

    /// The slowest confirmation.
    pub(super) fn slowest(&self) -> Duration {
        self.slowest
    }

    /// The same, with what is still waited for.
    pub(super) fn so_far(&self, now: Mono) -> Duration {
        let waited = self.awaiting.values().map(|since| now.since(*since)).max();
        self.slowest.max(waited.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use osiris_mesh::proto::sync::PERIOD;

    use super::*;

    #[test]
    fn the_least_delay_covers_the_longest_pause_between_two_digests() {
        assert!(DELAY_MIN >= PERIOD * 3 / 2 + Duration::from_millis(500));
    }

    #[test]
    fn a_larger_fleet_is_deeper() {
        assert_eq!([1, 12, 13, 64, 100, 1_000, 100_000].map(hops), [1, 1, 3, 4, 4, 5, 7]);
    }

    #[test]
    fn a_claim_takes_as_long_as_its_slowest_confirmation_and_counts_while_it_waits() {
        let peer = |n: u8| PeerId::from_bytes([n; 32]);
        let mut measure = Measure::new(Mono(0), [peer(1), peer(2)]);
        measure.confirmed(Mono(300), peer(1));
        assert_eq!(measure.so_far(Mono(9_000)), Duration::from_secs(9));
        measure.confirmed(Mono(9_500), peer(2));
        measure.confirmed(Mono(20_000), peer(3));
        assert_eq!(
            measure.so_far(Mono(60_000)),
            Duration::from_millis(9_500),
            "and not of who was not awaited"
        );
        measure.await_peer(Mono(60_000), peer(1));
        assert_eq!(
            measure.so_far(Mono(90_000)),
            Duration::from_millis(9_500),
            "who confirmed is not asked again"
        );
        measure.await_peer(Mono(60_000), peer(4));
        measure.peer_down(&peer(4));
        assert_eq!(measure.so_far(Mono(90_000)), measure.slowest());
        let mut delays = Delays::default();
        assert_eq!(delays.least(3), DELAY_MIN);
        delays.measured(measure.slowest());
        assert_eq!(delays.least(3), Duration::from_millis(9_500));
        (0..MEASURES).for_each(|_| delays.measured(Duration::ZERO));
        assert_eq!(delays.least(3), DELAY_MIN, "what was slow once is forgotten");
    }
}
