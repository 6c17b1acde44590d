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
//! * **retained**: what is stored: every valid block, in full or as a summary in a [`Page`], which loses
//!   nothing but the signature and the clock.
//!
//! This crate is pure: no clock, no files, no sockets, no randomness of its own, and only ordered
//! iteration. Time ([`Now`]) and randomness (a session, a nonce) are arguments.

mod authority;
mod block;
mod chain;
mod codec;
pub mod counter;
mod document;
mod early;
mod effective;
mod held;
mod id;
pub mod journal;
mod layered;
pub mod lease;
mod ledger;
pub mod limits;
mod memo;
pub mod op;
mod page;
mod said;
pub mod scale;
mod seals;
pub mod state;
mod time;
mod vector;
mod view;
mod write;

pub use authority::{Role, Roles};
pub use block::{Block, Order, Reject};
pub use document::Document;
pub use effective::Void;
pub use held::Held;
pub use id::{Author, BlobHash, BlockId, ChainId, FleetId, ParseIdError, Session, Signature};
pub use ledger::{Admission, Buckets, Checked, EndedBy, Ending, Ledger, PageFault, Refused, Replayed};
pub use memo::Memo;
pub use op::{Payload, World, join_proof, join_proof_message, recovery_certificate, recovery_message};
pub use page::{Page, PageError, Summary, is_prunable};
pub use seals::{SealedPage, VoterSet, is_enough};
pub use time::{Mono, Now, WallMs};
pub use vector::{Batch, Gap, Tip, Vector, VectorEntry};
pub use view::{Fork, Function, Invitation, InvitationState, Member, Revision, Serving, User, View};
pub use write::{AppendError, Founding, Writer};

pub use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
