//! Listeners and their connections.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::Instant;

use super::Shared;
use super::answer::{Via, answer};
use super::body::Answer;
use super::listen::UnixSocket;
use super::room::{Noting, Place, Room, Watched};
use crate::driver::answer::ApiError;
use crate::driver::limits::{ACCEPT_PAUSE, HEAD_BYTES_MAX, RESERVED_CONNECTIONS_MAX, RESERVED_HEAD_TIMEOUT};

/// What is answered while every connection has something to do.
const FULL: &str = "The node has too many open connections already.";
/// What a connection gets when there is not even room to read what it asks.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 84\r\n\r\n\
    {\"error\":\"unavailable\",\"message\":\"The node has too many open connections already.\"}\n";

/// Something that accepts connections.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it small answers wait for the peer's delayed acknowledgement.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(socket) => Ok(Stream::Unix(socket.listener.accept().await?.0)),
        }
    }
}

impl Stream {
    /// Says that there is no room, as far as the kernel takes it at once.
    fn turn_away(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(NO_ROOM),
            Self::Unix(stream) => stream.try_write(NO_ROOM),
        };
    }
}

/// How connections of a listener are held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) connections_max: usize,
    pub(super) head_timeout: Duration,
}

/// What a connection may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Everything,
    /// Whether the node is well, once: there is no room for more.
    Health,
}

/// Accepts connections until the server stops. While there is no room, an idle connection gives way to a
/// new one; where none is idle, the new one may ask for `/healthz` or `/readyz`, so that who watches the
/// node does not take one that is busy for dead.
pub(super) async fn accept(listener: Listener, via: Via, terms: Terms, shared: Arc<Shared>) {
    let (room, reserve) = (Room::new(terms.connections_max), Room::new(RESERVED_CONNECTIONS_MAX));
    let spare = Terms { head_timeout: terms.head_timeout.min(RESERVED_HEAD_TIMEOUT), ..terms };
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (place, scope, terms) = match room.take() {
            Some(place) => (Some(place), Scope::Everything, terms),
            None => (reserve.take(), Scope::Health, spare),
        };
        let Some(place) = place else {
            shared.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
            stream.turn_away();
            continue;
        };
        if place.displaced {
            shared.metrics.displaced.fetch_add(1, Ordering::Relaxed);
        }
        let seat = Arc::clone(&place.seat);
        let (shared, via) = (Arc::clone(&shared), via.clone());
        let tasks = shared.tasks.clone();
        let task = match stream {
            Stream::Tcp(stream) => tasks.spawn(connection(stream, via, terms, scope, shared, place)),
            Stream::Unix(stream) => tasks.spawn(connection(stream, via, terms, scope, shared, place)),
        };
        seat.begin(task.abort_handle());
    }
}

/// Counts an open connection.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers one request in what the connection may ask.
async fn within(scope: Scope, shared: &Shared, via: &Via, request: Request<Incoming>) -> Response<Answer> {
    let health = || matches!(request.uri().path(), "/healthz" | "/readyz");
    if scope == Scope::Everything || health() {
        return answer(shared, via, request).await;
    }
    shared.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
    Answer::whole(ApiError::unavailable(FULL).into_response())
}

async fn connection<S>(stream: S, via: Via, terms: Terms, scope: Scope, shared: Arc<Shared>, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let open = Open::new(&shared.metrics.connections);
    let service = service_fn(|request| async {
        let Some(busy) = place.seat.work() else {
            // The connection gave its place away in this moment, and this task is being ended.
            return std::future::pending().await;
        };
        let response = within(scope, &shared, &via, request).await;
        Ok::<_, Infallible>(response.map(|body| Watched { body, _busy: busy }))
    });
    let stream = Noting { stream, seat: Arc::clone(&place.seat) };
    let mut server = http1::Builder::new();
    server
        .keep_alive(scope == Scope::Everything)
        .header_read_timeout(None)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(2 * HEAD_BYTES_MAX);
    let mut served = pin!(server.serve_connection(TokioIo::new(stream), service));
    let (mut stopped, mut ended) = (pin!(shared.stop.cancelled()), pin!(shared.end.cancelled()));
    let (mut watching, mut stopping) = (false, false);
    // One timer a connection, looked at when it has run out. hyper's own is made and taken apart with every
    // request, under a lock that all of the node's timers share.
    let mut late = pin!(tokio::time::sleep(terms.head_timeout));
    // Asking a token takes a lock that all connections share. So it is asked once, which is enough to be
    // woken by it, and from then on a flag is read.
    let result = poll_fn(|cx| {
        if !watching {
            watching = true;
            let _ = stopped.as_mut().poll(cx);
            let _ = ended.as_mut().poll(cx);
        }
        match shared.phase.load(Ordering::Acquire) {
            super::RUNNING => {}
            super::STOPPING if stopping => {}
            super::STOPPING => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            _ => return Poll::Ready(Ok(())),
        }
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        while late.as_mut().poll(cx).is_ready() {
            // While a request is worked on, the wait for the next head has not begun.
            let waited = place.seat.waited().unwrap_or_default();
            let left = terms.head_timeout.saturating_sub(waited);
            if left.is_zero() {
                tracing::debug!("a connection ended: no head came within {:?}", terms.head_timeout);
                return Poll::Ready(Ok(()));
            }
            late.as_mut().reset(Instant::now() + left);
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = result {
        // Clients that go away are everyday life.
        tracing::debug!("a connection ended: {error}");
    }
    drop(open);
}
