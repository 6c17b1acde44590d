//! `osiris/call/1`: calls to peers, and calls from peers.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use iroh::{
    endpoint::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError},
    protocol::{AcceptError, ProtocolHandler},
};
use n0_future::FutureExt;
use osiris_protocol::{
    alpn::{self, code},
    call::{CallMessage, CallMessageError, CallReader, CallReply, CallRequest},
};
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit},
    time::{Instant, timeout, timeout_at},
};

use super::{
    api::MeshEvent,
    bind::{close_code, describe_close, endpoint_addr, endpoint_id, peer_id},
    gate::lock,
    shared::Shared,
};
use crate::{PeerId, limits::CALL_DIAL_TIMEOUT};

/// Bytes taken from a stream at a time.
const PIECE_BYTES: usize = 64 << 10;
/// How long a caller may take to send its whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a call brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallFailure {
    /// The request breaks a rule of the protocol and was not sent.
    #[error(transparent)]
    Invalid(CallMessageError),
    /// The request or the reply is larger than allowed.
    #[error("the {what} is too large for one call; send it in parts")]
    TooLarge {
        /// `request` or `reply`.
        what: &'static str,
    },
    /// There is no connection to the peer, and none could be made.
    #[error("cannot reach {peer}: {why}; call another node, or try again later")]
    NotConnected {
        /// The peer.
        peer: PeerId,
        /// The reason.
        why: String,
    },
    /// The peer turned the call away before starting it.
    #[error("{peer} turned the call away: {why}; call another node, or try again later")]
    Refused {
        /// The peer.
        peer: PeerId,
        /// The reason.
        why: &'static str,
    },
    /// The deadline passed.
    #[error("{peer} did not answer within the deadline of {deadline_ms} ms")]
    Timeout {
        /// The peer.
        peer: PeerId,
        /// The deadline, milliseconds.
        deadline_ms: u32,
        /// Whether the whole request had been sent, so that it may have been started.
        sent: bool,
    },
    /// The connection or the stream broke.
    #[error("the call to {peer} was lost: {why}")]
    Lost {
        /// The peer.
        peer: PeerId,
        /// The reason.
        why: String,
        /// Whether the whole request had been sent, so that it may have been started.
        sent: bool,
    },
    /// The peer started the call and failed.
    #[error("{peer} failed while it performed the call; look at that node's log")]
    Failed {
        /// The peer.
        peer: PeerId,
    },
    /// The reply breaks a rule of the protocol.
    #[error("{peer} sent a reply that breaks the protocol: {why}; check that node's version")]
    BadReply {
        /// The peer.
        peer: PeerId,
        /// The reason.
        why: CallMessageError,
    },
}

impl CallFailure {
    /// Whether the function has certainly not been started, so that the same call may be made
    /// elsewhere. A node starts a call only when it has received all of it.
    pub fn certainly_not_started(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::NotConnected { .. } | Self::Refused { .. } => true,
            Self::TooLarge { what } => *what == "request",
            Self::Timeout { sent, .. } | Self::Lost { sent, .. } => !sent,
            Self::Failed { .. } | Self::BadReply { .. } => false,
        }
    }
}

/// The kept connections, one a peer.
#[derive(Default)]
pub(super) struct CallCache(Mutex<BTreeMap<PeerId, Arc<OnceCell<Connection>>>>);

impl CallCache {
    /// Drops the connection to a peer; calls under way keep theirs to the end.
    pub(super) fn forget(&self, peer: &PeerId) {
        lock(&self.0).remove(peer);
    }

    fn slot(&self, peer: PeerId) -> Arc<OnceCell<Connection>> {
        let mut slots = lock(&self.0);
        let slot = slots.entry(peer).or_default();
        if slot.get().is_some_and(|c| c.close_reason().is_some()) {
            *slot = Arc::default();
        }
        Arc::clone(slot)
    }
}

pub(super) async fn call(
    shared: &Shared,
    peer: PeerId,
    request: CallRequest,
) -> Result<CallReply, CallFailure> {
    let parts = request.encode().map_err(|error| match error {
        CallMessageError::BodyTooLarge { .. } => CallFailure::TooLarge { what: "request" },
        other => CallFailure::Invalid(other),
    })?;
    let deadline_ms = request.deadline_ms;
    let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
    let sent = AtomicBool::new(false);
    let talk = async {
        let slot = shared.calls.slot(peer);
        // Callers that come while a connection is being made wait for that one.
        let conn = slot.get_or_try_init(|| connect(shared, peer)).await?;
        exchange(peer, conn, parts, &sent).await
    };
    timeout_at(deadline, talk).await.unwrap_or_else(|_| {
        Err(CallFailure::Timeout { peer, deadline_ms, sent: sent.load(Ordering::Relaxed) })
    })
}

async fn connect(shared: &Shared, peer: PeerId) -> Result<Connection, CallFailure> {
    let not_connected = |why: String| CallFailure::NotConnected { peer, why };
    if let Some(why) = shared.known_unreachable(&peer) {
        return Err(not_connected(why));
    }
    let addrs = shared.addrs(&peer);
    if addrs.is_empty() {
        return Err(not_connected("no address of it is known".to_owned()));
    }
    let id = endpoint_id(&peer).ok_or_else(|| not_connected("its key is not an Ed25519 key".to_owned()))?;
    let dial = shared.endpoint.connect(endpoint_addr(id, addrs), alpn::CALL);
    match timeout(CALL_DIAL_TIMEOUT, dial).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(not_connected(format!("{error:#}"))),
        Err(_) => Err(not_connected("it does not answer at any known address".to_owned())),
    }
}

/// What a code means for a call whose stream or connection was ended with it.
fn failure(peer: PeerId, code: u32, why: String, sent: bool) -> CallFailure {
    if let Some(why) = code::refused_before_start(code) {
        return CallFailure::Refused { peer, why };
    }
    match code {
        code::TOO_LARGE => CallFailure::TooLarge { what: "reply" },
        code::INTERNAL | code::TIMEOUT => CallFailure::Failed { peer },
        _ => CallFailure::Lost { peer, why, sent },
    }
}

fn lost(peer: PeerId, error: &ConnectionError, sent: bool) -> CallFailure {
    match close_code(error) {
        // Only these two codes end a connection and speak of its calls: it was refused.
        Some(code @ (code::NOT_A_MEMBER | code::BUSY)) => failure(peer, code, String::new(), sent),
        _ => CallFailure::Lost { peer, why: describe_close(error), sent },
    }
}

fn stream_code(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}

async fn exchange(
    peer: PeerId,
    conn: &Connection,
    mut parts: [bytes::Bytes; 2],
    sent: &AtomicBool,
) -> Result<CallReply, CallFailure> {
    let (mut send, mut recv) = conn.open_bi().await.map_err(|error| lost(peer, &error, false))?;
    match send.write_all_chunks(&mut parts).await {
        Ok(()) => {}
        Err(WriteError::ConnectionLost(error)) => return Err(lost(peer, &error, false)),
        Err(WriteError::Stopped(code)) => {
            let why = "the peer stopped reading".to_owned();
            return Err(failure(peer, stream_code(code), why, false));
        }
        Err(error) => {
            return Err(CallFailure::Lost { peer, why: error.to_string(), sent: false });
        }
    }
    // From here on the peer may have all of it.
    sent.store(true, Ordering::Relaxed);
    let _ = send.finish();
    let mut reader = CallReader::<CallReply>::new();
    let bad = |why| CallFailure::BadReply { peer, why };
    loop {
        match recv.read_chunk(PIECE_BYTES).await {
            Ok(Some(piece)) => reader.push(piece).map_err(bad)?,
            Ok(None) => return reader.finish().map_err(bad),
            Err(ReadError::Reset(code)) => {
                let why = "the peer gave the call up".to_owned();
                return Err(failure(peer, stream_code(code), why, true));
            }
            Err(ReadError::ConnectionLost(error)) => return Err(lost(peer, &error, true)),
            Err(error) => {
                return Err(CallFailure::Lost { peer, why: error.to_string(), sent: true });
            }
        }
    }
}

/// The serving side.
#[derive(Clone)]
pub(super) struct Calls(pub(super) Arc<Shared>);

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}

impl ProtocolHandler for Calls {
    async fn accept(&self, conn: Connection) -> Result<(), AcceptError> {
        let peer = peer_id(&conn.remote_id());
        // A task a stream: a panic ends one call, and the router goes on.
        while let Ok((send, recv)) = conn.accept_bi().await {
            tokio::spawn(serve(Arc::clone(&self.0), peer, send, recv));
        }
        Ok(())
    }
}

async fn serve(shared: Arc<Shared>, peer: PeerId, mut send: SendStream, mut recv: RecvStream) {
    // A packet wakes the connection's task, that one the accepting task, and that one this task. tokio runs so
    // many that wake each other on one thread and no more: what this task wakes would be handed to another
    // thread, and that is again the connection's task, whose lock both then want. A turn later it stays here.
    tokio::task::yield_now().await;
    let refused = match timeout(REQUEST_TIMEOUT, receive(&shared, peer, &mut recv)).await {
        Ok(Ok((request, permits))) => {
            let answered = perform(&shared, peer, request, &mut send).await;
            drop(permits);
            answered
        }
        Ok(Err(code)) => Err(code),
        Err(_) => Err(code::MALFORMED),
    };
    if let Err(code) = refused {
        // Both ways: the caller may be writing still, or reading already.
        let _ = send.reset(VarInt::from_u32(code));
        let _ = recv.stop(VarInt::from_u32(code));
    }
}

/// What a call under way holds of the node's budgets.
type Permits = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// Receives the whole request, within the budgets. `Err` is the code to refuse with.
async fn receive(
    shared: &Shared,
    peer: PeerId,
    recv: &mut RecvStream,
) -> Result<(CallRequest, Permits), u32> {
    let budgets = &shared.budgets;
    let call = Arc::clone(&budgets.calls).try_acquire_owned().map_err(|_| code::BUSY)?;
    let mut reader = CallReader::<CallRequest>::new();
    let mut body = None;
    while let Some(piece) = recv.read_chunk(PIECE_BYTES).await.map_err(|_| code::MALFORMED)? {
        if reader.push(piece).is_err() {
            // Waits for nobody: where events are not taken, this one is not counted.
            let _ = shared.events.try_put(MeshEvent::Malformed { peer });
            return Err(code::MALFORMED);
        }
        if body.is_none()
            && let Some(missing) = reader.missing()
        {
            // What has arrived with the head is in memory already; the rest is asked for first.
            let kib = u32::try_from(missing.div_ceil(1_024)).map_err(|_| code::BUSY)?;
            let permit = Arc::clone(&budgets.call_bodies_kib).try_acquire_many_owned(kib);
            body = Some(permit.map_err(|_| code::BUSY)?);
        }
    }
    let request = reader.finish().map_err(|_| code::MALFORMED)?;
    Ok((request, (call, body)))
}

/// Performs the call and sends its reply. `Err` is the code to give it up with.
async fn perform(
    shared: &Shared,
    peer: PeerId,
    request: CallRequest,
    send: &mut SendStream,
) -> Result<(), u32> {
    let deadline = Duration::from_millis(request.deadline_ms.into());
    // On the stream's own task: another one costs two more wake-ups, of which each may go to another core.
    // A panic is seen all the same, and nothing of the call is used after it.
    let work = AssertUnwindSafe(async { shared.services.call(peer, request).await }).catch_unwind();
    let reply = tokio::select! {
        // First, because most calls end when they are first looked at, before the others would be set up.
        biased;
        reply = work => reply.map_err(|_| code::INTERNAL)?,
        // The caller has gone, or does not want the reply any more.
        _ = send.stopped() => return Ok(()),
        () = tokio::time::sleep(deadline) => return Err(code::TIMEOUT),
        () = shared.stop.cancelled() => return Err(code::SHUTDOWN),
    };
    let kib = u32::try_from(reply.body.len().div_ceil(1_024)).map_err(|_| code::TOO_LARGE)?;
    let answers = Arc::clone(&shared.budgets.call_answers_kib).try_acquire_many_owned(kib);
    // The function has run: what says that it did not start would make the caller run it again.
    let _room = answers.map_err(|_| code::INTERNAL)?;
    let mut parts = reply.encode().map_err(|error| match error {
        CallMessageError::BodyTooLarge { .. } => code::TOO_LARGE,
        _ => code::INTERNAL,
    })?;
    let written = timeout(REQUEST_TIMEOUT, send.write_all_chunks(&mut parts)).await;
    if written.is_err() {
        return Err(code::TIMEOUT);
    }
    let _ = send.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_whether_the_call_was_started() {
        let peer = PeerId::from_bytes([1; 32]);
        let at = |code| failure(peer, code, String::new(), true).certainly_not_started();
        for refused in [code::BUSY, code::NOT_A_MEMBER, code::MALFORMED] {
            assert!(at(refused));
        }
        for started in [code::INTERNAL, code::TIMEOUT, code::TOO_LARGE, code::SHUTDOWN, 99] {
            assert!(!at(started));
        }
        let lost = |sent| CallFailure::Lost { peer, why: String::new(), sent };
        assert!(lost(false).certainly_not_started());
        assert!(!lost(true).certainly_not_started());
    }
}
