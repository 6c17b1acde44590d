//! Deterministic models of what a node runs on, for tests and simulations.

pub mod disk;
