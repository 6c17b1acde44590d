//! One call on one connection.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use iroh::endpoint::{Connection, ConnectionError, ReadError, VarInt, WriteError};
use osiris_protocol::{
    alpn::code,
    call::{CallReader, CallReply},
};

use crate::ClientError;

/// Bytes taken from a stream at a time.
const PIECE_BYTES: usize = 64 << 10;

/// A request that is taken to nodes, one after the other, until one takes it.
#[derive(Debug)]
pub(crate) struct Exchange {
    parts: [Bytes; 2],
    sent: AtomicBool,
}

/// How an attempt ended without a reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The call has certainly not been started: another node may be tried.
    NotTaken {
        why: String,
        /// The node is well and has no room.
        busy: bool,
    },
    /// It may have been started, or trying elsewhere would not help.
    Final(ClientError),
}

impl Exchange {
    pub(crate) fn new(parts: [Bytes; 2]) -> Self {
        Self { parts, sent: AtomicBool::new(false) }
    }

    /// Whether some node may have all of the request and has not turned it away.
    pub(crate) fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) async fn with(&self, conn: &Connection) -> Result<CallReply, Failure> {
        let outcome = self.attempt(conn).await;
        if let Err(Failure::NotTaken { .. }) = outcome {
            self.sent.store(false, Ordering::Relaxed);
        }
        outcome
    }

    async fn attempt(&self, conn: &Connection) -> Result<CallReply, Failure> {
        let (mut send, mut recv) = conn.open_bi().await.map_err(|error| lost(&error, false))?;
        // A node starts a call only when it has received all of it.
        match send.write_all_chunks(&mut self.parts.clone()).await {
            Ok(()) => {}
            Err(WriteError::Stopped(code)) => return Err(ended(code, false)),
            Err(WriteError::ConnectionLost(error)) => return Err(lost(&error, false)),
            Err(error) => return Err(broken(error.to_string(), false)),
        }
        self.sent.store(true, Ordering::Relaxed);
        let _ = send.finish();
        let mut reader = CallReader::<CallReply>::new();
        let bad = |why| Failure::Final(ClientError::BadReply { why });
        loop {
            match recv.read_chunk(PIECE_BYTES).await {
                Ok(Some(piece)) => reader.push(piece).map_err(bad)?,
                Ok(None) => return reader.finish().map_err(bad),
                Err(ReadError::Reset(code)) => return Err(ended(code, true)),
                Err(ReadError::ConnectionLost(error)) => return Err(lost(&error, true)),
                Err(error) => return Err(broken(error.to_string(), true)),
            }
        }
    }
}

fn broken(why: String, sent: bool) -> Failure {
    if sent { Failure::Final(ClientError::Lost { why }) } else { Failure::NotTaken { why, busy: false } }
}

/// The node ended the stream on purpose.
fn ended(code: VarInt, sent: bool) -> Failure {
    let code = u32::try_from(code.into_inner()).unwrap_or(u32::MAX);
    if let Some(why) = code::refused_before_start(code) {
        return Failure::NotTaken { why: why.to_owned(), busy: code == code::BUSY };
    }
    match code {
        code::TOO_LARGE => Failure::Final(ClientError::ReplyTooLarge),
        code::INTERNAL | code::TIMEOUT => Failure::Final(ClientError::Failed),
        _ => broken("the node gave the call up".to_owned(), sent),
    }
}

/// The connection ended.
fn lost(error: &ConnectionError, sent: bool) -> Failure {
    if let ConnectionError::ApplicationClosed(close) = error
        && let Ok(code) = u32::try_from(close.error_code.into_inner())
        && let code::NOT_A_MEMBER | code::BUSY = code
        && let Some(why) = code::refused_before_start(code)
    {
        return Failure::NotTaken { why: why.to_owned(), busy: false };
    }
    broken(error.to_string(), sent)
}
