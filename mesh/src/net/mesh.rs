//! The handle of a running node.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::{
    address_lookup::memory::MemoryLookup,
    protocol::{IncomingFilterOutcome, Router},
};
use osiris_protocol::{
    PeerAddr, alpn,
    call::{CallReply, CallRequest},
    join::{JoinReply, JoinRequest},
};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    admission::Joins,
    api::{MeshHeld, PeerStatus, Roster, SendError, Services},
    bind::{self, peer_id},
    blobs::{self, Blobs, FetchError},
    calls::{self, CallFailure, Calls},
    config::{MeshConfig, MeshError},
    ended::{self, Endings},
    events::{Events, MeshEvents},
    gate::{Gate, GateHook},
    hints::{self, HintTask, Hints},
    join, keeper,
    link::Links,
    offers::{self, Artifact, Offers},
    shared::{Parts, Shared, rtt},
};
use crate::{PeerId, limits::SHUTDOWN_TIMEOUT};

/// How old addresses from the configuration count: older than anything learnt now.
const KNOWN_AGE: Duration = Duration::from_secs(3_600);

/// A running node. Clones are handles of the same one; it stops when [`shutdown`](Self::shutdown) is
/// called, when the last handle is dropped, or when the events' receiver is.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
    closed: CancellationToken,
    _stop: Arc<DropGuard>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("peer_id", &self.shared.me).finish_non_exhaustive()
    }
}

impl Mesh {
    /// Starts a node: listens, and dials the members that it knows addresses of.
    ///
    /// Events come by the receiver, in order for each peer. They have to be taken: a full queue
    /// stops the reading of links.
    ///
    /// # Errors
    /// [`MeshError`], when the configuration is not sound or the address cannot be listened on.
    pub async fn spawn(
        config: MeshConfig,
        roster: Arc<dyn Roster>,
        services: Arc<dyn Services>,
    ) -> Result<(Self, MeshEvents), MeshError> {
        config.validate()?;
        let mut entropy = [0; 24];
        getrandom::fill(&mut entropy).map_err(|error| MeshError::Randomness { why: error.to_string() })?;
        let gate = Arc::new(Gate::new(Arc::clone(&roster)));
        let lookup = MemoryLookup::new();
        let builder = bind::builder(&config, config.bind)?
            .address_lookup(lookup.clone())
            .hooks(GateHook(Arc::clone(&gate)));
        let endpoint = bind::bind(builder, config.bind).await?;
        let (events, receiver) = Events::new();
        let (hints, hint_tasks) = Hints::new();
        let shared = Arc::new(Shared::new(Parts {
            me: peer_id(&endpoint.id()),
            endpoint,
            topic: config.topic,
            advertise: config.advertise,
            roster,
            services,
            gate,
            lookup,
            events,
            hints: config.gossip.then_some(hints),
            write_stall: config.write_stall,
            entropy,
        }));
        for known in config.known {
            let peer = PeerId::from_bytes(known.peer);
            shared.learn(peer, known.addrs, KNOWN_AGE);
        }
        let router = route(&shared, config.gossip.then_some(hint_tasks));
        tokio::spawn(keeper::keep(Arc::clone(&shared)));
        tokio::spawn(keeper::watch_own_addrs(Arc::clone(&shared)));
        let closed = CancellationToken::new();
        let stopped = shared.stop.clone();
        tokio::spawn(close_when_stopped(stopped, router, closed.clone()));
        let stop = Arc::new(shared.stop.clone().drop_guard());
        let mesh = Self { shared, closed, _stop: stop };
        Ok((mesh, receiver))
    }

    /// This node's key.
    pub fn peer_id(&self) -> PeerId {
        self.shared.me
    }

    /// What a ticket should carry: the advertised addresses, or those found on the interfaces.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.own_addrs()
    }

    /// Queues a frame for a peer and returns at once. Frames arrive in order, or not at all when
    /// the link goes down; then the next [`PeerUp`](super::MeshEvent::PeerUp) says that states are to be
    /// compared.
    ///
    /// # Errors
    /// [`SendError`]; the frame was not queued.
    pub fn send(&self, peer: PeerId, frame: Bytes) -> Result<(), SendError> {
        self.shared.send(&peer, frame)
    }

    /// Spreads a hint to every member, perhaps. Returns at once. A hint over
    /// [`HINT_BYTES_MAX`](crate::limits::HINT_BYTES_MAX) is not sent, nor is any without gossip.
    pub fn hint(&self, bytes: Bytes) {
        if let Some(hints) = &self.shared.hints {
            hints.entries.hint(bytes);
        }
    }

    /// Spreads a row of counters to every member, perhaps; as [`Mesh::hint`], and never in its way.
    pub fn hint_row(&self, bytes: Bytes) {
        if let Some(hints) = &self.shared.hints {
            hints.rows.hint(bytes);
        }
    }

    /// What peers make this node hold here; at most what the limits of this crate allow.
    pub fn held(&self) -> MeshHeld {
        self.shared.held()
    }

    /// Every member and every peer with a link, in the order of their keys.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.shared.statuses()
    }

    /// How many artifacts peers are being given now, and for how long that number has been so; none: nobody asked yet.
    pub fn giving(&self) -> (usize, Option<Duration>) {
        self.shared.given.now()
    }

    /// The round-trip time to a peer with a link.
    pub fn rtt(&self, peer: PeerId) -> Option<Duration> {
        self.shared.link_connection(&peer).and_then(|conn| rtt(&conn))
    }

    /// Calls a function on a peer, over a connection that is kept for the next call.
    ///
    /// # Errors
    /// [`CallFailure`], which says whether the call had certainly not been started.
    pub async fn call(&self, peer: PeerId, request: CallRequest) -> Result<CallReply, CallFailure> {
        calls::call(&self.shared, peer, request).await
    }

    /// Fetches an artifact of at most `max_bytes` from a peer into the file `to`, which is created
    /// or overwritten, and returns its size. The file is synced and its BLAKE3 hash is `hash`, or
    /// there is no file: it is removed on every error and when the future is dropped.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(
        &self,
        peer: PeerId,
        hash: [u8; 32],
        to: &Path,
        max_bytes: u64,
    ) -> Result<u64, FetchError> {
        blobs::fetch(&self.shared, peer, hash, to, max_bytes).await
    }

    /// Gives artifacts to a peer, and returns once it holds them all, durably.
    ///
    /// # Errors
    /// A sentence's part, for the log: it takes nothing from this node, or could not be reached.
    pub async fn offer(&self, peer: PeerId, artifacts: &[Artifact]) -> Result<(), String> {
        offers::offer(&self.shared, peer, artifacts).await
    }

    /// Asks a peer that turned this node away what ended the membership: a frame, and the frame that answers it.
    /// The peer answers nobody but a device that was a member.
    ///
    /// # Errors
    /// A sentence's part, for the log.
    pub async fn ask_ending(&self, peer: PeerId, question: Bytes) -> Result<Bytes, String> {
        ended::ask(&self.shared, peer, question).await
    }

    /// Asks a member that does not know this device to admit it, and dials it anew where it did.
    ///
    /// # Errors
    /// A sentence's part, for the log: it refused, or could not be reached.
    pub async fn join_again(&self, peer: PeerId, request: &JoinRequest) -> Result<(), String> {
        let addr = PeerAddr { peer: peer.to_bytes(), addrs: self.shared.addrs(&peer) };
        match join::ask_one(&self.shared.endpoint, &addr, request).await? {
            JoinReply::Welcome(_) => {
                self.kept_changed();
                Ok(())
            }
            JoinReply::Refused(refusal) => Err(refusal.message),
        }
    }

    /// Looks at the roster again: dials new members, and closes every connection of those who are
    /// members no more. Call it after every change.
    pub fn roster_changed(&self) {
        self.shared.gate.sweep();
        self.shared.forget_strangers();
        self.shared.addresses_changed.send_replace(());
        self.shared.wake.notify_one();
    }

    /// Looks again at whom to keep a connection to ([`crate::Roster::kept`]), and dials those.
    pub fn kept_changed(&self) {
        self.shared.wake.notify_one();
    }

    /// Notes where a peer listens, as told by something other than the mesh: a ticket, a welcome, a
    /// join request that was granted, mDNS.
    pub fn learn(&self, addr: &PeerAddr) {
        let peer = PeerId::from_bytes(addr.peer);
        self.shared.learn(peer, addr.addrs.iter().copied(), Duration::ZERO);
    }

    /// Drops the link to a peer and makes it anew, with its gossip: for a peer that is connected
    /// and deaf. Does nothing when there is no link.
    pub fn reconnect(&self, peer: PeerId) {
        self.shared.drop_link(&peer);
    }

    /// Where every member was last known to listen: to be kept, and given to the next
    /// [`MeshConfig::known`] or to a newcomer.
    pub fn address_book(&self) -> Vec<PeerAddr> {
        self.shared.with_book(|book| book.export())
    }

    /// Stops: tells peers, closes every connection, and returns when that is done, within 4 s.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.closed.cancelled().await;
    }
}

fn route(shared: &Arc<Shared>, hints: Option<[HintTask; 2]>) -> Router {
    // Whoever has not shown that it receives at its address costs no handshake.
    let filter = Arc::new(|incoming: &iroh::endpoint::Incoming| {
        if incoming.remote_addr_validated() {
            IncomingFilterOutcome::Accept
        } else {
            IncomingFilterOutcome::Retry
        }
    });
    let mut router = Router::builder(shared.endpoint.clone())
        .incoming_filter(filter)
        .accept(alpn::SYNC, Links(Arc::clone(shared)))
        .accept(alpn::CALL, Calls(Arc::clone(shared)))
        .accept(alpn::BLOB, Blobs(Arc::clone(shared)))
        .accept(alpn::OFFER, Offers(Arc::clone(shared)))
        .accept(alpn::JOIN, Joins(Arc::clone(shared)))
        .accept(alpn::ENDED, Endings(Arc::clone(shared)));
    if let Some(tasks) = hints {
        let gossip = hints::spawn(shared.endpoint.clone());
        router = router.accept(iroh_gossip::ALPN, gossip.clone());
        for task in tasks {
            tokio::spawn(hints::run(Arc::clone(shared), gossip.clone(), task));
        }
    }
    router.spawn()
}

/// Holds the router, which would stop if it were dropped.
async fn close_when_stopped(stop: CancellationToken, router: Router, closed: CancellationToken) {
    let _closed = closed.drop_guard();
    stop.cancelled().await;
    match timeout(SHUTDOWN_TIMEOUT, router.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("a protocol panicked: {error}"),
        Err(_) => tracing::debug!("peers did not acknowledge the end in time"),
    }
}
