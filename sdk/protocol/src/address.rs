//! Where a peer can be reached.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A peer's key and the socket addresses at which it was last known to listen.
///
/// The addresses are a hint: whoever answers there still has to prove the key in the handshake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerAddr {
    /// The peer's Ed25519 public key: its endpoint id and its author id in the ledger.
    #[serde(with = "serde_bytes")]
    pub peer: [u8; 32],
    /// At most [`PEER_ADDRS_MAX`](crate::limits::PEER_ADDRS_MAX) addresses, in no particular order.
    pub addrs: Vec<SocketAddr>,
}
