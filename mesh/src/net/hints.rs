//! Hints over iroh-gossip.
//!
//! Gossip loses messages: when many join at once, when a queue overflows, when a dial fails once,
//! and always across a partition. So nothing depends on it. A hint is handed over by a task of its
//! own, because a stopped peer can stall `broadcast` for half a minute, and the topic is subscribed
//! anew whenever iroh-gossip closes it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use iroh::EndpointId;
use iroh_gossip::{
    api::{Event, GossipReceiver, GossipSender, JoinOptions},
    net::Gossip,
    proto::{HyparviewConfig, TopicId},
};
use n0_future::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{api::MeshEvent, bind::endpoint_id, events::NotPut, shared::Shared};
use crate::{
    PeerId,
    limits::{
        GOSSIP_MESSAGE_BYTES_MAX, GOSSIP_REJOIN_INTERVAL, GOSSIP_SHUFFLE_INTERVAL, HINT_BYTES_MAX,
        HINT_SEND_TIMEOUT, HINTS_QUEUED_MAX, HINTS_RECEIVED_MAX,
    },
};

/// Pause before subscribing anew.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(200);

/// What a hint is about. Each kind has a topic of its own, so that a burst of one loses none of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry of the ledger.
    Entry,
    /// A row of counters.
    Row,
}

impl Kind {
    fn topic(self, fleet: [u8; 32]) -> TopicId {
        TopicId::from_bytes(match self {
            Self::Entry => fleet,
            Self::Row => blake3::derive_key("osiris gossip topic of rows", &fleet),
        })
    }

    fn event(self, bytes: Bytes) -> MeshEvent {
        match self {
            Self::Entry => MeshEvent::Hint { bytes },
            Self::Row => MeshEvent::Row { bytes },
        }
    }
}

/// Where hints of one kind and news about peers wait for the gossip task.
pub(super) struct HintQueue {
    hints: mpsc::Sender<Bytes>,
    joins: mpsc::Sender<PeerId>,
}

/// The queues of both kinds.
pub(super) struct Hints {
    pub(super) entries: HintQueue,
    pub(super) rows: HintQueue,
}

impl Hints {
    /// The queues, and the tasks that empty them.
    pub(super) fn new() -> (Self, [HintTask; 2]) {
        let (entries, entries_out) = queue(Kind::Entry);
        let (rows, rows_out) = queue(Kind::Row);
        (Self { entries, rows }, [entries_out, rows_out])
    }

    /// A link to `peer` came up: make it a gossip neighbour. Missed ones are retried with the rest.
    pub(super) fn join(&self, peer: PeerId) {
        self.entries.join(peer);
        self.rows.join(peer);
    }
}

/// The other end of a [`HintQueue`].
pub(super) struct HintTask {
    kind: Kind,
    hints: mpsc::Receiver<Bytes>,
    joins: mpsc::Receiver<PeerId>,
}

fn queue(kind: Kind) -> (HintQueue, HintTask) {
    let (hints, hints_out) = mpsc::channel(HINTS_QUEUED_MAX);
    let (joins, joins_out) = mpsc::channel(HINTS_QUEUED_MAX);
    let task = HintTask { kind, hints: hints_out, joins: joins_out };
    (HintQueue { hints, joins }, task)
}

impl HintQueue {
    /// Queues a hint. One that is too large or does not fit is dropped: it is a hint.
    pub(super) fn hint(&self, bytes: Bytes) {
        if bytes.len() > HINT_BYTES_MAX {
            tracing::debug!(len = bytes.len(), "hint too large, left to the links");
        } else if self.hints.try_send(bytes).is_err() {
            tracing::debug!("hint dropped, left to the links");
        }
    }

    fn join(&self, peer: PeerId) {
        let _ = self.joins.try_send(peer);
    }
}

pub(super) fn spawn(endpoint: iroh::Endpoint) -> Gossip {
    let membership = HyparviewConfig { shuffle_interval: GOSSIP_SHUFFLE_INTERVAL, ..Default::default() };
    Gossip::builder().max_message_size(GOSSIP_MESSAGE_BYTES_MAX).membership_config(membership).spawn(endpoint)
}

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>, gossip: Gossip, mut task: HintTask) {
    let topic = task.kind.topic(shared.topic);
    let mut first = true;
    while !shared.stop.is_cancelled() {
        let options = JoinOptions {
            bootstrap: linked(&shared).into_iter().collect(),
            subscription_capacity: HINTS_RECEIVED_MAX,
        };
        match gossip.subscribe_with_opts(topic, options).await {
            Ok(subscription) => {
                if !first {
                    // Whatever came while there was no subscription is lost.
                    lagged(&shared, task.kind).await;
                }
                first = false;
                let (sender, receiver) = subscription.split();
                let (neighbours, kind) = (AtomicUsize::new(0), task.kind);
                tokio::select! {
                    () = send(&shared, &sender, &mut task, &neighbours) => {}
                    () = receive(&shared, receiver, kind, &neighbours) => {}
                    () = shared.stop.cancelled() => return,
                }
            }
            Err(error) => tracing::warn!("gossip cannot be subscribed to: {error:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(RESUBSCRIBE_PAUSE) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Some hints were lost. Rows say so by themselves: the next one of each owner replaces what was missed.
async fn lagged(shared: &Shared, kind: Kind) -> bool {
    kind == Kind::Row || shared.tell(MeshEvent::HintsLagged).await
}

fn linked(shared: &Shared) -> Vec<EndpointId> {
    shared.linked().iter().filter_map(endpoint_id).collect()
}

async fn send(shared: &Shared, sender: &GossipSender, task: &mut HintTask, neighbours: &AtomicUsize) {
    let mut rejoin = interval_at(Instant::now() + GOSSIP_REJOIN_INTERVAL, GOSSIP_REJOIN_INTERVAL);
    rejoin.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            Some(bytes) = task.hints.recv() => {
                timeout(HINT_SEND_TIMEOUT, sender.broadcast(bytes)).await
            }
            Some(peer) = task.joins.recv() => {
                let peers = endpoint_id(&peer).into_iter().collect();
                timeout(HINT_SEND_TIMEOUT, sender.join_peers(peers)).await
            }
            // iroh-gossip dials once and never again, so whoever is alone asks everyone again.
            _ = rejoin.tick() => {
                if neighbours.load(Ordering::Relaxed) > 0 {
                    continue;
                }
                timeout(HINT_SEND_TIMEOUT, sender.join_peers(linked(shared))).await
            }
            else => return,
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => tracing::debug!("gossip is stalled, a hint was dropped"),
        }
    }
}

async fn receive(shared: &Shared, mut receiver: GossipReceiver, kind: Kind, neighbours: &AtomicUsize) {
    while let Some(Ok(event)) = receiver.next().await {
        neighbours.store(receiver.neighbors().count(), Ordering::Relaxed);
        match event {
            Event::Received(message) => {
                let hint = kind.event(message.content);
                // Never waits with a hint in hand: one sentence, "some were lost", waits instead.
                if shared.events.try_put(hint) == Err(NotPut::Full) && !lagged(shared, kind).await {
                    return;
                }
            }
            Event::Lagged => {
                lagged(shared, kind).await;
            }
            Event::NeighborUp(_) | Event::NeighborDown(_) => {}
        }
    }
}
