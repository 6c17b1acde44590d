//! `osiris/offer/1`: artifacts that come before the block which names them.
//!
//! A device that makes contact for a moment gives a member the bytes of what it deployed, and its blocks after that: so
//! no member ever knows of a revision whose bytes nobody else holds. An offer takes one bidirectional stream: the hash (32
//! bytes) and the size (big-endian `u64`) one way; the other way one byte, 0 when the artifact is not taken, 1 when it is
//! to be sent, 2 when it is here, 3 when the member is busy. After a 1 its bytes go the one way, and one byte comes back:
//! 2 when it is kept durably, or 0.

use std::{path::PathBuf, sync::Arc};

use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use osiris_protocol::alpn::{self, code};
use tokio::time::timeout;

use super::{
    api::Offered,
    bind::{describe_close, peer_id},
    blobs,
    shared::Shared,
};
use crate::{
    PeerId,
    limits::{BLOB_STALL_MAX, OFFER_TIMEOUT, OFFERS_AT_ONCE_MAX},
};

const REFUSED: u8 = 0;
const WANTED: u8 = 1;
const HELD: u8 = 2;
const BUSY: u8 = 3;

/// An artifact to be offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its BLAKE3 hash.
    pub hash: [u8; 32],
    /// Where it is.
    pub file: PathBuf,
}

/// Gives artifacts to a peer, and returns once it holds them all, durably.
pub(super) async fn offer(shared: &Shared, peer: PeerId, artifacts: &[Artifact]) -> Result<(), String> {
    let place = shared.budgets.fetches(peer).acquire_owned().await;
    let _place = place.map_err(|error| error.to_string())?;
    for artifacts in artifacts.chunks(OFFERS_AT_ONCE_MAX) {
        let conn = blobs::connect(shared, peer, alpn::OFFER).await.map_err(|error| error.to_string())?;
        let given = give_all(&conn, artifacts).await;
        let given = given.map_err(|why| conn.close_reason().map_or(why, |reason| describe_close(&reason)));
        conn.close(VarInt::from_u32(code::DONE), b"done");
        given?;
    }
    Ok(())
}

async fn give_all(conn: &Connection, artifacts: &[Artifact]) -> Result<(), String> {
    for artifact in artifacts {
        give(conn, artifact).await?;
    }
    Ok(())
}

async fn give(conn: &Connection, artifact: &Artifact) -> Result<(), String> {
    let silent = || "it fell silent".to_owned();
    let opened = blobs::open(&artifact.file).await;
    let (file, size) = opened.ok_or_else(|| format!("{} cannot be read", artifact.file.display()))?;
    let talk = async {
        let (mut send, mut recv) = conn.open_bi().await.map_err(|error| error.to_string())?;
        let mut question = [0; 40];
        question[..32].copy_from_slice(&artifact.hash);
        question[32..].copy_from_slice(&size.to_be_bytes());
        send.write_all(&question).await.map_err(|error| error.to_string())?;
        let answer = read_byte(&mut recv).await?;
        Ok::<_, String>((send, recv, answer))
    };
    let (mut send, mut recv, answer) = timeout(BLOB_STALL_MAX, talk).await.map_err(|_| silent())??;
    match answer {
        HELD => return Ok(()),
        WANTED => {}
        BUSY => return Err("it takes other artifacts at the moment".to_owned()),
        _ => return Err("it does not take the artifact".to_owned()),
    }
    blobs::pieces(file, size, &mut send).await.map_err(|error| error.to_string())?;
    let _ = send.finish();
    match timeout(OFFER_TIMEOUT, read_byte(&mut recv)).await.map_err(|_| silent())?? {
        HELD => Ok(()),
        _ => Err("it could not keep the artifact".to_owned()),
    }
}

async fn read_byte(recv: &mut RecvStream) -> Result<u8, String> {
    let mut answer = [0; 1];
    recv.read_exact(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(answer[0])
}

/// The side that takes artifacts.
#[derive(Clone)]
pub(super) struct Offers(pub(super) Arc<Shared>);

impl std::fmt::Debug for Offers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offers")
    }
}

impl ProtocolHandler for Offers {
    async fn accept(&self, conn: Connection) -> Result<(), AcceptError> {
        let peer = peer_id(&conn.remote_id());
        // One after the other; a panic ends one, and the router goes on.
        for _ in 0..OFFERS_AT_ONCE_MAX {
            let Ok((send, recv)) = conn.accept_bi().await else { return Ok(()) };
            let taken = tokio::spawn(timeout(OFFER_TIMEOUT, take(Arc::clone(&self.0), peer, send, recv)));
            let _ = taken.await;
        }
        Ok(())
    }
}

async fn take(shared: Arc<Shared>, peer: PeerId, mut send: SendStream, mut recv: RecvStream) {
    let mut question = [0; 40];
    if !matches!(timeout(BLOB_STALL_MAX, recv.read_exact(&mut question)).await, Ok(Ok(()))) {
        let _ = send.reset(VarInt::from_u32(code::MALFORMED));
        return;
    }
    let (hash, size) = question.split_at(32);
    let hash: [u8; 32] = hash.try_into().expect("32 bytes");
    let size = u64::from_be_bytes(size.try_into().expect("8 bytes"));
    let Ok(_place) = Arc::clone(&shared.budgets.offers).try_acquire_owned() else {
        let _ = send.write_all(&[BUSY]).await;
        return;
    };
    let answer = match shared.services.offered(peer, hash, size) {
        Offered::Refused => REFUSED,
        Offered::Held => HELD,
        Offered::Wanted(to) => {
            if send.write_all(&[WANTED]).await.is_err() {
                return;
            }
            match blobs::store(peer, &mut recv, hash, size, &to).await {
                Ok(()) if shared.services.keep(hash, to).await => HELD,
                Ok(()) => REFUSED,
                Err(error) => {
                    tracing::info!("an offered artifact was not taken: {error}");
                    REFUSED
                }
            }
        }
    };
    let _ = send.write_all(&[answer]).await;
    let _ = send.finish();
    let _ = timeout(BLOB_STALL_MAX, send.stopped()).await;
}
