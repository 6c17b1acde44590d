//! The wire contract of Osiris: what applications, nodes and guests say to each other.
//!
//! This crate is pure. It knows bytes and their limits, and neither sockets, files, clocks nor
//! randomness, so that every decoder can be fed garbage in a test. Versions are negotiated by ALPN
//! (see [`alpn`]): within one version a message has exactly one shape, and an unknown field is an
//! error.
//!
//! - [`frame`]: length-prefixed CBOR, the envelope of every structured message.
//! - [`call`]: one invocation of a function and its reply.
//! - [`join`]: from an invitation to membership.
//! - [`ticket`]: the text that lets one dial or join a fleet.
//! - [`name`]: what a function may be called.
//! - [`error`]: the JSON body of an HTTP error.
//! - [`limits`]: every cap, in one place.

pub mod alpn;
pub mod call;
pub mod error;
pub mod frame;
pub mod join;
pub mod limits;
pub mod name;
pub mod ticket;

mod address;

pub use address::PeerAddr;
