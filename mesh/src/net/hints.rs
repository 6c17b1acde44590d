//! Hints over iroh-gossip.
//!
//! Gossip loses messages: when many join at once, when a queue overflows, when a dial fails once,
//! and always across a partition. So nothing depends on it. A hint is handed over by a task of its
//! own, because a stopped peer can stall `broadcast` for half a minute, and the topic is subscribed
//! anew whenever iroh-gossip closes it.

use std::{
    collections::VecDeque,
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
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{api::MeshEvent, bind::endpoint_id, shared::Shared};
use crate::{
    PeerId,
    limits::{
        GOSSIP_JOIN_DELAY, GOSSIP_MESSAGE_BYTES_MAX, GOSSIP_REJOIN_INTERVAL, GOSSIP_SHUFFLE_INTERVAL,
        HINT_BYTES_MAX, HINT_SEND_TIMEOUT, HINTS_QUEUED_MAX,
    },
};

/// Hints received and not yet taken before iroh-gossip reports that it lost some.
const SUBSCRIPTION_CAPACITY: usize = 2_048;
/// Pause before subscribing anew.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(200);

/// Where hints and news about peers wait for the gossip task.
pub(super) struct HintQueue {
    hints: mpsc::Sender<Bytes>,
    joins: mpsc::Sender<PeerId>,
}

/// The other end of a [`HintQueue`].
pub(super) struct HintTask {
    hints: mpsc::Receiver<Bytes>,
    joins: mpsc::Receiver<PeerId>,
}

pub(super) fn queue() -> (HintQueue, HintTask) {
    let (hints, hints_out) = mpsc::channel(HINTS_QUEUED_MAX);
    let (joins, joins_out) = mpsc::channel(HINTS_QUEUED_MAX);
    let task = HintTask { hints: hints_out, joins: joins_out };
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

    /// A link to `peer` came up: make it a gossip neighbour, if it stays. Missed ones are retried with the
    /// rest.
    pub(super) fn join(&self, peer: PeerId) {
        let _ = self.joins.try_send(peer);
    }
}

pub(super) fn spawn(endpoint: iroh::Endpoint) -> Gossip {
    let membership = HyparviewConfig { shuffle_interval: GOSSIP_SHUFFLE_INTERVAL, ..Default::default() };
    Gossip::builder().max_message_size(GOSSIP_MESSAGE_BYTES_MAX).membership_config(membership).spawn(endpoint)
}

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>, gossip: Gossip, mut task: HintTask) {
    let topic = TopicId::from_bytes(shared.topic);
    let mut first = true;
    while !shared.stop.is_cancelled() {
        let options = JoinOptions {
            bootstrap: linked(&shared).into_iter().collect(),
            subscription_capacity: SUBSCRIPTION_CAPACITY,
        };
        match gossip.subscribe_with_opts(topic, options).await {
            Ok(subscription) => {
                if !first {
                    // Whatever came while there was no subscription is lost.
                    shared.tell(MeshEvent::HintsLagged).await;
                }
                first = false;
                let (sender, receiver) = subscription.split();
                let neighbours = AtomicUsize::new(0);
                tokio::select! {
                    () = send(&shared, &sender, &mut task, &neighbours) => {}
                    () = receive(&shared, receiver, &neighbours) => {}
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

/// Peers whose link came up a moment ago, in that order.
#[derive(Default)]
struct Newcomers(VecDeque<(Instant, PeerId)>);

impl Newcomers {
    /// A link came up. One of too many waits for the next attempt of all.
    fn push(&mut self, now: Instant, peer: PeerId) {
        if self.0.len() < HINTS_QUEUED_MAX {
            self.0.push_back((now + GOSSIP_JOIN_DELAY, peer));
        }
    }

    /// When the next one is due.
    fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(due, _)| *due)
    }

    /// Those that are due and whose link is still up.
    fn due(&mut self, now: Instant, linked: &[PeerId]) -> Vec<PeerId> {
        let count = self.0.partition_point(|(due, _)| *due <= now);
        self.0.drain(..count).map(|(_, peer)| peer).filter(|peer| linked.contains(peer)).collect()
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn linked(shared: &Shared) -> Vec<EndpointId> {
    shared.linked().iter().filter_map(endpoint_id).collect()
}

async fn send(shared: &Shared, sender: &GossipSender, task: &mut HintTask, neighbours: &AtomicUsize) {
    let mut rejoin = interval_at(Instant::now() + GOSSIP_REJOIN_INTERVAL, GOSSIP_REJOIN_INTERVAL);
    rejoin.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut newcomers = Newcomers::default();
    loop {
        let sent = tokio::select! {
            Some(bytes) = task.hints.recv() => {
                timeout(HINT_SEND_TIMEOUT, sender.broadcast(bytes)).await
            }
            Some(peer) = task.joins.recv() => {
                newcomers.push(Instant::now(), peer);
                continue;
            }
            () = sleep_until(newcomers.deadline()) => {
                let due = newcomers.due(Instant::now(), &shared.linked());
                let peers: Vec<EndpointId> = due.iter().filter_map(endpoint_id).collect();
                if peers.is_empty() {
                    continue;
                }
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

async fn receive(shared: &Shared, mut receiver: GossipReceiver, neighbours: &AtomicUsize) {
    while let Some(Ok(event)) = receiver.next().await {
        neighbours.store(receiver.neighbors().count(), Ordering::Relaxed);
        match event {
            Event::Received(message) => {
                let hint = MeshEvent::Hint { bytes: message.content };
                // Never waits with a hint in hand: one sentence, "some were lost", waits instead.
                if let Err(TrySendError::Full(_)) = shared.events.try_send(hint)
                    && !shared.tell(MeshEvent::HintsLagged).await
                {
                    return;
                }
            }
            Event::Lagged => {
                shared.tell(MeshEvent::HintsLagged).await;
            }
            Event::NeighborUp(_) | Event::NeighborDown(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_stays_becomes_a_neighbour() {
        let [stays, goes, late] = [1, 2, 3].map(|n| PeerId::from_bytes([n; 32]));
        let start = Instant::now();
        let mut newcomers = Newcomers::default();
        assert_eq!(newcomers.deadline(), None);
        newcomers.push(start, stays);
        newcomers.push(start, goes);
        let then = start + GOSSIP_JOIN_DELAY;
        newcomers.push(then, late);
        let linked = [stays, late];
        assert_eq!(newcomers.due(then - Duration::from_millis(1), &linked), []);
        assert_eq!(newcomers.deadline(), Some(then));
        assert_eq!(newcomers.due(then, &linked), [stays]);
        assert_eq!(newcomers.due(then + GOSSIP_JOIN_DELAY, &linked), [late]);
        for n in 0..2 * HINTS_QUEUED_MAX {
            newcomers.push(start, PeerId::from_bytes([n as u8; 32]));
        }
        assert_eq!(newcomers.0.len(), HINTS_QUEUED_MAX);
    }
}
