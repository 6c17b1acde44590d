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
    limits::{JOINS_BURST_MAX, JOINS_PER_SECOND},
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
}

/// A token bucket for connections of strangers.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Gate {
    pub(super) fn new(roster: Arc<dyn Roster>) -> Self {
        Self {
            roster,
            open: Mutex::new(BTreeMap::new()),
            strangers: Mutex::new(Bucket { tokens: f64::from(JOINS_BURST_MAX), filled: Instant::now() }),
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

    fn remember(&self, peer: PeerId, conn: &Connection) {
        let mut open = lock(&self.open);
        // Forget what has ended, here and, now and then, everywhere, so that the map stays as large
        // as what is open.
        let is_open = |handle: &WeakConnectionHandle| {
            handle.upgrade().is_some_and(|conn| conn.close_reason().is_none())
        };
        let handles = open.entry(peer).or_default();
        handles.retain(is_open);
        handles.push(conn.weak_handle());
        if open.len().is_power_of_two() {
            open.retain(|_, handles| handles.iter().any(is_open));
        }
    }

    fn admit_stranger(&self) -> bool {
        let mut bucket = lock(&self.strangers);
        let now = Instant::now();
        let filled = now.duration_since(bucket.filled).as_secs_f64() * f64::from(JOINS_PER_SECOND);
        bucket.tokens = (bucket.tokens + filled).min(f64::from(JOINS_BURST_MAX));
        bucket.filled = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }

    fn decide(&self, conn: &Connection) -> AfterHandshakeOutcome {
        let peer = peer_id(&conn.remote_id());
        if conn.alpn() == alpn::JOIN {
            if conn.side() == Side::Server && !self.admit_stranger() {
                return reject(code::BUSY, "too many devices are joining, try again in a minute");
            }
            return AfterHandshakeOutcome::Accept;
        }
        // Remembered before it is checked: a member that is removed in between is either swept or
        // seen as removed here.
        self.remember(peer, conn);
        if self.allows(&peer, conn.alpn()) {
            AfterHandshakeOutcome::Accept
        } else {
            reject(code::NOT_A_MEMBER, "not a member of this fleet")
        }
    }
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
        for closed in [alpn::SYNC, alpn::CALL, alpn::BLOB, iroh_gossip::ALPN, b"other"] {
            assert!(!gate.allows(&stranger, closed));
        }
    }
}
