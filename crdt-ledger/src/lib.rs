//! What an Osiris fleet agrees on: who belongs, what is deployed, who serves it.
//!
//! The ledger is a set of append-only chains of signed [blocks](Block). Nodes exchange the bytes of
//! blocks, never automerge bytes: a node verifies a block, derives from it the one canonical
//! automerge change ([`Document`]) and folds it into the published [`View`]. Two nodes that hold the
//! same valid blocks hold the same document and the same view, whatever the order of arrival.
//!
//! Three sets are kept apart (see `docs/ledger.md`):
//!
//! * **valid**: a pure and permanent predicate over a block and the blocks it names; what
//!   [`Ledger::admit`] decides, with a typed [`Reject`] for each cause;
//! * **effective**: a pure function of all valid blocks (forks, revocations, authority from the root
//!   down); what the view is built from;
//! * **retained**: what is stored. At present every valid block is.
//!
//! This crate is pure: no clock, no files, no sockets, no randomness of its own, and only ordered
//! iteration. Time ([`Now`]) and randomness (a session, a nonce) are arguments.

mod authority;
mod block;
mod chain;
mod codec;
mod document;
mod early;
mod effective;
mod id;
pub mod journal;
mod ledger;
pub mod limits;
pub mod op;
mod time;
mod vector;
mod view;
mod write;

pub use authority::{Role, Roles};
pub use block::{Block, Order, Reject};
pub use document::Document;
pub use id::{Author, BlobHash, BlockId, ChainId, FleetId, ParseIdError, Session, Signature};
pub use ledger::{Admission, Checked, Ledger, Refused};
pub use op::{Payload, World, join_proof, join_proof_message, recovery_certificate, recovery_message};
pub use time::{Mono, Now, WallMs};
pub use vector::{Batch, Gap, Tip, Vector, VectorEntry};
pub use view::{Fork, Function, Invitation, InvitationState, Member, Revision, Serving, User, View};
pub use write::{AppendError, Founding, Writer};

pub use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
