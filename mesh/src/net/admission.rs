//! `osiris/join/1`, the side that admits. The only protocol that strangers reach, so everything
//! about it is small: few at a time, few a second, one short message each.

use std::sync::Arc;

use iroh::{
    endpoint::{Connection, RecvStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use osiris_protocol::{
    alpn::code,
    frame::{self, PREFIX_BYTES},
    join::{JoinReply, JoinRequest, RefusalCode},
    limits::JOIN_FRAME_BYTES_MAX,
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{bind::peer_id, shared::Shared};
use crate::{
    PeerId,
    limits::{GREETING_TIMEOUT, JOIN_SERVE_TIMEOUT},
};

/// The admitting side.
#[derive(Clone)]
pub(super) struct Joins(pub(super) Arc<Shared>);

impl std::fmt::Debug for Joins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Joins")
    }
}

impl ProtocolHandler for Joins {
    async fn accept(&self, conn: Connection) -> Result<(), AcceptError> {
        let shared = Arc::clone(&self.0);
        // In a task of its own: a panic here would stop the router, and every protocol with it.
        let task = tokio::spawn(async move {
            let served = timeout(JOIN_SERVE_TIMEOUT, serve(&shared, &conn)).await;
            let code = served.unwrap_or(code::TIMEOUT);
            conn.close(VarInt::from_u32(code), b"done");
        });
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("a join panicked; this is a defect, please report it");
        }
        Ok(())
    }
}

/// Serves one newcomer and returns the code to close with.
async fn serve(shared: &Shared, conn: &Connection) -> u32 {
    let Ok(_permit) = Arc::clone(&shared.budgets.joins).try_acquire_owned() else {
        return code::BUSY;
    };
    let device = peer_id(&conn.remote_id());
    let request = timeout(GREETING_TIMEOUT, async {
        let (send, mut recv) = conn.accept_bi().await.ok()?;
        let request = read_request(&mut recv).await?;
        Some((send, request))
    });
    let Ok(Some((mut send, request))) = request.await else {
        return code::MALFORMED;
    };
    let addrs = request.addrs.clone();
    let reply = ask(shared, device, request).await;
    if let JoinReply::Welcome(_) = &reply {
        shared.learn(device, addrs, std::time::Duration::ZERO);
    }
    let encoded = reply.encode().or_else(|error| {
        tracing::error!("the services made a reply that cannot be sent: {error}");
        internal().encode()
    });
    let Ok(bytes) = encoded else {
        return code::INTERNAL;
    };
    if send.write_all(&bytes).await.is_err() {
        return code::DONE;
    }
    let _ = send.finish();
    // The newcomer closes when it has read the reply; closing first could cut it off.
    conn.closed().await;
    code::DONE
}

async fn read_request(recv: &mut RecvStream) -> Option<JoinRequest> {
    let mut prefix = [0; PREFIX_BYTES];
    recv.read_exact(&mut prefix).await.ok()?;
    let len = frame::declared_len(prefix, JOIN_FRAME_BYTES_MAX).ok()?;
    let mut payload = vec![0; len];
    recv.read_exact(&mut payload).await.ok()?;
    JoinRequest::decode(&payload).ok()
}

async fn ask(shared: &Shared, device: PeerId, request: JoinRequest) -> JoinReply {
    let services = Arc::clone(&shared.services);
    let work = tokio::spawn(async move { services.join(device, request).await });
    AbortOnDropHandle::new(work).await.unwrap_or_else(|_| internal())
}

fn internal() -> JoinReply {
    JoinReply::refused(
        RefusalCode::Internal,
        "The node failed while it looked at the invitation; try another node or try again.",
    )
}
