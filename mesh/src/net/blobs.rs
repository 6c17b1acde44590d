//! `osiris/blob/1`: artifacts by their BLAKE3 hash.
//!
//! A fetch takes one bidirectional stream: the hash (32 bytes) one way; the other way one byte, 1
//! when the artifact is here, 0 when it is not, 2 when the node is busy, and after a 1 its size (big-endian
//! `u64`) and its bytes. Nothing is trusted before the whole of it has been hashed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use osiris_protocol::alpn::{self, code};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    bind::{endpoint_addr, endpoint_id},
    shared::Shared,
};
use crate::{
    PeerId,
    limits::{BLOB_PIECE_BYTES, BLOB_STALL_MAX, DIAL_TIMEOUT},
};

const ABSENT: u8 = 0;
const HERE: u8 = 1;
const BUSY: u8 = 2;

/// Why an artifact was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no connection to the peer, and none could be made.
    #[error("cannot reach {peer}: {why}; fetch from another node")]
    NotConnected {
        /// The peer.
        peer: PeerId,
        /// The reason.
        why: String,
    },
    /// The peer does not have the artifact.
    #[error("{peer} does not have the artifact; fetch from another node")]
    Absent {
        /// The peer.
        peer: PeerId,
    },
    /// The peer serves as many fetches as it may.
    #[error("{peer} is busy with other fetches; try again in a moment")]
    Busy {
        /// The peer.
        peer: PeerId,
    },
    /// The artifact is larger than the caller allows.
    #[error("the artifact has {size} bytes and at most {max_bytes} are allowed; raise the limit")]
    TooLarge {
        /// Its size, bytes.
        size: u64,
        /// What was allowed, bytes.
        max_bytes: u64,
    },
    /// The bytes do not have the hash that was asked for.
    #[error("{peer} sent bytes with another hash; fetch from another node")]
    WrongHash {
        /// The peer.
        peer: PeerId,
    },
    /// The connection broke, or more or fewer bytes came than announced.
    #[error("the fetch from {peer} was cut: {why}; fetch again")]
    Cut {
        /// The peer.
        peer: PeerId,
        /// The reason.
        why: String,
    },
    /// No bytes came for a while.
    #[error("{peer} stopped sending; fetch from another node")]
    Stalled {
        /// The peer.
        peer: PeerId,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}; free some space or correct its permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file that is removed unless it is kept.
struct Partial<'a> {
    path: &'a Path,
    kept: bool,
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing else can be done about a file that cannot be removed: its content is never
            // taken for the artifact.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

pub(super) async fn fetch(
    shared: &Shared,
    peer: PeerId,
    hash: [u8; 32],
    to: &Path,
    max_bytes: u64,
) -> Result<u64, FetchError> {
    let Ok(_place) = shared.budgets.fetches(peer).acquire_owned().await else {
        return Err(FetchError::Busy { peer });
    };
    let conn = connect(shared, peer, alpn::BLOB).await?;
    let fetched = receive(peer, &conn, hash, to, max_bytes).await;
    conn.close(VarInt::from_u32(code::DONE), b"done");
    fetched
}

pub(super) async fn connect(shared: &Shared, peer: PeerId, alpn: &[u8]) -> Result<Connection, FetchError> {
    let not_connected = |why: &str| FetchError::NotConnected { peer, why: why.to_owned() };
    let id = endpoint_id(&peer).ok_or_else(|| not_connected("its key is not an Ed25519 key"))?;
    let addrs = shared.addrs(&peer);
    if addrs.is_empty() {
        return Err(not_connected("no address of it is known"));
    }
    let dial = shared.endpoint.connect(endpoint_addr(id, addrs), alpn);
    timeout(DIAL_TIMEOUT, dial)
        .await
        .map_err(|_| not_connected("it does not answer at any known address"))?
        .map_err(|error| not_connected(&format!("{error:#}")))
}

/// Waits for `step`, but not without progress for ever.
pub(super) async fn progress<T, E: std::fmt::Display>(
    peer: PeerId,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, FetchError> {
    match timeout(BLOB_STALL_MAX, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(FetchError::Cut { peer, why: error.to_string() }),
        Err(_) => Err(FetchError::Stalled { peer }),
    }
}

async fn receive(
    peer: PeerId,
    conn: &Connection,
    hash: [u8; 32],
    to: &Path,
    max_bytes: u64,
) -> Result<u64, FetchError> {
    let (mut send, mut recv) = progress(peer, conn.open_bi()).await?;
    progress(peer, send.write_all(&hash)).await?;
    let _ = send.finish();
    let mut answer = [0; 1];
    progress(peer, recv.read_exact(&mut answer)).await?;
    match answer {
        [HERE] => {}
        [ABSENT] => return Err(FetchError::Absent { peer }),
        [BUSY] => return Err(FetchError::Busy { peer }),
        _ => {
            return Err(FetchError::Cut { peer, why: "its answer is not understood".to_owned() });
        }
    }
    let mut size = [0; 8];
    progress(peer, recv.read_exact(&mut size)).await?;
    let size = u64::from_be_bytes(size);
    if size > max_bytes {
        return Err(FetchError::TooLarge { size, max_bytes });
    }
    store(peer, &mut recv, hash, size, to).await?;
    Ok(size)
}

/// Writes `size` bytes that a peer sends to the file `to`, durably. It holds the artifact `hash`, or is removed.
pub(super) async fn store(
    peer: PeerId,
    recv: &mut RecvStream,
    hash: [u8; 32],
    size: u64,
    to: &Path,
) -> Result<(), FetchError> {
    let file_error = |source| FetchError::File { path: to.to_owned(), source };
    let mut file = File::create(to).await.map_err(file_error)?;
    let mut partial = Partial { path: to, kept: false };
    let mut hasher = blake3::Hasher::new();
    let mut missing = size;
    while let Some(piece) = progress(peer, recv.read_chunk(BLOB_PIECE_BYTES)).await? {
        missing = missing
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| FetchError::Cut { peer, why: "more bytes came than announced".to_owned() })?;
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(file_error)?;
    }
    if missing > 0 {
        return Err(FetchError::Cut { peer, why: format!("{missing} bytes are missing") });
    }
    if *hasher.finalize().as_bytes() != hash {
        return Err(FetchError::WrongHash { peer });
    }
    file.flush().await.map_err(file_error)?;
    file.sync_all().await.map_err(file_error)?;
    partial.kept = true;
    Ok(())
}

/// The serving side.
#[derive(Clone)]
pub(super) struct Blobs(pub(super) Arc<Shared>);

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blobs")
    }
}

impl ProtocolHandler for Blobs {
    async fn accept(&self, conn: Connection) -> Result<(), AcceptError> {
        // A task a stream: a panic ends one fetch, and the router goes on.
        while let Ok((send, recv)) = conn.accept_bi().await {
            tokio::spawn(serve(Arc::clone(&self.0), send, recv));
        }
        Ok(())
    }
}

async fn serve(shared: Arc<Shared>, mut send: SendStream, mut recv: RecvStream) {
    let mut hash = [0; 32];
    let asked = timeout(BLOB_STALL_MAX, recv.read_exact(&mut hash)).await;
    if !matches!(asked, Ok(Ok(()))) {
        let _ = send.reset(VarInt::from_u32(code::MALFORMED));
        return;
    }
    let Ok(_permit) = Arc::clone(&shared.budgets.blobs).try_acquire_owned() else {
        let _ = send.write_all(&[BUSY]).await;
        return;
    };
    let _giving = shared.given.begin();
    let opened = match shared.services.blob(hash) {
        Some(path) => open(&path).await,
        None => None,
    };
    let Some((file, size)) = opened else {
        let _ = send.write_all(&[ABSENT]).await;
        return;
    };
    if let Err(error) = stream(file, size, &mut send).await {
        tracing::debug!("an artifact was not sent to its end: {error}");
        let _ = send.reset(VarInt::from_u32(code::INTERNAL));
    }
}

pub(super) async fn open(path: &Path) -> Option<(File, u64)> {
    let file = File::open(path).await.ok()?;
    let metadata = file.metadata().await.ok()?;
    metadata.is_file().then_some((file, metadata.len()))
}

async fn stream(file: File, size: u64, send: &mut SendStream) -> io::Result<()> {
    let mut head = [HERE; 9];
    head[1..].copy_from_slice(&size.to_be_bytes());
    send.write_all(&head).await?;
    pieces(file, size, send).await?;
    let _ = send.finish();
    // What was written lies in a window of the connection; the peer has it once it says so.
    let taken = timeout(BLOB_STALL_MAX, send.stopped()).await;
    taken.map(drop).map_err(|_| io::ErrorKind::TimedOut.into())
}

/// Writes the first `size` bytes of a file, and not without progress for ever.
pub(super) async fn pieces(file: File, size: u64, send: &mut SendStream) -> io::Result<()> {
    // A file that grows meanwhile is not sent past the announced size.
    let mut file = file.take(size);
    let mut piece = vec![0; BLOB_PIECE_BYTES];
    loop {
        let len = file.read(&mut piece).await?;
        if len == 0 {
            return Ok(());
        }
        timeout(Duration::from_secs(30), send.write_all(&piece[..len]))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
}
