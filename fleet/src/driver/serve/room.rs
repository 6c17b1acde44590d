//! Room for connections: a bounded number, of which one that only waits gives way to a new one.
//!
//! A connection is *idle* while it waits for the whole head of a request: before its first one, between
//! two, and also while a head comes in pieces. It is not idle while a request is worked on, while its answer
//! is taken from the function, or while the client does not read what was written. So nothing that was
//! begun is cut, and who merely holds connections open keeps nobody out.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

/// [`Seat::idle_since`] of a connection with a request.
const BUSY: u64 = u64::MAX;
/// [`Seat::idle_since`] of a connection that had to give way.
const GIVEN: u64 = u64::MAX - 1;

/// The connections of one kind that a listener has open.
#[derive(Debug)]
pub(super) struct Room {
    max: usize,
    started: Instant,
    seats: Mutex<BTreeMap<u64, Arc<Seat>>>,
}

/// One connection's place.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    room: Arc<Room>,
    /// Milliseconds since the room's start, or [`BUSY`] or [`GIVEN`].
    idle_since: AtomicU64,
    /// The client does not take what was written.
    blocked: AtomicBool,
    /// Ends the connection's task.
    task: OnceLock<AbortHandle>,
}

/// A taken place; dropping it leaves it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) seat: Arc<Seat>,
    /// Another connection, the one idle for longest, gave way.
    pub(super) displaced: bool,
}

impl Room {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, started: Instant::now(), seats: Mutex::default() })
    }

    /// A place for a new connection: a free one, or that of the connection that has been idle for
    /// longest. `None` while every connection has something to do.
    ///
    /// Only one task may ask, and it must [`begin`](Seat::begin) each seat before it asks again.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut seats = self.seats();
        let displaced = seats.len() >= self.max;
        if displaced {
            let number = Self::give_way(&seats)?;
            seats.remove(&number);
        }
        let number = seats.last_key_value().map_or(0, |(last, _)| last + 1);
        let seat = Arc::new(Seat {
            number,
            room: Arc::clone(self),
            idle_since: AtomicU64::new(self.now()),
            blocked: AtomicBool::new(false),
            task: OnceLock::new(),
        });
        seats.insert(number, Arc::clone(&seat));
        Some(Place { seat, displaced })
    }

    /// Ends the connection that has been idle for longest.
    fn give_way(seats: &BTreeMap<u64, Arc<Seat>>) -> Option<u64> {
        loop {
            let idle = seats.values().filter_map(|seat| seat.idle().map(|since| (since, seat)));
            let (since, seat) = idle.min_by_key(|(since, _)| *since)?;
            // A request may have come in this moment; then the next one is looked for.
            if seat.idle_since.compare_exchange(since, GIVEN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                if let Some(task) = seat.task.get() {
                    task.abort();
                }
                return Some(seat.number);
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(GIVEN - 1)
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// From now on the connection can be ended by its task.
    pub(super) fn begin(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    fn idle(&self) -> Option<u64> {
        let since = self.idle_since.load(Ordering::Acquire);
        (since < GIVEN && !self.blocked.load(Ordering::Relaxed)).then_some(since)
    }

    /// For how long the connection has waited for the whole head of a request, to the millisecond. `None`
    /// while it works on one.
    pub(super) fn waited(&self) -> Option<Duration> {
        let since = self.idle_since.load(Ordering::Acquire);
        (since < GIVEN).then(|| Duration::from_millis(self.room.now().saturating_sub(since)))
    }

    /// A request's head is here: the connection is not idle until what is returned is dropped. `None`
    /// where it had to give way in this moment.
    pub(super) fn work(self: &Arc<Self>) -> Option<Busy> {
        let since = self.idle_since.swap(BUSY, Ordering::AcqRel);
        if since == GIVEN {
            self.idle_since.store(GIVEN, Ordering::Release);
            return None;
        }
        Some(Busy(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = self.seat.room.seats();
        // Who gave way was taken out already, and its number may be another's.
        if seats.get(&self.seat.number).is_some_and(|seat| Arc::ptr_eq(seat, &self.seat)) {
            seats.remove(&self.seat.number);
        }
    }
}

/// A request that a connection works on.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.room.now(), Ordering::Release);
    }
}

/// An answer's body; while it is taken, its connection is not idle.
#[derive(Debug)]
pub(super) struct Watched<B> {
    pub(super) body: B,
    pub(super) _busy: Busy,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream, which notes whether the client reads.
#[derive(Debug)]
pub(super) struct Noting<S> {
    pub(super) stream: S,
    pub(super) seat: Arc<Seat>,
}

impl<S> Noting<S> {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.seat.blocked.store(written.is_pending(), Ordering::Relaxed);
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn begun(room: &Arc<Room>) -> Option<(Place, tokio::task::JoinHandle<()>)> {
        let place = room.take()?;
        let task = tokio::spawn(std::future::pending());
        place.seat.begin(task.abort_handle());
        Some((place, task))
    }

    #[tokio::test]
    async fn only_who_waits_gives_way_and_the_longest_first() {
        let room = Room::new(2);
        let (first, first_task) = begun(&room).expect("free");
        let (second, second_task) = begun(&room).expect("free");
        let busy = first.seat.work().expect("its own");
        let (third, third_task) = begun(&room).expect("the second gives way");
        assert!(third.displaced && !second_task.await.is_ok_and(|()| true));
        assert!(second.seat.work().is_none(), "it is too late for a request");
        drop(second);
        let third_busy = third.seat.work().expect("its own");
        assert!(begun(&room).is_none(), "everyone is at work, and who left has given its place away");
        drop(third_busy);
        drop(busy);
        assert!(!first_task.is_finished() && !third_task.is_finished());
        drop(first);
        assert!(!begun(&room).expect("free").0.displaced);
    }

    #[tokio::test]
    async fn who_has_an_answer_to_read_does_not_give_way() {
        let room = Room::new(1);
        let (place, _task) = begun(&room).expect("free");
        let (stream, mut client) = tokio::io::duplex(4);
        let mut stream = Noting { stream, seat: Arc::clone(&place.seat) };
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut write = || Pin::new(&mut stream).poll_write(&mut context, b"1234");
        assert!(write().is_ready() && write().is_pending());
        assert!(room.take().is_none());
        client.read_exact(&mut [0; 4]).await.expect("read");
        assert!(write().is_ready());
        assert!(room.take().is_some_and(|place| place.displaced));
    }
}
