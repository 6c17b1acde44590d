//! Hostile members: they hold a valid grant, know every durable block, and keep to no rule.

use std::sync::Arc;

use osiris_ledger::{
    Admission, Block, BlockId, FleetId, Ledger, Now, Payload, Session, SigningKey, Writer, limits, op,
};
use osiris_mesh::proto::sync::Frame;

use super::{payload, queue::NodeId, random::Random};

/// Own entries that one frame brings along.
const ENTRIES_MAX: usize = 200;
/// Entries in one frame of a flood.
const FLOOD_FRAME: usize = 800;

/// Bytes for other members.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) to: To,
}

/// Whom something goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// One connected member.
    One,
    /// The same one each time within a deed.
    Victim,
    /// Every second connected member: those with an even place, or the others.
    Half(usize),
    /// Everyone, as a gossip hint.
    Gossip,
}

/// What a hostile member does next.
#[derive(Debug, Default)]
pub(super) struct Deed {
    pub(super) name: &'static str,
    pub(super) sent: Vec<Sent>,
    /// Bytes that no node may ever take in, and why.
    pub(super) forged: Vec<(Vec<u8>, &'static str)>,
}

/// One hostile member.
#[derive(Debug)]
pub(super) struct Hostile {
    key: SigningKey,
    fleet: FleetId,
    random: Random,
    /// What it took in, which leaves out its own revocation.
    ledger: Ledger,
    /// How much of the pool it has read.
    read: usize,
    /// Deploys and its own blocks, to build on.
    revisions: Vec<BlockId>,
    own: Vec<Arc<Block>>,
    flooded: bool,
}

impl Hostile {
    pub(super) fn new(seed: u64, node: NodeId, key: SigningKey, fleet: FleetId) -> Self {
        Self {
            key,
            fleet,
            random: Random::new(seed, 2_000_000 + u64::from(node)),
            ledger: Ledger::new(fleet),
            read: 0,
            revisions: Vec::new(),
            own: Vec::new(),
            flooded: false,
        }
    }

    /// The next deed.
    pub(super) fn deed(&mut self, pool: &[Arc<Block>], may_flood: bool) -> Deed {
        self.read(pool);
        if may_flood && !self.flooded && !self.revisions.is_empty() {
            self.flooded = true;
            return self.flood();
        }
        match self.random.below(10) {
            0 | 1 => self.fork(),
            2 => self.alter(pool),
            3 => self.sign_for_another(pool),
            4 => self.encode_again(pool),
            5 | 6 => self.misplace(),
            7 => self.replay(pool),
            8 => self.write_honestly(),
            _ => self.babble(pool),
        }
    }

    fn read(&mut self, pool: &[Arc<Block>]) {
        let fresh = pool.get(self.read..).unwrap_or_default();
        self.read = pool.len();
        for block in fresh {
            // It writes on as if it had never heard that it was revoked.
            if matches!(block.payload(), Payload::Revoked(_)) {
                continue;
            }
            if let Ok(Admission::New { admitted, .. }) = self.ledger.replay(block.entry()) {
                let deployed = admitted.iter().filter(|b| matches!(b.payload(), Payload::Deployed(_)));
                self.revisions.extend(deployed.map(|block| block.id()));
            }
        }
    }

    fn revision(&mut self) -> Option<BlockId> {
        self.random.pick(&self.revisions)
    }

    /// Valid blocks of a fresh session on a ledger.
    fn write_on(&mut self, ledger: &mut Ledger, count: usize) -> Vec<Arc<Block>> {
        let mut writer = Writer::new(self.key.clone(), Session(self.random.bytes()));
        let mut written = Vec::new();
        for _ in 0..count {
            let Some(revision) = self.revision() else { break };
            let concurrency = u32::try_from(self.random.between(1, 8)).expect("a small number");
            let now = Now { wall: osiris_ledger::WallMs(self.random.next() >> 20), ..Now::default() };
            match writer.append(ledger, now, payload::serving(revision, concurrency)) {
                Ok(block) => written.push(block),
                Err(_) => break,
            }
        }
        written
    }

    /// Valid blocks that others will be given. A session cites the one before it, so those come along:
    /// returns the entries of earlier sessions, and the new blocks.
    fn write(&mut self, count: usize) -> (Vec<Vec<u8>>, Vec<Arc<Block>>) {
        let before = self.own.iter().map(|block| block.entry().to_vec()).collect();
        let mut ledger = std::mem::replace(&mut self.ledger, Ledger::new(self.fleet));
        let written = self.write_on(&mut ledger, count);
        self.ledger = ledger;
        self.own.extend(written.iter().cloned());
        (before, written)
    }

    /// Valid blocks that nobody will be given, or not all: nothing is built on them.
    fn write_apart(&mut self, count: usize) -> Vec<Arc<Block>> {
        let mut ledger = Ledger::new(self.fleet);
        for block in self.ledger.in_order() {
            // What is admitted once is admitted again.
            let _ = ledger.replay(block.entry());
        }
        ledger.publish();
        self.write_on(&mut ledger, count)
    }

    /// Two blocks for one place, each to one half of the fleet.
    fn fork(&mut self) -> Deed {
        let length = usize::try_from(self.random.between(1, 4)).expect("a small number");
        let (before, chain) = self.write(length);
        let Some(last) = chain.last() else { return Deed::default() };
        // The last byte of the body is the concurrency, a number below 24.
        let mut other = body(last.entry()).to_vec();
        if let Some(byte) = other.last_mut() {
            *byte += 9;
        }
        let other = self.seal(&other);
        let common = before.into_iter().chain(chain.iter().map(|block| block.entry().to_vec()));
        let mut one: Vec<_> = common.collect();
        let mut two = one.clone();
        two.pop();
        two.push(other);
        let first = one.len().saturating_sub(ENTRIES_MAX);
        let (one, two) = (one.split_off(first), two.split_off(first));
        let sent =
            vec![Sent { bytes: blocks(one), to: To::Half(0) }, Sent { bytes: blocks(two), to: To::Half(1) }];
        Deed { name: "fork", sent, forged: Vec::new() }
    }

    /// An honest block with one bit changed.
    fn alter(&mut self, pool: &[Arc<Block>]) -> Deed {
        let Some(mut entry) = self.any(pool) else { return Deed::default() };
        let at = usize::try_from(self.random.below(entry.len() as u64)).expect("an index fits");
        entry[at] ^= 1 << self.random.below(8);
        self.forge("altered", entry, "one bit was changed")
    }

    /// A body in an honest author's name, signed with this member's key.
    fn sign_for_another(&mut self, pool: &[Arc<Block>]) -> Deed {
        let Some(entry) = self.any(pool) else { return Deed::default() };
        let mut body = body(&entry).to_vec();
        // Something new in the other's name: the last byte belongs to the payload.
        if let Some(byte) = body.last_mut() {
            *byte ^= 1;
        }
        let entry = self.seal(&body);
        self.forge("signed for another", entry, "it bears another's name")
    }

    /// An honest block whose CBOR says the same with more bytes.
    fn encode_again(&mut self, pool: &[Arc<Block>]) -> Deed {
        let Some(entry) = self.any(pool) else { return Deed::default() };
        // The body starts with the array's head and the version, a number below 24 in one byte; with 0x18
        // before it, it is the same number.
        let mut again = entry[..1].to_vec();
        again.extend([0x18, entry[1]]);
        again.extend(&entry[2..]);
        self.forge("encoded again", again, "its CBOR is not canonical")
    }

    /// An own block, rightly signed, that names a parent, a grant or a subject wrongly.
    fn misplace(&mut self) -> Deed {
        let Some(block) = self.write_apart(1).pop() else { return Deed::default() };
        let mut bytes = body(block.entry()).to_vec();
        let mut name = "misplaced";
        let why = match self.random.below(4) {
            3 => {
                name = "another depth";
                raise_depth(&mut bytes, &block, self.random.between(1, 1_000));
                "its depth lies above what its parents give"
            }
            0 => {
                // Of several parents another may be as deep.
                if let (Some(parent), 1) = (block.parents().next(), block.parents().len())
                    && parent != block.grant()
                    && Some(parent) != payload::serves(block.payload())
                {
                    let genesis = self.fleet.0;
                    replace(&mut bytes, &parent.0, |found| found.copy_from_slice(&genesis));
                }
                "its parent does not lie where its depth says"
            }
            1 => {
                let genesis = self.fleet.0;
                replace(&mut bytes, &block.grant().0, |found| found.copy_from_slice(&genesis));
                "it uses another's grant"
            }
            _ => {
                let (subject, genesis) = (payload::serves(block.payload()), self.fleet.0);
                let subject = subject.map(|id| id.0.to_vec()).unwrap_or_default();
                replace(&mut bytes, &subject, |found| found.copy_from_slice(&genesis));
                "it serves what is no revision"
            }
        };
        if bytes == body(block.entry()) {
            return Deed::default();
        }
        let entry = self.seal(&bytes);
        self.forge(name, entry, why)
    }

    /// Old blocks again, in an order of no sense.
    fn replay(&mut self, pool: &[Arc<Block>]) -> Deed {
        let entries = (0..20).filter_map(|_| self.any(pool)).collect();
        Deed {
            name: "replayed",
            sent: vec![Sent { bytes: blocks(entries), to: To::One }],
            forged: Vec::new(),
        }
    }

    /// Valid blocks, in yet another session of its own.
    fn write_honestly(&mut self) -> Deed {
        let (mut entries, written) = self.write(2);
        entries.extend(written.iter().map(|block| block.entry().to_vec()));
        let entries = entries.split_off(entries.len().saturating_sub(ENTRIES_MAX));
        Deed {
            name: "another session",
            sent: vec![Sent { bytes: blocks(entries), to: To::One }],
            forged: Vec::new(),
        }
    }

    /// Frames that mean nothing, or are not true.
    fn babble(&mut self, pool: &[Arc<Block>]) -> Deed {
        let bytes = match self.random.below(6) {
            0 => self.random.bytes::<64>().to_vec(),
            3 => Frame::Buckets(self.random.bytes::<4_096>().to_vec().into()).encode(),
            4 => {
                let buckets = self.random.bytes::<32>().to_vec().into();
                Frame::Part(self.random.chance(500), buckets, self.ledger.vector(true)).encode()
            }
            1 => Frame::Digest(self.random.bytes::<32>().to_vec().into()).encode(),
            2 => Frame::Vector(self.random.chance(500), self.ledger.vector(true)).encode(),
            _ => {
                let ids = (0..4).filter_map(|_| self.random.pick(&pool.iter().collect::<Vec<_>>()));
                Frame::Receipt(ids.map(|block| block.id()).collect()).encode()
            }
        };
        Deed { name: "babble", sent: vec![Sent { bytes, to: To::One }], forged: Vec::new() }
    }

    /// More blocks than may wait, all behind one that never comes.
    fn flood(&mut self) -> Deed {
        let chain = self.write_apart(limits::EARLY_BLOCKS_MAX + 400);
        let entries: Vec<_> = chain.iter().skip(1).map(|block| block.entry().to_vec()).collect();
        let frames = entries.chunks(FLOOD_FRAME).map(|chunk| blocks(chunk.to_vec()));
        // Three times, for what the network loses.
        let frames: Vec<_> = frames.collect();
        let sent = frames
            .iter()
            .chain(&frames)
            .chain(&frames)
            .cloned()
            .map(|bytes| Sent { bytes, to: To::Victim })
            .collect();
        Deed { name: "flood", sent, forged: Vec::new() }
    }

    fn forge(&mut self, name: &'static str, entry: Vec<u8>, why: &'static str) -> Deed {
        let frame = self.random.chance(700);
        let sent = match frame {
            true => Sent { bytes: blocks(vec![entry.clone()]), to: To::One },
            false => Sent { bytes: entry.clone(), to: To::Gossip },
        };
        Deed { name, sent: vec![sent], forged: vec![(entry, why)] }
    }

    fn any(&mut self, pool: &[Arc<Block>]) -> Option<Vec<u8>> {
        let at = usize::try_from(self.random.below(pool.len() as u64)).expect("an index fits");
        pool.get(at).map(|block| block.entry().to_vec())
    }

    /// `body ‖ ed25519(blake3("osiris-ledger-v1" ‖ fleet ‖ body))`, as the ledger's format has it.
    fn seal(&self, body: &[u8]) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"osiris-ledger-v1").update(&self.fleet.0).update(body);
        let signature = op::sign(&self.key, hasher.finalize().as_bytes());
        [body, &signature.0].concat()
    }
}

fn body(entry: &[u8]) -> &[u8] {
    &entry[..entry.len() - limits::SIGNATURE_BYTES]
}

/// Changes the last place where `what` stands, if it does: what a body names as a parent may stand behind
/// the parents once more, as a grant or a subject.
fn replace(bytes: &mut [u8], what: &[u8], change: impl FnOnce(&mut [u8])) {
    if let Some(at) = bytes.windows(what.len().max(1)).rposition(|window| window == what) {
        change(&mut bytes[at..at + what.len()]);
    }
}

/// Raises the depth that a body gives, which stands behind its parents. All that it refers to still lies
/// below, so that nothing but the check of the depth itself refuses it.
fn raise_depth(bytes: &mut Vec<u8>, block: &Block, by: u64) {
    let Some(parent) = block.parents().next_back() else { return };
    let Some(at) = bytes.windows(parent.0.len()).position(|window| *window == parent.0) else { return };
    let start = at + parent.0.len();
    let (old, new) = (number(block.order().depth), number(block.order().depth + by));
    if bytes[start..].starts_with(&old) {
        bytes.splice(start..start + old.len(), new);
    }
}

/// A number in canonical CBOR.
fn number(n: u64) -> Vec<u8> {
    let bytes = n.to_be_bytes();
    match n {
        0..=23 => vec![bytes[7]],
        24..=0xff => vec![0x18, bytes[7]],
        0x100..=0xffff => vec![0x19, bytes[6], bytes[7]],
        0x1_0000..=0xffff_ffff => [&[0x1a], &bytes[4..]].concat(),
        _ => [&[0x1b], bytes.as_slice()].concat(),
    }
}

fn blocks(entries: Vec<Vec<u8>>) -> Vec<u8> {
    Frame::Blocks(entries.into_iter().map(Into::into).collect(), false).encode()
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{BlobHash, Reject, World};

    use super::*;

    #[test]
    fn only_the_check_of_the_depth_refuses_another_depth() {
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        let member = payload::Initial { author: payload::public(&key(9)), roles: payload::roles_of(0) };
        let (mut ledger, mut pool) =
            payload::found(&key(8), Session([1; 16]), Session([2; 16]), &[member], (None, None));
        let deployed = Payload::Deployed(op::Deployed {
            name: "f".to_owned(),
            component: BlobHash([1; 32]),
            size: 1,
            world: World::Native,
            manifest: BlobHash([2; 32]),
            manifest_size: 1,
            replaces: Vec::new(),
        });
        let mut writer = Writer::new(key(8), Session([3; 16]));
        pool.push(writer.append(&mut ledger, Now::default(), deployed).expect("the founder may"));
        let mut hostile = Hostile::new(1, 1, key(9), ledger.fleet());
        hostile.read(&pool);
        let deeds: Vec<_> = (0..60).map(|_| hostile.misplace()).collect();
        let raised: Vec<_> = deeds.iter().filter(|deed| deed.name == "another depth").collect();
        assert!(raised.len() > 3, "{}", raised.len());
        for (entry, _) in raised.iter().flat_map(|deed| &deed.forged) {
            let refused = ledger.admit(entry);
            assert!(matches!(refused, Err(Reject::Depth { expected, got }) if expected < got), "{refused:?}");
        }
    }
}
