//! `osiris/ended/1`: a device that was a member hears what ended that. One question and one answer on a
//! connection, a frame each; what is in them is the node's affair. The gate lets in no one else, and few a second.

use std::sync::Arc;

use bytes::Bytes;
use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use osiris_protocol::{
    alpn::{self, code},
    frame::{self, PREFIX_BYTES},
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    bind::{describe_close, endpoint_addr, endpoint_id, peer_id},
    shared::Shared,
};
use crate::{
    PeerId,
    limits::{DIAL_TIMEOUT, ENDED_TIMEOUT, FRAME_BYTES_MAX, GREETING_TIMEOUT},
};

/// The side that tells.
#[derive(Clone)]
pub(super) struct Endings(pub(super) Arc<Shared>);

impl std::fmt::Debug for Endings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Endings")
    }
}

impl ProtocolHandler for Endings {
    async fn accept(&self, conn: Connection) -> Result<(), AcceptError> {
        let shared = Arc::clone(&self.0);
        // In a task of its own: a panic here would stop the router, and every protocol with it.
        let task = tokio::spawn(async move {
            let served = timeout(ENDED_TIMEOUT, serve(&shared, &conn)).await;
            conn.close(VarInt::from_u32(served.unwrap_or(code::TIMEOUT)), b"done");
        });
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(
                "telling a device that it is no member panicked; this is a defect, please report it"
            );
        }
        Ok(())
    }
}

/// Serves one device and returns the code to close with.
async fn serve(shared: &Shared, conn: &Connection) -> u32 {
    let Ok(_permit) = Arc::clone(&shared.budgets.ended).try_acquire_owned() else {
        return code::BUSY;
    };
    let device = peer_id(&conn.remote_id());
    let asked = timeout(GREETING_TIMEOUT, async {
        let (send, mut recv) = conn.accept_bi().await.ok()?;
        Some((send, read(&mut recv).await?))
    });
    let Ok(Some((mut send, question))) = asked.await else {
        return code::MALFORMED;
    };
    let services = Arc::clone(&shared.services);
    let work = tokio::spawn(async move { services.ending(device, question).await });
    let Ok(answer) = AbortOnDropHandle::new(work).await else { return code::INTERNAL };
    let Some(answer) = answer else { return code::NOT_A_MEMBER };
    if write(&mut send, answer).await.is_none() {
        return code::DONE;
    }
    // The device closes when it has read the answer; closing first could cut it off.
    conn.closed().await;
    code::DONE
}

/// Asks a peer. An error is a sentence's part.
pub(super) async fn ask(shared: &Shared, peer: PeerId, question: Bytes) -> Result<Bytes, String> {
    let id = endpoint_id(&peer).ok_or("its key is not an Ed25519 key")?;
    let addr = endpoint_addr(id, shared.addrs(&peer));
    let conn = timeout(DIAL_TIMEOUT, shared.endpoint.connect(addr, alpn::ENDED))
        .await
        .map_err(|_| "it does not answer at any known address")?
        .map_err(|error| format!("{error:#}"))?;
    let talk = async {
        let (mut send, mut recv) = conn.open_bi().await.ok()?;
        write(&mut send, question).await?;
        read(&mut recv).await
    };
    let answer = timeout(ENDED_TIMEOUT, talk).await.map_err(|_| "it did not answer in time".to_owned());
    let answer = answer.and_then(|answer| {
        answer.ok_or_else(|| {
            conn.close_reason().as_ref().map_or("its answer was cut".to_owned(), describe_close)
        })
    });
    conn.close(VarInt::from_u32(code::DONE), b"done");
    answer
}

async fn write(send: &mut SendStream, bytes: Bytes) -> Option<()> {
    let prefix = frame::prefix(bytes.len(), FRAME_BYTES_MAX).ok()?;
    send.write_all(&prefix).await.ok()?;
    send.write_all(&bytes).await.ok()?;
    send.finish().ok()
}

async fn read(recv: &mut RecvStream) -> Option<Bytes> {
    let mut prefix = [0; PREFIX_BYTES];
    recv.read_exact(&mut prefix).await.ok()?;
    let len = frame::declared_len(prefix, FRAME_BYTES_MAX).ok()?;
    // Room is made for what comes, not for what is announced.
    recv.read_to_end(len).await.ok().filter(|bytes| bytes.len() == len).map(Bytes::from)
}
