//! The mesh performed over iroh.
//!
//! ```text
//! mesh        the handle: start, send, hint, call, fetch, stop
//! config      what a node is started with        api     what it asks of and tells its user
//! shared      what the tasks of a node share     gate    who may speak which protocol
//! keeper      dials whom we want a link to       link    one link: greet, read, write
//! calls       osiris/call/1                      blobs   osiris/blob/1
//! admission   osiris/join/1, the admitting side  join    osiris/join/1, the newcomer's side
//! ended       osiris/ended/1, both sides         bind    the endpoint
//! offers      osiris/offer/1, both sides
//! hints       iroh-gossip                        events  what waits for the user
//! budgets     how much at the same time
//! ```
//!
//! **Invariants.** No lock is held across an `await`. Every queue is bounded, and what does not fit
//! is dropped and reported. A panic of the services or in parsing ends one task, never the router.

mod admission;
mod api;
mod bind;
mod blobs;
mod budgets;
mod calls;
mod config;
mod ended;
mod events;
mod gate;
mod hints;
mod join;
mod keeper;
mod link;
mod mesh;
mod offers;
mod shared;

pub use api::{BoxFuture, MeshEvent, MeshHeld, Offered, PeerStatus, Roster, SendError, Services};
pub use blobs::FetchError;
pub use calls::CallFailure;
pub use config::{MeshConfig, MeshError};
pub use events::MeshEvents;
pub use join::{JoinAttempt, JoinError, join};
pub use mesh::Mesh;
pub use offers::Artifact;
