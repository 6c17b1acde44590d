//! What a replica holds, in 32 bytes.
//!
//! A replica's blocks are determined by the tips of its chains. Their hash is a tree of two levels, so that one
//! block more costs the chains of one bucket and not those of the whole fleet: with a fleet of 1,000 that
//! receives 1,000 blocks, hashing every tip anew would be most of its work.

use std::collections::BTreeMap;

use crate::{chain::Chain, id::ChainId};

/// Buckets, one for each first byte of an actor.
pub(crate) const BUCKETS: usize = 256;
/// Bytes of a bucket's hash that replicas exchange.
pub(crate) const BUCKET_HASH: usize = 16;

/// Some of the buckets that chains fall into by the first byte of their actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets([u8; BUCKETS / 8]);

impl Buckets {
    /// No bucket.
    pub const NONE: Self = Self([0; BUCKETS / 8]);
    /// All of them.
    pub const ALL: Self = Self([u8::MAX; BUCKETS / 8]);

    /// From 32 bytes: bucket `b` is bit `b % 8`, the lowest first, of byte `b / 8`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes of [`Buckets::from_bytes`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds a bucket.
    pub fn insert(&mut self, bucket: u8) {
        self.0[usize::from(bucket / 8)] |= 1 << (bucket % 8);
    }

    /// Whether a bucket is one of them.
    #[must_use]
    pub fn contains(&self, bucket: u8) -> bool {
        self.0[usize::from(bucket / 8)] & (1 << (bucket % 8)) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }
}

/// The digest of all tips, kept as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct TipsDigest {
    /// None: a tip of the bucket changed since. Zero bytes: no chain.
    buckets: Box<[Option<[u8; 32]>; BUCKETS]>,
    root: Option<[u8; 32]>,
}

impl Default for TipsDigest {
    fn default() -> Self {
        Self { buckets: Box::new([Some([0; 32]); BUCKETS]), root: None }
    }
}

impl TipsDigest {
    /// Tips of a chain changed.
    pub(crate) fn changed(&mut self, actor: &[u8; 16]) {
        self.buckets[usize::from(actor[0])] = None;
        self.root = None;
    }

    /// The digest. `by_actor` names every chain of `chains`.
    pub(crate) fn get(
        &mut self,
        by_actor: &BTreeMap<[u8; 16], ChainId>,
        chains: &BTreeMap<ChainId, Chain>,
    ) -> [u8; 32] {
        if let Some(root) = self.root {
            return root;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"osiris-tips-v2");
        for hash in self.buckets(by_actor, chains) {
            hasher.update(hash);
        }
        *self.root.insert(*hasher.finalize().as_bytes())
    }

    /// The hash of each bucket.
    pub(crate) fn buckets(
        &mut self,
        by_actor: &BTreeMap<[u8; 16], ChainId>,
        chains: &BTreeMap<ChainId, Chain>,
    ) -> impl Iterator<Item = &[u8; 32]> {
        let known = (0..=u8::MAX).zip(self.buckets.iter_mut());
        known.map(|(first, known)| &*known.get_or_insert_with(|| bucket(first, by_actor, chains)))
    }
}

fn bucket(first: u8, by_actor: &BTreeMap<[u8; 16], ChainId>, chains: &BTreeMap<ChainId, Chain>) -> [u8; 32] {
    let (mut least, mut most) = ([0; 16], [u8::MAX; 16]);
    (least[0], most[0]) = (first, first);
    let mut hasher = blake3::Hasher::new();
    let mut any = false;
    for (_, id) in by_actor.range(least..=most) {
        let Some(chain) = chains.get(id) else { continue };
        any = true;
        hasher.update(&id.author.0);
        hasher.update(&id.session.0);
        hasher.update(&(chain.tips().len() as u64).to_le_bytes());
        for (tip, seq) in chain.tips() {
            hasher.update(&seq.to_le_bytes());
            hasher.update(&tip.0);
        }
    }
    if any { *hasher.finalize().as_bytes() } else { [0; 32] }
}
