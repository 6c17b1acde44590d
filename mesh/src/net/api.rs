//! What the mesh asks of its user, and tells it.

use std::{future::Future, net::SocketAddr, path::PathBuf, pin::Pin, time::Duration};

use bytes::Bytes;
use osiris_protocol::{
    call::{CallReply, CallRequest},
    join::{JoinReply, JoinRequest},
};

use crate::{PeerId, limits::FRAME_BYTES_MAX};

/// A boxed future that can be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who belongs to the fleet. Asked on every connection; answers come from a published view and do
/// not block. The mesh refuses everyone else in both directions, so a newcomer whose ledger is still
/// empty has to answer with the peers of its welcome.
pub trait Roster: Send + Sync + 'static {
    /// Whether this key may speak every protocol of the fleet.
    fn is_member(&self, peer: &PeerId) -> bool;

    /// The nodes to keep connections to. May leave out members that are not nodes, and may list this
    /// node itself.
    fn members(&self) -> Vec<PeerId>;

    /// Members that this node keeps a connection to beside those that it chooses by hash. Few: each is one more.
    fn kept(&self) -> Vec<PeerId> {
        Vec::new()
    }

    /// Whether this key was a member and is none any more. It may hear what ended that, and nothing else.
    fn was_member(&self, _: &PeerId) -> bool {
        false
    }

    /// Whether this key may call functions, and nothing else: an application's device.
    fn may_call(&self, peer: &PeerId) -> bool {
        self.is_member(peer)
    }
}

/// What peers can ask of this node. A future is dropped when its caller has gone or its time is up;
/// a panic in one fails that request alone.
pub trait Services: Send + Sync + 'static {
    /// A stranger asks to be admitted. `device` is the key that its handshake proved.
    fn join(&self, device: PeerId, request: JoinRequest) -> BoxFuture<'static, JoinReply>;

    /// A device that was a member asks what ended that: the frame that answers its own, or nothing.
    /// At most [`FRAME_BYTES_MAX`].
    fn ending(&self, _device: PeerId, _question: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        Box::pin(async { None })
    }

    /// A member, or a key that may call, calls a function here. It must not be relayed again.
    fn call(&self, peer: PeerId, request: CallRequest) -> BoxFuture<'static, CallReply>;

    /// The file of an artifact, when this node has it whole. Called on an async task: a look-up in
    /// memory, not a walk through directories.
    fn blob(&self, hash: [u8; 32]) -> Option<PathBuf>;

    /// A member offers an artifact of so many bytes. A look-up in memory, as [`Services::blob`].
    fn offered(&self, _peer: PeerId, _hash: [u8; 32], _size: u64) -> Offered {
        Offered::Refused
    }

    /// An offered artifact is whole in the file, which is synced and has the hash. Whether it is kept durably; the file
    /// is not looked at again.
    fn keep(&self, _hash: [u8; 32], _file: PathBuf) -> BoxFuture<'static, bool> {
        Box::pin(async { false })
    }
}

/// What is said to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// Not from this member, not so large, or not here.
    Refused,
    /// The artifact is here.
    Held,
    /// It is written to this file, which nobody else writes to, and [kept](Services::keep).
    Wanted(PathBuf),
}

/// What the mesh tells its user. When events are not taken, connections stop being read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MeshEvent {
    /// A link to a peer is up: each side has accepted the other. Frames that were sent earlier may
    /// have been lost, so compare states now.
    PeerUp {
        /// The peer.
        peer: PeerId,
    },
    /// The link to a peer is down. Always follows its `PeerUp`, and comes before the next.
    PeerDown {
        /// The peer.
        peer: PeerId,
        /// The reason, for people.
        why: String,
    },
    /// A frame from a peer, in the order in which that peer sent them over this link.
    Frame {
        /// The peer.
        peer: PeerId,
        /// What it sent.
        bytes: Bytes,
    },
    /// A hint from some member. It may come twice, late, or never, and does not say who sent it.
    Hint {
        /// What was sent.
        bytes: Bytes,
    },
    /// A row of counters from some member; as [`MeshEvent::Hint`]. Lost ones are not told of.
    Row {
        /// What was sent.
        bytes: Bytes,
    },
    /// A peer ended its link with this node because another process said hello with this node's key. Comes
    /// after the link's `PeerDown`. After a restart only the old process could be told so, so a process
    /// that hears it has a twin: the same key is in use twice.
    Twin {
        /// The peer that says so.
        peer: PeerId,
    },
    /// A peer does not take this node for a member. It may know what ended the membership: see
    /// [`Mesh::ask_ending`](super::Mesh::ask_ending).
    TurnedAway {
        /// The peer.
        peer: PeerId,
    },
    /// A member sent what no protocol of the mesh knows. Where that was on its link, the link ends.
    Malformed {
        /// The peer.
        peer: PeerId,
    },
    /// Hints were lost on their way here: compare states with peers soon.
    HintsLagged,
}

/// What is known about one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub peer: PeerId,
    /// Whether a link is up.
    pub connected: bool,
    /// The round-trip time of the link's path.
    pub rtt: Option<Duration>,
    /// Where it was last known to listen, newest first.
    pub addrs: Vec<SocketAddr>,
    /// Bytes of frames that wait to be written to it; at most
    /// [`SEND_BYTES_QUEUED_MAX`](crate::limits::SEND_BYTES_QUEUED_MAX).
    pub queued_bytes: usize,
    /// Why the last attempt to reach it failed, or why its last link went down.
    pub last_error: Option<String>,
}

/// What peers make the mesh hold at a moment, and what it refused since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeshHeld {
    /// Bytes of frames that wait to be written, of all links.
    pub send_bytes: u64,
    /// Bytes of frames and hints that were received and not taken.
    pub event_bytes: u64,
    /// Links: each may hold one more frame that is being read.
    pub links: u64,
    /// Peers with an open connection.
    pub peers: u64,
    /// Open connections of all kinds, of both directions: each has its windows.
    pub connections: u64,
    /// Calls being served: each may hold a head.
    pub calls: u64,
    /// Bytes of bodies of those, rounded up.
    pub call_bytes: u64,
    /// Bytes of answers that were not taken, rounded up.
    pub answer_bytes: u64,
    /// Artifacts being served.
    pub blobs: u64,
    /// Frames that were not queued because their peer did not keep up.
    pub frames_dropped: u64,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no link to the peer.
    #[error("there is no link to {0}; the mesh keeps dialling it, compare states when it is up")]
    NotConnected(PeerId),
    /// The peer does not read as fast as we send. The frame was dropped.
    #[error("{0} does not keep up; the frame was dropped, compare states with it later")]
    Full(PeerId),
    /// The frame is over its limit.
    #[error("the frame has {len} bytes and at most {FRAME_BYTES_MAX} are allowed; split it")]
    TooLarge {
        /// Its length, bytes.
        len: usize,
    },
}
