//! Nodes on loopback: links, calls, artifacts, joins, failures and garbage.

mod blobs;
mod calls;
mod ended;
mod garbage;
mod joins;
mod links;
mod offers;
mod support;
