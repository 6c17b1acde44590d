//! How Osiris nodes find each other, spread frames and hints, relay calls and fetch artifacts.
//!
//! Every node is the same: there is no server and no leader. A node knows its peers by their keys
//! (the [`Roster`] says who is a member) and by the socket addresses that it was told or has seen.
//! It keeps one long-lived connection to each peer of a small fleet, or to a few of a large one, and
//! dials again for ever, with backoff, when one breaks.
//!
//! What a frame means is not this crate's business: frames, hints and artifacts are opaque bytes.
//! Delivery is honest rather than reliable: a full queue drops and says so, hints may be lost, and
//! whoever uses the mesh compares states after every [`MeshEvent::PeerUp`] and now and then.
//!
//! - [`proto`] is pure: addresses, the choice of neighbours, backoff, the messages. No sockets, no
//!   clock, no randomness; it builds without the feature `net`.
//! - [`net`] performs it over iroh, behind the feature `net`.
//!
//! [`Roster`]: net::Roster
//! [`MeshEvent::PeerUp`]: net::MeshEvent::PeerUp

pub mod limits;
pub mod proto;

#[cfg(feature = "net")]
pub mod net;

mod peer;

pub use peer::{PeerId, PeerIdError};

#[cfg(feature = "net")]
pub use net::{
    Artifact, BoxFuture, CallFailure, FetchError, JoinAttempt, JoinError, Mesh, MeshConfig, MeshError,
    MeshEvent, MeshEvents, MeshHeld, Offered, PeerStatus, Roster, SendError, Services, join,
};
