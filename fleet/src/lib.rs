//! The Osiris node.
//!
//! [`node`] is the pure core: inputs in, effects out, no clock, no IO. `driver` (feature `driver`)
//! performs the effects on a real network, disk and clock, and serves HTTP. [`store`] is the journal over
//! a [`disk`], and [`sim`] models what a node runs on.

pub mod api;
pub mod archive;
pub mod date;
pub mod disk;
#[cfg(feature = "driver")]
pub mod driver;
pub mod kept;
pub mod key_file;
pub mod manifest;
pub mod node;
pub mod placement;
pub mod policy;
pub mod sim;
pub mod store;
