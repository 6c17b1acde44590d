//! Blocks as a hostile author makes them: any body, sealed with any key. Written against the format
//! of the specification, not with the crate's own encoder.

use ed25519_dalek::{Signer as _, SigningKey};
use osiris_ledger::{Author, BlockId, FleetId, Session};
use serde::Serialize;

/// A body, every field free.
#[derive(Clone, Debug)]
pub(crate) struct Forged<P> {
    pub(crate) version: u64,
    pub(crate) author: Author,
    pub(crate) session: Session,
    pub(crate) seq: u64,
    pub(crate) prev: BlockId,
    pub(crate) parents: Vec<BlockId>,
    pub(crate) depth: u64,
    pub(crate) wall_ms: u64,
    pub(crate) grant: BlockId,
    pub(crate) payload: P,
}

impl<P: Serialize> Forged<P> {
    /// The body's CBOR.
    pub(crate) fn body(&self) -> Vec<u8> {
        let fields = (
            self.version,
            &self.author,
            &self.session,
            self.seq,
            &self.prev,
            &self.parents,
            self.depth,
            self.wall_ms,
            &self.grant,
            &self.payload,
        );
        let mut bytes = Vec::new();
        ciborium::into_writer(&fields, &mut bytes).expect("a Vec takes every write");
        bytes
    }

    /// The entry, signed for a fleet with a key, whatever author the body names.
    pub(crate) fn seal(&self, fleet: &FleetId, key: &SigningKey) -> Vec<u8> {
        seal(&self.body(), fleet, key)
    }
}

/// `body ‖ ed25519(blake3("osiris-ledger-v1" ‖ fleet ‖ body))`.
pub(crate) fn seal(body: &[u8], fleet: &FleetId, key: &SigningKey) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"osiris-ledger-v1").update(&fleet.0).update(body);
    let signature = key.sign(hasher.finalize().as_bytes());
    [body, &signature.to_bytes()].concat()
}
