//! Who may speak which protocol.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use iroh::endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks, Side, VarInt, WeakConnectionHandle};
use osiris_protocol::alpn::{self, code};

use super::{api::Roster, bind::peer_id};
use crate::{
    PeerId,
    limits::{
        CONNECTIONS_ACCEPTED_MAX, ENDED_BURST_MAX, ENDED_PER_SECOND, JOINS_BURST_MAX, JOINS_PER_SECOND,
    },
};

/// Locks a mutex that no panic can leave inconsistent: every critical section of this crate changes
/// plain data and calls no foreign code.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides after each handshake, in both directions, and remembers what it let through so that it
/// can be closed when a member is removed.
pub(super) struct Gate {
    roster: Arc<dyn Roster>,
    /// Weak handles: this must not keep a connection alive that its users have dropped.
    open: Mutex<BTreeMap<PeerId, Vec<WeakConnectionHandle>>>,
    strangers: Mutex<Bucket>,
    ended: Mutex<Bucket>,
}

/// A token bucket for connections of those who are no members.
struct Bucket {
    tokens: f64,
    filled: Instant,
    burst: f64,
    per_second: f64,
}

impl Bucket {
    fn full(burst: u32, per_second: u32) -> Self {
        let burst = f64::from(burst);
        Self { tokens: burst, filled: Instant::now(), burst, per_second: f64::from(per_second) }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let filled = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + filled).min(self.burst);
        self.filled = now;
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

impl Gate {
    pub(super) fn new(roster: Arc<dyn Roster>) -> Self {
        Self {
            roster,
            open: Mutex::new(BTreeMap::new()),
            strangers: Mutex::new(Bucket::full(JOINS_BURST_MAX, JOINS_PER_SECOND)),
            ended: Mutex::new(Bucket::full(ENDED_BURST_MAX, ENDED_PER_SECOND)),
        }
    }

    /// Closes the connections of everyone who may not have them any more.
    pub(super) fn sweep(&self) {
        let peers: Vec<PeerId> = lock(&self.open).keys().copied().collect();
        for peer in peers {
            let handles = lock(&self.open).get(&peer).cloned().unwrap_or_default();
            for conn in handles.iter().filter_map(WeakConnectionHandle::upgrade) {
                if !self.allows(&peer, conn.alpn()) {
                    conn.close(VarInt::from_u32(code::REMOVED), b"no longer a member");
                }
            }
        }
    }

    fn allows(&self, peer: &PeerId, alpn: &[u8]) -> bool {
        match alpn {
            alpn::JOIN => true,
            alpn::CALL => self.roster.is_member(peer) || self.roster.may_call(peer),
            _ => self.roster.is_member(peer),
        }
    }

    /// Members and callers with open connections, and how many of both directions those are.
    pub(super) fn connections(&self) -> (u64, u64) {
        let open = lock(&self.open);
        let counts =
            open.values().map(|handles| handles.iter().filter(|handle| is_open(handle)).count() as u64);
        counts.filter(|count| *count > 0).fold((0, 0), |(peers, all), count| (peers + 1, all + count))
    }

    /// Remembers a connection, and says how many the peer has opened that are open, this one included.
    fn remember(&self, peer: PeerId, conn: &Connection) -> usize {
        let mut open = lock(&self.open);
        // Forget what has ended, here and, now and then, everywhere, so that the map stays as large
        // as what is open.
        let handles = open.entry(peer).or_default();
        handles.retain(is_open);
        handles.push(conn.weak_handle());
        let opened = handles.iter().filter_map(WeakConnectionHandle::upgrade);
        let accepted = opened.filter(|conn| conn.side() == Side::Server).count();
        if open.len().is_power_of_two() {
            open.retain(|_, handles| handles.iter().any(is_open));
        }
        accepted
    }

    fn admit_stranger(&self) -> bool {
        lock(&self.strangers).take()
    }

    /// Whether a device may hear what ended its membership: it had one, and few ask.
    fn tells_end(&self, peer: &PeerId) -> Result<(), AfterHandshakeOutcome> {
        if !self.roster.was_member(peer) {
            return Err(not_a_member());
        }
        if lock(&self.ended).take() {
            Ok(())
        } else {
            Err(reject(code::BUSY, "too many devices ask, try again in a minute"))
        }
    }

    fn decide(&self, conn: &Connection) -> AfterHandshakeOutcome {
        let peer = peer_id(&conn.remote_id());
        if conn.alpn() == alpn::JOIN {
            if conn.side() == Side::Server && !self.admit_stranger() {
                return reject(code::BUSY, "too many devices are joining, try again in a minute");
            }
            return AfterHandshakeOutcome::Accept;
        }
        if conn.alpn() == alpn::ENDED && conn.side() == Side::Server {
            return self.tells_end(&peer).err().unwrap_or(AfterHandshakeOutcome::Accept);
        }
        // Remembered before it is checked: a member that is removed in between is either swept or
        // seen as removed here.
        let accepted = self.remember(peer, conn);
        if !self.allows(&peer, conn.alpn()) {
            return not_a_member();
        }
        if conn.side() == Side::Server && accepted > CONNECTIONS_ACCEPTED_MAX {
            return reject(code::BUSY, "too many connections of this device are open");
        }
        AfterHandshakeOutcome::Accept
    }
}

fn is_open(handle: &WeakConnectionHandle) -> bool {
    handle.upgrade().is_some_and(|conn| conn.close_reason().is_none())
}

fn not_a_member() -> AfterHandshakeOutcome {
    reject(code::NOT_A_MEMBER, "not a member of this fleet")
}

fn reject(code: u32, reason: &str) -> AfterHandshakeOutcome {
    AfterHandshakeOutcome::Reject { error_code: VarInt::from_u32(code), reason: reason.as_bytes().to_vec() }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("peers", &lock(&self.open).len()).finish_non_exhaustive()
    }
}

/// What iroh holds: it must not hold the endpoint, and does not.
#[derive(Debug)]
pub(super) struct GateHook(pub(super) Arc<Gate>);

impl EndpointHooks for GateHook {
    // Not an `async fn`: there is nothing to wait for.
    fn after_handshake<'a>(
        &'a self,
        conn: &'a Connection,
    ) -> impl Future<Output = AfterHandshakeOutcome> + Send + 'a {
        std::future::ready(self.0.decide(conn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Roster for Nobody {
        fn is_member(&self, _: &PeerId) -> bool {
            false
        }
        fn members(&self) -> Vec<PeerId> {
            Vec::new()
        }
    }

    struct Ended;

    impl Roster for Ended {
        fn is_member(&self, _: &PeerId) -> bool {
            false
        }
        fn members(&self) -> Vec<PeerId> {
            Vec::new()
        }
        fn was_member(&self, _: &PeerId) -> bool {
            true
        }
    }

    #[test]
    fn strangers_have_a_small_budget() {
        let gate = Gate::new(Arc::new(Nobody));
        let admitted = (0..1_000).filter(|_| gate.admit_stranger()).count();
        assert!((20..30).contains(&admitted), "{admitted}");
    }

    #[test]
    fn strangers_reach_the_join_protocol_alone() {
        let gate = Gate::new(Arc::new(Nobody));
        let stranger = PeerId::from_bytes([1; 32]);
        assert!(gate.allows(&stranger, alpn::JOIN));
        for closed in
            [alpn::SYNC, alpn::CALL, alpn::BLOB, alpn::OFFER, alpn::ENDED, iroh_gossip::ALPN, b"other"]
        {
            assert!(!gate.allows(&stranger, closed));
        }
        assert!(gate.tells_end(&stranger).is_err());
    }

    #[test]
    fn devices_whose_membership_ended_have_a_small_budget() {
        let gate = Gate::new(Arc::new(Ended));
        let told = (0..1_000).filter(|_| gate.tells_end(&PeerId::from_bytes([1; 32])).is_ok()).count();
        assert!((8..12).contains(&told), "{told}");
    }
}
