//! What a replica holds, in 32 bytes.
//!
//! A replica's blocks are determined by the tips of its chains. Their hash is a tree of two levels, so that one
//! block more costs the chains of one bucket and not those of the whole fleet: with a fleet of 1,000 that
//! receives 1,000 blocks, hashing every tip anew would be most of its work.

use std::collections::BTreeMap;

use super::Ledger;
use crate::{chain::Chain, id::ChainId, limits};

/// Buckets, one for each first byte of an actor.
const BUCKETS: usize = 256;
/// Bytes of a bucket's hash that replicas exchange.
const BUCKET_HASH: usize = 16;

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

/// Chains by the first half of their actor, ascending.
type ByActor = BTreeMap<[u8; 16], ChainId>;
type Chains = BTreeMap<ChainId, Chain>;

/// The hashes of all buckets, kept as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct TipsDigest {
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
    pub(super) fn changed(&mut self, actor: &[u8; 16]) {
        self.buckets[usize::from(actor[0])] = None;
        self.root = None;
    }

    fn root(&mut self, by_actor: &ByActor, chains: &Chains) -> [u8; 32] {
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

    fn buckets(&mut self, by_actor: &ByActor, chains: &Chains) -> impl Iterator<Item = &[u8; 32]> {
        let known = (0..=u8::MAX).zip(self.buckets.iter_mut());
        known.map(|(first, known)| &*known.get_or_insert_with(|| bucket_hash(first, by_actor, chains)))
    }
}

fn bucket_hash(bucket: u8, by_actor: &ByActor, chains: &Chains) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (_, id, chain) in bucket_chains(bucket, by_actor, chains) {
        hasher.update(&id.author.0);
        hasher.update(&id.session.0);
        hasher.update(&(chain.tips_len() as u64).to_le_bytes());
        for (tip, seq) in chain.tips() {
            hasher.update(&seq.to_le_bytes());
            hasher.update(&tip.0);
        }
    }
    if hasher.count() > 0 { *hasher.finalize().as_bytes() } else { [0; 32] }
}

/// The chains of a bucket, ascending by actor.
fn bucket_chains<'a>(
    bucket: u8,
    by_actor: &'a ByActor,
    chains: &'a Chains,
) -> impl Iterator<Item = (&'a [u8; 16], &'a ChainId, &'a Chain)> {
    let (mut least, mut most) = ([0; 16], [u8::MAX; 16]);
    (least[0], most[0]) = (bucket, bucket);
    by_actor.range(least..=most).filter_map(|(actor, id)| Some((actor, id, chains.get(id)?)))
}

impl Ledger {
    /// A hash of the tips of all chains: equal exactly when two replicas hold the same blocks.
    pub fn digest(&mut self) -> [u8; 32] {
        self.digest.root(&self.by_actor, &self.chains)
    }

    /// The first 16 bytes of the hash of each bucket of chains, one after the other: where the digests of two
    /// replicas differ, these say in which chains.
    pub fn bucket_hashes(&mut self) -> Vec<u8> {
        let buckets = self.digest.buckets(&self.by_actor, &self.chains);
        buckets.flat_map(|hash| &hash[..BUCKET_HASH]).copied().collect()
    }

    /// The buckets in which this replica differs from one with these [`Ledger::bucket_hashes`]: the first of
    /// them, so that their chains fit a vector. None where these are no such hashes.
    pub fn differing(&mut self, theirs: &[u8]) -> Option<Buckets> {
        let own = self.bucket_hashes();
        if theirs.len() != own.len() {
            return None;
        }
        let mut differing = Buckets::NONE;
        let mut chains = 0;
        let pairs = own.chunks(BUCKET_HASH).zip(theirs.chunks(BUCKET_HASH));
        for (bucket, _) in (0..=u8::MAX).zip(pairs).filter(|(_, (own, theirs))| own != theirs) {
            chains += bucket_chains(bucket, &self.by_actor, &self.chains).count();
            if chains > limits::VECTOR_CHAINS_MAX && !differing.is_empty() {
                break;
            }
            differing.insert(bucket);
        }
        Some(differing)
    }

    /// How many chains are here.
    #[must_use]
    pub fn chains_held(&self) -> usize {
        self.chains.len()
    }

    /// The chains of some buckets, ascending, by the name that vectors and gaps have for them.
    pub(crate) fn chains_within(&self, within: &Buckets) -> impl Iterator<Item = (&[u8; 16], &Chain)> {
        let buckets = (0..=u8::MAX).filter(|bucket| within.contains(*bucket));
        let chains = buckets.flat_map(|bucket| bucket_chains(bucket, &self.by_actor, &self.chains));
        chains.map(|(actor, _, chain)| (actor, chain))
    }
}
