//! How much is served and fetched at the same time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::sync::Semaphore;

use super::{api::MeshHeld, gate::lock};
use crate::{
    PeerId,
    limits::{
        BLOBS_SERVED_MAX, CALL_ANSWERS_KIB_MAX, CALL_BODIES_KIB_MAX, CALLS_SERVED_MAX, ENDED_SERVED_MAX,
        FETCHES_PER_PEER_MAX, JOINS_SERVED_MAX, OFFERS_TAKEN_MAX,
    },
};

/// How much is served at the same time, over all peers, and fetched from each.
pub(super) struct Budgets {
    pub(super) calls: Arc<Semaphore>,
    pub(super) call_bodies_kib: Arc<Semaphore>,
    pub(super) call_answers_kib: Arc<Semaphore>,
    pub(super) blobs: Arc<Semaphore>,
    pub(super) offers: Arc<Semaphore>,
    pub(super) joins: Arc<Semaphore>,
    pub(super) ended: Arc<Semaphore>,
    /// Who fetches from a peer waits for one of its places.
    fetches: Mutex<BTreeMap<PeerId, Arc<Semaphore>>>,
}

impl Default for Budgets {
    fn default() -> Self {
        let places = |max| Arc::new(Semaphore::new(max));
        Self {
            calls: places(CALLS_SERVED_MAX),
            call_bodies_kib: places(CALL_BODIES_KIB_MAX),
            call_answers_kib: places(CALL_ANSWERS_KIB_MAX),
            blobs: places(BLOBS_SERVED_MAX),
            offers: places(OFFERS_TAKEN_MAX),
            joins: places(JOINS_SERVED_MAX),
            ended: places(ENDED_SERVED_MAX),
            fetches: Mutex::default(),
        }
    }
}

impl Budgets {
    /// The places of those who fetch from a peer.
    pub(super) fn fetches(&self, peer: PeerId) -> Arc<Semaphore> {
        let mut fetches = lock(&self.fetches);
        // Those of whom nobody fetches are forgotten.
        fetches.retain(|known, places| *known == peer || Arc::strong_count(places) > 1);
        let places = fetches.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(FETCHES_PER_PEER_MAX)));
        Arc::clone(places)
    }

    /// What of it is taken.
    pub(super) fn held(&self) -> MeshHeld {
        let taken = |places: &Semaphore, max: usize| (max - places.available_permits()) as u64;
        MeshHeld {
            calls: taken(&self.calls, CALLS_SERVED_MAX),
            call_bytes: taken(&self.call_bodies_kib, CALL_BODIES_KIB_MAX) << 10,
            answer_bytes: taken(&self.call_answers_kib, CALL_ANSWERS_KIB_MAX) << 10,
            blobs: taken(&self.blobs, BLOBS_SERVED_MAX),
            ..MeshHeld::default()
        }
    }
}
