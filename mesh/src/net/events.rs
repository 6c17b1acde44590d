//! Events on their way to the user of the mesh, bounded by their number and by their bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::api::MeshEvent;
use crate::limits::{EVENTS_BYTES_QUEUED_MAX, EVENTS_QUEUED_MAX};

/// What the mesh tells its user, in order for each peer. It has to be taken: a full queue stops the reading of links.
#[derive(Debug)]
pub struct MeshEvents(mpsc::Receiver<Queued>);

/// An event and its place among the bytes, which is free again when it is taken.
#[derive(Debug)]
struct Queued {
    event: MeshEvent,
    _room: OwnedSemaphorePermit,
}

/// Where events are put.
#[derive(Clone, Debug)]
pub(super) struct Events {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// Why an event was not put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotPut {
    Full,
    /// Nobody takes events any more.
    Gone,
}

impl MeshEvents {
    /// Of no mesh: none ever comes.
    #[must_use]
    pub fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// The next event; none when the mesh has stopped. Nothing is lost where it is dropped before it resolves.
    pub async fn recv(&mut self) -> Option<MeshEvent> {
        self.0.recv().await.map(|queued| queued.event)
    }
}

impl Events {
    pub(super) fn new() -> (Self, MeshEvents) {
        let (queue, events) = mpsc::channel(EVENTS_QUEUED_MAX);
        (Self { queue, room: Arc::new(Semaphore::new(EVENTS_BYTES_QUEUED_MAX)) }, MeshEvents(events))
    }

    /// Waits while there is no room.
    pub(super) async fn put(&self, event: MeshEvent) -> Result<(), NotPut> {
        let room = Arc::clone(&self.room).acquire_many_owned(bytes(&event)).await;
        let queued = Queued { event, _room: room.map_err(|_| NotPut::Gone)? };
        self.queue.send(queued).await.map_err(|_| NotPut::Gone)
    }

    /// Waits for nobody.
    pub(super) fn try_put(&self, event: MeshEvent) -> Result<(), NotPut> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes(&event));
        let queued = Queued { event, _room: room.map_err(|_| NotPut::Full)? };
        self.queue.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotPut::Full,
            mpsc::error::TrySendError::Closed(_) => NotPut::Gone,
        })
    }

    /// Bytes that wait to be taken.
    pub(super) fn queued_bytes(&self) -> usize {
        EVENTS_BYTES_QUEUED_MAX - self.room.available_permits()
    }
}

/// What an event counts for: what a peer sent. The rest of it is bounded by the number of events.
fn bytes(event: &MeshEvent) -> u32 {
    let len = match event {
        MeshEvent::Frame { bytes, .. } | MeshEvent::Hint { bytes } | MeshEvent::Row { bytes } => bytes.len(),
        _ => 0,
    };
    // No frame is larger; one that were could never be put.
    u32::try_from(len.min(EVENTS_BYTES_QUEUED_MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{PeerId, limits::FRAME_BYTES_MAX};

    fn frame(len: usize) -> MeshEvent {
        MeshEvent::Frame { peer: PeerId::from_bytes([1; 32]), bytes: Bytes::from(vec![0; len]) }
    }

    #[tokio::test]
    async fn events_are_bounded_by_bytes_and_by_number() {
        let (events, mut taken) = Events::new();
        let fit = EVENTS_BYTES_QUEUED_MAX / FRAME_BYTES_MAX;
        // The bytes are what holds.
        const { assert!(EVENTS_BYTES_QUEUED_MAX / FRAME_BYTES_MAX < EVENTS_QUEUED_MAX) };
        for _ in 0..fit {
            events.put(frame(FRAME_BYTES_MAX)).await.expect("room");
        }
        assert_eq!(events.try_put(frame(FRAME_BYTES_MAX)), Err(NotPut::Full));
        assert_eq!(events.queued_bytes(), fit * FRAME_BYTES_MAX);
        // What has no bytes still has room, up to the number.
        for _ in fit..EVENTS_QUEUED_MAX {
            events.try_put(MeshEvent::HintsLagged).expect("room");
        }
        assert_eq!(events.try_put(MeshEvent::HintsLagged), Err(NotPut::Full));
        taken.recv().await.expect("the first");
        assert_eq!(events.queued_bytes(), (fit - 1) * FRAME_BYTES_MAX);
        events.put(frame(FRAME_BYTES_MAX)).await.expect("its room is free again");
        drop(taken);
        assert_eq!(events.put(frame(0)).await, Err(NotPut::Gone));
    }
}
