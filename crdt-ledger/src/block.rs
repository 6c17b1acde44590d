//! A block: its bytes, its order, and what can be checked of it alone.
//!
//! ```text
//! body  = canonical CBOR [version, author, session, seq, prev, parents, depth, wall_ms, grant, payload]
//! sig   = ed25519(blake3("osiris-ledger-v1" ‖ fleet id ‖ body))
//! entry = body ‖ sig        id = blake3(entry)
//! ```
//!
//! The genesis block cannot contain its own id: it signs 32 zero bytes in the fleet id's place.

use std::sync::Arc;

use ed25519_dalek::{Signature as DalekSignature, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

mod layout;

use crate::{
    codec::{self, DecodeError},
    id::{Author, BlockId, ChainId, FleetId, Session, Signature},
    limits,
    op::{Payload, array_struct, sign},
    time::WallMs,
};

pub(crate) const VERSION: u8 = 2;
const DOMAIN: &[u8] = b"osiris-ledger-v1";

/// The order of blocks: by depth, then by id. Total, and the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order {
    /// Length of the longest path down to the genesis block, which has depth 1.
    pub depth: u64,
    /// The block.
    pub id: BlockId,
}

array_struct! {
    /// The signed part of a block.
    pub(crate) struct Body {
        version: u8,
        author: Author,
        session: Session,
        seq: u64,
        prev: BlockId,
        parents: Vec<BlockId>,
        depth: u64,
        wall_ms: u64,
        grant: BlockId,
        payload: Payload,
    }
}

/// Why bytes from a peer are not a valid block of this fleet. Each is permanent: the same bytes are
/// refused by every node, for ever. Only such bytes may be held against a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reject {
    /// More than [`limits::ENTRY_BYTES_MAX`].
    #[error("the entry has {0} bytes; at most {max} are allowed", max = limits::ENTRY_BYTES_MAX)]
    TooLarge(usize),
    /// Too short, or not the CBOR of a block.
    #[error("the entry is not a block")]
    Malformed,
    /// CBOR that is not the canonical form of what it says.
    #[error("the entry's CBOR is not canonical")]
    NotCanonical,
    /// A format version this build does not know.
    #[error("the block has format version {0}; this build knows version {VERSION}")]
    Version(u8),
    /// The author is not a usable ed25519 key.
    #[error("the author's key is weak or no key")]
    WeakKey,
    /// The signature does not fit author, fleet and body.
    #[error("the signature is wrong, or the block belongs to another fleet")]
    BadSignature,
    /// A second genesis block.
    #[error("the block founds another fleet")]
    OtherFleet,
    /// The sequence number does not follow its predecessor's.
    #[error("the block has sequence number {got}; {expected} follows its predecessor")]
    Seq {
        /// What follows the predecessor.
        expected: u64,
        /// What the block says.
        got: u64,
    },
    /// `prev` is a block of another chain.
    #[error("the predecessor belongs to another chain")]
    OtherChain,
    /// More than [`limits::PARENTS_MAX`] parents, or one twice, or none where one is needed.
    #[error("the parents are too many, repeated or missing")]
    Parents,
    /// The depth is not one more than the deepest predecessor's.
    #[error("the block has depth {got}; its predecessors give {expected}")]
    Depth {
        /// One more than the deepest of `prev` and `parents`.
        expected: u64,
        /// What the block says.
        got: u64,
    },
    /// A block that is referred to does not lie below this one.
    #[error("a block it refers to is not below it in depth")]
    ReferenceDepth,
    /// A block that is referred to is of the wrong kind, or of another function or device.
    #[error("a block it refers to is not what the operation needs")]
    ReferenceKind,
    /// The grant is not a grant of the author.
    #[error("the block names a grant that its author does not hold")]
    Grant,
    /// The grant lacks the role, or gives a role that its holder lacks.
    #[error("the grant does not allow this operation")]
    Role,
    /// The certificate or the proof of a membership does not verify.
    #[error("the proof of membership is wrong")]
    Proof,
    /// A field is out of its range.
    #[error("a field is not allowed: {0}")]
    Field(&'static str),
}

impl Reject {
    /// The reason's name, for counters: that of the variant.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "TooLarge",
            Self::Malformed => "Malformed",
            Self::NotCanonical => "NotCanonical",
            Self::Version(_) => "Version",
            Self::WeakKey => "WeakKey",
            Self::BadSignature => "BadSignature",
            Self::OtherFleet => "OtherFleet",
            Self::Seq { .. } => "Seq",
            Self::OtherChain => "OtherChain",
            Self::Parents => "Parents",
            Self::Depth { .. } => "Depth",
            Self::ReferenceDepth => "ReferenceDepth",
            Self::ReferenceKind => "ReferenceKind",
            Self::Grant => "Grant",
            Self::Role => "Role",
            Self::Proof => "Proof",
            Self::Field(_) => "Field",
        }
    }

    /// Whether the refused block is certainly its author's work: what is wrong shows only after its
    /// signature was checked. Then whoever passed it on need not be known to name the offender.
    #[must_use]
    pub fn is_the_authors(&self) -> bool {
        use Reject::{Depth, Grant, OtherChain, Proof, ReferenceDepth, ReferenceKind, Role, Seq};
        matches!(
            self,
            Seq { .. } | OtherChain | Depth { .. } | ReferenceDepth | ReferenceKind | Grant | Role | Proof
        )
    }
}

/// A block whose own bytes are well-formed and signed by its author. Whether it is valid depends on
/// the blocks it names ([`crate::Ledger::admit`]).
///
/// A ledger holds tens of thousands of these, so what its bytes say is read from them when it is asked for; only
/// what orders it, and its payload, is kept beside them.
#[derive(Clone, Debug)]
pub struct Block {
    id: BlockId,
    entry: Box<[u8]>,
    seq: u64,
    depth: u64,
    payload: Arc<Payload>,
}

impl Block {
    /// The author that an entry names, without checking anything: for quotas, before the work of a check.
    #[must_use]
    pub fn author_of(entry: &[u8]) -> Option<Author> {
        // An array of 10, the version, a byte string of 32: each shortest, so always of this length.
        let rest = entry.strip_prefix(&[0x8a, VERSION, 0x58, 0x20])?;
        rest.get(..32)?.try_into().ok().map(Author)
    }

    /// Reads an entry, of at most [`limits::ENTRY_BYTES_MAX`], and checks all that needs no other block, but not yet the signature.
    pub(crate) fn decode(id: BlockId, bytes: impl AsRef<[u8]> + Into<Box<[u8]>>) -> Result<Self, Reject> {
        let entry = bytes.as_ref();
        let Some(body_len) = entry.len().checked_sub(limits::SIGNATURE_BYTES) else {
            return Err(Reject::Malformed);
        };
        // Another version may have other fields; the array's length and the version come first in all.
        if let [0x8a, version @ 0..=23, ..] = entry
            && *version != VERSION
        {
            return Err(Reject::Version(*version));
        }
        let Some((seq, depth, payload)) = layout::read(&entry[..body_len]) else {
            return Err(why_refused(&entry[..body_len]));
        };
        let block = Self { id, entry: bytes.into(), seq, depth, payload: Arc::new(payload) };
        block.check_shape()?;
        Ok(block)
    }

    fn check_shape(&self) -> Result<(), Reject> {
        let genesis = self.is_genesis_shaped();
        let parents = self.parents();
        let repeated =
            parents.clone().enumerate().any(|(i, p)| parents.clone().take(i).any(|other| other == p));
        if parents.len() > limits::PARENTS_MAX || repeated {
            return Err(Reject::Parents);
        }
        // Every chain hangs on the fleet: a first block names what its author had seen.
        if (self.seq == 1 && parents.len() == 0 && !genesis) || (genesis && parents.len() > 0) {
            return Err(Reject::Parents);
        }
        if self.seq == 0 || (self.seq == 1) != (self.prev() == BlockId::ZERO) {
            return Err(Reject::Seq { expected: 1, got: self.seq });
        }
        if genesis && (self.seq != 1 || self.depth != 1 || self.grant() != BlockId::ZERO) {
            return Err(Reject::Malformed);
        }
        self.payload.check_fields().map_err(Reject::Field)
    }

    /// Checks the signature. `key` is the author's key, already decoded and not weak.
    pub(crate) fn verify(&self, fleet: &FleetId, key: &VerifyingKey) -> Result<(), Reject> {
        let fleet = if self.is_genesis_shaped() { &FleetId::ZERO } else { fleet };
        let (body, signature) = self.entry.split_at(self.entry.len() - limits::SIGNATURE_BYTES);
        let signature = DalekSignature::from_slice(signature).map_err(|_| Reject::BadSignature)?;
        key.verify_strict(&signed_message(fleet, body), &signature).map_err(|_| Reject::BadSignature)
    }

    /// Signs a body.
    pub(crate) fn seal(body: Body, fleet: &FleetId, key: &SigningKey) -> Result<Self, Reject> {
        let mut entry = codec::encode(&body);
        let Signature(signature) = sign(key, &signed_message(fleet, &entry));
        entry.extend_from_slice(&signature);
        if entry.len() > limits::ENTRY_BYTES_MAX {
            return Err(Reject::TooLarge(entry.len()));
        }
        let Body { seq, depth, payload, .. } = body;
        let payload = Arc::new(payload);
        let block = Self { id: entry_id(&entry), entry: entry.into_boxed_slice(), seq, depth, payload };
        block.check_shape()?;
        Ok(block)
    }

    /// Keeps its payload as another block has the same one, so that both take the room of one.
    pub(crate) fn share_payload(&mut self, like: &Arc<Payload>) {
        debug_assert_eq!(self.payload, *like, "the same payload");
        self.payload = Arc::clone(like);
    }

    pub(crate) fn payload_shared(&self) -> &Arc<Payload> {
        &self.payload
    }

    /// Whether this is shaped like the first block of a fleet.
    pub(crate) fn is_genesis_shaped(&self) -> bool {
        matches!(*self.payload, Payload::Founded(_))
    }

    /// The id of the block with these bytes, whether or not they are one.
    #[must_use]
    pub fn id_of(entry: &[u8]) -> BlockId {
        entry_id(entry)
    }

    /// blake3 of the entry.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// The bytes that travel and are stored.
    #[must_use]
    pub fn entry(&self) -> &[u8] {
        &self.entry
    }

    /// The chain it belongs to.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        ChainId { author: self.author(), session: Session(layout::bytes(&self.entry, layout::SESSION)) }
    }

    /// The device that signed it.
    #[must_use]
    pub fn author(&self) -> Author {
        Author(layout::bytes(&self.entry, layout::AUTHOR))
    }

    /// Its place in its chain, from 1.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its predecessor in its chain; zero for a first block.
    #[must_use]
    pub fn prev(&self) -> BlockId {
        BlockId(layout::bytes(&self.entry, layout::prev(&self.entry)))
    }

    /// Heads of other chains that its author had admitted.
    pub fn parents(&self) -> impl ExactSizeIterator<Item = BlockId> + DoubleEndedIterator + Clone + use<'_> {
        layout::parents(&self.entry).iter().map(|[_, _, id @ ..]| BlockId(*id))
    }

    /// Its place in the order of all blocks.
    #[must_use]
    pub fn order(&self) -> Order {
        Order { depth: self.depth, id: self.id }
    }

    /// The author's wall clock, for people.
    #[must_use]
    pub fn wall(&self) -> WallMs {
        WallMs(layout::wall(&self.entry))
    }

    /// The grant it uses; zero for the genesis block.
    #[must_use]
    pub fn grant(&self) -> BlockId {
        BlockId(layout::bytes(&self.entry, layout::grant(&self.entry)))
    }

    /// What it says.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// All blocks that must be known before this one can be judged.
    pub(crate) fn needs(&self) -> impl Iterator<Item = BlockId> + '_ {
        let fixed = [self.prev(), self.grant()];
        fixed
            .into_iter()
            .filter(|id| *id != BlockId::ZERO)
            .chain(self.parents())
            .chain(self.payload.references())
    }
}

/// What is wrong with a body that [`layout::read`] does not take: the slow way, by writing again what was read.
fn why_refused(body: &[u8]) -> Reject {
    match codec::decode::<Body>(body) {
        Err(DecodeError::Malformed) => Reject::Malformed,
        Err(DecodeError::NotCanonical) => Reject::NotCanonical,
        Ok(body) if body.version != VERSION => Reject::Version(body.version),
        // What is left are lists so long that their length takes two bytes.
        Ok(_) => Reject::Parents,
    }
}

/// The id of an entry's bytes.
pub(crate) fn entry_id(entry: &[u8]) -> BlockId {
    BlockId(*blake3::hash(entry).as_bytes())
}

fn signed_message(fleet: &FleetId, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&fleet.0);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}
