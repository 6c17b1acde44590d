//! The messages of `osiris/sync/1`.
//!
//! One bidirectional stream a connection carries messages both ways. A message is its length as a
//! big-endian `u32`, one byte for its kind, and its payload. The first each way is a [`Hello`]. What
//! follows is mostly [`Message::Frame`], opaque to the mesh; the rest is the mesh talking about
//! addresses.

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use osiris_protocol::frame::{self, FrameError, PREFIX_BYTES};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::limits::{ADDRESSES_PEERS_MAX, BOOK_ADDRS_MAX, FRAME_BYTES_MAX, WANTED_PEERS_MAX};

/// The version that a [`Hello`] carries. A change of shape gets a new ALPN instead.
pub const VERSION: u16 = 1;
/// Largest message after its length: a kind and the largest frame.
pub const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + 1;
/// Bytes before the payload: length and kind.
pub const HEAD_BYTES: usize = PREFIX_BYTES + 1;
/// Largest payload of the mesh's own messages.
const OWN_BYTES_MAX: usize = 256 << 10;

const HELLO: u8 = 0;
const FRAME: u8 = 1;
const ADDRESSES: u8 = 2;
const WANTED: u8 = 3;

/// The first message each way. Having received it, and not having connected, means being accepted:
/// a refused client's handshake succeeds too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The fleet's topic.
    pub topic: ByteArray<32>,
    /// [`VERSION`].
    pub version: u16,
    /// Chosen at random when the node started: tells a second connection of one run from the first
    /// connection after a restart.
    pub session: ByteArray<16>,
    /// Where the sender listens.
    pub addrs: Vec<SocketAddr>,
}

/// What a node says about where a member listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressEntry {
    /// The member.
    pub peer: ByteArray<32>,
    /// Its addresses.
    pub addrs: Vec<AgedAddr>,
}

/// An address and how long ago it was known to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgedAddr {
    /// The address.
    pub addr: SocketAddr,
    /// Its age, seconds.
    pub age_s: u32,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who speaks.
    Hello(Hello),
    /// A frame of the user of the mesh.
    Frame(Bytes),
    /// Where members listen.
    Addresses(Vec<AddressEntry>),
    /// Members whose addresses the sender does not know.
    Wanted(Vec<ByteArray<32>>),
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The payload is broken or too large.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The message has no kind.
    #[error("the message is empty; check that both nodes run the same version")]
    Empty,
    /// The kind is not known.
    #[error("the message has the unknown kind {kind}; check that both nodes run the same version")]
    Kind {
        /// The kind.
        kind: u8,
    },
    /// The message lists more than it may.
    #[error("the message lists more than it may; check that both nodes run the same version")]
    TooMany,
}

impl Message {
    /// The message's parts on the wire: length and kind, then the payload.
    ///
    /// # Errors
    /// When the payload is over its limit.
    pub fn encode(&self) -> Result<[Bytes; 2], MessageError> {
        let (kind, payload) = match self {
            Self::Frame(bytes) => (FRAME, bytes.clone()),
            Self::Hello(hello) => (HELLO, frame::encode_payload(hello, OWN_BYTES_MAX)?),
            Self::Addresses(entries) => (ADDRESSES, frame::encode_payload(entries, OWN_BYTES_MAX)?),
            Self::Wanted(peers) => (WANTED, frame::encode_payload(peers, OWN_BYTES_MAX)?),
        };
        let [a, b, c, d] = frame::prefix(payload.len() + 1, MESSAGE_BYTES_MAX)?;
        Ok([Bytes::copy_from_slice(&[a, b, c, d, kind]), payload])
    }

    /// Reads what follows a message's length.
    ///
    /// # Errors
    /// When the kind is unknown, or the payload is broken or lists more than it may.
    pub fn decode(mut bytes: Bytes) -> Result<Self, MessageError> {
        if bytes.is_empty() {
            return Err(MessageError::Empty);
        }
        let kind = bytes.get_u8();
        if kind != FRAME && bytes.len() > OWN_BYTES_MAX {
            return Err(MessageError::TooMany);
        }
        let (message, fits) = match kind {
            FRAME => (Self::Frame(bytes), true),
            HELLO => {
                let hello: Hello = frame::decode(&bytes)?;
                let fits = hello.addrs.len() <= BOOK_ADDRS_MAX;
                (Self::Hello(hello), fits)
            }
            ADDRESSES => {
                let entries: Vec<AddressEntry> = frame::decode(&bytes)?;
                let fits = entries.len() <= ADDRESSES_PEERS_MAX
                    && entries.iter().all(|e| e.addrs.len() <= BOOK_ADDRS_MAX);
                (Self::Addresses(entries), fits)
            }
            WANTED => {
                let peers: Vec<ByteArray<32>> = frame::decode(&bytes)?;
                let fits = peers.len() <= WANTED_PEERS_MAX;
                (Self::Wanted(peers), fits)
            }
            kind => return Err(MessageError::Kind { kind }),
        };
        fits.then_some(message).ok_or(MessageError::TooMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(peers: usize, addrs: usize) -> Vec<AddressEntry> {
        let aged = AgedAddr {
            addr: "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535".parse().expect("an address"),
            age_s: u32::MAX,
        };
        vec![AddressEntry { peer: [255; 32].into(), addrs: vec![aged; addrs] }; peers]
    }

    #[test]
    fn messages_survive_the_wire() {
        let hello = Hello {
            topic: [1; 32].into(),
            version: VERSION,
            session: [2; 16].into(),
            addrs: vec!["127.0.0.1:7".parse().expect("an address")],
        };
        let messages = [
            Message::Hello(hello),
            Message::Frame(Bytes::from(vec![3; FRAME_BYTES_MAX])),
            Message::Frame(Bytes::new()),
            Message::Addresses(entries(ADDRESSES_PEERS_MAX, BOOK_ADDRS_MAX)),
            Message::Wanted(vec![[4; 32].into(); WANTED_PEERS_MAX]),
        ];
        for message in messages {
            let wire = Bytes::from(message.encode().expect("within limits").concat());
            let len = frame::declared_len(*wire.first_chunk().expect("a length"), usize::MAX);
            assert_eq!(len, Ok(wire.len() - PREFIX_BYTES));
            assert_eq!(Message::decode(wire.slice(PREFIX_BYTES..)), Ok(message));
        }
    }

    #[test]
    fn lists_over_their_limit_are_refused() {
        for message in [
            Message::Addresses(entries(ADDRESSES_PEERS_MAX + 1, 1)),
            Message::Addresses(entries(1, BOOK_ADDRS_MAX + 1)),
            Message::Wanted(vec![[4; 32].into(); WANTED_PEERS_MAX + 1]),
        ] {
            let wire = Bytes::from(message.encode().expect("within the byte limit").concat());
            assert_eq!(Message::decode(wire.slice(PREFIX_BYTES..)), Err(MessageError::TooMany));
        }
        let over = Message::Frame(Bytes::from(vec![0; FRAME_BYTES_MAX + 1]));
        assert!(over.encode().is_err());
    }

    #[test]
    fn garbage_is_refused_calmly() {
        let mut state = 1_u64;
        for len in 0..2_000_usize {
            let bytes: Vec<u8> = (0..len % 97)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            for kind in 0..5 {
                let mut message = vec![kind];
                message.extend_from_slice(&bytes);
                let _ = Message::decode(message.into());
            }
        }
        assert_eq!(Message::decode(Bytes::new()), Err(MessageError::Empty));
    }
}
