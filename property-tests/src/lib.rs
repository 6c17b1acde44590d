//! The promises of Osiris as properties: generated histories of a fleet with hostile members, and the
//! laws that hold for each.
//!
//! * [`model`] turns a [`model::Script`] into signed blocks, every one of them valid.
//! * [`decoders`] names every decoder of foreign bytes, with what must hold for any.
//! * [`strategy`] generates scripts, orders of delivery and configurations of a run.

pub mod decoders;
pub mod model;
pub mod strategy;

/// One sealer for the tests of both crates: it is written against the format, not with the ledger's
/// own encoder.
#[path = "../../crdt-ledger/tests/support/forge.rs"]
mod forge;
