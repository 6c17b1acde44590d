//! What the tasks of one node share.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use iroh::{
    Endpoint,
    address_lookup::memory::MemoryLookup,
    endpoint::{Connection, WeakConnectionHandle},
};
use osiris_protocol::alpn::code;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    api::{MeshEvent, MeshHeld, PeerStatus, Roster, SendError, Services},
    bind::{publish, usable_addrs},
    budgets::Budgets,
    calls::CallCache,
    events::Events,
    gate::{Gate, lock},
    hints::Hints,
};
use crate::{
    PeerId,
    limits::{FRAME_BYTES_MAX, SEND_BYTES_QUEUED_MAX, SEND_FRAMES_QUEUED_MAX},
    proto::{backoff::Backoff, membership::AddressBook, message::AddressEntry},
};

/// What the tasks of one node share.
pub(super) struct Shared {
    pub(super) me: PeerId,
    pub(super) endpoint: Endpoint,
    pub(super) session: [u8; 16],
    pub(super) topic: [u8; 32],
    pub(super) advertise: Vec<SocketAddr>,
    pub(super) roster: Arc<dyn Roster>,
    pub(super) services: Arc<dyn Services>,
    pub(super) gate: Arc<Gate>,
    pub(super) lookup: MemoryLookup,
    pub(super) events: Events,
    pub(super) hints: Option<Hints>,
    pub(super) calls: CallCache,
    /// How long a peer may leave a message unread.
    pub(super) write_stall: Duration,
    frames_dropped: AtomicU64,
    pub(super) budgets: Budgets,
    pub(super) given: Given,
    /// Cancelled when the node stops: every task ends.
    pub(super) stop: CancellationToken,
    /// Wakes the keeper: there may be someone to dial.
    pub(super) wake: Notify,
    /// Tells every link that there is something to say about addresses.
    pub(super) addresses_changed: watch::Sender<()>,
    started: Instant,
    random: Mutex<u64>,
    state: Mutex<State>,
}

/// Artifacts that peers are being given.
#[derive(Default)]
pub(super) struct Given(Mutex<(usize, Option<Instant>)>);

impl Given {
    /// One more is asked for, until the answer is dropped.
    pub(super) fn begin(&self) -> Giving<'_> {
        self.change(|open| *open += 1);
        Giving(self)
    }

    /// How many are under way, and since when that has been so.
    pub(super) fn now(&self) -> (usize, Option<Duration>) {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (given.0, given.1.map(|at| at.elapsed()))
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        // A count and a moment: nothing can be left half done.
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut given.0);
        given.1 = Some(Instant::now());
    }
}

/// One of them.
pub(super) struct Giving<'a>(&'a Given);

impl Drop for Giving<'_> {
    fn drop(&mut self) {
        self.0.change(|open| *open -= 1);
    }
}

/// What [`Shared`] is built from.
pub(super) struct Parts {
    pub(super) endpoint: Endpoint,
    pub(super) me: PeerId,
    pub(super) topic: [u8; 32],
    pub(super) advertise: Vec<SocketAddr>,
    pub(super) roster: Arc<dyn Roster>,
    pub(super) services: Arc<dyn Services>,
    pub(super) gate: Arc<Gate>,
    pub(super) lookup: MemoryLookup,
    pub(super) events: Events,
    pub(super) hints: Option<Hints>,
    pub(super) write_stall: Duration,
    /// Random bytes: the session, and the seed of the jitter.
    pub(super) entropy: [u8; 24],
}

struct State {
    book: AddressBook,
    peers: BTreeMap<PeerId, Peer>,
    generation: u64,
}

#[derive(Default)]
struct Peer {
    link: Option<LinkHandle>,
    /// Cancelled when the newest link's last event has been told.
    told: Option<CancellationToken>,
    dial: Option<Dial>,
    backoff: Backoff,
    last_error: Option<String>,
}

/// A link as seen by those who send on it.
struct LinkHandle {
    generation: u64,
    session: [u8; 16],
    frames: mpsc::Sender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    conn: WeakConnectionHandle,
    cancel: CancellationToken,
    /// Whether the peer's key said hello in another session since.
    outlived: Arc<AtomicBool>,
}

/// A dial under way.
struct Dial {
    generation: u64,
    cancel: CancellationToken,
    /// Connected, and waiting for the peer's hello.
    greeting: bool,
}

/// A link as seen by the task that runs it.
pub(super) struct Registered {
    pub(super) generation: u64,
    pub(super) frames: mpsc::Receiver<Bytes>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) cancel: CancellationToken,
    /// Whether the peer's key said hello in another session since.
    pub(super) outlived: Arc<AtomicBool>,
    /// To be cancelled when this link's last event has been told.
    pub(super) told: CancellationToken,
    /// Cancelled when the previous link's last event has been told.
    pub(super) previous: Option<CancellationToken>,
}

/// A dial to be made.
pub(super) struct DueDial {
    pub(super) peer: PeerId,
    pub(super) generation: u64,
    pub(super) cancel: CancellationToken,
}

/// How a dial ended without a link.
#[derive(Debug)]
pub(super) enum DialEnd {
    Unreachable(String),
    /// The peer does not take this node for a member.
    NotAMember(String),
    Refused(String),
    /// Another connection to the same peer was preferred.
    Superseded,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let mut session = [0; 16];
        session.copy_from_slice(&parts.entropy[..16]);
        let mut seed = [0; 8];
        seed.copy_from_slice(&parts.entropy[16..]);
        Self {
            me: parts.me,
            endpoint: parts.endpoint,
            session,
            topic: parts.topic,
            advertise: parts.advertise,
            roster: parts.roster,
            services: parts.services,
            gate: parts.gate,
            lookup: parts.lookup,
            events: parts.events,
            hints: parts.hints,
            calls: CallCache::default(),
            write_stall: parts.write_stall,
            frames_dropped: AtomicU64::new(0),
            budgets: Budgets::default(),
            given: Given::default(),
            stop: CancellationToken::new(),
            wake: Notify::new(),
            addresses_changed: watch::Sender::new(()),
            started: Instant::now(),
            random: Mutex::new(u64::from_le_bytes(seed)),
            state: Mutex::new(State {
                book: AddressBook::new(parts.me),
                peers: BTreeMap::new(),
                generation: 0,
            }),
        }
    }

    /// Milliseconds since the node started.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014): for jitter only.
    fn random(&self) -> u64 {
        let mut state = lock(&self.random);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn own_addrs(&self) -> Vec<SocketAddr> {
        if self.advertise.is_empty() { usable_addrs(&self.endpoint) } else { self.advertise.clone() }
    }

    /// Tells the user; waits while the user is behind. `false` when the node is stopping.
    pub(super) async fn tell(&self, event: MeshEvent) -> bool {
        tokio::select! {
            sent = self.events.put(event) => {
                if sent.is_err() {
                    self.stop.cancel();
                }
                sent.is_ok()
            }
            () = self.stop.cancelled() => false,
        }
    }

    // Addresses.

    pub(super) fn learn(&self, peer: PeerId, addrs: impl IntoIterator<Item = SocketAddr>, age: Duration) {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.now_ms();
        let addrs = {
            let mut state = lock(&self.state);
            if !state.book.learn(now_ms, peer, addrs, age_ms) {
                return;
            }
            // There is news about the peer: do not sit out a pause.
            if let Some(known) = state.peers.get_mut(&peer) {
                known.backoff.reset();
            }
            state.book.addrs(&peer)
        };
        publish(&self.lookup, &peer, addrs);
        self.addresses_changed.send_replace(());
        self.wake.notify_one();
    }

    pub(super) fn merge(&self, entries: &[AddressEntry]) {
        // The roster is foreign code: asked before the lock is taken.
        let members: BTreeSet<PeerId> = entries
            .iter()
            .map(|entry| PeerId::from_bytes(entry.peer.into_array()))
            .filter(|peer| self.roster.is_member(peer))
            .collect();
        let now_ms = self.now_ms();
        let news: Vec<(PeerId, Vec<SocketAddr>)> = {
            let mut state = lock(&self.state);
            let before = state.book.version();
            if !state.book.merge(now_ms, entries, |p| members.contains(p)) {
                return;
            }
            let (changed, _) = state.book.changes_since(now_ms, before, usize::MAX);
            changed
                .iter()
                .map(|entry| PeerId::from_bytes(entry.peer.into_array()))
                .map(|peer| (peer, state.book.addrs(&peer)))
                .collect()
        };
        for (peer, addrs) in news {
            publish(&self.lookup, &peer, addrs);
        }
        self.addresses_changed.send_replace(());
        self.wake.notify_one();
    }

    pub(super) fn with_book<T>(&self, read: impl FnOnce(&AddressBook) -> T) -> T {
        read(&lock(&self.state).book)
    }

    pub(super) fn addrs(&self, peer: &PeerId) -> Vec<SocketAddr> {
        self.with_book(|book| book.addrs(peer))
    }

    /// Members that can be neither reached nor asked: no address, no link.
    pub(super) fn missing(&self, max: usize) -> Vec<PeerId> {
        let members: BTreeSet<PeerId> = self.roster.members().into_iter().collect();
        let state = lock(&self.state);
        members
            .into_iter()
            .filter(|peer| *peer != self.me && !state.book.knows(peer))
            .filter(|peer| state.peers.get(peer).is_none_or(|p| p.link.is_none()))
            .take(max)
            .collect()
    }

    // Links.

    pub(super) fn send(&self, peer: &PeerId, frame: Bytes) -> Result<(), SendError> {
        let len = frame.len();
        if len > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { len });
        }
        let state = lock(&self.state);
        let link = state.peers.get(peer).and_then(|peer| peer.link.as_ref());
        let link = link.ok_or(SendError::NotConnected(*peer))?;
        let before = link.queued_bytes.fetch_add(len, Ordering::Relaxed);
        let fits = before + len <= SEND_BYTES_QUEUED_MAX;
        let queued = if fits {
            link.frames.try_send(frame).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full(*peer),
                mpsc::error::TrySendError::Closed(_) => SendError::NotConnected(*peer),
            })
        } else {
            Err(SendError::Full(*peer))
        };
        if queued.is_err() {
            link.queued_bytes.fetch_sub(len, Ordering::Relaxed);
            self.frames_dropped.fetch_add(1, Ordering::Relaxed);
        }
        queued
    }

    pub(super) fn held(&self) -> MeshHeld {
        let (peers, connections) = self.gate.connections();
        let state = lock(&self.state);
        let links = || state.peers.values().filter_map(|peer| peer.link.as_ref());
        MeshHeld {
            send_bytes: links().map(|link| link.queued_bytes.load(Ordering::Relaxed) as u64).sum(),
            links: links().count() as u64,
            event_bytes: self.events.queued_bytes() as u64,
            peers,
            connections,
            frames_dropped: self.frames_dropped.load(Ordering::Relaxed),
            ..self.budgets.held()
        }
    }

    pub(super) fn linked(&self) -> Vec<PeerId> {
        let state = lock(&self.state);
        let linked = state.peers.iter().filter(|(_, peer)| peer.link.is_some());
        linked.map(|(id, _)| *id).collect()
    }

    pub(super) fn link_connection(&self, peer: &PeerId) -> Option<Connection> {
        let state = lock(&self.state);
        let link = state.peers.get(peer)?.link.as_ref()?;
        link.conn.upgrade()
    }

    /// Ends the link to `peer`, so that it is made anew.
    pub(super) fn drop_link(&self, peer: &PeerId) {
        if let Some(link) = lock(&self.state).peers.get(peer).and_then(|p| p.link.as_ref()) {
            link.cancel.cancel();
        }
    }

    /// Why `peer` cannot be reached, when the last attempt failed a moment ago.
    pub(super) fn known_unreachable(&self, peer: &PeerId) -> Option<String> {
        let now_ms = self.now_ms();
        let state = lock(&self.state);
        let known = state.peers.get(peer)?;
        let resting = known.backoff.is_failing() && now_ms < known.backoff.not_before_ms();
        (known.link.is_none() && resting).then(|| known.last_error.clone().unwrap_or_default())
    }

    /// Decides about a peer that dialled us and has said hello.
    ///
    /// Of two nodes that dial each other at the same time, the one with the smaller key decides, so
    /// that both keep the same connection: it turns the other's away while its own is greeting, and
    /// takes it while its own has not connected. A peer with a new session has restarted, whatever
    /// we believe about its old link. `Err` is the code to close with.
    pub(super) fn admit(
        &self,
        peer: PeerId,
        session: [u8; 16],
        conn: &Connection,
    ) -> Result<Registered, u32> {
        if !self.roster.is_member(&peer) {
            return Err(code::NOT_A_MEMBER);
        }
        let mut state = lock(&self.state);
        let known = state.peers.entry(peer).or_default();
        if self.me < peer {
            let greeting = known.dial.as_ref().is_some_and(|dial| dial.greeting);
            let alive = known.link.as_ref().is_some_and(|link| {
                let conn = link.conn.upgrade();
                link.session == session && conn.is_some_and(|c| c.close_reason().is_none())
            });
            if greeting || alive {
                return Err(code::DUPLICATE);
            }
        }
        Ok(state.register(peer, session, conn))
    }

    /// A dial has connected. `false` when it is not wanted any more.
    pub(super) fn dial_greets(&self, peer: &PeerId, generation: u64) -> bool {
        let mut state = lock(&self.state);
        let dial = state.peers.get_mut(peer).and_then(|p| p.dial.as_mut());
        match dial {
            Some(dial) if dial.generation == generation => {
                dial.greeting = true;
                true
            }
            _ => false,
        }
    }

    /// A dial was answered with a hello. `None` when it is not wanted any more.
    pub(super) fn dial_answered(
        &self,
        peer: PeerId,
        generation: u64,
        session: [u8; 16],
        conn: &Connection,
    ) -> Option<Registered> {
        let mut state = lock(&self.state);
        let dial = state.peers.get(&peer)?.dial.as_ref()?;
        (dial.generation == generation).then(|| state.register(peer, session, conn))
    }

    pub(super) fn dial_ended(&self, peer: PeerId, generation: u64, end: DialEnd) {
        let (now_ms, random) = (self.now_ms(), self.random());
        let mut state = lock(&self.state);
        if let Some(known) = state.peers.get_mut(&peer)
            && known.dial.as_ref().is_some_and(|d| d.generation == generation)
        {
            known.dial = None;
            match end {
                DialEnd::Unreachable(why) => {
                    known.backoff.failed(now_ms, random);
                    known.last_error = Some(why);
                }
                DialEnd::Refused(why) | DialEnd::NotAMember(why) => {
                    known.backoff.refused(now_ms, random);
                    known.last_error = Some(why);
                }
                DialEnd::Superseded => {}
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn link_ended(&self, peer: &PeerId, generation: u64, why: &str) {
        let mut state = lock(&self.state);
        if let Some(known) = state.peers.get_mut(peer)
            && known.link.as_ref().is_some_and(|l| l.generation == generation)
        {
            known.link = None;
            known.last_error = Some(why.to_owned());
        }
        drop(state);
        self.calls.forget(peer);
        self.wake.notify_one();
    }

    /// Starts what is due among `chosen`, at most `max` dials at a time in all, and says when the
    /// next is due.
    pub(super) fn due_dials(
        &self,
        choose: impl FnOnce(&dyn Fn(&PeerId) -> bool) -> BTreeSet<PeerId>,
        max: usize,
    ) -> (Vec<DueDial>, Option<i64>) {
        let now_ms = self.now_ms();
        let mut state = lock(&self.state);
        let chosen = choose(&|peer| {
            let known = state.peers.get(peer);
            known.is_some_and(|p| p.link.is_none() && p.backoff.is_gone())
        });
        let mut under_way = state.peers.values().filter(|p| p.dial.is_some()).count();
        let (mut due, mut next) = (Vec::new(), None);
        for peer in chosen {
            let idle = state.peers.get(&peer).is_none_or(|p| p.link.is_none() && p.dial.is_none());
            if !idle || !state.book.knows(&peer) {
                continue;
            }
            let not_before = state.peers.get(&peer).map_or(0, |p| p.backoff.not_before_ms());
            if not_before > now_ms {
                next = Some(next.map_or(not_before, |next: i64| next.min(not_before)));
            } else if under_way < max {
                under_way += 1;
                state.generation += 1;
                let generation = state.generation;
                let cancel = self.stop.child_token();
                state.peers.entry(peer).or_default().dial =
                    Some(Dial { generation, cancel: cancel.clone(), greeting: false });
                due.push(DueDial { peer, generation, cancel });
            }
        }
        (due, next)
    }

    /// Forgets whoever is not a member any more.
    pub(super) fn forget_strangers(&self) {
        let listed = self.with_book(|book| book.export());
        let known: Vec<PeerId> = lock(&self.state).peers.keys().copied().collect();
        let strangers: BTreeSet<PeerId> = listed
            .into_iter()
            .map(|listed| PeerId::from_bytes(listed.peer))
            .chain(known)
            .filter(|peer| !self.roster.is_member(peer))
            .collect();
        let mut state = lock(&self.state);
        state.book.retain(|peer| !strangers.contains(peer));
        for peer in &strangers {
            // A link ends by itself: its connection has been closed. What is left is a little state
            // that keeps the order of its last event.
            if let Some(known) = state.peers.get_mut(peer) {
                if let Some(dial) = known.dial.take() {
                    dial.cancel.cancel();
                }
                if let Some(link) = &known.link {
                    link.cancel.cancel();
                } else if known.told.as_ref().is_none_or(|told| told.is_cancelled()) {
                    state.peers.remove(peer);
                }
            }
        }
        drop(state);
        for peer in &strangers {
            self.calls.forget(peer);
            if let Some(id) = super::bind::endpoint_id(peer) {
                self.lookup.remove_endpoint_info(id);
            }
        }
    }

    pub(super) fn statuses(&self) -> Vec<PeerStatus> {
        let members = self.roster.members();
        let state = lock(&self.state);
        let linked = state.peers.iter().filter(|(_, peer)| peer.link.is_some());
        let peers: BTreeSet<PeerId> =
            members.into_iter().chain(linked.map(|(id, _)| *id)).filter(|peer| *peer != self.me).collect();
        peers
            .into_iter()
            .map(|peer| {
                let known = state.peers.get(&peer);
                let link = known.and_then(|known| known.link.as_ref());
                PeerStatus {
                    peer,
                    connected: link.is_some(),
                    rtt: link.and_then(|link| link.conn.upgrade()).and_then(|conn| rtt(&conn)),
                    addrs: state.book.addrs(&peer),
                    queued_bytes: link.map_or(0, |link| link.queued_bytes.load(Ordering::Relaxed)),
                    last_error: known.and_then(|known| known.last_error.clone()),
                }
            })
            .collect()
    }
}

impl State {
    fn register(&mut self, peer: PeerId, session: [u8; 16], conn: &Connection) -> Registered {
        self.generation += 1;
        let generation = self.generation;
        let (sender, frames) = mpsc::channel(SEND_FRAMES_QUEUED_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let cancel = CancellationToken::new();
        let told = CancellationToken::new();
        let outlived = Arc::new(AtomicBool::new(false));
        let known = self.peers.entry(peer).or_default();
        if let Some(dial) = known.dial.take() {
            dial.cancel.cancel();
        }
        let replaced = known.link.replace(LinkHandle {
            generation,
            session,
            frames: sender,
            queued_bytes: Arc::clone(&queued_bytes),
            conn: conn.weak_handle(),
            cancel: cancel.clone(),
            outlived: Arc::clone(&outlived),
        });
        if let Some(old) = replaced {
            old.outlived.store(old.session != session, Ordering::Release);
            old.cancel.cancel();
        }
        known.backoff.reset();
        known.last_error = None;
        Registered {
            generation,
            frames,
            queued_bytes,
            cancel,
            outlived,
            previous: known.told.replace(told.clone()),
            told,
        }
    }
}

/// The round-trip time of the path that a connection uses.
pub(super) fn rtt(conn: &Connection) -> Option<Duration> {
    let paths = conn.paths();
    let selected = paths.iter().find(|path| path.is_selected());
    selected.or_else(|| paths.iter().next()).map(|path| path.rtt())
}
