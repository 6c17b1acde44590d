//! Nodes on loopback: links, calls, artifacts, joins, failures and garbage.

mod blobs;
mod calls;
mod garbage;
mod joins;
mod links;
mod support;
